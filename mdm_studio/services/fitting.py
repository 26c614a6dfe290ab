"""Fitting a classifier to label maps.

Heads are functions of a `FitRequest`, found by their names among ``mdm_studio.heads``. The one here is the ensemble: gather
labelled pixels, take their features, train the members.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdm_studio import registry
from mdm_studio.arrays import LabelMap
from mdm_studio.config import DEFAULT_BACKBONE, SMOOTH
from mdm_studio.engine.backbones import Backbone, find_backbone, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.finetune import FinetuneConfig
from mdm_studio.engine.heads import EnsembleConfig, pixel_limit, sample_features, subsample, train_ensemble
from mdm_studio.engine.polarity import mixed, polarity, some_of
from mdm_studio.errors import ChannelsError, UnreadableImageError, UsageError
from mdm_studio.io.classifier_file import ClassifierInfo, LabelClass
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import find_images, open_image
from mdm_studio.io.labels import check_learnable, find_labels, labelled_points, many_classes, read_labels_of
from mdm_studio.io.masks import class_palette
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble
from mdm_studio.services.classifier import Classifier
from mdm_studio.services.image_kinds import ImageKind, check_alike, mixed_words, seen_images

TRAINING_BYTES = 512 * 2**20
"""Memory for the features of the labelled pixels; of more pixels than fit, a sample is taken."""
_OBJECT_NAMES = ("background", "object")
TRAINING_PIXELS = 100_000
"""No more pixels than this either: dense masks have millions, nearly alike, and a fit should take seconds, not minutes."""


@dataclass(frozen=True)
class FitRequest:
    """What to fit on what.

    Attributes
    ----------
    images : tuple of str
        Folder, glob or files.
    labels : Path
        Folder of label maps with their images' names.
    backbone : str or None
        Name or folder; None is the bundled one.
    blocks, timesteps, scales, filters
        None reads the backbone's defaults.
    noise : str
        What a denoiser sees, see `mdm_studio.engine.backbones.with_noise`; empty is what its card says.
    unlabelled : int or None
        Value that means "no label"; None if every pixel is labelled.
    objects : bool
        The label maps number their objects: 0 becomes class 0, everything else class 1, and no pixel is unlabelled.
    invert : bool or None
        Learn from a second view of each labelled image too, with dark and bright exchanged: the same labels then also teach
        what dark objects on bright ground look like, and shape and texture come to count for more than brightness. None does
        so if the images have both, see `mdm_studio.engine.polarity`.
    many_classes : bool
        More classes than `mdm_studio.io.labels.MANY_CLASSES` are meant: nothing is said of them.
    smooth : int
        Radius of the guided filter that predictions get, in pixels; 0 for none.
    head : str
        How it is fitted, a name of ``mdm_studio.heads``.
    ensemble, finetune
        Settings of the heads of these names; the others ignore them.
    """

    images: tuple[str, ...]
    labels: Path
    backbone: str | None = None
    blocks: tuple[int, ...] | None = None
    timesteps: tuple[int, ...] | None = None
    scales: tuple[int, ...] | None = None
    filters: bool | None = None
    noise: str = ""
    unlabelled: int | None = 0
    objects: bool = False
    invert: bool | None = None
    smooth: int = SMOOTH
    class_names: tuple[str, ...] = ()
    many_classes: bool = False
    channels: tuple[int, ...] | None = None
    bf16: bool = False
    device: str = "auto"
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    head: str = "ensemble"
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)


@dataclass(frozen=True)
class FitStep:
    """Progress of a fit: what is going on, the share of it that is done, a note, and what the user should know."""

    what: str
    done: float
    note: str = ""
    warning: str = ""


@dataclass(frozen=True)
class LabelledPoints:
    """Labelled pixels of one plane: rows, columns, and class indices 0..K-1, each ``(n,)``."""

    path: Path
    plane: int
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    values: LabelMap


def fit(request: FitRequest, cache: FeatureCache | None) -> Generator[FitStep, None, Classifier]:
    """Fit a classifier with the head that the request names; yields its progress and returns it.

    Raises
    ------
    UsageError
        If there is no such head.
    """
    head: Head = registry.load("heads", request.head)
    return head(request, cache)


Head = Callable[[FitRequest, FeatureCache | None], Generator[FitStep, None, Classifier]]


def fit_classifier(request: FitRequest, cache: FeatureCache | None) -> Generator[FitStep, None, Classifier]:
    """Fit an ensemble; yields its progress and returns the classifier.

    Raises
    ------
    LabelsError
        If the labels do not fit the images or hold fewer than two classes.
    UsageError
        If the class names do not match the classes.
    """
    begin = time.perf_counter()
    paths = find_images(request.images)
    label_files = find_labels(paths, request.labels)
    folder = find_backbone(request.backbone or DEFAULT_BACKBONE)
    backbone = load_backbone(folder, device=pick_device(request.device), bf16=request.bf16, noise=request.noise)
    settings = FeatureSettings.of(
        backbone, blocks=request.blocks, timesteps=request.timesteps, scales=request.scales, filters=request.filters
    )
    width = sum(spec.channels for spec in settings.specs(backbone))
    invert = (yield from mixed_polarities(paths, request.channels)) if request.invert is None else request.invert
    views = [settings, replace(settings, inverted=True)] if invert else [settings]
    limit = min(pixel_limit(TRAINING_BYTES, width), TRAINING_PIXELS) // len(views)
    kinds = survey_images(label_files, request.channels)
    planes = list(_read_points(label_files, request, limit))
    classes = check_learnable([plane.values for plane in planes], request.unlabelled)
    yield from said(kinds, classes, request)
    names = named_classes(classes, request)
    planes = _limited(planes, limit, request.ensemble)
    features, values = yield from gather_features(planes, backbone, views, request.channels, cache)
    targets = np.searchsorted(np.asarray(classes), values)
    ensemble, iterations = yield from _train(features, targets, len(classes), request.ensemble, settings.sources(backbone))
    training = {
        "images": len({plane.path for plane in planes}),
        "pixels": len(targets) // len(views),
        "invert": invert,
        "pixels_per_class": {str(value): int((values == value).sum()) // len(views) for value in classes},
        "iterations": iterations,
        "seconds": round(time.perf_counter() - begin, 3),
    }
    info = ClassifierInfo(
        classes=names,
        backbone=backbone.card.name if request.backbone is None else str(request.backbone),
        backbone_digest=backbone.card.digest,
        blocks=settings.blocks,
        timesteps=settings.timesteps,
        tile=settings.tile,
        halo=settings.halo,
        precision=settings.precision,
        scales=settings.scales,
        filters=settings.filters,
        noise=request.noise,
        smooth=request.smooth,
        channels=request.channels,
        unlabelled=request.unlabelled,
        ensemble=asdict(request.ensemble),
        training=training,
        images=seen_images(kinds.values(), backbone.card.intensity),
    )
    return Classifier(info, ensemble, backbone)


def survey_images(label_files: Mapping[Path, Path], channels: tuple[int, ...] | None) -> dict[Path, ImageKind]:
    """The kind of each labelled image.

    Raises
    ------
    ChannelsError
        If their channels differ, so that no classifier can be fitted on all of them.
    """
    kinds: dict[Path, ImageKind] = {}
    for path in label_files:
        with open_image(path, channels) as image:
            kinds[path] = ImageKind.of(image)
    check_alike(kinds)
    return kinds


def said(kinds: Mapping[Path, ImageKind], classes: Sequence[int], request: FitRequest) -> Iterator[FitStep]:
    """What the user should know of the labels and images before minutes are spent on them."""
    named = len(request.class_names) == len(classes)
    for words in (mixed_words(kinds.values()), "" if named or request.many_classes else many_classes(classes)):
        if words:
            yield FitStep("labels", 0.0, warning=words)


def mixed_polarities(paths: Sequence[Path], channels: tuple[int, ...] | None) -> Generator[FitStep, None, bool]:
    """Whether the images, labelled or not, mix bright objects on dark ground with the reverse."""
    found, chosen = [], some_of(paths)
    for number, path in enumerate(chosen):
        yield FitStep("intensities", number / len(chosen), path.name)
        with suppress(UnreadableImageError, ChannelsError), open_image(path, channels) as image:  # it need not be labelled
            found.append(polarity(image.plane(0)))
    return mixed(found)


def _read_points(label_files: dict[Path, Path], request: FitRequest, limit: int) -> Iterator[LabelledPoints]:
    for path, label_path in label_files.items():
        with open_image(path, request.channels) as image:
            for plane in range(image.planes):
                label_map = read_labels_of(label_path, image, plane)
                if request.objects:
                    label_map = (label_map > 0).astype(np.uint8)
                rows, cols, values = labelled_points(label_map, request.unlabelled, limit=limit, seed=request.ensemble.seed)
                yield LabelledPoints(path, plane, rows, cols, values)  # of no pixels, perhaps


def named_classes(classes: Sequence[int], request: FitRequest) -> tuple[LabelClass, ...]:
    """The classes that occur, with their names and colours.

    Raises
    ------
    UsageError
        If other than all of them are named.
    """
    given = request.class_names or (_OBJECT_NAMES if request.objects else ())
    if given and len(given) != len(classes):
        raise UsageError(
            f"--classes names {len(given)} classes and the labels have {len(classes)} (values {list(classes)}); name each once"
        )
    palette = class_palette(max(classes) + 1)
    names = given or [f"class {value}" for value in classes]
    return tuple(LabelClass(value, name, palette[value]) for value, name in zip(classes, names, strict=True))


def _limited(planes: list[LabelledPoints], limit: int, config: EnsembleConfig) -> list[LabelledPoints]:
    """A sample of all labelled pixels if there are more than `limit`."""
    values = np.concatenate([plane.values for plane in planes])
    kept = np.zeros(len(values), bool)
    kept[subsample(values, limit, config.seed, balanced=config.class_weight == "balanced")] = True
    limited, start = [], 0
    for plane in planes:
        chosen = kept[start : start + len(plane.values)]
        start += len(plane.values)
        if chosen.any():
            limited.append(
                LabelledPoints(plane.path, plane.plane, plane.rows[chosen], plane.cols[chosen], plane.values[chosen])
            )
    return limited


def gather_features(
    planes: Sequence[LabelledPoints],
    backbone: Backbone,
    views: Sequence[FeatureSettings],
    channels: tuple[int, ...] | None,
    cache: FeatureCache | None,
) -> Generator[FitStep, None, tuple[Tensor, NDArray[np.integer[Any]]]]:
    """Features ``(N, D)`` and values ``(N,)`` of the labelled pixels in every view; only the tiles they lie in are computed."""
    features: list[Tensor] = []
    values: list[NDArray[np.integer[Any]]] = []
    for number, points in enumerate(planes):
        with open_image(points.path, channels) as image:
            for view, settings in enumerate(views):
                source = PlaneFeatures(backbone, image.plane(points.plane), settings, cache)
                if source.window.note and not view:
                    yield FitStep("features", number / len(planes), warning=f"{source.plane.name}: {source.window.note}")
                tile_rows, tile_cols = points.rows // source.grid.tile[0], points.cols // source.grid.tile[1]
                for row, col in sorted(set(zip(tile_rows.tolist(), tile_cols.tolist(), strict=True))):
                    here = (tile_rows == row) & (tile_cols == col)
                    features.append(sample_features(source.maps(row, col), points.rows[here], points.cols[here]))
                    values.append(points.values[here])
                    yield FitStep("features", (number + view / len(views)) / len(planes), points.path.name)
    return torch.cat(features), np.concatenate(values)


def _train(
    features: Tensor, targets: NDArray[np.intp], n_classes: int, config: EnsembleConfig, sources: Sequence[int]
) -> Generator[FitStep, None, tuple[PixelMLPEnsemble, int]]:
    for step in train_ensemble(features, targets, n_classes, config, sources=sources):
        yield FitStep(
            "training", step.epoch / config.max_epochs, f"epoch {step.epoch + 1}, loss {float(np.mean(step.losses)):.3f}"
        )
    return step.snapshot(), step.iteration + 1
