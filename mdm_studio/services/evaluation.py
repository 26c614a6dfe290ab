"""Comparing a folder of masks with the truth: per image, per class, mean and spread, and pooled over all pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.metrics import aji, confusion, dice, instances, iou, miou, object_dice
from mdm_studio.errors import InputError, UsageError
from mdm_studio.io.images import check_unique_names, find_images, image_name, open_image
from mdm_studio.io.labels import find_labels, read_labels, same_file

METRICS = ("dice", "iou", "miou", "aji", "object_dice")
_PER_CLASS = ("dice", "iou")
OF_OBJECTS = [1]
"""Classes where the truth numbers its objects: any of them."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What to compare, and how the values are meant.

    Attributes
    ----------
    predictions, truth : Path
        Folders whose files carry their image's name. Where a classifier is evaluated (`mdm_studio.services.robustness`),
        `predictions` is its file.
    metrics : tuple of str
        Some of `METRICS`.
    objects : bool
        The truth numbers its objects (0 = background) instead of naming classes.
    foreground : int or None
        With `objects`, the class of the prediction that stands for them; None if the prediction numbers its objects too.
    unlabelled : int or None
        Value of the truth that is left out, as in ``fit``; None if every pixel counts.
    ignore : int or None
        Another value of the truth that is left out.
    """

    predictions: Path
    truth: Path
    metrics: tuple[str, ...] = ("dice", "iou", "miou")
    objects: bool = False
    foreground: int | None = None
    unlabelled: int | None = 0
    ignore: int | None = None


@dataclass(frozen=True)
class Score:
    """One metric, of one class or of all: mean and standard deviation over the images where it is defined, and pooled."""

    metric: str
    class_value: int | None
    mean: float
    std: float
    images: int
    pooled: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores, one row an image, and the images of the truth that have no prediction."""

    scores: list[Score]
    rows: list[dict[str, object]]
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """Prediction and truth of one plane."""

    name: str
    prediction: NDArray[Any]
    truth: NDArray[Any]


def evaluate_folder(request: EvaluationRequest) -> Evaluation:
    """Compare every mask with the truth of its name.

    Raises
    ------
    UsageError
        If a metric is unknown or does not fit the kind of truth.
    InputError
        If no name matches, or sizes differ.
    """
    check_metrics(request)
    _check_folder(request.predictions, "predictions")
    files = files_of_truth(request.truth)
    found = find_labels(files, request.predictions)
    missing = [image_name(path) for path in files if path not in found]
    pairs = [pair for truth, prediction in found.items() for pair in _pairs(truth, prediction, request)]
    classes = OF_OBJECTS if request.objects else _classes(pairs, request)
    rows, pooled = [], np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
    for pair in pairs:
        table, row = score_pair(pair, classes, request)
        pooled += table
        rows.append(row)
    return Evaluation(summarise(rows, pooled, classes, request), rows, missing)


def files_of_truth(folder: Path) -> list[Path]:
    """The label maps of a folder.

    Raises
    ------
    InputError
        If it is no folder, holds no label map, or two of the same name.
    """
    _check_folder(folder, "truth")
    files = find_images([folder])
    check_unique_names(files)
    return files


def _check_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder of the {what}")


def check_metrics(request: EvaluationRequest) -> None:
    """Make sure that the metrics exist and fit the kind of truth, else a `UsageError`."""
    unknown = [metric for metric in request.metrics if metric not in METRICS]
    if unknown or not request.metrics:
        raise UsageError(f"--metrics {','.join(unknown) or '(none)'} is not known; choose from {','.join(METRICS)}")
    if not request.objects and {"aji", "object_dice"} & set(request.metrics):
        raise UsageError("aji and object_dice compare objects; say with --instances that the truth numbers its objects")
    if request.foreground is not None and not request.objects:
        raise UsageError("--foreground goes with --instances: it says which class of the masks the numbered objects are")


def _pairs(truth: Path, prediction: Path, request: EvaluationRequest) -> Iterator[Pair]:
    """Planes of one image, binary where the truth numbers its objects but the prediction does not."""
    if same_file(truth, prediction):
        raise InputError(f"{prediction} is the truth and the prediction at once: name the folder of the predictions")
    with open_image(truth, values=True) as image:
        shape, planes = (image.height, image.width), image.planes
    for plane in range(planes):
        wanted = read_labels(truth, shape, plane)
        found = read_labels(prediction, shape, plane)
        if request.objects:
            found = _objects(found, request.foreground, prediction)
        yield Pair(image_name(truth) + (f"[{plane}]" if planes > 1 else ""), found, wanted)


def _objects(found: NDArray[Any], foreground: int | None, path: Path) -> NDArray[Any]:
    """The prediction's objects, numbered."""
    if foreground is not None:
        return instances((found == foreground).astype(np.uint8))
    if not (found == 0).any():
        values = ", ".join(map(str, np.unique(found)[:5]))
        raise InputError(
            f"{path} has no background 0 but the values {values}: if these are classes, say which one the objects are, "
            "for example --foreground 2"
        )
    return found


def _classes(pairs: Sequence[Pair], request: EvaluationRequest) -> list[int]:
    values: set[int] = set()
    for pair in pairs:
        values |= set(np.unique(pair.truth).tolist()) | set(np.unique(pair.prediction).tolist())
    return sorted(values - {request.unlabelled, request.ignore})


def score_pair(pair: Pair, classes: list[int], request: EvaluationRequest) -> tuple[NDArray[np.int64], dict[str, object]]:
    """Contingency table and scores of one plane; `classes` are those of all planes."""
    left_out = {value for value in (request.unlabelled, request.ignore) if value is not None}
    if request.objects:
        table = confusion((pair.prediction > 0).astype(np.uint8), (pair.truth > 0).astype(np.uint8), classes)
    else:
        keep = ~np.isin(pair.truth, list(left_out))
        table = confusion(pair.prediction[keep], pair.truth[keep], classes)
    row: dict[str, object] = {"image": pair.name}
    for metric in request.metrics:
        if metric in _PER_CLASS:
            values = (dice if metric == "dice" else iou)(table)
            row |= {_column(metric, value, request): float(score) for value, score in zip(classes, values, strict=True)}
        elif metric == "miou":
            row["miou"] = miou(table)
        else:
            row[metric] = (aji if metric == "aji" else object_dice)(pair.prediction, pair.truth)
    return table, row


def _column(metric: str, value: int, request: EvaluationRequest) -> str:
    return metric if request.objects else f"{metric} {value}"


def summarise(
    rows: list[dict[str, object]], pooled: NDArray[np.int64], classes: list[int], request: EvaluationRequest
) -> list[Score]:
    """Scores over all planes, of the rows and the sum of the tables that `score_pair` gave."""
    scores = []
    for metric in request.metrics:
        if metric in _PER_CLASS:
            whole = (dice if metric == "dice" else iou)(pooled)
            for value, score in zip(classes, whole, strict=True):
                scores.append(_over_images(rows, _column(metric, value, request), metric, value, float(score)))
        else:
            scores.append(_over_images(rows, metric, metric, None, miou(pooled) if metric == "miou" else None))
    return scores


def _over_images(rows: list[dict[str, object]], column: str, metric: str, value: int | None, pooled: float | None) -> Score:
    values = np.array([row[column] for row in rows], np.float64)
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if len(values) else float("nan")
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Score(metric, value, mean, std, len(values), pooled)
