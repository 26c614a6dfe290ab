"""The feature explorer and the advisor of a live session: what each block sees at each timestep, and which are worth reading.

Both are jobs of the session: they run on its features' thread, step by step, while nothing in view waits, and are dropped when
another is started.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.errors import LabelsError, UsageError
from mdm_studio.services.live_plan import PlaneKey, Tile, Window, tiles_in_view
from mdm_studio.services.session import Session

if TYPE_CHECKING:
    from mdm_studio.engine.advisor import Advice, AdviceStep
    from mdm_studio.engine.features import BlockMap, PlaneFeatures
    from mdm_studio.services.live_work import Bench

Mode = Literal["clusters", "components"]
THUMBNAIL = 2
"""Image pixels, along each side, that become one pixel of a thumbnail."""
_STROKE_PIXELS = 64  # of one stroke in one block of 128 pixels: its neighbours say the same


@dataclass(frozen=True)
class ExplorerCell:
    """What one block sees at one timestep.

    Attributes
    ----------
    block, timestep : int
    plane, window : PlaneKey, Window
        Where: a tile of what is in view.
    step : int
        Image pixels that became one pixel of the picture.
    picture : (h, w) uint8 or (h, w, 3) float32
        Clusters 1..k, numbered alike in all cells as far as they show the same things; or principal components as colours.
    done, total : int
        Cells that are there, of all that were asked for.
    """

    block: int
    timestep: int
    plane: PlaneKey
    window: Window
    step: int
    picture: NDArray[Any]
    done: int
    total: int


class Explorer:
    """Explorer and advisor of a session.

    Attributes
    ----------
    explored : Signal
        An `ExplorerCell`, each as it is ready.
    advised : Signal
        An `AdviceStep` after each score, and the `Advice` at the end.
    progressed : Signal
        What is being computed, in words.
    """

    explored = Signal(ExplorerCell)
    advised = Signal(object)
    progressed = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session

    def cells(self) -> tuple[list[int], list[int]]:
        """Blocks and timesteps that a first look shows: the shallower half of the blocks, and the timesteps that are read."""
        settings = self._session.settings
        blocks = list(range((settings.n_blocks or 0) // 2, settings.n_blocks or 0))
        return blocks, list(settings.timesteps or (50,))

    def explore(
        self,
        cells: Sequence[tuple[int, int]],
        *,
        k: int = 5,
        mode: Mode = "clusters",
        step: int = THUMBNAIL,
        whole: bool = False,
    ) -> None:
        """Show some (block, timestep) of the tile at the middle of the view; `whole`: of all tiles in view, at full resolution.

        Raises
        ------
        UsageError
            If nothing is in view yet, or a cell does not exist.
        """
        bench, plane, tiles = self._in_view()
        wrong = [cell for cell in cells if not (0 <= cell[0] < bench.backbone.n_blocks)]
        if wrong or not cells:
            raise UsageError(f"blocks {wrong or 'none'}: there are blocks 0 to {bench.backbone.n_blocks - 1}")
        chosen = tiles if whole else tiles[:1]
        self._session.run_job("explorer", self._explore(bench, plane, chosen, list(cells), k, mode, 1 if whole else step))

    def cluster_to_class(self, cell: ExplorerCell, cluster: int, value: int) -> None:
        """Give the pixels of a cluster that have no label yet to a class; `Session.undo_class_change` takes it back."""
        image = self._session.images[cell.plane.image]
        height, width = cell.window.bottom - cell.window.top, cell.window.right - cell.window.left
        chosen = cell.picture == cluster
        painted = np.repeat(np.repeat(chosen, cell.step, axis=0), cell.step, axis=1)[:height, :width]
        self._session.paint_window(cell.plane.image, image.index(cell.plane.plane), cell.window, painted, value)

    def advise(self, blocks: Sequence[int] | None = None, timesteps: Sequence[int] | None = None) -> None:
        """Score blocks and timesteps by cross-validation on the strokes; the answer comes by `advised`."""
        known_blocks, known_times = self.cells()
        bench, _, _ = self._in_view()
        cells = [(block, t) for t in timesteps or known_times for block in blocks or known_blocks]
        self._session.run_job("advisor", self._advise(bench, cells))

    def apply(self, advice: Advice) -> None:
        """Read what the advisor recommends."""
        chosen: dict[str, Any] = {"filters": advice.with_filters, "blocks": advice.blocks}
        self._session.choose(**chosen | ({"timesteps": advice.timesteps} if advice.timesteps else {}))

    def stop(self) -> None:
        """Stop both."""
        self._session.stop_jobs()

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _in_view(self) -> tuple[Bench, PlaneKey, list[Tile]]:
        bench, views = self._session.bench, self._session.views
        if bench is not None:
            for plane, view in views.items():
                source = bench.planes.get(plane)
                places = tiles_in_view(view, source.grid, 0) if source else []
                if places:
                    return bench, plane, [Tile(plane, *place) for place in places]
        raise UsageError("there is nothing to explore yet: choose an image and wait until its backbone is loaded")

    def _source(self, bench: Bench, plane: PlaneKey, cells: Sequence[tuple[int, int]]) -> PlaneFeatures:
        """Features of these cells on the tiles of the bench, so that what is computed here is found again when it is read."""
        from mdm_studio.engine.features import PlaneFeatures

        blocks, times = {block for block, _ in cells}, {t for _, t in cells}
        settings = replace(bench.settings, blocks=tuple(sorted(blocks)), timesteps=tuple(sorted(times)), filters=True)
        return PlaneFeatures(bench.backbone, self._session.plane(plane), settings, bench.cache)

    def _explore(
        self, bench: Bench, plane: PlaneKey, tiles: list[Tile], cells: list[tuple[int, int]], k: int, mode: Mode, step: int
    ) -> Iterator[None]:
        from mdm_studio.engine.clusters import Window as Seen
        from mdm_studio.engine.clusters import cluster_maps, match_labels, principal_components

        source = self._source(bench, plane, cells)
        reference: list[NDArray[np.int64]] | None = None
        for done, (block, timestep) in enumerate(sorted(cells, key=lambda cell: cell[1]), start=1):
            self.progressed.emit(f"block {block} at timestep {timestep}: {done} of {len(cells)}")
            seen = []
            for tile in tiles:
                maps = source.maps(tile.row, tile.col, _specs(source, [block], timestep))
                rows, cols = source.grid.core(tile.row, tile.col)
                seen.append(Seen(maps, rows, cols, step))
                yield
            if mode == "components":
                pictures: Sequence[NDArray[Any]] = principal_components(seen)
            else:
                labels = cluster_maps(seen, k)[1]
                if reference is None:
                    reference = labels
                mapping = match_labels(
                    np.concatenate([r.ravel() for r in reference]), np.concatenate([a.ravel() for a in labels]), k
                )
                pictures = [(mapping[each] + 1).astype(np.uint8) for each in labels]
            for window, picture in zip(seen, pictures, strict=True):
                where = Window(window.rows.start, window.rows.stop, window.cols.start, window.cols.stop)
                self.explored.emit(ExplorerCell(block, timestep, plane, where, step, picture, done, len(cells)))
            yield
        self.progressed.emit("")

    def _advise(self, bench: Bench, cells: list[tuple[int, int]]) -> Iterator[None]:
        from mdm_studio.engine.advisor import advise

        features, classes, strokes = yield from self._features_of_strokes(bench, cells)
        steps: Generator[AdviceStep, None, Advice] = advise(
            {cell: features[cell] for cell in cells}, classes, strokes, filters=features[None]
        )
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                self.advised.emit(finished.value)
                self.progressed.emit("")
                return
            self.progressed.emit(f"{step.what}: {step.score.mean:.1%}")
            self.advised.emit(step)
            yield

    def _features_of_strokes(
        self, bench: Bench, cells: list[tuple[int, int]]
    ) -> Generator[None, None, tuple[dict[tuple[int, int] | None, Any], NDArray[np.int64], NDArray[np.int64]]]:
        """Features of painted pixels in every cell, and (under None) of the filters; their classes; their strokes."""
        import torch

        from mdm_studio.engine.features import FilterMap
        from mdm_studio.engine.heads import sample_features

        rows_of = _stroke_pixels(self._session, bench)
        if not rows_of:
            raise LabelsError("nothing is painted yet; paint at least two strokes of each of two classes for the advisor")
        found: dict[tuple[int, int] | None, list[Any]] = {cell: [] for cell in [None, *cells]}
        for number, (tile, (rows, cols, _, _)) in enumerate(rows_of.items(), start=1):
            source = self._source(bench, tile.plane, cells)
            for cell in found:
                filters = [spec for spec in source.specs if isinstance(spec, FilterMap)]
                specs = filters if cell is None else _specs(source, [cell[0]], cell[1])
                self.progressed.emit(f"features of the strokes: tile {number} of {len(rows_of)}")
                found[cell].append(sample_features(source.maps(tile.row, tile.col, specs), rows, cols))
                yield
        classes = np.concatenate([values for _, _, values, _ in rows_of.values()]).astype(np.int64)
        strokes = np.concatenate([numbers for *_, numbers in rows_of.values()])
        return {cell: torch.cat(parts) for cell, parts in found.items()}, classes, strokes


def _specs(source: PlaneFeatures, blocks: Sequence[int], timestep: int) -> list[Any]:
    from mdm_studio.engine.features import BlockMap

    kinds: list[BlockMap] = [spec for spec in source.specs if isinstance(spec, BlockMap)]
    return [spec for spec in kinds if spec.block in blocks and spec.timestep == timestep]


def _stroke_pixels(
    session: Session, bench: Bench
) -> dict[Tile, tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
    """Rows, columns, class values and stroke numbers of painted pixels, tile by tile.

    A stroke is a connected part of one class within a plane; of each, a part of the pixels is taken.
    """
    from mdm_studio.engine.advisor import find_strokes

    rng = np.random.default_rng(0)
    by_plane: dict[PlaneKey, list[Any]] = {}
    for block, painted in session.strokes:
        if block.plane in bench.planes:
            by_plane.setdefault(block.plane, []).append(painted)
    found: dict[Tile, tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int64]]] = {}
    count = 0
    for plane, parts in sorted(by_plane.items()):
        rows, cols, values = (np.concatenate([getattr(p, name) for p in parts]) for name in ("rows", "cols", "values"))
        label_map = np.zeros((np.ptp(rows) + 1, np.ptp(cols) + 1), np.uint8)
        label_map[rows - rows.min(), cols - cols.min()] = values
        numbered, n = find_strokes(label_map, 0)
        numbers = numbered[rows - rows.min(), cols - cols.min()] + count
        count += n
        kept = np.concatenate(
            [rng.permutation(np.flatnonzero(numbers == each))[:_STROKE_PIXELS] for each in np.unique(numbers)]
        )
        grid = bench.planes[plane].grid
        places = np.stack([rows[kept] // grid.tile[0], cols[kept] // grid.tile[1]], 1)
        for row, col in np.unique(places, axis=0).tolist():
            here = kept[(places == (row, col)).all(1)]
            found[Tile(plane, row, col)] = (rows[here], cols[here], values[here], numbers[here])
    return found
