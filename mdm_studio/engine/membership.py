"""Membership attacks: can a number tell images that trained a network from images that did not.

The number is an error or a similarity, and the attacker calls an image "trained on" where it is low enough (Yeom et al. 2018).
What is revealed is the area under that attacker's ROC curve: the chance that, of one image of each kind, the trained one has
the lower number. 0.5 is guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, mannwhitneyu, theilslopes

_DRAWS = 2000  # of bootstraps and permutations: the second digit of a limit no longer moves
_LEVEL = 0.95
_TINY = 1e-6  # variance, in [-1, 1]: a thousandth of a grey level
_SAME = 1e-6  # contrasts that differ by less are the same
FALSE_ALARMS = 0.05
"""Share of held-out images that the attacker may wrongly accuse in `Attack.found`; less asks for hundreds of images."""


@dataclass(frozen=True)
class Attack:
    """How well a number tells trained images from held-out ones.

    Attributes
    ----------
    auc, low, high : float
        Area under the ROC curve and its 95 % bootstrap interval; 0.5 is guessing.
    p : float
        Two-sided Mann-Whitney test that the numbers of both kinds are distributed alike.
    found : float
        Share of the trained images that are recognised when `FALSE_ALARMS` of the held-out ones are wrongly accused: what the
        worst cases reveal, which the area can hide (Carlini et al. 2022).
    trained, held_out : int
        Images of each kind.
    """

    auc: float
    low: float
    high: float
    p: float
    found: float
    trained: int
    held_out: int


def surprise(errors: Sequence[float], contrasts: Sequence[float]) -> NDArray[np.float64]:
    """How much larger an error is than usual at that contrast, in powers of two: images that are hard for all count alike.

    The usual error follows the contrast by a line through the logarithms of all images, whatever their kind (Theil and Sen's,
    which a few known images do not bend). It is what an attacker without a network for comparison can do for the calibration of
    Watson et al. 2022.
    """
    error, contrast = (np.log2(np.asarray(each, np.float64) + _TINY) for each in (errors, contrasts))
    slope = 0.0 if np.ptp(contrast) < _SAME else float(theilslopes(error, contrast).slope)
    left: NDArray[np.float64] = error - slope * contrast
    return left - np.median(left)


def attack(trained: Sequence[float], held_out: Sequence[float], seed: int) -> Attack:
    """Attack by numbers that are lower where the network knows an image.

    Raises
    ------
    ValueError
        If one kind has no image.
    """
    a, b = np.asarray(trained, np.float64), np.asarray(held_out, np.float64)
    if not a.size or not b.size:
        raise ValueError(f"{a.size} trained and {b.size} held-out images: each kind needs one at least")
    wins = (a[:, None] < b) + 0.5 * (a[:, None] == b)  # (n, m)
    low, high = _interval(wins, np.random.default_rng(seed))
    p = mannwhitneyu(a, b, alternative="two-sided").pvalue
    found = np.mean(a < np.quantile(b, FALSE_ALARMS, method="lower")) if b.size * FALSE_ALARMS >= 1 else np.mean(a < b.min())
    return Attack(float(wins.mean()), low, high, float(p), float(found), a.size, b.size)


def _interval(wins: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    """Percentile bootstrap of the mean of `wins` when images of both kinds are drawn anew."""
    n, m = wins.shape
    rows = rng.multinomial(n, np.full(n, 1 / n), _DRAWS) / n  # how often each image is drawn, (draws, n)
    cols = rng.multinomial(m, np.full(m, 1 / m), _DRAWS) / m
    means = ((rows @ wins) * cols).sum(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Nearness:
    """Whether pictures resemble training images more than held-out ones.

    Attributes
    ----------
    share, low, high : float
        Share of the pictures whose nearest image is a training image, with its 95 % interval (Wilson); 0.5 if training left no
        trace.
    p : float
        How often a random division of the images into two halves gives a share at least as large.
    pictures, images : int
        Pictures, and images of each kind.
    """

    share: float
    low: float
    high: float
    p: float
    pictures: int
    images: int


def nearness(to_trained: NDArray[np.float32], to_held_out: NDArray[np.float32], seed: int) -> Nearness:
    """Compare similarities ``(Q, I)`` of Q pictures to I training and I held-out images; a pair that does not count is NaN.

    Raises
    ------
    ValueError
        If there are more images of one kind: the nearest of many is nearer than the nearest of few.
    """
    if to_trained.shape != to_held_out.shape or not to_trained.size:
        raise ValueError(f"similarities to {to_trained.shape} trained and {to_held_out.shape} held-out images must be as many")
    both = np.nan_to_num(np.concatenate([to_trained, to_held_out], axis=1), nan=-np.inf)  # (Q, 2I)
    count = to_trained.shape[1]
    share = _share(both, np.arange(2 * count) < count)
    rng = np.random.default_rng(seed)
    shuffled = [_share(both, rng.permutation(2 * count) < count) for _ in range(_DRAWS)]
    p = (1 + sum(each >= share for each in shuffled)) / (1 + _DRAWS)
    interval = binomtest(round(share * len(both)), len(both)).proportion_ci(_LEVEL, method="wilson")
    return Nearness(share, float(interval.low), float(interval.high), float(p), len(both), count)


def _share(similarity: NDArray[np.float32], trained: NDArray[np.bool_]) -> float:
    one, other = similarity[:, trained].max(axis=1), similarity[:, ~trained].max(axis=1)
    return float(np.mean((one > other) + 0.5 * (one == other)))
