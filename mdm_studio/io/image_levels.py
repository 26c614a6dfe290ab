"""Image files as what a viewer shows: arrays with the axes it wants, a pyramid of large images, read when they are looked at.

Images up to `WHOLE` bytes are read at once. Of larger ones regions are read; those of OME-Zarr come with the levels they have,
others get coarse ones, which are read once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.io.array_planes import ArrayImage, usual_channels
from mdm_studio.io.images import ImageFile, decoding, image_name, open_image
from mdm_studio.io.images.ome_zarr import open_zarr_levels
from mdm_studio.io.images.zarr_groups import is_zarr

WHOLE = 1 << 26
"""Bytes of an image that are read at once, and stay in memory as long as it is open."""
_ONE_LEVEL = 4096 * 4096  # pixels of a plane that a viewer shows without a pyramid
_FACTORS = (4, 16, 64)  # coarse levels of those that have none: the finest is a sixteenth of the image
_CHUNK = 1024  # rows and columns that are read at a time
_SMALLEST = 256


@dataclass(frozen=True)
class ImageLevels:
    """An open image file.

    Attributes
    ----------
    path, name : Path, str
        The file, and its name without extension.
    levels : sequence of arrays
        Finest first: NumPy, dask or zarr arrays. Channels lead ``(C,) + stack_shape + (H, W)``, but those of an OME-Zarr stay
        where they are; colours come last.
    rgb, channel_axis : bool, int or None
        Which axis is channels.
    pixel_size, unit : (float, float), str
        Height and width of a pixel; 1 and an empty unit if the file does not say.
    remarks : tuple of str
        What should be known of the file: parts that are left out, see `ImageFile`.
    """

    path: Path
    name: str
    levels: Sequence[Any]
    rgb: bool
    channel_axis: int | None
    pixel_size: tuple[float, float]
    unit: str
    remarks: tuple[str, ...] = ()
    _file: ImageFile | None = field(default=None, repr=False)

    def as_image(self, channels: tuple[int, ...] = ()) -> ArrayImage:
        """As planes of raw pixels; ChannelsError if there are no such channels. None are the usual ones."""
        image = ArrayImage(self.levels, rgb=self.rgb, channel_axis=self.channel_axis, name=self.name, source=self.path)
        image.pixel_size, image.unit = (self.pixel_size, self.unit) if self.unit else (None, None)
        return image.reading(channels or usual_channels(image.available))

    @property
    def scale(self) -> tuple[float, ...]:
        """Size of a pixel along each axis of the levels, the axis of colours left out."""
        axes = self.levels[0].ndim - self.rgb
        return (*(1.0 for _ in range(axes - 2)), *self.pixel_size)

    def close(self) -> None:
        """Close the file; what was not read yet cannot be read any more."""
        if self._file is not None:
            self._file.close()


def open_levels(path: Path) -> ImageLevels:
    """Open an image file; close it when it is shown no longer.

    Raises
    ------
    UnreadableImageError
        If it cannot be read.
    """
    image = open_image(path)
    try:
        size, unit = image.pixel_size or (1.0, 1.0), image.unit or ""
        shape = (image.channels, *image.stack_shape, image.height, image.width)
        if int(np.prod(shape, dtype=np.int64)) * image.dtype.itemsize <= WHOLE:
            array = _shown(_Lazy(image)[tuple(slice(None) for _ in shape)], image)
            image.close()
            return ImageLevels(path, image.name, [array], image.rgb, _channel_axis(image), size, unit, image.remarks)
        if is_zarr(path) and not image.rgb:
            levels, axis = _zarr_levels(path)
            image.close()
            return ImageLevels(path, image.name, levels, False, axis, size, unit, image.remarks)
        axis = _channel_axis(image)
        return ImageLevels(path, image.name, _lazy_levels(image), image.rgb, axis, size, unit, image.remarks, image)
    except BaseException:
        image.close()
        raise


def _channel_axis(image: ImageFile) -> int | None:
    return 0 if image.channels > 1 and not image.rgb else None


def _shown(array: Any, image: ImageFile) -> Any:
    """``(C,) + stack_shape + (H, W)`` as a viewer wants it: colours last, a single channel without an axis."""
    if image.channels == 1:
        return array[0]
    return np.ascontiguousarray(np.moveaxis(array, 0, -1)) if image.rgb else array


class _Lazy:
    """Pixels ``(C,) + stack_shape + (H, W)`` of an open file, read when they are sliced; one thread at a time."""

    def __init__(self, image: ImageFile) -> None:
        self.shape = (image.channels, *image.stack_shape, image.height, image.width)
        self.dtype, self.ndim = image.dtype, len(self.shape)
        self._image = image
        self._lock = threading.Lock()

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        """A region, by whole numbers and slices with steps of 1 and more, one for each axis."""
        parts = [part if isinstance(part, slice) else slice(part, part + 1) for part in key]
        ranges = [range(n)[part] for part, n in zip(parts, self.shape, strict=True)]
        channels, *stack, rows, cols = ranges
        found = np.empty([len(each) for each in ranges], self.dtype)
        with self._lock:
            for place in np.ndindex(*(len(each) for each in stack)):
                index = tuple(each[i] for each, i in zip(stack, place, strict=True))
                number = int(np.ravel_multi_index(index, self._image.stack_shape)) if index else 0
                block = self._image.plane(number).read(_whole(rows), _whole(cols))[:, :: rows.step, :: cols.step]
                found[(slice(None), *place)] = block[channels.start : channels.stop : channels.step]
        return found[tuple(slice(None) if isinstance(part, slice) else 0 for part in key)]


def _whole(part: range) -> slice:
    return slice(part.start, max(part.stop, part.start))


def _lazy_levels(image: ImageFile) -> list[Any]:
    import dask.array  # half a second, which a folder of small images need not pay

    arrays: Any = dask.array
    lazy = _Lazy(image)
    chunks = (image.channels, *(1 for _ in image.stack_shape), _CHUNK, _CHUNK)
    whole = arrays.from_array(lazy, chunks=chunks, asarray=False, meta=np.empty((0,) * lazy.ndim, image.dtype))
    levels = [whole[0] if image.channels == 1 else arrays.moveaxis(whole, 0, -1) if image.rgb else whole]
    if image.planes == 1 and image.height * image.width > _ONE_LEVEL:
        levels += [_shown(coarse, image) for coarse in _coarse(lazy)]
    return levels


def _coarse(lazy: _Lazy) -> list[NDArray[Any]]:
    """Coarse levels of a single plane, of every fourth, sixteenth, ... pixel; the file is read once, band by band."""
    height, width = lazy.shape[-2:]
    everything = tuple(slice(None) for _ in lazy.shape[:-2])
    first = _FACTORS[0]
    middles = (..., slice(first // 2, None, first), slice(first // 2, None, first))
    bands = [lazy[(*everything, slice(top, top + _CHUNK), slice(0, width))][middles] for top in range(0, height, _CHUNK)]
    levels = [np.concatenate(bands, axis=-2)]
    for factor in _FACTORS[1:]:
        if max(levels[-1].shape[-2:]) <= _SMALLEST:
            break
        levels.append(np.ascontiguousarray(levels[0][..., :: factor // first, :: factor // first]))
    return levels


def _zarr_levels(path: Path) -> tuple[list[Any], int | None]:
    """Arrays of an OME-Zarr's levels, and which axis is channels."""
    with decoding(path):
        levels = open_zarr_levels(path)
    return levels.arrays, levels.axes.index("C") if "C" in levels.axes else None


def level_for(path: Path, wanted: int) -> ImageLevels | None:
    """The image with its coarsest level of at least `wanted` pixels a plane alone, where the file has levels; else None.

    For those who need no more: a thumbnail of a slide is then read within milliseconds.
    """
    if not is_zarr(path):
        return None
    levels, axis = _zarr_levels(path)
    enough = [level for level in levels if level.shape[-1] * level.shape[-2] >= wanted]
    chosen = enough[-1] if enough else levels[0]
    return ImageLevels(path, image_name(path), [chosen], rgb=False, channel_axis=axis, pixel_size=(1.0, 1.0), unit="")
