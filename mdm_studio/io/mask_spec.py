"""What a mask file is to hold, and what takes its tiles: shared by the formats of `mdm_studio.io.masks`."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 512  # rows and columns of a TIFF tile or a Zarr chunk: the tiles that predictions come in
OME_AXES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}  # in the order OME-Zarr asks for


@dataclass(frozen=True)
class MaskSpec:
    """What a mask file is to hold.

    `axes` names those of `shape`: stack axes, C if there are channels, Y, X. `palette` and `names` are colours and names
    of the values, `name` is that of the image.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    palette: Mapping[int, str] | None
    pixel_size: tuple[float, float] | None
    unit: str | None
    names: Mapping[int, str] | None = None
    name: str = "mask"

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stack_axes(self) -> str:
        """Axes before C, Y, X."""
        return self.axes[:-2].removesuffix("C")


class MaskWriter(ABC):
    """Takes the tiles of one mask file; made by `open_mask`."""

    def __init__(self, spec: MaskSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()

    def write(self, y0: int, x0: int, block: NDArray[Any], *, index: tuple[int, ...] = ()) -> None:
        """Put a tile in its place.

        Parameters
        ----------
        y0, x0 : int
            Row and column of the tile's first pixel.
        block : (h, w), or (C, h, w) where the file has channels
            Cast to the file's type if no value can be lost by its kind (uint8 into uint16, not float into uint8).
        index : tuple of int
            The place in the stack, a number for each stack axis; empty for a single plane.

        Raises
        ------
        ValueError
            If the tile does not fit into the file.
        """
        spec = self._spec
        inner = spec.shape[len(spec.stack_axes) :]
        outer = spec.shape[: len(spec.stack_axes)]
        height, width = block.shape[-2:]
        fits = y0 >= 0 and x0 >= 0 and y0 + height <= inner[-2] and x0 + width <= inner[-1]
        placed = len(index) == len(outer) and all(0 <= i < n for i, n in zip(index, outer, strict=True))
        if not (fits and placed and block.ndim == len(inner) and block.shape[:-2] == inner[:-2]):
            raise ValueError(
                f"a block of shape {block.shape} at row {y0}, column {x0} and stack position {index} does not fit into a file "
                f"of shape {spec.shape} with axes {spec.axes}"
            )
        if not np.can_cast(block.dtype, spec.dtype, "same_kind"):
            raise ValueError(f"a block of type {block.dtype} cannot be stored in a file of type {spec.dtype}")
        if block.size:
            with self._lock:
                self._store(index, y0, x0, np.ascontiguousarray(block, spec.dtype))

    @abstractmethod
    def _store(self, index: tuple[int, ...], y0: int, x0: int, block: NDArray[Any]) -> None:
        """Store a block that fits, in the file's type."""


def ome_axes(axes: str) -> str:
    """`axes` with letters that OME does not know (positions, sequences, ...) renamed to the free ones of Z and T."""
    for letter in axes:
        if letter not in OME_AXES:
            axes = axes.replace(letter, next(free for free in "ZT" if free not in axes))
    return axes


def rgb(colour: str) -> tuple[int, int, int]:
    """The parts of "#rrggbb", 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
