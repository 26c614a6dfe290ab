"""A classifier against the truth, on images as they are and corrupted.

Corrupted images exist in memory only, and their features are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.image_corruptions import SEVERITIES, SMALLEST, corrupt, generator_for, refusal
from mdm_studio.engine.metrics import instances
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import InputError, UsageError
from mdm_studio.io.images import ArrayPlane, Plane, find_images, image_name, open_image
from mdm_studio.io.labels import find_labels, read_labels, read_labels_of
from mdm_studio.services.classifier import Classifier, load_classifier
from mdm_studio.services.evaluation import (
    OF_OBJECTS,
    Evaluation,
    EvaluationRequest,
    Pair,
    Score,
    check_metrics,
    files_of_truth,
    score_pair,
    summarise,
)
from mdm_studio.services.image_kinds import differences

CLEAN = ""
"""Name of "no corruption"."""


@dataclass(frozen=True)
class RobustnessRequest:
    """What to evaluate, and how the images are spoilt.

    Attributes
    ----------
    images : tuple of str
        Folder, glob or files; those without truth are left out.
    scoring : EvaluationRequest
        The classifier's file, the truth and the metrics. With numbered objects and no `foreground`, the classifier's larger
        class stands for them, if it has two.
    corruptions : tuple of str
        Names of `mdm_studio.engine.image_corruptions.CORRUPTIONS`; none evaluates the images as they are.
    severities : tuple of int
        Some of 1 to 5.
    seed : int
        With the image's name, the corruption and the severity, it decides all that is random.
    smooth : int or None
        Radius of the guided filter; None takes the classifier's.
    """

    images: tuple[str, ...]
    scoring: EvaluationRequest
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    smooth: int | None = None
    backbone: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class RobustnessStep:
    """Progress: the share that is done, and what is being looked at."""

    done: float
    note: str


@dataclass(frozen=True)
class Condition:
    """Scores under one corruption at one severity; clean images have no corruption and severity 0."""

    corruption: str
    severity: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Robustness:
    """What came out.

    Attributes
    ----------
    conditions : list of Condition
        The clean images first.
    left_out : dict
        Corruptions that make no sense for these images, and why.
    differs : dict
        What differs from the images that the classifier was fitted on, in words, and the first image of which it is so.
    """

    conditions: list[Condition]
    left_out: dict[str, str] = field(default_factory=dict)
    differs: dict[str, Path] = field(default_factory=dict)

    @property
    def clean(self) -> Evaluation:
        """Scores of the images as they are."""
        return self.conditions[0].evaluation

    def value(self, metric: str, corruption: str = CLEAN, severity: int = 0) -> float:
        """Mean over images of a metric, averaged over the classes that have one."""
        for each in self.conditions:
            if (each.corruption, each.severity) == (corruption, severity):
                return overall(each.evaluation.scores, metric)
        raise UsageError(f"{corruption or 'clean'} {severity} was not evaluated; choose from {self.names}")

    @property
    def names(self) -> list[str]:
        """The corruptions, in order."""
        return list(dict.fromkeys(each.corruption for each in self.conditions[1:]))

    @property
    def severities(self) -> list[int]:
        """The severities, in order."""
        return sorted({each.severity for each in self.conditions[1:]})

    def rows(self) -> list[dict[str, object]]:
        """One row a condition, metric and class: the mean and its spread, and the mean relative to that of clean images."""
        clean = {(score.metric, score.class_value): score.mean for score in self.clean.scores}
        return [
            {"corruption": each.corruption or "clean", "severity": each.severity}
            | vars(score)
            | {"relative": _ratio(score.mean, clean[score.metric, score.class_value])}
            for each in self.conditions
            for score in each.evaluation.scores
        ]


def overall(scores: Sequence[Score], metric: str) -> float:
    """Mean of a metric over its classes; not-a-number where none of them is defined."""
    values = np.array([score.mean for score in scores if score.metric == metric and np.isfinite(score.mean)])
    return float(values.mean()) if len(values) else float("nan")


def _ratio(value: float, clean: float) -> float:
    return value / clean if clean else float("nan")


@dataclass(frozen=True)
class _Facts:
    """What is known of an image before it is predicted."""

    planes: int
    channels: int
    rgb: bool
    height: int
    width: int
    differs: str


@dataclass
class _Tally:
    """Scores of one condition so far."""

    pooled: NDArray[np.int64]
    rows: list[dict[str, object]] = field(default_factory=list)


def evaluate_classifier(request: RobustnessRequest) -> Generator[RobustnessStep, None, Robustness]:
    """Predict every image under every condition and compare with the truth; yields its progress and returns the scores.

    Raises
    ------
    UsageError
        If a metric or a severity does not exist, or it is not clear which class the objects are.
    InputError
        If no image has truth, an image is too small, or none of the corruptions makes sense for the images.
    """
    check_metrics(request.scoring)
    _check_severities(request)
    truth, missing = _truth(request)
    classifier = load_classifier(request.scoring.predictions, backbone=request.backbone, device=request.device)
    scoring = _objects_meant(request.scoring, classifier)
    facts = _survey(truth, classifier)
    left_out = _left_out(request.corruptions, facts.values())
    names = [name for name in request.corruptions if name not in left_out]
    if request.corruptions:
        _check_corruptible(names, left_out, facts)
    conditions = [(CLEAN, 0), *((name, severity) for name in names for severity in request.severities)]
    classes = OF_OBJECTS if scoring.objects else _classes(truth, facts, classifier, scoring)
    size = len(classes) + 1
    tallies = {condition: _Tally(np.zeros((size, size), np.int64)) for condition in conditions}
    total, done = sum(each.planes for each in facts.values()) * len(conditions), 0
    for plane, wanted in _planes(truth, facts, classifier.info.channels, whole=bool(names)):
        for condition in conditions:
            yield RobustnessStep(done / total, " ".join([plane.name, *(str(part) for part in condition if part)]))
            found = _mask(classifier, _spoilt(plane, *condition, request.seed), request.smooth)
            if scoring.objects:
                found = instances((found == scoring.foreground).astype(np.uint8))
            table, row = score_pair(Pair(plane.name, found, wanted), classes, scoring)
            tallies[condition].pooled += table
            tallies[condition].rows.append(row)
            done += 1
    evaluated = [
        Condition(*condition, Evaluation(summarise(tally.rows, tally.pooled, classes, scoring), tally.rows, missing))
        for condition, tally in tallies.items()
    ]
    yield RobustnessStep(1.0, "")
    differs: dict[str, Path] = {}
    for path, each in facts.items():
        if each.differs:
            differs.setdefault(each.differs, path)
    return Robustness(evaluated, left_out, differs)


def _check_severities(request: RobustnessRequest) -> None:
    wrong = [each for each in request.severities if each not in SEVERITIES]
    if wrong or not request.severities:
        raise UsageError(f"severity {wrong[0] if wrong else '(none)'} does not exist; take some of 1 (weak) to 5 (strong)")


def _truth(request: RobustnessRequest) -> tuple[dict[Path, Path], list[str]]:
    """Truth of each image that has some, and the names of the truth without image."""
    files = files_of_truth(request.scoring.truth)
    images = find_images(request.images)
    found = find_labels(images, request.scoring.truth)
    named = {image_name(path) for path in images}
    return found, [image_name(path) for path in files if image_name(path) not in named]


def _objects_meant(scoring: EvaluationRequest, classifier: Classifier) -> EvaluationRequest:
    """With numbered objects, the class of the classifier that they are."""
    if not scoring.objects:
        return scoring
    values = [each.value for each in classifier.info.classes]
    if scoring.foreground is None:
        if len(values) != 2:
            raise UsageError(f"which class are the objects? The classifier has {values}; say so with --foreground")
        return replace(scoring, foreground=max(values))
    if scoring.foreground not in values:
        raise UsageError(f"--foreground {scoring.foreground} is no class of the classifier; it has {values}")
    return scoring


def _survey(truth: Mapping[Path, Path], classifier: Classifier) -> dict[Path, _Facts]:
    facts = {}
    for path, file in truth.items():
        with open_image(path, classifier.info.channels) as image:
            differs = differences(classifier.info, image, str(path))
            facts[path] = _Facts(image.planes, image.channels, image.rgb, image.height, image.width, differs)
            read_labels_of(file, image)  # which says so if it is the image itself
    return facts


def _left_out(names: Sequence[str], facts: Iterable[_Facts]) -> dict[str, str]:
    """Corruptions that some image cannot have: a mean over other images would not be comparable."""
    kinds = {(each.channels, each.rgb) for each in facts}
    reasons = {name: [refusal(name, channels, rgb=rgb) for channels, rgb in sorted(kinds)] for name in names}
    return {name: next(filter(None, given)) for name, given in reasons.items() if any(given)}


def _check_corruptible(names: Sequence[str], left_out: Mapping[str, str], facts: Mapping[Path, _Facts]) -> None:
    if not names:
        raise InputError(f"{next(iter(left_out.values()))}; choose other corruptions")
    for path, each in facts.items():
        if min(each.height, each.width) < SMALLEST:
            raise InputError(
                f"{path} has {each.height} x {each.width} pixels; images of less than {SMALLEST} x {SMALLEST} cannot be "
                "corrupted: leave it out"
            )


def _classes(
    truth: Mapping[Path, Path], facts: Mapping[Path, _Facts], classifier: Classifier, scoring: EvaluationRequest
) -> list[int]:
    values = {each.value for each in classifier.info.classes}
    for path, file in truth.items():
        for plane in range(facts[path].planes):
            values |= set(np.unique(_wanted(file, facts[path], plane)).tolist())
    return sorted(value for value in values if value not in (scoring.unlabelled, scoring.ignore))


def _planes(
    truth: Mapping[Path, Path], facts: Mapping[Path, _Facts], channels: tuple[int, ...] | None, *, whole: bool
) -> Iterator[tuple[Plane, NDArray[Any]]]:
    """Every plane, read at once if `whole`, with its truth."""
    for path, file in truth.items():
        with open_image(path, channels) as image:
            for index in range(image.planes):
                plane = image.plane(index)
                if whole:
                    plane = ArrayPlane(plane.read(slice(None), slice(None)), rgb=plane.rgb, name=plane.name)
                yield plane, _wanted(file, facts[path], index)


def _wanted(file: Path, facts: _Facts, plane: int) -> NDArray[Any]:
    return read_labels(file, (facts.height, facts.width), plane)


def _spoilt(plane: Plane, corruption: str, severity: int, seed: int) -> Plane:
    if corruption == CLEAN:
        return plane
    pixels = plane.read(slice(None), slice(None))
    generator = generator_for(plane.name, corruption, severity, seed)
    return ArrayPlane(corrupt(pixels, corruption, severity, generator, rgb=plane.rgb), rgb=plane.rgb, name=plane.name)


def _mask(classifier: Classifier, plane: Plane, smooth: int | None) -> NDArray[Any]:
    """Class values ``(H, W)`` of a plane."""
    source = PlaneFeatures(classifier.backbone, plane, classifier.settings)
    values = np.array([each.value for each in classifier.info.classes])
    mask = np.empty(plane.shape[1:], np.uint8 if values.max() < 256 else np.uint16)
    radius = classifier.info.smooth if smooth is None else smooth
    with closing(predict_plane(classifier.ensemble, source, smooth=radius)) as tiles:  # type: ignore[type-var]
        for rows, cols, found in tiles:
            mask[rows, cols] = values[found.labels]
    return mask
