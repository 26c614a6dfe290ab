"""Masks for a whole folder: one file after another, tile by tile, in memory that does not grow with the image."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import InputError, MDMStudioError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ImageFile, image_name, open_image
from mdm_studio.io.masks import MaskFormat, MaskWriter, has_whole, mask_path, open_mask
from mdm_studio.io.tables import object_table, objects_from_mask, write_rows
from mdm_studio.services.classifier import Classifier

LARGE = 4096 * 4096  # pixels; the features of a larger image would fill the cache's budget for a single use


@dataclass(frozen=True)
class PredictOptions:
    """What to write, and where.

    Attributes
    ----------
    out : Path
        Folder of the masks; the other outputs go to folders of their names inside it.
    format : {"png", "tiff", "ome-zarr", "npy"}
        Of the masks. Probabilities and uncertainty, which PNG cannot hold, then go to TIFF.
    background : int or None
        Value that is no object; None takes the lowest class.
    min_size : int
        Objects of fewer pixels are dropped.
    smooth : int or None
        Radius in pixels of the guided filter on the probabilities, 0 for none; None takes the classifier's.
    """

    out: Path
    format: MaskFormat = "png"
    probabilities: bool = False
    uncertainty: bool = False
    objects: bool = False
    table: bool = False
    background: int | None = None
    min_size: int = 0
    smooth: int | None = None
    overwrite: bool = False

    def paths(self, name: str) -> dict[str, Path]:
        """File of each output that is asked for."""
        floats: MaskFormat = "tiff" if self.format == "png" else self.format
        paths = {"mask": mask_path(self.out, name, self.format)}
        if self.probabilities:
            paths["probabilities"] = mask_path(self.out / "probabilities", name, floats)
        if self.uncertainty:
            paths["uncertainty"] = mask_path(self.out / "uncertainty", name, floats)
        if self.objects:
            paths["objects"] = mask_path(self.out / "objects", name, floats)
        if self.table:
            paths["table"] = self.out / "tables" / f"{name}.csv"
        return paths


@dataclass(frozen=True)
class FileResult:
    """What became of one image: state, files written, seconds, pixels of each class value, and why it failed."""

    image: Path
    state: Literal["done", "skipped", "failed"]
    outputs: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    pixels: dict[int, int] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class TileProgress:
    """Tiles done of an image."""

    image: Path
    done: int
    total: int


def predict_files(
    classifier: Classifier, paths: Sequence[Path], options: PredictOptions, cache: FeatureCache | None
) -> Iterator[FileResult | TileProgress]:
    """Predict every image; an image that fails is reported, and the others go on.

    Yields
    ------
    TileProgress
        After each tile.
    FileResult
        After each image.
    """
    for path in paths:
        yield (yield from predict_file(classifier, path, options, cache))


def predict_file(
    classifier: Classifier, path: Path, options: PredictOptions, cache: FeatureCache | None
) -> Generator[TileProgress, None, FileResult]:
    """Predict one image; yields after each tile and returns what became of it.

    What is already there, and whole, is left alone unless ``options.overwrite`` is set.
    """
    begin = time.perf_counter()
    outputs = options.paths(image_name(path))
    if not options.overwrite and all(_is_whole(file) for file in outputs.values()):
        return FileResult(path, "skipped", outputs, message="already there")
    try:
        with open_image(path, classifier.info.channels) as image:
            pixels = yield from _predict_image(classifier, image, options, outputs, cache)
    except MDMStudioError as error:
        return FileResult(path, "failed", seconds=time.perf_counter() - begin, message=str(error))
    return FileResult(path, "done", outputs, time.perf_counter() - begin, pixels)


def _is_whole(file: Path) -> bool:
    return file.exists() if file.suffix == ".csv" else has_whole(file)


def _predict_image(
    classifier: Classifier, image: ImageFile, options: PredictOptions, outputs: dict[str, Path], cache: FeatureCache | None
) -> Generator[TileProgress, None, dict[int, int]]:
    values = np.array([each.value for each in classifier.info.classes])
    dtype = np.uint8 if values.max() < 256 else np.uint16
    counts = np.zeros(values.max() + 1, np.int64)
    smooth = classifier.info.smooth if options.smooth is None else options.smooth
    wanted_objects = options.objects or options.table
    whole = np.zeros((image.planes, image.height, image.width), dtype) if wanted_objects else None
    kept = cache if image.height * image.width <= LARGE else None
    with ExitStack() as stack:
        writers = {
            kind: stack.enter_context(_writer(classifier, image, options, kind, dtype)) for kind in outputs if kind in _RASTERS
        }
        for index in range(image.planes):
            source = PlaneFeatures(classifier.backbone, image.plane(index), classifier.settings, kept)
            at = np.unravel_index(index, image.stack_shape) if image.stack_shape else ()
            place = tuple(int(i) for i in at)
            for number, (rows, cols, found) in enumerate(predict_plane(classifier.ensemble, source, smooth=smooth), start=1):
                mask = values.astype(dtype)[found.labels]
                counts += np.bincount(mask.ravel(), minlength=len(counts))
                writers["mask"].write(rows.start, cols.start, mask, index=place)
                if "probabilities" in writers:
                    writers["probabilities"].write(rows.start, cols.start, found.probabilities, index=place)
                if "uncertainty" in writers:
                    writers["uncertainty"].write(rows.start, cols.start, found.uncertainty, index=place)
                if whole is not None:
                    whole[index, rows, cols] = mask
                yield TileProgress(image.path, index * len(source.grid) + number, image.planes * len(source.grid))
        if whole is not None:
            _write_objects(classifier, image, whole, options, outputs)
    return {int(value): int(counts[value]) for value in values}


_RASTERS = ("mask", "probabilities", "uncertainty")


def _writer(
    classifier: Classifier, image: ImageFile, options: PredictOptions, kind: str, dtype: type[np.unsignedinteger]
) -> AbstractContextManager[MaskWriter]:
    """Writer of one output of an image, with its axes, pixel size and colours."""
    path = options.paths(image.name)[kind]
    floats: MaskFormat = "tiff" if options.format == "png" else options.format
    channels = (len(classifier.info.classes),) if kind == "probabilities" else ()
    return open_mask(
        path.parent / image.name,
        (*image.stack_shape, *channels, image.height, image.width),
        dtype if kind == "mask" else np.float32,
        format=options.format if kind == "mask" else floats,
        axes=image.stack_axes + "C" * len(channels) + "YX",
        palette={each.value: each.color for each in classifier.info.classes} if kind == "mask" else None,
        pixel_size=image.pixel_size,
        unit=image.unit,
        overwrite=True,  # what is there is either not whole or to be replaced
    )


def _write_objects(
    classifier: Classifier, image: ImageFile, masks: NDArray[Any], options: PredictOptions, outputs: dict[str, Path]
) -> None:
    """Connected components of every class but the background, as a label image and as a table."""
    values = [each.value for each in classifier.info.classes]
    background = min(values) if options.background is None else options.background
    rows: list[dict[str, object]] = []
    numbered = np.zeros(masks.shape, np.uint32)
    for index, mask in enumerate(masks):
        numbered[index] = objects_from_mask(np.where(mask == background, 0, mask), min_size=options.min_size)
        if options.table:
            rows += _table_rows(classifier, image, index, mask, numbered[index])
    if options.objects:
        _write_object_map(image, numbered, options, outputs["objects"])
    if options.table:
        write_rows(outputs["table"], rows)


def _table_rows(
    classifier: Classifier, image: ImageFile, index: int, mask: NDArray[Any], numbered: NDArray[Any]
) -> list[dict[str, object]]:
    names = {each.value: each.name for each in classifier.info.classes}
    raw = image.plane(index).read(slice(None), slice(None))
    rows = object_table(numbered, mask, raw, image.pixel_size, image.unit)
    where = {"image": image.name} | ({"plane": index} if image.planes > 1 else {})
    return [{**where, **row, "class name": names[int(str(row["class"]))]} for row in rows]


def _write_object_map(image: ImageFile, numbered: NDArray[Any], options: PredictOptions, path: Path) -> None:
    with open_mask(
        path.parent / image.name,
        (*image.stack_shape, image.height, image.width),
        np.uint32,
        format="tiff" if options.format == "png" else options.format,
        axes=image.stack_axes + "YX",
        pixel_size=image.pixel_size,
        unit=image.unit,
        overwrite=True,
    ) as writer:
        for index, plane in enumerate(numbered):
            at = np.unravel_index(index, image.stack_shape) if image.stack_shape else ()
            writer.write(0, 0, plane, index=tuple(int(i) for i in at))


def raise_failures(results: Sequence[FileResult]) -> None:
    """Raise an `InputError` that counts the images that failed and repeats the first reason; nothing if none failed."""
    failed = [result for result in results if result.state == "failed"]
    if failed:
        raise InputError(f"{len(failed)} of {len(results)} images failed, the first: {failed[0].message}")
