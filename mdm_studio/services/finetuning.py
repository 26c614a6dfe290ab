"""Fitting by fine-tuning the whole network, for ``fit --head finetune`` and for live sessions.

What comes out is a classifier like all others: its backbone, which is in its file, is the fine-tuned network, whose features
are logits, and its head hands them on as they are. Tiles, halos, cache, smoothing and export are those of every classifier.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mdm_studio.arrays import LabelMap
from mdm_studio.config import DEFAULT_BACKBONE
from mdm_studio.engine.backbones import Backbone, BackboneCard, find_backbone, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.finetune import UNLABELLED, FinetuneConfig, FinetuneStep, Patch, arch, finetune, side_of, with_readers
from mdm_studio.engine.heads import identity_ensemble
from mdm_studio.engine.recipes import Place
from mdm_studio.errors import UsageError
from mdm_studio.io.classifier_file import ClassifierInfo, EmbeddedBackbone, LabelClass, SeenImages
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ImageFile, find_images, open_image
from mdm_studio.io.labels import check_learnable, find_labels, read_labels_of
from mdm_studio.nn.finetuned import FineTuned
from mdm_studio.services.classifier import Classifier, unpacked
from mdm_studio.services.fitting import FitRequest, FitStep, mixed_polarities, named_classes, said, survey_images
from mdm_studio.services.image_kinds import seen_images

HEAD = "finetune"
"""Its name among ``mdm_studio.heads``."""
CELL = 256
"""Side, in pixels of the working scale, of the squares that patches are cut around."""
PATCH_BYTES = 512 << 20
"""Memory for patches; of more than fit, some are taken at random."""
_LARGEST = 65504.0  # of float16
T = TypeVar("T")


# --- as a head ----------------------------------------------------------------------------------------------------------


def finetune_classifier(request: FitRequest, cache: FeatureCache | None) -> Generator[FitStep, None, Classifier]:
    """Fine-tune a backbone on label maps; yields its progress and returns the classifier. The cache is not used.

    Raises
    ------
    LabelsError
        If the labels do not fit the images or hold fewer than two classes.
    UsageError
        If the class names do not match the classes, or features are asked for that a fine-tuned network does not read.
    """
    begin = time.perf_counter()
    request.finetune.check()
    paths = find_images(request.images)
    label_files = find_labels(paths, request.labels)
    device = pick_device(request.device)
    backbone = load_backbone(find_backbone(request.backbone or DEFAULT_BACKBONE), device=device, noise=request.noise)
    settings = read_by_finetuning(
        backbone, blocks=request.blocks, timesteps=request.timesteps, scales=request.scales, filters=request.filters
    )
    invert = (yield from mixed_polarities(paths, request.channels)) if request.invert is None else request.invert
    config = dataclasses.replace(request.finetune, invert=invert)
    kinds = survey_images(label_files, request.channels)
    cells, classes, counts = _survey(label_files, request, settings.scales[0])
    yield from said(kinds, classes, request)
    names = named_classes(classes, request)
    net = with_readers(backbone, settings.blocks, len(classes))
    patches = yield from _patches(cells, request, backbone, settings, classes, side_of(net, config))
    step = yield from _trained(finetune(net, backbone.recipe, settings.timesteps[0], patches, config, device))
    training = {
        "images": len({cell.path for cell in cells}),
        "pixels": sum(counts.values()),
        "invert": invert,
        "pixels_per_class": {str(value): count for value, count in counts.items()},
        "patches": len(patches),
        "iterations": step.step,
        "loss": round(step.loss, 5),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    seen = seen_images(kinds.values(), backbone.card.intensity)
    name = _name(request, backbone)
    facts = ClassifierFacts(
        names, name, request.smooth, request.channels, request.unlabelled, config, training, request.bf16, seen
    )
    return fine_tuned(step.snapshot(), backbone.card, settings, facts, device)


def _name(request: FitRequest, backbone: Backbone) -> str:
    return backbone.card.name if request.backbone is None else str(request.backbone)


def _trained(steps: Iterator[FinetuneStep]) -> Generator[FitStep, None, FinetuneStep]:
    for step in steps:
        note = f"step {step.step}, loss {step.loss:.3f}" if step.ready else "reading the network as it is"
        yield FitStep("fine-tuning", step.done, note)
    return step


def read_by_finetuning(
    backbone: Backbone,
    *,
    blocks: Sequence[int] | None = None,
    timesteps: Sequence[int] | None = None,
    scales: Sequence[int] | None = None,
    filters: bool | None = None,
) -> FeatureSettings:
    """What a fine-tuned network reads of its backbone: blocks at one timestep and one working scale, the first of its defaults.

    Raises
    ------
    UsageError
        If other than one timestep or working scale is asked for, or filters.
    """
    card = backbone.card
    for name, given in (("timestep", timesteps), ("working scale", scales)):
        if given is not None and len(given) != 1:
            raise UsageError(f"{len(given)} {name}s were given and a network is fine-tuned at one {name}: choose one")
    if filters:
        raise UsageError("a fine-tuned network does not read the filter bank: leave out the filters, or fit an ensemble")
    return FeatureSettings.of(
        backbone,
        blocks=blocks or card.blocks or backbone.net.config.default_blocks,
        timesteps=timesteps or card.timesteps[:1],
        scales=scales or card.scales[:1],
        filters=False,
    )


@dataclass(frozen=True)
class _Cell:
    """A square of a plane with labelled pixels in it, by its row and column among the squares."""

    path: Path
    labels: Path
    plane: int
    row: int
    col: int


def _survey(
    label_files: dict[Path, Path], request: FitRequest, scale: int
) -> tuple[list[_Cell], tuple[int, ...], dict[int, int]]:
    """Where labelled pixels are, which classes they have, and how many of each there are."""
    cells: list[_Cell] = []
    counts: dict[int, int] = {}
    maps = 0
    for path, label_path in label_files.items():
        with open_image(path, request.channels) as image:
            for plane in range(image.planes):
                label_map = _read(label_path, image, plane, request)
                maps += 1
                values, numbers = np.unique(label_map, return_counts=True)
                for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
                    if value != request.unlabelled:
                        counts[value] = counts.get(value, 0) + number
                everywhere = request.unlabelled is None
                labelled = np.ones(label_map.shape, bool) if everywhere else label_map != request.unlabelled
                cells += [_Cell(path, label_path, plane, row, col) for row, col in occupied(labelled, CELL * scale)]
    classes = check_learnable([np.array(list(counts), np.uint16)], request.unlabelled, maps=maps)
    return cells, classes, dict(sorted(counts.items()))


def _read(path: Path, image: ImageFile, plane: int, request: FitRequest) -> LabelMap:
    label_map = read_labels_of(path, image, plane)
    return (label_map > 0).astype(np.uint8) if request.objects else label_map


def _patches(
    cells: Sequence[_Cell],
    request: FitRequest,
    backbone: Backbone,
    settings: FeatureSettings,
    classes: tuple[int, ...],
    side: int,
) -> Generator[FitStep, None, list[Patch]]:
    patches: list[Patch] = []
    chosen = some_cells(cells, backbone.in_channels, side, settings.scales[0], request.finetune.seed)
    by_plane: dict[tuple[Path, Path, int], list[tuple[int, int]]] = {}
    for cell in chosen:
        by_plane.setdefault((cell.path, cell.labels, cell.plane), []).append((cell.row, cell.col))
    for number, ((path, label_path, plane), places) in enumerate(by_plane.items()):
        yield FitStep("images", number / len(by_plane), path.name)
        with open_image(path, request.channels) as image:
            source = PlaneFeatures(backbone, image.plane(plane), settings)
            indices = class_indices(_read(label_path, image, plane, request), classes)
            patches += plane_patches(source, _reading(indices), places, side)
    return patches


def _reading(indices: NDArray[np.int16]) -> Callable[[slice, slice], NDArray[np.int16]]:
    return lambda rows, cols: indices[rows, cols]


# --- patches ------------------------------------------------------------------------------------------------------------


def class_indices(values: NDArray[Any], classes: Sequence[int]) -> NDArray[np.int16]:
    """Index of each value among the classes, `UNLABELLED` for all others."""
    known = np.asarray(classes)
    found = np.searchsorted(known, values).clip(max=len(known) - 1).astype(np.int16)
    found[known[found] != values] = UNLABELLED
    return found


def occupied(labelled: NDArray[np.bool_], side: int) -> list[tuple[int, int]]:
    """Rows and columns of the squares of `side` pixels that hold a labelled pixel."""
    height, width = labelled.shape
    return [
        (row, col)
        for row in range(-(-height // side))
        for col in range(-(-width // side))
        if labelled[row * side : (row + 1) * side, col * side : (col + 1) * side].any()
    ]


def some_cells(cells: Sequence[T], channels: int, side: int, scale: int, seed: int) -> list[T]:
    """As many of the cells, in their order, as have room in memory when they are patches."""
    each = (CELL + side) ** 2 * (2 * channels + 2 * scale**2)
    most = max(PATCH_BYTES // each, 1)
    if len(cells) <= most:
        return list(cells)
    chosen = np.random.default_rng(seed).choice(len(cells), most, replace=False)
    return [cells[index] for index in sorted(chosen.tolist())]


def plane_patches(
    source: PlaneFeatures,
    read: Callable[[slice, slice], NDArray[np.int16]],
    cells: Sequence[tuple[int, int]],
    side: int,
) -> list[Patch]:
    """Patches around cells of a plane.

    Parameters
    ----------
    source : PlaneFeatures
        The plane as the network sees it, at one working scale.
    read : callable
        ``read(rows, cols)`` gives the class indices of a window of the image.
    cells : sequence of (int, int)
        Rows and columns of squares of `CELL` pixels of the working scale, see `occupied`.
    side : int
        Of crops, in pixels of the working scale: a patch reaches half of it beyond its cell on every side, but not beyond the
        image unless that is smaller than a crop, which is then mirrored at its lower right.
    """
    scale, patches = source.settings.scales[0], []
    image_key = source.image_key
    for cell in cells:
        window = [_around(at, side, scale, size) for at, size in zip(cell, (source.height, source.width), strict=True)]
        image = source.seen(window, scale).astype(np.float16)
        labels = np.full((image.shape[1] * scale, image.shape[2] * scale), UNLABELLED, np.int16)
        rows, cols = (slice(w.start, min(w.stop, n)) for w, n in zip(window, (source.height, source.width), strict=True))
        labels[: rows.stop - rows.start, : cols.stop - cols.start] = read(rows, cols)
        patches.append(Patch(image, labels, Place(window[0].start // scale, window[1].start // scale, image_key)))
    return patches


def _around(cell: int, side: int, scale: int, size: int) -> slice:
    """Image pixels of a patch along one axis."""
    cells = -(-size // scale)  # of the working scale
    start = max(min(cell * CELL - side // 2, cells - side), 0)
    stop = max(min((cell + 1) * CELL + side // 2, cells), start + side)
    return slice(start * scale, stop * scale)


# --- the classifier -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassifierFacts:
    """What a classifier's file tells beside its network; `backbone` names the one that was fine-tuned."""

    classes: tuple[LabelClass, ...]
    backbone: str
    smooth: int
    channels: tuple[int, ...] | None
    unlabelled: int | None
    config: FinetuneConfig
    training: dict[str, Any]
    bf16: bool = False
    images: SeenImages | None = None


def fine_tuned(
    net: FineTuned, base: BackboneCard, settings: FeatureSettings, facts: ClassifierFacts, device: torch.device
) -> Classifier:
    """A classifier of a fine-tuned network; it predicts what it will predict when it is read from its file.

    Parameters
    ----------
    base : BackboneCard
        Of the backbone that was fine-tuned.
    settings : FeatureSettings
        What was read of it.
    """
    weights = _stored(net)
    card = dataclasses.replace(
        base,
        name=f"{base.name}, fine-tuned",
        arch=arch(net),
        blocks=(0,),
        timesteps=settings.timesteps,
        scales=settings.scales,
        filters=False,
        training={"fine-tuned from": base.digest, **facts.training},
    )
    embedded = EmbeddedBackbone(asdict(card), weights)
    embedded = dataclasses.replace(embedded, card=asdict(dataclasses.replace(card, digest=embedded.digest)))
    backbone = unpacked(embedded, device, bf16=facts.bf16)
    info = ClassifierInfo(
        classes=facts.classes,
        backbone=facts.backbone,
        backbone_digest=backbone.card.digest,
        blocks=(0,),
        timesteps=settings.timesteps,
        tile=settings.tile,
        halo=settings.halo,
        precision="bf16" if facts.bf16 else "fp32",
        scales=settings.scales,
        smooth=facts.smooth,
        channels=facts.channels,
        unlabelled=facts.unlabelled,
        ensemble=asdict(facts.config),
        training=facts.training,
        head=HEAD,
        embedded=True,
        images=facts.images,
    )
    return Classifier(info, identity_ensemble(len(facts.classes)), backbone, embedded)


def _stored(net: FineTuned) -> dict[str, NDArray[Any]]:
    """Weights as they are stored: matrices and kernels in half precision, which changes masks by less than a label does."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in net.state_dict().items():
        array = value.detach().cpu().contiguous().numpy()
        half = array.dtype == np.float32 and array.ndim > 1 and float(np.abs(array).max(initial=0)) < _LARGEST
        arrays[name] = array.astype(np.float16) if half else array.copy()
    return arrays
