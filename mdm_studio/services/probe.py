"""Classes of whole images: features pooled over each image, probed by a linear model (appendix C of Pan et al. 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mdm_studio.config import DEFAULT_BACKBONE
from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.linear_probe import ProbeConfig, ProbeScores, check_probe, cross_validate, predict_rest
from mdm_studio.errors import InputError, LabelsError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.image_classes import ImageClass, read_image_classes
from mdm_studio.io.images import check_unique_names, find_images, image_name, open_image
from mdm_studio.services.extraction import FeatureSource, load_for_features
from mdm_studio.services.fitting import FitStep

Pooling = Literal["mean", "mean-std"]


@dataclass(frozen=True)
class ProbeRequest:
    """What to probe on what; the meaning of each is that of `mdm_studio.services.fitting.FitRequest` where it has one.

    Attributes
    ----------
    labels : Path
        Table of classes, see `mdm_studio.io.image_classes`; the three columns are `image_column` ...
    pooling : {"mean", "mean-std"}
        What is kept of each channel over an image: its mean, or its standard deviation too.
    predict : bool
        Predict the images that have no label, too.
    """

    images: tuple[str, ...]
    labels: Path
    backbone: str = DEFAULT_BACKBONE
    blocks: tuple[int, ...] | None = None
    timesteps: tuple[int, ...] | None = None
    scales: tuple[int, ...] | None = None
    filters: bool | None = None
    pooling: Pooling = "mean"
    predict: bool = False
    image_column: str = "image"
    label_column: str = "label"
    group_column: str = ""
    channels: tuple[int, ...] | None = None
    bf16: bool = False
    device: str = "auto"
    config: ProbeConfig = field(default_factory=ProbeConfig)


@dataclass(frozen=True)
class ImagePrediction:
    """Probabilities of the classes for an image; of a labelled one by models that have not seen it."""

    image: str
    label: str
    predicted: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class ProbeResult:
    """Scores, what they rest on, predictions in the order of the images, and why images were left out.

    Attributes
    ----------
    images : dict of str to int
        Labelled images of each class.
    groups : int
        Groups among them, 0 where there are none.
    channels : int
        Length of an image's feature vector.
    failed : dict of str to str
        Images that could not be read.
    """

    scores: ProbeScores
    images: dict[str, int]
    groups: int
    channels: int
    predictions: list[ImagePrediction]
    failed: dict[str, str]


def probe_images(request: ProbeRequest, cache: FeatureCache | None) -> Generator[FitStep, None, ProbeResult]:
    """Probe the features of a folder of images by a table of their classes; yields its progress and returns the result.

    An image that cannot be used is left out and named in the result.

    Raises
    ------
    LabelsError
        If the table does not fit the images, or its classes cannot be cross-validated.
    """
    paths = find_images(request.images)
    check_unique_names(paths)
    columns = {"image": request.image_column, "label": request.label_column, "group": request.group_column}
    classes = read_image_classes(request.labels, paths, **columns)
    _check(list(classes.values()), request)  # fail before anything is computed
    source = load_for_features(
        request.backbone,
        blocks=request.blocks,
        timesteps=request.timesteps,
        scales=request.scales,
        filters=request.filters,
        bf16=request.bf16,
        device=request.device,
    )
    wanted = paths if request.predict else list(classes)
    pooled, failed = yield from _pool_all(source, wanted, request, cache)
    labelled = [path for path in wanted if path in pooled and path in classes]
    rest = [path for path in wanted if path in pooled and path not in classes]
    known = [classes[path] for path in labelled]
    if failed:
        _check_again(known, failed, request)
    labels, groups = [each.label for each in known], _groups(known)
    features = np.stack([pooled[path] for path in labelled])
    for done, scores in enumerate(cross_validate(features, labels, groups, request.config), start=1):
        yield FitStep("probing", done / request.config.repeats, f"accuracy {scores.accuracy.mean:.3f}")
    found = dict(zip(labelled, scores.held_out, strict=True))
    if rest:
        unseen = predict_rest(features, labels, np.stack([pooled[path] for path in rest]), request.config)
        found |= dict(zip(rest, unseen, strict=True))
    predictions = [
        ImagePrediction(
            image_name(path),
            classes[path].label if path in classes else "",
            scores.classes[int(found[path].argmax())],
            tuple(found[path].tolist()),
        )
        for path in wanted
        if path in found
    ]
    counts = dict(sorted(Counter(labels).items()))
    return ProbeResult(scores, counts, len(set(groups)), features.shape[1], predictions, failed)


def _check(classes: Sequence[ImageClass], request: ProbeRequest) -> None:
    if not classes:
        raise LabelsError(f"{request.labels} labels none of the images; wanted: a row with image and label for each")
    groups = _groups(classes)
    if groups and not all(groups):
        raise LabelsError(f"{request.labels} has labelled images without a group; give every one of them a group, or none")
    check_probe([each.label for each in classes], groups, request.config)


def _check_again(classes: Sequence[ImageClass], failed: Mapping[str, str], request: ProbeRequest) -> None:
    """Whether what is left of the labelled images will still do; if not, those that failed are named too."""
    what = f"{len(failed)} images could not be used, the first: {next(iter(failed.values()))}"
    if not classes:
        raise InputError(f"not one labelled image is left: {what}")
    try:
        _check(classes, request)
    except LabelsError as error:
        raise LabelsError(f"{error} ({what})") from error


def _groups(classes: Sequence[ImageClass]) -> list[str]:
    """Group of each image; nothing if the table has none."""
    groups = [each.group for each in classes]
    return groups if any(groups) else []


def _pool_all(
    source: FeatureSource, paths: Sequence[Path], request: ProbeRequest, cache: FeatureCache | None
) -> Generator[FitStep, None, tuple[dict[Path, NDArray[np.float32]], dict[str, str]]]:
    """Feature vector of every image that can be read, and why the others cannot."""
    pooled: dict[Path, NDArray[np.float32]] = {}
    failed: dict[str, str] = {}
    for number, path in enumerate(paths):
        yield FitStep("features", number / len(paths), path.name)
        try:
            with open_image(path, request.channels) as image:
                planes = [
                    PlaneFeatures(source.backbone, image.plane(i), source.settings, cache) for i in range(image.planes)
                ]
                pooled[path] = pool_features(planes, request.pooling)
        except InputError as error:
            failed[path.name] = str(error)
    return pooled, failed


def pool_features(planes: Sequence[PlaneFeatures], pooling: Pooling = "mean") -> NDArray[np.float32]:
    """What an image is described by as a whole, ``(D,)`` or with standard deviations ``(2 D,)``: over all cells of all planes.

    Every map counts by its own cells, so blocks of any stride stand side by side.
    """
    sums = [np.zeros((2, spec.channels)) for spec in planes[0].specs]
    cells = [0] * len(sums)
    for plane in planes:
        for row, col in plane.grid:
            for index, (spec, kept) in enumerate(zip(plane.specs, plane.maps(row, col), strict=True)):
                core = plane.grid.cells(row, col, spec.stride, 0)  # without the margin, which neighbours have too
                y, x = (slice(each.start - first, each.stop - first) for each, first in zip(core, kept.origin, strict=True))
                values = kept.values[:, y, x].flatten(1).double()  # (C, cells)
                sums[index] += np.stack([values.sum(1).numpy(), values.square().sum(1).numpy()])
                cells[index] += values.shape[1]
    means, squares = np.concatenate([total / count for total, count in zip(sums, cells, strict=True)], axis=1)
    parts = [means] if pooling == "mean" else [means, np.sqrt(np.maximum(squares - means**2, 0))]
    return np.concatenate(parts).astype(np.float32)
