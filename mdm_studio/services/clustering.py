"""K-means clusters of every block and timestep of a folder of images: label maps of the image's size, and a picture of all.

Each image, block and timestep is clustered on its own; clusters are then renumbered so that the same thing keeps its colour
from one block or timestep to the other. Of an image of many tiles, windows of a few tiles decide on the centroids, and then
every tile gets its labels: memory does not grow with the image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import intensity_window, normalise
from mdm_studio.engine.clusters import (
    Clusters,
    Components,
    Window,
    assign,
    cluster_maps,
    fit_components,
    matched_colours,
    project,
)
from mdm_studio.engine.features import BlockMap, PlaneFeatures
from mdm_studio.errors import MDMStudioError, UsageError
from mdm_studio.io.atomic import make_folder, output_folder
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ImageFile, Plane, image_name, open_image
from mdm_studio.io.masks import class_palette, has_whole, mask_path, open_mask
from mdm_studio.nn.pixel_mlp import FeatureMap, cells_read, crop_cells
from mdm_studio.services.batch import LARGE, FileResult
from mdm_studio.services.clustering_report import write_panel
from mdm_studio.services.extraction import FeatureSource

_MOST = 255
_FIT_TILES = 8  # of an image of more tiles, so many decide on the centroids
_FIT_SIDE = 192  # pixels along each side of the windows in them
_FIT_BYTES = 256 * 2**20  # of their features together; smaller windows if they would take more
_THUMBNAIL = 256  # pixels along the longer side of a picture in the panel


@dataclass(frozen=True)
class ClusterOptions:
    """What to write, and where.

    Attributes
    ----------
    out : Path
        Folder: ``NAME.png`` is the panel of an image, ``NAME/bBB-tTTTT.png`` a label map, 1..k.
    k, seed : int
        Clusters, and the seed of where they begin.
    components : bool
        Write ``NAME-pca.png`` too: the first three principal components as colours.
    """

    out: Path
    k: int = 5
    seed: int = 0
    components: bool = False
    overwrite: bool = False

    def paths(self, stem: str, specs: Sequence[BlockMap]) -> dict[str, Path]:
        """Files of a plane: the panels, and the label map of each cell by its name."""
        panels = {"panel": self.out / f"{stem}.png"} | ({"pca": self.out / f"{stem}-pca.png"} if self.components else {})
        return panels | {spec.name: mask_path(self.out / stem, spec.name, "png") for spec in specs}


@dataclass(frozen=True)
class ClusterProgress:
    """Share of an image that is done, and what was done last."""

    image: Path
    done: float
    what: str


def cluster_files(
    source: FeatureSource,
    paths: Sequence[Path],
    options: ClusterOptions,
    cache: FeatureCache | None,
    channels: tuple[int, ...] | None = None,
) -> Iterator[ClusterProgress | FileResult]:
    """Cluster every image; an image that fails is reported, and the others go on.

    Yields
    ------
    ClusterProgress
        After each cell that is fitted and each tile that is labelled.
    FileResult
        After each image.

    Raises
    ------
    UsageError
        If no block is read, or the number of clusters is not 1 to 255.
    """
    if not 1 <= options.k <= _MOST:
        raise UsageError(f"{options.k} clusters were asked for; take 1 to {_MOST}, which a PNG with a palette can hold")
    if not source.settings.blocks or source.settings.filters:
        raise UsageError("clusters are those of blocks and timesteps: name at least one block, and no filters")
    with output_folder(options.out):
        for path in paths:
            yield (yield from _cluster_file(source, path, options, cache, channels))


def _cluster_file(
    source: FeatureSource,
    path: Path,
    options: ClusterOptions,
    cache: FeatureCache | None,
    channels: tuple[int, ...] | None,
) -> Generator[ClusterProgress, None, FileResult]:
    begin = time.perf_counter()
    specs = [spec for spec in source.settings.specs(source.backbone) if isinstance(spec, BlockMap)]
    outputs: dict[str, Path] = {}
    try:
        with open_image(path, channels) as image:
            kept = cache if image.height * image.width <= LARGE else None
            skipped = 0
            for index in range(image.planes):
                stem = _stem(image, index)
                files = options.paths(stem, specs)
                outputs |= files if image.planes == 1 else {f"{stem}/{name}": file for name, file in files.items()}
                if not options.overwrite and all(has_whole(file) for file in files.values()):
                    skipped += 1
                    continue
                features = PlaneFeatures(source.backbone, image.plane(index), source.settings, kept)
                for step in _cluster_plane(features, specs, files, options):
                    yield ClusterProgress(path, (index + step[0]) / image.planes, step[1])
            if skipped == image.planes:
                return FileResult(path, "skipped", outputs, message="already there")
    except MDMStudioError as error:
        return FileResult(path, "failed", seconds=time.perf_counter() - begin, message=str(error))
    return FileResult(path, "done", outputs, time.perf_counter() - begin)


def _stem(image: ImageFile, index: int) -> str:
    """Name of the outputs of a plane; those of a stack are numbered."""
    return image_name(image.path) + (f"-{index:03d}" if image.planes > 1 else "")


def _cluster_plane(
    features: PlaneFeatures, specs: Sequence[BlockMap], files: dict[str, Path], options: ClusterOptions
) -> Iterator[tuple[float, str]]:
    """Cluster one plane; yields the share that is done and a note."""
    for folder in {file.parent for file in files.values()}:
        make_folder(folder, within=options.out)
    cells = yield from _fitted(features, specs, options)
    step = max(1, math.ceil(max(features.height, features.width) / _THUMBNAIL))
    thumbnails = {kind: {spec: _canvas(features, step) for spec in specs} for kind in ("panel", "pca") if kind in files}
    palette = class_palette(options.k)
    rgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in palette.values()], np.uint8)  # (k + 1, 3)
    with ExitStack() as stack:
        writers = {}
        for spec in specs:
            stem, size = files[spec.name].with_suffix(""), (features.height, features.width)
            opened = open_mask(stem, size, np.uint8, format="png", palette=palette, overwrite=True)
            writers[spec] = stack.enter_context(opened)
        for number, tile in enumerate(features.grid, start=1):
            rows, cols = features.grid.core(*tile)
            for spec, feature_map in zip(specs, features.maps(*tile), strict=True):
                labels = cells[spec].labels(Window([feature_map], rows, cols))
                writers[spec].write(rows.start, cols.start, labels)
                thinned = Window([feature_map], _aligned(rows, step), _aligned(cols, step), step)
                at = np.s_[thinned.rows.start // step :, thinned.cols.start // step :]
                shown = labels[thinned.rows.start - rows.start :: step, thinned.cols.start - cols.start :: step]
                if shown.size:
                    thumbnails["panel"][spec][at][: shown.shape[0], : shown.shape[1]] = rgb[shown]
                    if components := cells[spec].components:
                        colours = np.rint(255 * project(components, thinned)).astype(np.uint8)
                        thumbnails["pca"][spec][at][: shown.shape[0], : shown.shape[1]] = colours
            yield 0.5 + 0.5 * number / len(features.grid), f"tile {number} of {len(features.grid)}"
    for kind, pictures in thumbnails.items():
        what = f"{options.k} clusters" if kind == "panel" else "the first three principal components as red, green and blue"
        write_panel(files[kind], f"{features.plane.name}: {what}", _shown(features.plane), pictures)


@dataclass(frozen=True)
class _CellFit:
    """What was found in a cell: centroids, components if wanted, and the value 1..k that each cluster is written as."""

    clusters: Clusters
    components: Components | None
    values: NDArray[np.uint8]

    def labels(self, window: Window) -> NDArray[np.uint8]:
        return self.values[assign(self.clusters, window)]


def _fitted(
    features: PlaneFeatures, specs: Sequence[BlockMap], options: ClusterOptions
) -> Generator[tuple[float, str], None, dict[BlockMap, _CellFit]]:
    """Cluster the windows that stand for the plane; yields after each cell."""
    windows = _fit_windows(features, specs)
    found: list[tuple[Clusters, Components | None]] = []
    labels: list[NDArray[np.int64]] = []
    for number, spec in enumerate(specs, start=1):
        clusters, parts = cluster_maps(windows[spec], options.k, options.seed)
        found.append((clusters, fit_components(windows[spec]) if options.components else None))
        labels.append(np.concatenate([part.ravel() for part in parts]))
        yield 0.5 * number / len(specs), spec.name
    values = [(colours + 1).astype(np.uint8) for colours in matched_colours(labels, options.k)]
    return {spec: _CellFit(*pair, value) for spec, pair, value in zip(specs, found, values, strict=True)}


def _fit_windows(features: PlaneFeatures, specs: Sequence[BlockMap]) -> dict[BlockMap, list[Window]]:
    """Windows whose pixels decide on the centroids: the only tile, or the middles of some tiles."""
    grid = features.grid
    windows: dict[BlockMap, list[Window]] = {spec: [] for spec in specs}
    if len(grid) == 1:
        for spec, feature_map in zip(specs, features.maps(0, 0), strict=True):
            windows[spec].append(Window([feature_map], *grid.core(0, 0)))
        return windows
    tiles = list(grid)
    chosen = [tiles[i] for i in np.linspace(0, len(tiles) - 1, min(_FIT_TILES, len(tiles))).round().astype(int)]
    a_pixel = 4 * sum(spec.channels / spec.stride**2 for spec in specs)  # bytes of float32
    side = min(_FIT_SIDE, int(math.sqrt(_FIT_BYTES / len(chosen) / a_pixel)))
    for tile in chosen:
        rows, cols = (_middle(span, max(side, 1)) for span in grid.core(*tile))
        for spec, feature_map in zip(specs, features.maps(*tile), strict=True):
            windows[spec].append(Window([_cut(feature_map, rows, cols)], rows, cols))
    return windows


def _middle(span: slice, side: int) -> slice:
    start = span.start + max(span.stop - span.start - side, 0) // 2
    return slice(start, min(start + side, span.stop))


def _cut(feature_map: FeatureMap, rows: slice, cols: slice) -> FeatureMap:
    """A copy of the cells that a window reads: a view would keep the whole tile in memory."""
    down, across = (
        cells_read(span.start, span.stop, feature_map.stride, size)
        for span, size in zip((rows, cols), feature_map.full, strict=True)
    )
    values = crop_cells(feature_map, down, across).clone()
    return FeatureMap(values, feature_map.stride, (down[0], across[0]), feature_map.full)


def _aligned(span: slice, step: int) -> slice:
    """The part of a tile's span from its first pixel that the thumbnail shows."""
    return slice(-(-span.start // step) * step, span.stop)


def _canvas(features: PlaneFeatures, step: int) -> NDArray[np.uint8]:
    return np.zeros((-(-features.height // step), -(-features.width // step), 3), np.uint8)


def _shown(plane: Plane) -> NDArray[np.uint8]:
    """The plane as a small picture ``(h, w, 3)``, stretched as the eye needs it; channels that are not colours are averaged."""
    raw = plane.sample(_THUMBNAIL**2 * 16)
    image = (normalise(raw, intensity_window(raw, "percentile", joint=plane.rgb)) + 1) * 127.5
    step = max(1, max(image.shape[1:]) // _THUMBNAIL)
    colours = image if len(image) == 3 else np.repeat(image.mean(0, keepdims=True), 3, axis=0)
    return np.ascontiguousarray(colours[:, ::step, ::step].transpose(1, 2, 0)).astype(np.uint8)
