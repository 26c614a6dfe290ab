"""How well a linear model tells classes of images apart by their features: cross-validated, repeated, groups kept together.

Features are standardised and a multinomial logistic regression is fitted to them. Standardising is what the linear probe of the
MAE paper does with a batch norm without affine parameters before its linear layer; the regression has a small L2 penalty
instead of a schedule of training, so that nothing but its strength needs to be chosen.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import LabelsError

_ITERATIONS = 1000  # far beyond what standardised features take; the penalty makes stopping there harmless

Features = NDArray[np.float32]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class ProbeConfig:
    """How features are probed.

    Attributes
    ----------
    folds, repeats : int
        Parts that the images are dealt into, each predicted by a model of the others, and how often that is done anew.
    strength : float
        Inverse strength of the L2 penalty (scikit-learn's C).
    seed : int
        Of the dealing.
    """

    folds: int = 5
    repeats: int = 5
    strength: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class ProbeScore:
    """A score: mean and standard deviation over the repeats."""

    mean: float
    std: float


@dataclass(frozen=True)
class ProbeScores:
    """What cross-validation found.

    Attributes
    ----------
    classes : tuple of str
        In the order of rows and columns below.
    accuracy, balanced_accuracy, macro_f1 : ProbeScore
        Each repeat predicts every image once; its score is that of all of them.
    chance : float
        Accuracy of always naming the commonest class; that of balanced accuracy is 1 / classes.
    confusion : ndarray
        ``(K, K)`` counts, rows true and columns predicted, summed over the repeats.
    held_out : ndarray
        ``(n, K)`` mean probabilities of each image, by models that have not seen it.
    """

    classes: tuple[str, ...]
    accuracy: ProbeScore
    balanced_accuracy: ProbeScore
    macro_f1: ProbeScore
    chance: float
    confusion: NDArray[np.int64]
    held_out: Probabilities


def check_probe(labels: Sequence[str], groups: Sequence[str], config: ProbeConfig) -> None:
    """Make sure that labels can be cross-validated; `groups` is empty, or has one for each image.

    Raises
    ------
    LabelsError
        If there is one class only, or a class has fewer images (or groups) than folds.
    """
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise LabelsError(
            f"all {len(labels)} labelled images are of the class {classes[0]!r}; two classes are wanted at least: label others"
        )
    members = {
        name: len({groups[i] if groups else i for i, label in enumerate(labels) if label == name}) for name in classes
    }
    rare = {name: count for name, count in members.items() if count < config.folds}
    if rare:
        what = "groups" if groups else "images"
        fewest = min(rare.values())
        advice = f"choose --folds {fewest} or label more images" if fewest > 1 else "label more images, or leave that class out"
        listed = ", ".join(f"{name} has {count}" for name, count in rare.items())
        raise LabelsError(f"{config.folds} folds need as many {what} of every class, and {listed}; {advice}")


def cross_validate(
    features: Features, labels: Sequence[str], groups: Sequence[str], config: ProbeConfig
) -> Iterator[ProbeScores]:
    """Probe `features` ``(n, D)``; yields what is known after each repeat.

    Images of one group are never split between what a model has seen and what it is tried on.

    Raises
    ------
    LabelsError
        See `check_probe`.
    """
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

    check_probe(labels, groups, config)
    classes, targets = np.unique(np.asarray(labels), return_inverse=True)
    total = np.zeros((len(targets), len(classes)))
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    scores: list[tuple[float, float, float]] = []
    for repeat in range(config.repeats):
        probabilities = np.zeros_like(total)
        for seen, held in _folds(targets, groups, config, config.seed + repeat):
            model = _fitted(features[seen], targets[seen], config)
            probabilities[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
        total += probabilities
        predicted = probabilities.argmax(1)
        confusion += confusion_matrix(targets, predicted, labels=range(len(classes)))
        f1 = f1_score(targets, predicted, average="macro", zero_division=0.0)
        scores.append((accuracy_score(targets, predicted), balanced_accuracy_score(targets, predicted), f1))
        rows = np.asarray(scores)
        spread = rows.std(0, ddof=1) if len(rows) > 1 else np.zeros(3)
        accuracy, balanced, f1s = (ProbeScore(float(mean), float(std)) for mean, std in zip(rows.mean(0), spread, strict=True))
        chance = float(np.bincount(targets).max() / len(targets))
        names = tuple(classes.tolist())
        yield ProbeScores(names, accuracy, balanced, f1s, chance, confusion.copy(), total / (repeat + 1))


def predict_rest(features: Features, labels: Sequence[str], rest: Features, config: ProbeConfig) -> Probabilities:
    """Probabilities ``(m, K)`` of the classes, in sorted order, for images without a label, by a model of all that have one."""
    targets = np.unique(np.asarray(labels), return_inverse=True)[1]
    probabilities: Probabilities = _fitted(features, targets, config).predict_proba(rest)
    return probabilities


def _folds(
    targets: NDArray[np.intp], groups: Sequence[str], config: ProbeConfig, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Images seen and held out, fold by fold, with the classes' shares alike."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedGroupKFold if groups else StratifiedKFold
    dealt = kind(config.folds, shuffle=True, random_state=seed).split(targets, targets, groups if groups else None)
    for seen, held in dealt:
        if len(np.unique(targets[seen])) < 2:
            raise LabelsError("a fold left one class only to learn from: choose fewer --folds or smaller groups")
        if len(held):
            yield seen, held


def _fitted(features: Features, targets: NDArray[np.intp], config: ProbeConfig) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=config.strength, max_iter=_ITERATIONS))
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return model.fit(features.astype(np.float64), targets)
