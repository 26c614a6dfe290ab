"""One plane of an image: raw pixels ``(C, H, W)``, read region by region."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from mdm_studio.arrays import Pixels, stride_for_sample
from mdm_studio.errors import InputError

_BAND_ROWS = 512  # rows decoded at a time for digests and samples: a few tiles high, 30 MB for 20,000 columns in RGB


class Plane(Protocol):
    """One plane of an image: raw pixels ``(C, H, W)`` that can be read region by region."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels, in native byte order."""

    @property
    def rgb(self) -> bool:
        """Whether the three channels are the red, green and blue of a colour picture."""

    @property
    def name(self) -> str:
        """Name for messages and results."""

    def read(self, rows: slice, cols: slice) -> Pixels:
        """Raw pixels ``(C, h, w)`` of a region; slices as NumPy's, without a step."""

    def sample(self, max_pixels: int = 1 << 20) -> Pixels:
        """Evenly strided raw pixels ``(C, h, w)``, about `max_pixels` a channel at most."""

    def digest(self) -> str:
        """Hexadecimal BLAKE2b-128 of shape, dtype, rgb and pixels."""

    def changed(self) -> bool:
        """Whether its file was written to since it was opened, so that what is read may be of neither state."""


class BasePlane(ABC):
    """What the planes share; a subclass says where the pixels come from (`_region`)."""

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any], *, rgb: bool, name: str) -> None:
        self._shape = shape
        self._dtype = dtype.newbyteorder("=")
        self._rgb = rgb
        self._name = name

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Plane`."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Plane`."""
        return self._dtype

    @property
    def rgb(self) -> bool:
        """See `Plane`."""
        return self._rgb

    @property
    def name(self) -> str:
        """See `Plane`."""
        return self._name

    @abstractmethod
    def _region(self, rows: slice, cols: slice) -> Pixels:
        """Pixels ``(C, h, w)``; the slices have a start, a stop and a step >= 1."""

    def read(self, rows: slice, cols: slice) -> Pixels:
        """See `Plane`."""
        if (rows.step or 1) != 1 or (cols.step or 1) != 1:
            raise ValueError("read() takes whole regions: slices without a step")
        height, width = self._shape[1:]
        return self._native(slice(*rows.indices(height)), slice(*cols.indices(width)))

    def sample(self, max_pixels: int = 1 << 20) -> Pixels:
        """See `Plane`."""
        _, height, width = self._shape
        step = stride_for_sample(height, width, max_pixels)
        cols = slice(0, width, step)
        band = step * max(1, _BAND_ROWS // step)  # a multiple of the step, so that the bands continue one another
        bands = [self._native(slice(y, min(y + band, height), step), cols) for y in range(0, height, band)]
        return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1)

    def digest(self) -> str:
        """See `Plane`."""
        _, height, width = self._shape
        little = self._dtype.newbyteorder("<")  # the same digest on every machine
        digest = hashlib.blake2b(f"{self._shape} {little.str} {self._rgb}".encode(), digest_size=16)
        for y in range(0, height, _BAND_ROWS):
            band = self._native(slice(y, min(y + _BAND_ROWS, height), 1), slice(0, width, 1))
            digest.update(band.astype(little, copy=False).data)
        return digest.hexdigest()

    def changed(self) -> bool:
        """See `Plane`."""
        return False

    def _native(self, rows: slice, cols: slice) -> Pixels:
        if rows.stop <= rows.start or cols.stop <= cols.start:  # not every library takes empty slices
            shape = (self._shape[0], max(0, rows.stop - rows.start), max(0, cols.stop - cols.start))
            return np.empty(shape, self._dtype)
        return np.array(self._region(rows, cols), self._dtype, order="C", copy=True)


class ArrayPlane(BasePlane):
    """A `Plane` over an array in memory.

    Parameters
    ----------
    array : (C, H, W)
        Raw pixels of any integer, bool or float dtype. Not copied.
    rgb : bool
        Whether the three channels are colours.
    name : str
        Name for messages and results.

    Raises
    ------
    InputError
        If `array` does not have three axes, or no pixels.
    """

    def __init__(self, array: Pixels, *, rgb: bool = False, name: str = "array") -> None:
        if array.ndim != 3 or 0 in array.shape:
            raise InputError(f"{name} has the shape {array.shape}: (channels, height, width), each at least 1, is wanted")
        super().__init__((array.shape[0], array.shape[1], array.shape[2]), array.dtype, rgb=rgb, name=name)
        self._array = array

    def _region(self, rows: slice, cols: slice) -> Pixels:
        return self._array[:, rows, cols]
