"""Arrays that a viewer shows (NumPy, dask, zarr, lists of pyramid levels) as planes of raw pixels ``(C, H, W)``.

`ArrayImage` is to an array what `mdm_studio.io.images.ImageFile` is to a file. Pixels are read region by region, so that an
array larger than memory stays where it is.
"""

from __future__ import annotations

import hashlib
import math
import operator
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels, stride_for_sample
from mdm_studio.errors import ChannelsError, InputError
from mdm_studio.io.images import BasePlane, Plane, decoding, image_signature

IN_MEMORY_BYTES = 1 << 30
"""Planes of NumPy arrays up to this size are known by all their pixels, which takes a second for the largest."""

# Planes up to this size are sampled from their full resolution, as the planes of files are, so that what is exported is
# scaled as what was seen live. Reading all of a larger one for its sample would take seconds and more.
_SAMPLED_WHOLE = 1 << 26
_DIGEST_PIXELS = 1 << 18
_WINDOWS, _WINDOW = 8, 64  # windows along each side of a large plane, and their side in pixels
_USUAL_CHANNELS = 3  # a backbone for colours reads as many


class ArrayLike(Protocol):
    """What is asked of an array: NumPy's, dask's and zarr's have it, xarray's and h5py's too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Data type of the pixels."""

    def __getitem__(self, key: Any, /) -> Any:
        """A part, by whole numbers and slices."""


class ArrayImage:
    """An image layer's array, seen as planes.

    Parameters
    ----------
    array : array-like, or sequence of array-likes
        Anything with ``shape``, ``dtype`` and slicing. A sequence holds the levels of a pyramid, largest first: pixels come
        from the first, the sample of a large plane from the smallest level that has enough of them.
    rgb : bool
        The last axis is colours: 3 (red, green, blue) or 4 (alpha, which is dropped).
    channel_axis : int, optional
        Which axis is channels; negative numbers count from the end. Without it and `rgb` there is one channel.
    channels : tuple of int, optional
        The channels to read, from 0, in this order; all of them by default.
    name : str
        Name for messages and results.
    source : Path, optional
        The file or folder that the array comes from; with it the digests of large and lazy arrays last (see the notes).

    Attributes
    ----------
    stack_shape : tuple of int
        Lengths of the axes before height and width, in the array's order, channels left out.
    planes, height, width, channels : int
        Number of planes, and the size and number of chosen channels of each.
    chosen : tuple of int
        The channels that are read.
    available : int
        Number of channels that there are.
    dtype : dtype
        Of the pixels, in native byte order.
    rgb : bool
        Whether the channels are red, green and blue, in this order.
    name, source : str, Path or None
        As given.
    pixel_size, unit : (float, float) or None, str or None
        Height and width of a pixel, where whoever made it knows.

    Raises
    ------
    InputError
        If the array has fewer than two axes for height and width, an empty axis, or pixels that are no real numbers.
    ChannelsError
        If a channel is asked for that the array does not have, or `rgb` does not fit the last axis.

    Notes
    -----
    The planes' digests are cheap, and never the same for pixels that differ, as far as that can be known cheaply:

    * a plane of a NumPy array up to 1 GiB: all its pixels, the same as the digest of a file with these pixels;
    * else, with a `source` that is there: shape, dtype, position and a sample of the pixels, size and modification time of
      the file (of all files in it, for a folder). Changed pixels under an unchanged time go unnoticed; the path does not
      matter;
    * else: the same, with a random token of this object in place of the file. Features of such an array are shared by all
      planes made from this `ArrayImage`, and never with another one or a later run.

    Threads may share an `ArrayImage` if they may share its array.
    """

    def __init__(
        self,
        array: ArrayLike | Sequence[ArrayLike],
        *,
        rgb: bool = False,
        channel_axis: int | None = None,
        channels: tuple[int, ...] | None = None,
        name: str = "array",
        source: Path | None = None,
    ) -> None:
        self.name, self.source = name, source
        self.pixel_size: tuple[float, float] | None = None
        self.unit: str | None = None
        levels = _levels(array, name)
        shape = tuple(int(n) for n in levels[0].shape)
        self.dtype = _check(levels[0], shape, name)
        axis = _channel_axis(shape, rgb, channel_axis, name)
        if len(shape) - (axis is not None) < 2:
            raise InputError(
                f"{name} has the shape {shape}, which leaves fewer than two axes for height and width: show an image, not a "
                "row of numbers, or choose another channel axis"
            )
        available = 1 if axis is None else 3 if rgb else shape[axis]
        chosen = _chosen(channels, available, name)
        self._colours = rgb
        self.rgb = rgb and chosen == (0, 1, 2)
        self.channels = len(chosen)
        inner = [n for i, n in enumerate(shape) if i != axis]
        self.stack_shape, (self.height, self.width) = tuple(inner[:-2]), inner[-2:]
        self.planes = math.prod(self.stack_shape)
        self._axis, self.chosen, self.available = axis, chosen, available
        self._levels = [levels[0], *(level for level in levels[1:] if self._is_smaller(level, shape))]
        # of a file now: what is noted later may be that of another one, with whose name features would be kept
        self._token = _facts(source) if source is not None and source.is_file() else None
        self._lock = threading.Lock()

    def reading(self, channels: tuple[int, ...]) -> ArrayImage:
        """The same image with other channels chosen.

        Raises
        ------
        ChannelsError
            If a channel is asked for that the array does not have.
        """
        rgb = self._colours
        axis = None if rgb else self._axis
        other = ArrayImage(self._levels, rgb=rgb, channel_axis=axis, channels=channels, name=self.name, source=self.source)
        other.pixel_size, other.unit = self.pixel_size, self.unit
        return other

    def plane(self, index: tuple[int, ...] = ()) -> Plane:
        """The plane at a position of the stack.

        Parameters
        ----------
        index : tuple of int
            One number for each axis of `stack_shape`, from 0.

        Raises
        ------
        InputError
            If there is no such plane.
        """
        index = tuple(operator.index(i) for i in index)
        if len(index) != len(self.stack_shape) or not all(0 <= i < n for i, n in zip(index, self.stack_shape, strict=True)):
            raise InputError(f"{self.name} has a stack of shape {self.stack_shape}: there is no plane at {index}")
        return _LayerPlane(self, index)

    def region(self, index: tuple[int, ...], rows: slice, cols: slice, level: int = 0) -> Pixels:
        """Pixels ``(C, h, w)`` of a region at a level; the slices lie inside it, with a step >= 1.

        Raises
        ------
        UnreadableImageError
            If a lazy array cannot be read.
        """
        array = self._levels[level]
        key: list[int | slice] = [*index, rows, cols]
        low, high = min(self.chosen), max(self.chosen) + 1
        if self._axis is None:
            return self._load(array, key)[None]
        if high - low <= 2 * len(self.chosen):  # read across the gaps: colours often lie in one chunk
            key.insert(self._axis, slice(low, high))
            block = np.moveaxis(self._load(array, key), self._axis_of_block, 0)
            dense = self.chosen == tuple(range(low, high))
            return block if dense else block[[c - low for c in self.chosen]]
        keys = [[*key[: self._axis], c, *key[self._axis :]] for c in self.chosen]
        return np.stack([self._load(array, each) for each in keys])

    def identity(self) -> str:
        """What stands for the pixels that a digest does not read: facts of the source, or else this object's token."""
        with self._lock:
            if self._token is None:
                self._token = _facts(self.source) or f"token {secrets.token_hex(16)}"
            return self._token

    def changed(self) -> bool:
        """Whether the file that pixels are still read from was written to since it was opened; of a folder nobody looks."""
        array = self._levels[0]
        held = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)
        if held or self.source is None or self._token is None or self._token.startswith("folder"):  # a walk for every tile
            return False
        return _facts(self.source) not in (None, self._token)

    def in_memory(self) -> bool:
        """Whether a digest of all pixels of a plane is cheap."""
        plane = self.height * self.width * self.channels * self.dtype.itemsize
        return isinstance(self._levels[0], np.ndarray) and plane <= IN_MEMORY_BYTES

    def coarse(self, index: tuple[int, ...], wanted: int) -> tuple[int, tuple[int, ...], tuple[int, int]]:
        """The smallest level with `wanted` pixels a channel: its number, the plane's position there, its height and width."""
        for number in range(len(self._levels) - 1, -1, -1):
            shape = self._spatial(self._levels[number].shape)
            height, width = shape[-2:]
            if height * width >= wanted or number == 0:
                break
        # a pyramid may be coarser along the stack too
        at = tuple(i * n // whole for i, n, whole in zip(index, shape[:-2], self.stack_shape, strict=True))
        return number, at, (height, width)

    @property
    def selection(self) -> str:
        """Which channels are read, for the digest."""
        return f"{self._axis} {self.chosen}"

    @property
    def _axis_of_block(self) -> int:
        """Where channels are once the whole numbers of the stack took their axes away."""
        assert self._axis is not None
        return self._axis - min(self._axis, len(self.stack_shape))

    def _load(self, array: ArrayLike, key: Sequence[int | slice]) -> NDArray[Any]:
        with decoding(self.source or Path(self.name)):
            return np.asarray(array[tuple(key)])

    def _spatial(self, shape: Sequence[int]) -> list[int]:
        return [int(n) for i, n in enumerate(shape) if i != self._axis]

    def _is_smaller(self, level: ArrayLike, shape: tuple[int, ...]) -> bool:
        """Whether a level can stand for the first one: the same axes and channels, none longer, none empty."""
        fits = len(level.shape) == len(shape) and all(0 < n <= whole for n, whole in zip(level.shape, shape, strict=True))
        return fits and (self._axis is None or level.shape[self._axis] == shape[self._axis])


class _LayerPlane(BasePlane):
    """The plane at `index` of an `ArrayImage`."""

    def __init__(self, image: ArrayImage, index: tuple[int, ...]) -> None:
        name = f"{image.name}[{','.join(map(str, index))}]" if index else image.name
        super().__init__((image.channels, image.height, image.width), image.dtype, rgb=image.rgb, name=name)
        self._image, self._index = image, index
        self.pixel_size, self.unit = image.pixel_size, image.unit

    def _region(self, rows: slice, cols: slice) -> Pixels:
        return self._image.region(self._index, rows, cols)

    def sample(self, max_pixels: int = 1 << 20) -> Pixels:
        """See `Plane`; from a coarse level of the pyramid for planes of more than 64 million pixels."""
        level, index, (height, width) = self._image.coarse(self._index, max_pixels)
        if level == 0 or self.shape[1] * self.shape[2] <= _SAMPLED_WHOLE:
            return super().sample(max_pixels)
        step = stride_for_sample(height, width, max_pixels)
        block = self._image.region(index, slice(0, height, step), slice(0, width, step), level)
        return np.array(block, self.dtype, order="C", copy=True)

    def digest(self) -> str:
        """Hexadecimal BLAKE2b-128 of what tells this plane from others; see the notes of `ArrayImage`."""
        if self._image.in_memory():
            return super().digest()
        little = self.dtype.newbyteorder("<")
        facts = f"{self.shape} {little.str} {self.rgb} {self._image.selection} {self._index} {self._image.identity()}"
        digest = hashlib.blake2b(facts.encode(), digest_size=16)
        for block in self._probes():
            digest.update(np.ascontiguousarray(block, little).data)
        return digest.hexdigest()

    def changed(self) -> bool:
        """See `Plane` and `ArrayImage.changed`."""
        return self._image.changed()

    def _probes(self) -> list[Pixels]:
        """Evenly spread pixels of the full resolution, few enough to be read quickly."""
        _, height, width = self.shape
        if height * width <= _SAMPLED_WHOLE:
            return [super().sample(_DIGEST_PIXELS)]
        tops, lefts = (np.linspace(0, max(0, n - _WINDOW), _WINDOWS).astype(int).tolist() for n in (height, width))
        return [self.read(slice(y, y + _WINDOW), slice(x, x + _WINDOW)) for y in tops for x in lefts]


def _levels(array: ArrayLike | Sequence[ArrayLike], name: str) -> list[ArrayLike]:
    """The levels of a pyramid; a single array, or nested lists of numbers, is one level."""
    if isinstance(array, Sequence) and all(hasattr(level, "shape") for level in array):
        levels: list[Any] = list(array)
        if not levels:
            raise InputError(f"{name} has no pyramid level: an array, or a list of arrays with the largest first, is wanted")
    else:
        levels = [array if hasattr(array, "shape") else np.asarray(array)]
    return levels


def _check(array: ArrayLike, shape: tuple[int, ...], name: str) -> np.dtype[Any]:
    """The native data type of an array that can be an image."""
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"{name} has the shape {shape}: height and width, each at least 1, are wanted; show another image")
    given = getattr(array.dtype, "numpy_dtype", array.dtype)  # tensorstore has types of its own
    try:
        dtype: np.dtype[Any] = np.dtype(given)
    except TypeError as error:
        raise InputError(f"{name} holds {given}, which is no type of NumPy: convert it with numpy.asarray") from error
    if dtype.kind not in "buif":
        raise InputError(f"{name} holds {dtype}: an image needs bool, whole numbers or floats; convert it before showing it")
    return dtype.newbyteorder("=")


def _channel_axis(shape: tuple[int, ...], rgb: bool, axis: int | None, name: str) -> int | None:
    if rgb and axis is not None:
        raise InputError(f"{name} was said to be RGB and to have the channel axis {axis}: only one of both can be")
    if rgb:
        if shape[-1] not in (3, 4):
            raise ChannelsError(f"{name} was said to be RGB, but its last axis has {shape[-1]} values: 3 or 4 are wanted")
        return len(shape) - 1
    if axis is None:
        return None
    if not -len(shape) <= axis < len(shape):
        raise InputError(f"{name} has the shape {shape} and no axis {axis}: choose the channel axis from 0 to {len(shape) - 1}")
    return axis % len(shape)


def _chosen(channels: tuple[int, ...] | None, available: int, name: str) -> tuple[int, ...]:
    if channels is None:
        return tuple(range(available))
    if not channels or not all(0 <= c < available for c in channels):
        asked = ",".join(map(str, channels)) or "none"
        raise ChannelsError(f"{name} has {available} channels and {asked} were asked for: choose from 0 to {available - 1}")
    return tuple(channels)


def usual_channels(available: int) -> tuple[int, ...]:
    """The channels that are read of an image with `available` ones until somebody chooses: all, or the first three."""
    return tuple(range(min(available, _USUAL_CHANNELS)))


def _facts(source: Path | None) -> str | None:
    """Size and time of a file (image), or of all files of a folder: a zarr's own time does not change with its chunks."""
    if source is None:
        return None
    try:
        if not source.is_dir():
            known = image_signature(source)
            return None if known is None else f"file {known[0]} {known[1]}"
        files = size = newest = 0
        for folder, _, names in os.walk(source):
            for file in names:
                facts = os.stat(os.path.join(folder, file))
                files, size, newest = files + 1, size + facts.st_size, max(newest, facts.st_mtime_ns)
    except OSError:  # moved away since it was opened: the array may still be readable, only nothing is known about its file
        return None
    return f"folder {files} {size} {newest}"
