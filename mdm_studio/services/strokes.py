"""The painted pixels of all images, block by block, so that a stroke costs what it touched and not what was painted before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.tiles import TileGrid
from mdm_studio.services.live_plan import PlaneKey, Tile, Window

BLOCK = 64
"""Side of a block in pixels; the tiles of a session hold whole blocks."""


class Block(NamedTuple):
    """A square of a plane."""

    plane: PlaneKey
    row: int
    col: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns; at the border of an image it may reach beyond."""
        return slice(self.row * BLOCK, (self.row + 1) * BLOCK), slice(self.col * BLOCK, (self.col + 1) * BLOCK)

    def tile(self, grid: TileGrid) -> Tile:
        """The tile that holds it."""
        return Tile(self.plane, *grid.containing(self.row * BLOCK, self.col * BLOCK))


@dataclass(frozen=True)
class Painted:
    """Painted pixels of a block: rows, columns (of the plane) and class values, each ``(n,)``; `version` grows with changes."""

    version: int
    counts: Mapping[int, int]
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    values: NDArray[np.unsignedinteger[Any]]


class StrokeIndex:
    """Painted pixels by block; `generation` grows with every change."""

    def __init__(self) -> None:
        self.generation = 0
        self._blocks: dict[Block, Painted] = {}
        self._of_images: Counter[str] = Counter()
        self._known: set[str] = set()

    def update(self, plane: PlaneKey, window: Window, labels: NDArray[np.unsignedinteger[Any]]) -> bool:
        """Take over the labels of a window, whose corner is a block's; whether anything was different.

        Parameters
        ----------
        labels : (h, w)
            Class values, 0 = unlabelled.
        """
        rows, cols = np.nonzero(labels)
        values = labels[rows, cols]
        across = -(-(window.right - window.left) // BLOCK)
        place = rows // BLOCK * across + cols // BLOCK  # number of its block within the window
        order = np.argsort(place, kind="stable")
        numbers, starts = np.unique(place[order], return_index=True)
        found = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}
        changed = False
        for number in range(across * -(-(window.bottom - window.top) // BLOCK)):
            block = Block(plane, window.top // BLOCK + number // across, window.left // BLOCK + number % across)
            chosen = found.get(number)
            if chosen is None:
                changed |= self._drop(block)
                continue
            changed |= self._put(block, rows[chosen] + window.top, cols[chosen] + window.left, values[chosen])
        self.generation += changed
        return changed

    def _put(self, block: Block, rows: NDArray[np.intp], cols: NDArray[np.intp], values: NDArray[Any]) -> bool:
        old = self._blocks.get(block)
        if old and all(np.array_equal(a, b) for a, b in ((old.rows, rows), (old.cols, cols), (old.values, values))):
            return False
        classes, numbers = np.unique(values, return_counts=True)
        counts = dict(zip(classes.tolist(), numbers.tolist(), strict=True))
        self._blocks[block] = Painted(self.generation + 1, counts, rows, cols, values)
        self._of_images[block.plane.image] += len(rows) - (len(old.rows) if old else 0)
        return True

    def _drop(self, block: Block) -> bool:
        old = self._blocks.pop(block, None)
        if old is not None:
            self._of_images[block.plane.image] -= len(old.rows)
        return old is not None

    def forget(self, image: str) -> None:
        """Drop an image."""
        gone = [block for block in self._blocks if block.plane.image == image]
        for block in gone:
            self._drop(block)
        self._known.discard(image)
        self.generation += bool(gone)

    def painted_in(self, image: str) -> int:
        """Painted pixels of an image."""
        return self._of_images[image]

    def mark_known(self, image: str) -> None:
        """All of an image was looked through."""
        self._known.add(image)

    def knows(self, image: str) -> bool:
        """Whether all of an image was looked through, so that what is not here is not painted."""
        return image in self._known

    def __iter__(self) -> Iterator[tuple[Block, Painted]]:
        return iter(list(self._blocks.items()))

    def counts(self) -> dict[int, int]:
        """Painted pixels of each class value."""
        total: Counter[int] = Counter()
        for _, painted in self:
            total.update(painted.counts)
        return dict(total)

    def by_tile(self, grids: Mapping[PlaneKey, TileGrid]) -> dict[Tile, frozenset[int]]:
        """Classes painted in each tile of the planes whose grid is known."""
        found: dict[Tile, set[int]] = {}
        for block, painted in self:
            if block.plane in grids:
                found.setdefault(block.tile(grids[block.plane]), set()).update(painted.counts)
        return {tile: frozenset(classes) for tile, classes in found.items()}

    def planes(self) -> set[PlaneKey]:
        """Planes with strokes."""
        return {block.plane for block, _ in self}


def block_window(rows: slice, cols: slice, height: int, width: int) -> Window:
    """The whole blocks around a region, inside the image."""
    top, left = (max(int(span.start), 0) // BLOCK * BLOCK for span in (rows, cols))
    bottom, right = (-(-int(span.stop) // BLOCK) * BLOCK for span in (rows, cols))
    return Window(top, min(bottom, height), left, min(right, width))
