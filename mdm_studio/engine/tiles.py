"""How an image is cut into tiles: cores that meet without overlap, each seen with a halo around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_WHOLE = 1.5  # an image of up to (1.5 tiles)^2 pixels is one tile: cheaper than its halos, and exact


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one plane.

    Attributes
    ----------
    height, width : int
        Of the plane, in pixels.
    tile : tuple of int
        Height and width of a core in pixels, multiples of every stride.
    halo : int
        Pixels seen around a core, a multiple of the network's total stride; clipped at the image's border.
    """

    height: int
    width: int
    tile: tuple[int, int]
    halo: int

    @classmethod
    def of(cls, height: int, width: int, *, tile: int, halo: int, align: int) -> TileGrid:
        """Grid for a plane; `tile` and `halo` are rounded up to multiples of `align`, `halo` to one at least."""
        if height * width <= (_WHOLE * tile) ** 2 and max(height, width) <= 2 * tile:
            return cls(height, width, (_up(height, align), _up(width, align)), _up(max(halo, 1), align))
        return cls(height, width, (_up(tile, align), _up(tile, align)), _up(max(halo, 1), align))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // self.tile[0]), -(-self.width // self.tile[1])

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """``(row, col)`` of every tile, row by row."""
        return ((row, col) for row in range(self.shape[0]) for col in range(self.shape[1]))

    def core(self, row: int, col: int) -> tuple[slice, slice]:
        """Image rows and columns that belong to a tile."""
        return _span(row, self.tile[0], self.height), _span(col, self.tile[1], self.width)

    def containing(self, y: int, x: int) -> tuple[int, int]:
        """Tile whose core holds the pixel ``(y, x)``."""
        return y // self.tile[0], x // self.tile[1]

    def cells(self, row: int, col: int, stride: int, margin: int) -> tuple[slice, slice]:
        """Cells of a map of `stride` that cover a core, with `margin` cells more on each side where the image has them."""
        rows, cols = self.core(row, col)
        return _cells(rows, stride, margin, self.height), _cells(cols, stride, margin, self.width)


def map_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Height and width of a feature map of `stride`, in cells."""
    return -(-height // stride), -(-width // stride)


def _up(n: int, align: int) -> int:
    return -(-n // align) * align


def _span(index: int, tile: int, size: int) -> slice:
    return slice(index * tile, min((index + 1) * tile, size))


def _cells(span: slice, stride: int, margin: int, size: int) -> slice:
    return slice(max(span.start // stride - margin, 0), min(-(-span.stop // stride) + margin, -(-size // stride)))
