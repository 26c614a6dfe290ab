"""One image after another: masks and all that goes with them, tile by tile, in memory that does not grow with the image."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.heads import Prediction
from mdm_studio.engine.measurements import Columns, measure
from mdm_studio.engine.objects import Objects, bands, find_objects
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.atomic import make_folder
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.file_signature import Signature, signature
from mdm_studio.io.images import ImageFile, image_name, image_state, open_image
from mdm_studio.io.mask_spec import MaskWriter
from mdm_studio.io.masks import open_mask
from mdm_studio.io.scratch import Scratch
from mdm_studio.io.tables import write_table
from mdm_studio.services.classifier import Classifier
from mdm_studio.services.export_request import FileResult, PredictOptions, TileProgress, raise_failures
from mdm_studio.services.image_kinds import differences

__all__ = [
    "LARGE", "FileResult", "PredictOptions", "TileProgress", "background_of", "predict_file", "predict_files", "raise_failures",
]  # fmt: skip

LARGE = 4096 * 4096  # pixels; the features of a larger image would fill the cache's budget for a single use
_NAMED = 3  # planes of which something is said
_Place = tuple[int, ...]
_TRIES = 3
_CHANGED = (
    "{path} changed each of the {tries} times that it was predicted, and no mask of it is up to date: predict it again when "
    "nothing writes to it any more"
)


def predict_files(
    classifier: Classifier, paths: Sequence[Path], options: PredictOptions, cache: FeatureCache | None
) -> Iterator[FileResult | TileProgress]:
    """Predict every image, whatever is there; an image that fails is reported, and the others go on.

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
    """Predict one image and replace what is there; yields after each tile and returns what became of it.

    An image that is written to meanwhile is predicted again, a few times; then it fails, and what is there stays. The folder of
    the masks must be there; the others in it are made.
    """
    begin = time.perf_counter()
    outputs = options.paths(image_name(path))
    for _ in range(_TRIES):
        state = image_state(path)
        try:
            for output in outputs.values():
                make_folder(output.parent, within=options.out)
            with open_image(path, classifier.info.channels) as image:
                work = _Work(classifier, image, options, outputs, state)
                yield from work.run(cache if image.height * image.width <= LARGE else None)
        except _ChangedError:
            continue
        except MDMStudioError as error:
            if image_state(path) != state and path.exists():  # half of the old and half of the new one was read
                continue
            return FileResult(path, "failed", seconds=time.perf_counter() - begin, message=str(error))
        written = {kind: signature(output) or (0, 0) for kind, output in outputs.items()}
        found = {value: int(work.counts[value]) for value in work.values.tolist()}
        seconds = time.perf_counter() - begin
        result = FileResult(
            path, "done", outputs, seconds, found, work.message(), work.objects, work.differs, work.source, written
        )
        return replace(result, left_out=image.left_out, notes=image.notes)
    return FileResult(path, "failed", seconds=time.perf_counter() - begin, message=_CHANGED.format(path=path, tries=_TRIES))


class _ChangedError(Exception):
    """An image was written to while it was predicted."""


def background_of(options: PredictOptions, values: Sequence[int]) -> int:
    """Class value that is no object."""
    chosen = None if options.objects is None else options.objects.background
    return min(values) if chosen is None else chosen


@dataclass
class _Work:
    """One image on its way; what is known of it when it is done."""

    classifier: Classifier
    image: ImageFile
    options: PredictOptions
    outputs: Mapping[str, Path]
    state: tuple[int, ...] | None
    objects: int = 0
    uncut: int = 0
    columns: list[Columns] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = np.array([each.value for each in self.classifier.info.classes])
        self.dtype = np.uint8 if self.values.max() < 256 else np.uint16
        self.counts = np.zeros(self.values.max() + 1, np.int64)
        smooth = self.options.smooth
        self.smooth = self.classifier.info.smooth if smooth is None else smooth
        self.differs = differences(self.classifier.info, self.image, str(self.image.path))

    @property
    def source(self) -> Signature:
        """Signature of the file that was read."""
        return (self.state[0], self.state[1]) if self.state else (0, 0)

    def message(self) -> str:
        notes = [*self.notes[:_NAMED], f"and {len(self.notes) - _NAMED} more planes"][: len(self.notes)]
        if self.uncut:
            regions = "1 region was" if self.uncut == 1 else f"{self.uncut} regions were"
            notes.append(f"{regions} too large to be cut apart and stayed whole")
        return "; ".join(notes)

    def run(self, cache: FeatureCache | None) -> Iterator[TileProgress]:
        """Write every output; a file takes its name when all of it is written."""
        image = self.image
        with ExitStack() as stack:
            scratch = stack.enter_context(Scratch(self.outputs["mask"]))
            writers = {kind: stack.enter_context(self._writer(kind)) for kind in self.outputs if kind in _RASTERS}
            for index in range(image.planes):
                source = PlaneFeatures(self.classifier.backbone, image.plane(index), self.classifier.settings, cache)
                at = np.unravel_index(index, image.stack_shape) if image.stack_shape else ()
                place = tuple(int(i) for i in at)
                steps = len(source.grid) + (self.options.objects is not None)
                if source.window.note:  # raises where there is nothing to see, whatever features are cached
                    self.notes.append((f"plane {index}: " if image.planes > 1 else "") + source.window.note)
                for step, note in self._plane(source, index, place, writers, scratch):
                    pixels = image.planes * image.height * image.width
                    yield TileProgress(image.path, index * steps + step, image.planes * steps, pixels, note)
            if image_state(image.path) != self.state:  # before any output takes its name
                raise _ChangedError
            for kind in self.options.tables:
                write_table(self.outputs[kind], self._table())

    def _plane(
        self, source: PlaneFeatures, index: int, place: _Place, writers: Mapping[str, MaskWriter], scratch: Scratch
    ) -> Iterator[tuple[int, str]]:
        """Tiles, then objects; yields the number of steps done, and what is done."""
        shape = (self.image.height, self.image.width)
        how = self.options.objects
        mask = likely = None
        if how is not None:
            mask = scratch.array("mask", shape, self.dtype)
            likely = scratch.array("probability", shape, np.float32) if how.method == "watershed" else None
        known = 0
        for rows, cols, found in predict_plane(self.classifier.ensemble, source, smooth=self.smooth):
            tile = self._tile(found)
            known += tile.size
            self.counts += np.bincount(tile.ravel(), minlength=len(self.counts))
            writers["mask"].write(rows.start, cols.start, tile, index=place)
            if "probabilities" in writers:
                writers["probabilities"].write(rows.start, cols.start, found.probabilities, index=place)
            if "uncertainty" in writers:
                writers["uncertainty"].write(rows.start, cols.start, found.uncertainty, index=place)
            if mask is not None:
                mask[rows, cols] = tile
            if likely is not None:
                likely[rows, cols] = np.take_along_axis(found.probabilities, found.labels[None], axis=0)[0]
            del found  # of many classes it is large: not beside the next one
            yield known * len(source.grid) // (shape[0] * shape[1]), ""
        if how is not None:
            background = background_of(self.options, self.values.tolist())
            objects = yield from _noted(find_objects(mask, how, background, scratch.array, likely), len(source.grid))
            yield from self._objects(objects, index, place, writers, len(source.grid))
            yield len(source.grid) + 1, ""

    def _tile(self, found: Prediction) -> NDArray[Any]:
        tile: NDArray[Any] = self.values.astype(self.dtype)[found.labels]
        return tile

    def _objects(
        self, objects: Objects, index: int, place: _Place, writers: Mapping[str, MaskWriter], step: int
    ) -> Iterator[tuple[int, str]]:
        self.objects += len(objects)
        self.uncut += objects.uncut
        if "objects" in writers:
            for rows in bands(objects.shape):
                writers["objects"].write(rows.start, 0, objects.read(rows, slice(None)), index=place)
                yield step, "objects"
        if self.options.tables:
            measuring = measure(objects, self.image.plane(index), self.image.pixel_size, self.image.unit)
            columns = yield from _noted(measuring, step)
            names = {each.value: each.name for each in self.classifier.info.classes}
            where = {"image": np.full(len(objects), self.image.name)}
            if self.image.planes > 1:
                where["plane"] = np.full(len(objects), index)
            called = np.array([names[value] for value in columns["class"].tolist()], np.str_)
            first = {name: columns.pop(name) for name in ("label", "class")}
            self.columns.append({**where, **first, "class name": called, **columns})

    def _table(self) -> Columns:
        return {name: np.concatenate([each[name] for each in self.columns]) for name in self.columns[0]}

    def _writer(self, kind: str) -> AbstractContextManager[MaskWriter]:
        """Writer of one output, with its axes, pixel size, colours and names."""
        image, classes, path = self.image, self.classifier.info.classes, self.outputs[kind]
        channels = (len(classes),) if kind == "probabilities" else ()
        of_classes = kind == "mask"
        return open_mask(
            path.parent / image.name,
            (*image.stack_shape, *channels, image.height, image.width),
            {"mask": self.dtype, "objects": np.uint32}.get(kind, np.float32),
            format=self.options.format if of_classes else self.options.map_format,
            axes=image.stack_axes + "C" * len(channels) + "YX",
            palette={each.value: each.color for each in classes} if of_classes else None,
            names={each.value: each.name for each in classes} if of_classes else None,
            pixel_size=image.pixel_size,
            unit=image.unit,
            overwrite=True,  # who calls this has decided that it may be replaced
        )


_RASTERS = ("mask", "probabilities", "uncertainty", "objects")


def _noted(steps: Generator[None, None, Any], done: int) -> Generator[tuple[int, str], None, Any]:
    """The steps of looking for objects, of which nobody knows beforehand how many there are."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield done, "objects"
