"""The feature explorer and the advisor of a live session: what each block sees at each timestep, and which are worth reading.

Both are jobs of the session: they run on its features' thread, step by step, while nothing in view waits, and are dropped when
another of their name is started.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.errors import LabelsError, MDMStudioError, UsageError
from mdm_studio.services.live_plan import PlaneKey, Tile, Window, tiles_in_view
from mdm_studio.services.session import Session

if TYPE_CHECKING:
    from mdm_studio.engine.advisor import Advice, AdviceStep
    from mdm_studio.engine.clusters import Clusters, Components
    from mdm_studio.engine.features import BlockMap, PlaneFeatures
    from mdm_studio.io.classifier_file import LabelClass
    from mdm_studio.nn.pixel_mlp import FeatureMap
    from mdm_studio.services.live_work import Bench

Mode = Literal["clusters", "components"]
Job = Literal["thumbnails", "layer", "class", "advisor"]
Points = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Rows, columns, class values and stroke numbers of painted pixels."""

THUMBNAIL = 2
"""Image pixels, along each side, that become one pixel of a thumbnail."""
TIMESTEPS = (50, 150, 250)
"""A first look shows these beside those that are read: the timesteps of Baranchuk et al. 2022."""
_FEW_BLOCKS = 8
"""Of a network with no more maps than this, such as a pyramid of an encoder, all are shown at first."""
MOST_TILES = 64
"""Tiles nearest to the centre of the view that one cell is continued over."""
_STROKE_PIXELS = 64  # of one stroke: its other pixels say nearly the same
_MOST_PIXELS = 10_000  # of all strokes: a cluster made a class is a thousand little strokes


@dataclass(frozen=True)
class Fitted:
    """How a picture was made, so that other tiles can be made alike: clusters (and their numbers 1..k), or components."""

    source: PlaneFeatures
    found: Clusters | Components
    numbers: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ExplorerCell:
    """What one block sees at one timestep in one tile.

    Attributes
    ----------
    block, timestep : int
    tile : Tile
    window : Window
        Image pixels that the picture covers: the tile.
    step : int
        Image pixels that became one pixel of the picture: `THUMBNAIL`, or 1 where a cell was continued over the view.
    picture : (h, w) uint8 or (h, w, 3) float32
        Clusters 1..k, numbered alike in all cells as far as they show the same things; or principal components as colours.
    area : Window
        What all tiles of this request cover together.
    done, total : int
        Pictures that are there, of all that were asked for.
    fitted : Fitted
        How it was made.
    timed : bool
        Whether the network has timesteps: without any there is nothing to say about them.
    """

    block: int
    timestep: int
    tile: Tile
    window: Window
    step: int
    picture: NDArray[Any]
    area: Window
    done: int
    total: int
    fitted: Fitted = field(repr=False, compare=False)
    timed: bool = True

    @property
    def place(self) -> str:
        """Block and timestep in words."""
        return place_words(self.block, self.timestep, timed=self.timed)

    @property
    def k(self) -> int:
        """Clusters there are; 0 for components."""
        return 0 if self.fitted.numbers is None else len(self.fitted.numbers)


def place_words(block: int, timestep: int, *, timed: bool = True) -> str:
    """A cell in words; of a network without timesteps the block alone.

    Examples
    --------
    >>> place_words(7, 50), place_words(3, 0, timed=False)
    ('block 7, t 50', 'block 3')
    """
    return f"block {block}, t {timestep}" if timed else f"block {block}"


def first_blocks(strides: Sequence[int]) -> list[int]:
    """Blocks that a first look shows, of a network whose blocks have these strides.

    Those of a decoder become finer: its later half sees the fine structure that masks are made of. Of an encoder's maps all are
    shown, unless there are many: then the later half, too, which knows most of a transformer's.
    """
    n_blocks = len(strides)
    if n_blocks and strides[0] <= strides[-1] and n_blocks <= _FEW_BLOCKS:
        return list(range(n_blocks))
    return list(range(n_blocks // 2, n_blocks))


class Explorer:
    """Explorer and advisor of a session.

    Attributes
    ----------
    explored : Signal
        An `ExplorerCell`, each as it is ready.
    advised : Signal
        An `AdviceStep` after each score, and the `Advice` at the end.
    progressed : Signal
        Which job, what it is computing in words, and the share that is done.
    failed : Signal
        Which job, and what went wrong in words; other jobs go on. `Session.jobs_changed` tells which run.
    """

    explored = Signal(ExplorerCell)
    advised = Signal(object)
    progressed = Signal(str, str, float)
    failed = Signal(str, str)

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sources: dict[PlaneKey, tuple[Bench, PlaneFeatures]] = {}

    def cells(self) -> tuple[list[int], list[int]]:
        """Blocks and timesteps that a first look shows; both empty until the backbone is loaded.

        Those of `first_blocks` and `TIMESTEPS`, and what is read; a network without timesteps has t = 0 alone.
        """
        settings, bench = self._session.settings, self._session.reading
        if bench is None:
            return [], []
        n_blocks, latest = bench.backbone.n_blocks, bench.backbone.recipe.t_max
        strides = [bench.backbone.block_shape(block)[1] for block in range(n_blocks)]
        blocks = {*first_blocks(strides), *(settings.blocks or ())}
        times = {t for t in (*TIMESTEPS, *(settings.timesteps or ())) if t <= latest}
        return sorted(blocks), sorted(times) or [0]

    @property
    def timed(self) -> bool:
        """Whether the network has timesteps; True until the backbone is loaded."""
        bench = self._session.reading
        return bench is None or bench.backbone.recipe.t_max > 0

    def limits(self) -> tuple[int, int]:
        """Number of blocks, and the latest timestep; (0, 0) until the backbone is loaded."""
        bench = self._session.reading
        return (bench.backbone.n_blocks, bench.backbone.recipe.t_max) if bench else (0, 0)

    def describe(self, block: int) -> str:
        """Channels and stride of a block in words; empty until the backbone is loaded."""
        bench = self._session.reading
        if bench is None or not 0 <= block < bench.backbone.n_blocks:
            return ""
        channels, stride = bench.backbone.block_shape(block)
        pixels = "every pixel" if stride == 1 else f"one value for {stride} x {stride} pixels"
        return f"{channels} channels at stride {stride}: {pixels}"

    def explore(
        self, cells: Sequence[tuple[int, int]], *, k: int = 5, mode: Mode = "clusters", image: str | None = None
    ) -> None:
        """Make thumbnails of some (block, timestep) of the tile at the middle of the view, of `image` if that is in view.

        Raises
        ------
        UsageError
            If nothing is in view yet, or a cell does not exist.
        """
        bench, tile = self._middle(image)
        _check(bench, cells)
        self._run("thumbnails", self._thumbnails(bench, tile, sorted(set(cells), key=lambda cell: cell[::-1]), k, mode))

    def spread(self, cell: ExplorerCell) -> None:
        """Continue a cell over all tiles in view, at full resolution; each tile comes by `explored`, the middle one first.

        Raises
        ------
        UsageError
            If its plane is not in view any more.
        """
        view = self._session.views.get(cell.tile.plane)
        places = tiles_in_view(view, cell.fitted.source.grid)[:MOST_TILES] if view else []
        if not places:
            raise UsageError("what this cell shows is not in view any more: refresh the explorer")
        self._run("layer", self._spread(cell, [Tile(cell.tile.plane, *place) for place in places]))

    def cluster_to_class(self, cell: ExplorerCell, cluster: int, value: int | None) -> None:
        """Give the pixels of a cluster, in the cell's tile, that have no label yet to a class; None adds a class for them.

        `Session.undo_class_change` takes it back.
        """
        before = self._session.classes
        chosen = self._session.add_class().value if value is None else value
        self._run("class", self._to_class(cell, cluster, chosen, before))

    def advise(self, blocks: Sequence[int] | None = None, timesteps: Sequence[int] | None = None) -> None:
        """Score blocks and timesteps by cross-validation on the strokes; the answer comes by `advised`.

        Raises
        ------
        UsageError
            If nothing is in view yet, or a cell does not exist.
        """
        known_blocks, known_times = self.cells()
        bench, _ = self._middle(None)
        cells = [(block, t) for t in timesteps or known_times for block in blocks or known_blocks]
        _check(bench, cells)
        self._run("advisor", self._advise(bench, cells))

    def apply(self, advice: Advice) -> None:
        """Read what the advisor recommends."""
        chosen: dict[str, Any] = {"filters": advice.with_filters, "blocks": advice.blocks}
        self._session.choose(**chosen | ({"timesteps": advice.timesteps} if advice.timesteps else {}))

    def stop(self) -> None:
        """Stop all of them."""
        self._session.stop_jobs()

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _run(self, job: Job, steps: Iterator[None]) -> None:
        def told() -> Iterator[None]:
            try:
                yield from steps
            except MDMStudioError as error:  # it concerns this job alone: painting and predicting go on
                self.failed.emit(job, str(error))

        self._session.run_job(job, told())

    def _middle(self, image: str | None) -> tuple[Bench, Tile]:
        bench, views = self._session.reading, self._session.views
        if bench is not None:
            for plane, view in sorted(views.items(), key=lambda each: each[0].image != image):
                source = bench.planes.get(plane)
                places = tiles_in_view(view, source.grid) if source else []
                if places:
                    return bench, Tile(plane, *places[0])
        raise UsageError("there is nothing to explore yet: choose an image and wait until its backbone is loaded")

    def _source(self, bench: Bench, plane: PlaneKey, cells: Sequence[tuple[int, int]]) -> PlaneFeatures:
        """Features of these cells on the tiles of the bench, so that what is computed here is found again when it is read.

        It is kept, and grows: looking through an image for its norm statistics takes longer than a tile.
        """
        from mdm_studio.engine.features import PlaneFeatures

        blocks, times = {block for block, _ in cells}, {t for _, t in cells}
        kept_bench, kept = self._sources.get(plane, (None, None))
        if kept is not None and kept_bench is not None and _looks_alike(kept_bench, bench):
            if blocks <= set(kept.settings.blocks) and times <= set(kept.settings.timesteps):
                return kept
            blocks |= set(kept.settings.blocks)
            times |= set(kept.settings.timesteps)
        settings = replace(bench.settings, blocks=tuple(sorted(blocks)), timesteps=tuple(sorted(times)), filters=True)
        made = PlaneFeatures(bench.backbone, self._session.plane(plane), settings, bench.cache)
        self._sources[plane] = (bench, made)
        return made

    def _thumbnails(self, bench: Bench, tile: Tile, cells: list[tuple[int, int]], k: int, mode: Mode) -> Iterator[None]:
        source = self._source(bench, tile.plane, cells)
        window, timed = _window(source, tile), bench.backbone.recipe.t_max > 0
        reference: NDArray[Any] | None = None
        maps: dict[BlockMap, FeatureMap] = {}
        for done, (block, timestep) in enumerate(cells):
            self.progressed.emit("thumbnails", place_words(block, timestep, timed=timed), done / len(cells))
            yield
            mine = _specs(source, [block], timestep)
            if not maps.keys() >= set(mine):  # one pass of the network gives all blocks of a timestep
                specs = _specs(source, [b for b, t in cells if t == timestep], timestep)
                maps = dict(zip(specs, source.maps(tile.row, tile.col, specs), strict=True))
                yield
            fitted, picture = _fit(source, [maps[spec] for spec in mine], window, k, mode, reference)
            reference = picture if reference is None else reference
            cell = (block, timestep, tile, window, THUMBNAIL, picture, window, done + 1, len(cells), fitted, timed)
            self.explored.emit(ExplorerCell(*cell))
            yield

    def _spread(self, cell: ExplorerCell, tiles: list[Tile]) -> Iterator[None]:
        fitted = cell.fitted
        windows = [_window(fitted.source, tile) for tile in tiles]
        tops, bottoms, lefts, rights = zip(*windows, strict=True)
        area = Window(min(tops), max(bottoms), min(lefts), max(rights))
        for done, (tile, window) in enumerate(zip(tiles, windows, strict=True)):
            words = f"{cell.place}: tile {done + 1} of {len(tiles)}"
            self.progressed.emit("layer", words, done / len(tiles))
            yield
            picture = _picture(fitted, cell.block, cell.timestep, tile)
            here = replace(cell, tile=tile, window=window, step=1, picture=picture, area=area, done=done + 1, total=len(tiles))
            self.explored.emit(here)
            yield

    def _to_class(self, cell: ExplorerCell, cluster: int, value: int, before: tuple[LabelClass, ...]) -> Iterator[None]:
        self.progressed.emit("class", f"labelling cluster {cluster}", 0.0)
        yield
        image = self._session.images.get(cell.tile.plane.image)
        if image is None:
            raise UsageError("the image of this cell is closed: choose it again, and refresh the explorer")
        painted = _picture(cell.fitted, cell.block, cell.timestep, cell.tile) == cluster
        if not painted.any():
            raise UsageError(f"cluster {cluster} has no pixel in this tile; choose another one")
        self._session.paint_window(image.key, image.index(cell.tile.plane.plane), cell.window, painted, value, before)

    def _advise(self, bench: Bench, cells: list[tuple[int, int]]) -> Iterator[None]:
        from mdm_studio.engine.advisor import advise

        points = stroke_points(self._session, bench)
        if not points:
            raise LabelsError("nothing is painted yet; paint two strokes at least of each of two classes for the advisor")
        features = yield from self._features_of(bench, cells, points)
        _, _, classes, strokes = (np.concatenate(each) for each in zip(*points.values(), strict=True))
        steps: Generator[AdviceStep, None, Advice] = advise(
            {cell: features[cell] for cell in cells}, classes, strokes, filters=features[None]
        )
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                self.advised.emit(finished.value)
                return
            self.progressed.emit("advisor", f"{step.what}: {step.score.mean:.3f}", (1 + step.done) / 2)
            self.advised.emit(step)
            yield

    def _features_of(
        self, bench: Bench, cells: list[tuple[int, int]], points: dict[Tile, Points]
    ) -> Generator[None, None, dict[tuple[int, int] | None, Any]]:
        """Features of painted pixels in every cell, and (under None) of the filters."""
        import torch

        from mdm_studio.engine.features import FilterMap
        from mdm_studio.engine.heads import sample_features

        found: dict[tuple[int, int] | None, list[Any]] = {cell: [] for cell in [None, *cells]}
        times, timed = sorted({t for _, t in cells}), bench.backbone.recipe.t_max > 0
        for number, (tile, (rows, cols, _, _)) in enumerate(points.items()):
            source = self._source(bench, tile.plane, cells)
            for order, t in enumerate(times):
                share = (number + order / len(times)) / len(points) / 2
                words = f"features of the strokes, tile {number + 1} of {len(points)}" + (f", t {t}" if timed else "")
                self.progressed.emit("advisor", words, share)
                yield
                specs = _specs(source, [block for block, _ in cells], t)  # one pass of the network gives all blocks
                maps = dict(zip(specs, source.maps(tile.row, tile.col, specs), strict=True))
                for block in dict.fromkeys(block for block, at in cells if at == t):
                    mine = [maps[spec] for spec in _specs(source, [block], t)]
                    found[block, t].append(sample_features(mine, rows, cols))
            filters = [spec for spec in source.specs if isinstance(spec, FilterMap)]
            found[None].append(sample_features(source.maps(tile.row, tile.col, filters), rows, cols))
            yield
        return {cell: torch.cat(parts) for cell, parts in found.items()}


def _check(bench: Bench, cells: Sequence[tuple[int, int]]) -> None:
    n_blocks, latest = bench.backbone.n_blocks, bench.backbone.recipe.t_max
    wrong = [cell for cell in cells if not (0 <= cell[0] < n_blocks and 0 <= cell[1] <= latest)]
    if wrong or not cells:
        met = ", ".join(f"block {block} at t {t}" for block, t in wrong) or "nothing"
        times = f" and timesteps 0 to {latest}" if latest else ", at t 0 alone"
        raise UsageError(f"{met} was asked for; there are blocks 0 to {n_blocks - 1}{times}")


def _looks_alike(one: Bench, other: Bench) -> bool:
    """Whether two benches see an image in the same way, whatever of it they read."""
    first, second = (replace(each.settings, blocks=(), timesteps=(), filters=True) for each in (one, other))
    return one.backbone is other.backbone and first == second


def _specs(source: PlaneFeatures, blocks: Sequence[int], timestep: int) -> list[BlockMap]:
    from mdm_studio.engine.features import BlockMap

    kinds = [spec for spec in source.specs if isinstance(spec, BlockMap)]
    return [spec for spec in kinds if spec.block in blocks and spec.timestep == timestep]


def _window(source: PlaneFeatures, tile: Tile) -> Window:
    rows, cols = source.grid.core(tile.row, tile.col)
    return Window(rows.start, rows.stop, cols.start, cols.stop)


def _fit(
    source: PlaneFeatures, maps: list[FeatureMap], window: Window, k: int, mode: Mode, reference: NDArray[Any] | None
) -> tuple[Fitted, NDArray[Any]]:
    """Clusters (numbered as in the picture `reference`) or components (of its signs) of a tile, and the thumbnail of them."""
    from mdm_studio.engine import clusters

    seen = clusters.Window(maps, window.rows, window.cols, THUMBNAIL)
    if mode == "components":
        components = clusters.fit_components([seen])
        if reference is not None:
            components = _turned(components, clusters.project(components, seen), reference)
        return Fitted(source, components), clusters.project(components, seen)
    found, (labels,) = clusters.cluster_maps([seen], k)
    mapping = np.arange(k) if reference is None else clusters.match_labels(reference - 1, labels, k)
    numbers = (mapping + 1).astype(np.uint8)
    return Fitted(source, found, numbers), numbers[labels]


def _turned(components: Components, picture: NDArray[np.float32], reference: NDArray[np.float32]) -> Components:
    """Components whose signs, which are arbitrary, agree with those of another picture of the same pixels."""
    centred = [(each - each.mean((0, 1))).reshape(-1, 3) for each in (picture, reference)]
    signs = np.where((centred[0] * centred[1]).sum(0) < 0, -1.0, 1.0)
    low, high = np.sort([components.low * signs, components.high * signs], axis=0)
    return replace(components, weights=components.weights * signs, offset=components.offset * signs, low=low, high=high)


def _picture(fitted: Fitted, block: int, timestep: int, tile: Tile) -> NDArray[Any]:
    """Another tile, or the same at full resolution."""
    from mdm_studio.engine import clusters

    source, window = fitted.source, _window(fitted.source, tile)
    maps = source.maps(tile.row, tile.col, _specs(source, [block], timestep))
    seen = clusters.Window(maps, window.rows, window.cols)
    if isinstance(fitted.found, clusters.Components):
        return clusters.project(fitted.found, seen)
    assert fitted.numbers is not None
    return fitted.numbers[clusters.assign(fitted.found, seen)]


# ---- strokes -----------------------------------------------------------------------------------------------------------


def stroke_points(session: Session, bench: Bench) -> dict[Tile, Points]:
    """Painted pixels that features are judged by, tile by tile; of each stroke a part of them is taken."""
    by_plane: dict[PlaneKey, list[Any]] = {}
    for block, painted in session.strokes:
        if block.plane in bench.planes:
            by_plane.setdefault(block.plane, []).append(painted)
    planes: dict[PlaneKey, Points] = {}
    count = 0
    for plane, parts in sorted(by_plane.items()):
        rows, cols, values = (np.concatenate([getattr(p, name) for p in parts]) for name in ("rows", "cols", "values"))
        rows, cols, values = (each.astype(np.int64) for each in (rows, cols, values))
        numbers = number_strokes(rows, cols, values) + count
        planes[plane] = (rows, cols, values, numbers)
        count = int(numbers.max()) + 1
    kept = _some(np.concatenate([numbers for *_, numbers in planes.values()])) if planes else np.zeros(0, bool)
    found: dict[Tile, Points] = {}
    start = 0
    for plane, points in planes.items():
        chosen = kept[start : start + len(points[0])]
        start += len(points[0])
        tile = bench.planes[plane].grid.tile
        places = np.stack([points[0] // tile[0], points[1] // tile[1]], 1)
        for row, col in np.unique(places[chosen], axis=0).tolist():
            here = chosen & (places == (row, col)).all(1)
            rows, cols, values, numbers = (each[here] for each in points)
            found[Tile(plane, row, col)] = (rows, cols, values, numbers)
    return found


def number_strokes(rows: NDArray[np.int64], cols: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the strokes 0, 1, ... of painted pixels: connected ones of one class, neighbours by corner included.

    As `mdm_studio.engine.advisor.find_strokes`, for pixels strewn over a plane that is too large to be held as labels.
    """
    width = int(cols.max()) + 3  # a column left over on each side: no row touches the next
    places = rows * width + cols + 1
    order = np.argsort(places)
    placed, of_class = places[order], values[order]
    edges = []
    for offset in (1, width - 1, width, width + 1):
        at = np.minimum(np.searchsorted(placed, placed + offset), len(placed) - 1)
        joined = np.flatnonzero((placed[at] == placed + offset) & (of_class[at] == of_class))
        edges.append(np.stack([joined, at[joined]]))
    one, other = np.concatenate(edges, axis=1)
    from scipy.sparse import coo_array  # here, on the session's thread: a window that opens does not wait for SciPy
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(placed), len(placed)))
    numbers = np.empty(len(placed), np.int64)
    numbers[order] = connected_components(graph, directed=False)[1]
    return numbers


def _some(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pixels are taken: some of each stroke, and not too many in all."""
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(numbers)), numbers))
    _, first, sizes = np.unique(numbers[order], return_index=True, return_counts=True)
    rank = np.empty(len(numbers), np.int64)
    rank[order] = np.arange(len(numbers)) - np.repeat(first, sizes)
    most = _STROKE_PIXELS
    while most > 1 and np.minimum(sizes, most).sum() > _MOST_PIXELS:
        most //= 2
    kept: NDArray[np.bool_] = rank < most
    if kept.sum() > _MOST_PIXELS:
        kept[rng.permutation(np.flatnonzero(kept))[_MOST_PIXELS:]] = False
    return kept
