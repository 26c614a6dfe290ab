"""What a file of any format gives once it is open: pixels by region, and the facts about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels

# Formats without tiles have to be decoded as a whole: 2**30 pixels (32768 x 32768) are 1 GiB in grey and 3 GiB in colour
MAX_UNTILED_PIXELS = 1 << 30

TRANSPARENCY = "the transparency (alpha channel)"
"""What is said of a file whose transparency is not read."""


class AdviceError(ValueError):
    """A file that cannot be read, in words that say what to do."""


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Source:
    """What a file holds, and the function that reads a region of it.

    Attributes
    ----------
    stack_axes, stack_shape : str, tuple of int
        Letters and lengths of the axes that are neither channels nor rows nor columns; empty for a single plane.
    shape : (int, int, int)
        ``(C, H, W)`` of one plane.
    region : callable
        ``region(plane, rows, cols)`` gives the pixels ``(C, h, w)``; the slices have a start, a stop and a step >= 1.
    pixel_size, unit : (float, float) or None, str or None
        Height and width of a pixel, in units spelled as OME-Zarr does ("micrometer"); None if the file does not say.
    left_out : tuple of str
        Parts of the file that are not read, in words: ``scenes 2 and 3 of 3 (Pos_1, Pos_2)``.
    notes : tuple of str
        What else should be known of it: metadata that make no sense and are dropped.
    """

    stack_axes: str
    stack_shape: tuple[int, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    rgb: bool
    region: Callable[[int, slice, slice], Pixels]
    close: Callable[[], None] = _nothing
    pixel_size: tuple[float, float] | None = None
    unit: str | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Opener(Protocol):
    """What opens the files of one format."""

    def __call__(self, path: Path, *, values: bool) -> Source:
        """Open `path`; with `values`, palette indices and bits stay numbers instead of becoming colours."""


def from_axes(axes: str, shape: Sequence[int], dtype: np.dtype[Any], get: Callable[[tuple[Any, ...]], NDArray[Any]]) -> Source:
    """Source over anything sliced like an array whose axes are called `axes` (C and S: channels, Y, X, others: stack)."""
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
        raise ValueError(f"its axes {axes!r} and shape {tuple(shape)} are not those of an image")
    size = dict(zip(axes, shape, strict=True))
    stack_axes = "".join(a for a in axes if a not in "CSYX")
    stack_shape = tuple(size[a] for a in stack_axes)
    kept = [a for a in axes if a in "CSYX"]
    order = [kept.index(a) for a in "CSYX" if a in kept]
    channels = size.get("C", 1) * size.get("S", 1)

    def region(plane: int, rows: slice, cols: slice) -> Pixels:
        where: dict[str, Any] = dict(zip(stack_axes, np.unravel_index(plane, stack_shape), strict=True)) if stack_axes else {}
        selection = {"Y": rows, "X": cols, **{a: int(i) for a, i in where.items()}}
        block = get(tuple(selection.get(a, slice(None)) for a in axes)).transpose(order)  # (C?, S?, h, w)
        return block.reshape(channels, *block.shape[-2:])

    return Source(stack_axes, stack_shape, (channels, size["Y"], size["X"]), np.dtype(dtype), rgb=False, region=region)


def converted(source: Source, channels: int, dtype: np.dtype[Any], convert: Callable[[Pixels], Pixels]) -> Source:
    """`source` with every region passed through `convert`, which gives `channels` channels of `dtype`."""

    def region(plane: int, rows: slice, cols: slice) -> Pixels:
        return convert(source.region(plane, rows, cols))

    return replace(source, shape=(channels, *source.shape[1:]), dtype=dtype, region=region)


def without_bool(source: Source, *, values: bool) -> Source:
    """Bits as uint8: 0 and 255 in an image, 0 and 1 where numbers are wanted."""
    if source.dtype.kind != "b":
        return source
    white = np.uint8(1 if values else 255)
    return converted(source, source.shape[0], np.dtype(np.uint8), lambda block: block.astype(np.uint8) * white)


def check_untiled(width: int, height: int) -> None:
    """Refuse what is too large to be decoded at once."""
    if width * height > MAX_UNTILED_PIXELS:
        raise ValueError(
            f"its {height} x {width} pixels would have to be decoded at once; convert it to a tiled TIFF or to OME-Zarr, "
            "which are read piece by piece"
        )
