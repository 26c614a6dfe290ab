"""Which blocks and timesteps tell the classes apart: cross-validated scores from the labels so far, and a set to read.

Pixels of one stroke are nearly alike, so that folds which share strokes would praise any features. A stroke is therefore always
in one fold as a whole, and every fold holds strokes of every class.

A source of features is judged by a network with one hidden layer of which only the last one is learnt, in closed form: random
ReLU units (Rahimi and Recht 2008), then ridge regression onto the classes. On the bundled strokes it ranks sources as small
ensembles do (rank correlation 0.87; of ridge regression on the features themselves 0.69) and as the pixels of other images do
(0.92; 0.76), fifteen times faster than two members of the ensemble, and it needs no stopping rule.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import label
from torch import Tensor

from mdm_studio.arrays import LabelMap
from mdm_studio.errors import InputError, LabelsError, UsageError

Cell = tuple[int, int]
"""Block and timestep."""
Array = NDArray[np.float64]

MAX_FOLDS = 5
_UNITS = 256  # hidden units of each source; 128 agree less with the ensemble, 512 no better
_PENALTY = 0.1  # of ridge regression, on units of variance 1, for each pixel
_FLAT = 1e-2  # as in `mdm_studio.engine.heads`: a channel that hardly varies is not blown up to unit variance
_MOST = 4  # sources of features that a recommendation may be made of; a fifth has never passed the threshold
_EIGHT = np.ones((3, 3), int)  # neighbours by side and by corner


@dataclass(frozen=True)
class Score:
    """Balanced accuracy (mean over classes of the share of their pixels that is found) of each fold."""

    folds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.folds))

    @property
    def spread(self) -> float:
        """Standard deviation over folds."""
        return float(np.std(self.folds, ddof=1))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.spread / math.sqrt(len(self.folds))


@dataclass(frozen=True)
class AdviceStep:
    """One more score: of a cell alone (`cell`; None for the filters), or of a set of sources that is tried.

    `done` is the share of the work that is done.
    """

    what: str
    done: float
    cell: Cell | None
    score: Score


@dataclass(frozen=True)
class Advice:
    """Scores and a recommendation.

    Attributes
    ----------
    scores : dict
        Score of each (block, timestep) alone.
    filters : Score or None
        Of the filter bank alone, if its features were given.
    blocks, timesteps : tuple of int
        What to read: the smallest blocks x timesteps that hold the chosen cells. Both empty if the filters do alone.
    with_filters : bool
        Whether to read the filter bank too.
    expected : Score
        Of what is recommended, read together.
    reason : str
        Why, in a sentence or two.
    """

    scores: dict[Cell, Score]
    filters: Score | None
    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    with_filters: bool
    expected: Score
    reason: str

    @property
    def options(self) -> str:
        """The recommendation as options of ``mdm-studio fit``."""
        filters = "--filters" if self.with_filters else "--no-filters"
        if not self.blocks:
            return f"--blocks none {filters}"
        return f"--blocks {_listed(self.blocks)} --timesteps {','.join(map(str, self.timesteps))} {filters}"


# --- strokes ------------------------------------------------------------------------------------------------------------


def find_strokes(label_map: LabelMap, unlabelled: int | None) -> tuple[NDArray[np.int64], int]:
    """Number the strokes of a label map: connected pixels of one class, neighbours by corner included.

    Parameters
    ----------
    label_map : (H, W) unsigned integers
    unlabelled : int or None
        The value that means "not labelled"; with None every pixel is labelled.

    Returns
    -------
    strokes : (H, W) int64
        1, 2, ... for strokes, 0 where nothing is labelled.
    count : int
    """
    strokes, count = np.zeros(label_map.shape, np.int64), 0
    for value in np.unique(label_map):
        if value != unlabelled:
            found, n = label(label_map == value, _EIGHT)
            strokes += np.where(found > 0, found + count, 0)
            count += n
    return strokes, count


def stroke_folds(classes: NDArray[np.integer[Any]], strokes: NDArray[np.integer[Any]], seed: int = 0) -> NDArray[np.int64]:
    """Fold of each labelled pixel: strokes stay whole, and every fold has strokes of every class.

    There are as many folds as the class with the fewest strokes has strokes, but at most `MAX_FOLDS`. The strokes of a class
    are dealt out by size, the largest first, so that folds get about as many pixels; equal ones in an order drawn from `seed`.
    (scikit-learn's StratifiedGroupKFold has the same aim, but may leave a fold without a class.)

    Parameters
    ----------
    classes, strokes : (N,) int
        Class and stroke of each pixel.
    seed : int

    Returns
    -------
    (N,) int64

    Raises
    ------
    LabelsError
        If there is nothing labelled, only one class, or a class with one stroke.
    """
    names, class_of = np.unique(classes, return_inverse=True)
    numbers, first, at, sizes = np.unique(strokes, return_index=True, return_inverse=True, return_counts=True)
    owner = class_of[first]  # class of each stroke
    counts = np.bincount(owner, minlength=len(names))
    if len(names) < 2:
        raise LabelsError(
            f"{'all labelled pixels are of one class' if len(names) else 'no pixel is labelled'} and two classes at least are "
            "needed to score features: paint strokes of another one"
        )
    if counts.min() < 2:
        rare = ", ".join(str(name) for name in names[counts < 2])
        raise LabelsError(
            f"class {rare} has one stroke only, and two strokes of each class at least are needed, one to learn from and one "
            f"to test on ({len(numbers)} strokes in all; pixels that touch are one stroke): paint another one somewhere else"
        )
    if not np.array_equal(owner[at], class_of):
        raise UsageError("a stroke holds pixels of two classes; number the strokes of each class on their own")
    folds = min(MAX_FOLDS, int(counts.min()))
    of_stroke = np.empty(len(numbers), np.int64)
    order = np.random.default_rng(seed).permutation(len(numbers))
    order = order[np.argsort(-sizes[order], kind="stable")]
    for name in range(len(names)):
        mine = order[owner[order] == name]
        there_and_back = np.concatenate([np.arange(folds), np.arange(folds)[::-1]])
        of_stroke[mine] = (np.resize(there_and_back, len(mine)) + name) % folds  # each class begins with another fold
    return of_stroke[at]


# --- scores -------------------------------------------------------------------------------------------------------------


class _Judge:
    """Cross-validation of hidden units of any sources on the same pixels and folds."""

    def __init__(self, classes: NDArray[np.int64], folds: NDArray[np.int64]) -> None:
        self.classes = np.unique(classes, return_inverse=True)[1]
        counts = np.bincount(self.classes)
        self.targets = np.eye(len(counts))[self.classes]  # (N, K)
        self.weights = (len(classes) / (len(counts) * counts))[self.classes]  # classes count alike, as in the ensemble
        self.parts = [np.flatnonzero(folds == fold) for fold in range(folds.max() + 1)]

    def score(self, features: Array) -> Score:
        """Balanced accuracy in each fold of features ``(N, C)`` whose classifier saw the other folds."""
        moments = [self._moments(features[part], part) for part in self.parts]
        total = [sum(each) for each in zip(*moments, strict=True)]
        scores = []
        for part, mine in zip(self.parts, moments, strict=True):
            weights, offset = _ridge(*(whole - own for whole, own in zip(total, mine, strict=True)))
            found = (features[part] @ weights + offset).argmax(1)
            truth = self.classes[part]
            scores.append(float(np.mean(np.bincount(truth[found == truth], minlength=len(weights.T)) / np.bincount(truth))))
        return Score(tuple(scores))

    def _moments(self, features: Array, part: NDArray[np.intp]) -> tuple[Any, ...]:
        """Weighted sums over pixels: of 1, x, y, x x', x y'."""
        weights, targets = self.weights[part], self.targets[part]
        weighted = features * weights[:, None]
        return weights.sum(), weighted.sum(0), weights @ targets, weighted.T @ features, weighted.T @ targets


def _ridge(total: float, x: Array, y: Array, xx: Array, xy: Array) -> tuple[Array, Array]:
    """Weights ``(C, K)`` and offset ``(K,)`` of ridge regression on standardised columns, from weighted sums."""
    mean, share = x / total, y / total
    covariance = xx / total - np.outer(mean, mean)
    scale = _scale(np.sqrt(np.maximum(np.diag(covariance), 0)))
    system = covariance * scale * scale[:, None]
    system[np.diag_indices_from(system)] += _PENALTY
    solved = cho_solve(cho_factor(system), (xy / total - np.outer(mean, share)) * scale[:, None])
    weights = solved * scale[:, None]
    return weights, share - mean @ weights


def _hidden(features: Tensor, pixels: int, name: str) -> Array:
    """Random ReLU units ``(N, units)`` of standardised features ``(N, C)``, the same ones for the same C."""
    if features.ndim != 2 or len(features) != pixels:
        raise UsageError(f"the features of {name} are {tuple(features.shape)}; ({pixels}, C) is wanted, a row a labelled pixel")
    values = features.cpu().double().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"the features of {name} hold infinite values or NaN; compute them in full precision, or leave it out")
    draw = np.random.default_rng(values.shape[1]).normal(0, values.shape[1] ** -0.5, (values.shape[1], _UNITS))
    hidden = np.maximum((values - values.mean(0)) * _scale(values.std(0)) @ draw, 0)
    return np.asarray(hidden - hidden.mean(0))  # centred: sums of squares then keep their digits


def _scale(deviation: Array) -> Array:
    floor = np.median(deviation) * _FLAT
    return np.asarray(1 / np.where(deviation > floor, deviation, floor or 1.0))


def score_sources(sources: Sequence[Tensor], classes: ArrayLike, strokes: ArrayLike, *, seed: int = 0) -> Score:
    """Score of several sources of features that are read together.

    Parameters
    ----------
    sources : sequence of (N, C) tensors
        Features of the labelled pixels, a tensor a source.
    classes, strokes, seed
        See `advise`.

    Raises
    ------
    LabelsError, UsageError, InputError
        See `advise`.
    """
    values, numbers = np.asarray(classes, np.int64), np.asarray(strokes, np.int64)
    judge = _Judge(values, stroke_folds(values, numbers, seed))
    return judge.score(np.concatenate([_hidden(source, len(values), "a source") for source in sources], axis=1))


# --- advice -------------------------------------------------------------------------------------------------------------


def advise(
    cells: Mapping[Cell, Tensor],
    classes: ArrayLike,
    strokes: ArrayLike,
    *,
    filters: Tensor | None = None,
    seed: int = 0,
) -> Generator[AdviceStep, None, Advice]:
    """Score every (block, timestep) and recommend a set of them; yields each score and returns the advice.

    Parameters
    ----------
    cells : mapping
        (block, timestep) -> features of the labelled pixels ``(N, C)``; working scales side by side if there are several.
    classes, strokes : (N,) int
        Class and stroke of each pixel (see `find_strokes`; numbers of different images must differ).
    filters : Tensor, optional
        Features of the filter bank ``(N, C)``: a candidate beside the cells.
    seed : int
        Of the folds.

    Yields
    ------
    AdviceStep

    Raises
    ------
    LabelsError
        See `stroke_folds`.
    UsageError, InputError
        If there are no features, their number is not that of the pixels, or they are not finite.

    Notes
    -----
    The score is balanced accuracy, because strokes say little about how common a class is, and Dice would ask for that.
    The recommendation begins with the best source and takes the one that adds most, as long as it adds more than the standard
    error of the score (the one-standard-error rule of Breiman et al. 1984): what is left are differences that other
    strokes would turn over. It begins with two, the best cell and the filter bank, where these are within a standard error of
    each other: strokes of a few images cannot say which of the two will do on other images, and there, both together did
    best on most of the sets that were measured (README, label efficiency).
    """
    values, numbers = np.asarray(classes, np.int64), np.asarray(strokes, np.int64)
    if not cells and filters is None:
        raise UsageError("no features were given; name at least one block and timestep, or the filters")
    judge = _Judge(values, stroke_folds(values, numbers, seed))
    sources: dict[Cell | None, Array] = {cell: _hidden(features, len(values), _named(cell)) for cell, features in cells.items()}
    if filters is not None:
        sources[None] = _hidden(filters, len(values), _named(None))
    alone: dict[Cell | None, Score] = {}
    for number, (source, features) in enumerate(sources.items(), start=1):
        alone[source] = judge.score(features)
        yield AdviceStep(_named(source), number / len(sources) / _MOST, source, alone[source])
    chosen, scores = yield from _selected(judge, sources, alone)
    return _advice(judge, sources, alone, chosen, scores)


def _selected(
    judge: _Judge, sources: Mapping[Cell | None, Array], alone: Mapping[Cell | None, Score]
) -> Generator[AdviceStep, None, tuple[list[Cell | None], list[Score]]]:
    """Greedy forward selection: the sources in the order they were taken, and the score with each."""
    chosen = _first(alone)
    have = np.concatenate([sources[source] for source in chosen], axis=1)
    scores = [alone[chosen[0]], *([judge.score(have)] if len(chosen) > 1 else [])]
    while len(chosen) < min(_MOST, len(sources)):
        left = [source for source in sources if source not in chosen]
        tried: dict[Cell | None, Score] = {}
        for number, source in enumerate(left, start=1):
            tried[source] = judge.score(np.concatenate([have, sources[source]], axis=1))
            done = (len(chosen) + number / len(left)) / _MOST
            yield AdviceStep(f"{_named(source)} added", done, source, tried[source])
        best = max(tried, key=lambda source: tried[source].mean)
        if tried[best].mean - scores[-1].mean <= scores[-1].error:
            break
        chosen.append(best)
        scores.append(tried[best])
        have = np.concatenate([have, sources[best]], axis=1)
    return chosen, scores


def _first(alone: Mapping[Cell | None, Score]) -> list[Cell | None]:
    """What to begin with: the best source; the best cell and the filters if a standard error does not tell them apart."""
    ranked = sorted(alone, key=lambda source: -alone[source].mean)
    cells = [source for source in ranked if source is not None]
    if None not in alone or not cells:
        return ranked[:1]
    one, other = alone[cells[0]], alone[None]
    return [cells[0], None] if abs(one.mean - other.mean) <= max(one.error, other.error) else ranked[:1]


def _advice(
    judge: _Judge,
    sources: Mapping[Cell | None, Array],
    alone: dict[Cell | None, Score],
    chosen: Sequence[Cell | None],
    scores: Sequence[Score],
) -> Advice:
    cells = [source for source in chosen if source is not None]
    blocks = tuple(sorted({block for block, _ in cells}))
    timesteps = tuple(sorted({timestep for _, timestep in cells}))
    read = [(block, t) for t in timesteps for block in blocks if (block, t) in sources]
    together = [sources[source] for source in [*read, *([None] if None in chosen else [])]]
    expected = scores[-1] if len(together) == len(chosen) else judge.score(np.concatenate(together, axis=1))
    return Advice(
        {source: score for source, score in alone.items() if source is not None},
        alone.get(None),
        blocks,
        timesteps,
        None in chosen,
        expected,
        _reason(
            chosen,
            scores,
            alone[None] if len(_first(alone)) > 1 else None,
            len(sources),
            len(together) > len(chosen),
        ),
    )


def _reason(chosen: Sequence[Cell | None], scores: Sequence[Score], beside: Score | None, candidates: int, wider: bool) -> str:
    """What each chosen source brings, and why there are no more; `beside` is the filters' score if they came with the first."""
    parts = [f"{_named(chosen[0])} alone has {scores[0].mean:.3f}"]
    if beside is not None:
        parts.append(
            f"the filter bank {beside.mean:.3f}, too close to choose between them, and both together {scores[1].mean:.3f}"
        )
    more = list(zip(chosen, scores, strict=True))[1 if beside is None else 2 :]
    parts += [f"{_named(source)} makes it {score.mean:.3f}" for source, score in more]
    text = ", ".join(parts)
    if len(chosen) < candidates:
        text += f"; nothing else adds more than the standard error of {scores[-1].error:.3f}" if len(chosen) < _MOST else ""
    text += "; fit reads every block at every timestep, so the other combinations come with them" if wider else ""
    return text[0].upper() + text[1:]


def _named(source: Cell | None) -> str:
    return "the filter bank" if source is None else f"block {source[0]} at t = {source[1]}"


def _listed(numbers: Sequence[int]) -> str:
    """``6-8,12`` for 6, 7, 8, 12."""
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in _runs(numbers))


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    yield run
