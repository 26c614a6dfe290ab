"""Open image files, whatever their format."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from mdm_studio.arrays import Pixels
from mdm_studio.errors import ChannelsError, InputError, UnreadableImageError
from mdm_studio.io.file_signature import State
from mdm_studio.io.images.formats import LISTED, image_name, opener_of
from mdm_studio.io.images.image_state import image_state
from mdm_studio.io.images.planes import BasePlane, Plane
from mdm_studio.io.images.source import AdviceError, Source
from mdm_studio.io.images.words import reason_of
from mdm_studio.io.quiet import quiet
from mdm_studio.io.remarks import remarks, tell

# What decoders raise on damaged files. Errors of zarr, tifffile and imagecodecs are subclasses of ValueError, OSError,
# KeyError or RuntimeError; Pillow adds SyntaxError for a broken PNG, NumPy TokenError for a broken header.
_DECODER_ERRORS = (
    OSError, ValueError, RuntimeError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError, MemoryError, struct.error, tokenize.TokenError, zlib.error,
)  # fmt: skip


class _FilePlane(BasePlane):
    """Plane number `index` of an open `ImageFile`."""

    def __init__(
        self, path: Path, source: Source, index: int, channels: tuple[int, ...], state: State, *, rgb: bool, name: str
    ) -> None:
        super().__init__((len(channels), *source.shape[1:]), source.dtype, rgb=rgb, name=name)
        self._path, self._source, self._index, self._state = path, source, index, state
        everything = channels == tuple(range(source.shape[0]))
        self._channels = None if everything else list(channels)

    def _region(self, rows: slice, cols: slice) -> Pixels:
        with decoding(self._path):
            block = self._source.region(self._index, rows, cols)
        return block if self._channels is None else block[self._channels]

    def changed(self) -> bool:
        """See `Plane`."""
        return image_state(self._path) != self._state


class ImageFile:
    """An open image file; made by `open_image`, closed by `close` or the end of a ``with`` block.

    Attributes
    ----------
    path, name : Path, str
        The file, and its name without extension (see `image_name`).
    planes, stack_shape, stack_axes : int, tuple of int, str
        Number of planes, and the lengths and letters of the axes they come from: 1, () and "" for a plain image; for
        example 12, (3, 4) and "TZ" for three time points of four slices. Plane numbers run along the last axis first.
    height, width, channels, dtype : int, int, int, dtype
        Of every plane; `channels` counts the chosen ones.
    rgb : bool
        Whether the channels are the red, green and blue of a colour picture, in this order.
    pixel_size, unit : (float, float) or None, str or None
        Height and width of a pixel in `unit`, which is spelled as OME-Zarr does ("micrometer"); None if the file does not
        say.
    left_out, notes : tuple of str
        Parts of the file that are not read, and what else should be known of it, in words; see `remarks`.
    """

    def __init__(self, path: Path, source: Source, channels: tuple[int, ...], state: State) -> None:
        self.path = path
        self.name = image_name(path)
        self.stack_shape, self.stack_axes = source.stack_shape, source.stack_axes
        self.planes = int(np.prod(source.stack_shape, dtype=np.int64))
        self.height, self.width = source.shape[1:]
        self.channels = len(channels)
        self.dtype = source.dtype.newbyteorder("=")
        self.rgb = source.rgb and channels == (0, 1, 2)
        self.pixel_size, self.unit = source.pixel_size, source.unit
        self.left_out, self.notes = source.left_out, source.notes
        self._source, self._channels, self._state = source, channels, state

    def plane(self, index: int = 0) -> Plane:
        """Plane number `index`.

        Raises
        ------
        InputError
            If there is no such plane.
        """
        if not 0 <= index < self.planes:
            raise InputError(f"{self.path} has {self.planes} planes: plane {index} is not among 0 to {self.planes - 1}")
        where = zip(self.stack_axes, np.unravel_index(index, self.stack_shape) if self.stack_shape else (), strict=True)
        position = ",".join(f"{axis}={i}" for axis, i in where)
        name = f"{self.name}[{position}]" if position else self.name
        return _FilePlane(self.path, self._source, index, self._channels, self._state, rgb=self.rgb, name=name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What should be known of the file: what is left out of it, then `notes`."""
        return remarks(self.left_out, self.notes)

    def close(self) -> None:
        """Close the file; planes cannot be read any more."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_image(path: str | Path, channels: tuple[int, ...] | None = None, *, values: bool = False) -> ImageFile:
    """Open an image file.

    Parameters
    ----------
    path : str or Path
        A file or a ``.zarr`` folder with one of `EXTENSIONS`, in upper or lower case.
    channels : tuple of int, optional
        The channels to read, from 0, in this order; all of them by default.
    values : bool
        Keep stored numbers: indices of a palette instead of its colours, 0 and 1 for bits instead of 0 and 255. This is
        how label maps are read.

    Returns
    -------
    ImageFile
        Formats without tiles are decoded at once, the others when their planes are read.

    Raises
    ------
    UnreadableImageError
        If the file cannot be decoded, naming it and the reason.
    ChannelsError
        If a channel is asked for that the image does not have.
    """
    path = Path(path)
    opener = opener_of(path)
    if opener is None:
        raise UnreadableImageError(f"{path} is not an image that can be read: the extensions read are {LISTED}")
    state = image_state(path)  # before it is opened
    with decoding(path):
        _check_file(path)
        source = opener(path, values=values)
        try:
            _check_pixels(source)
        except ValueError:
            source.close()
            raise
    if channels is None:
        channels = tuple(range(source.shape[0]))
    wrong = [c for c in channels if not 0 <= c < source.shape[0]]
    if wrong or not channels:
        source.close()
        asked = ",".join(map(str, channels)) or "none"
        raise ChannelsError(
            f"{path} has {source.shape[0]} channels and {asked} were asked for: choose from 0 to {source.shape[0] - 1} "
            "with --channels"
        )
    image = ImageFile(path, source, channels, state)
    for words in image.remarks:
        tell(path, words)
    return image


def _check_file(path: Path) -> None:
    """Refuse what waits for ever or has no end: pipes, sockets, devices, links that lead round in a circle."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AdviceError("it is a link that leads round to itself: mend the link or leave it out") from error
        raise
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise AdviceError("it is a pipe, a socket or a device, no file: leave it out")


def _check_pixels(source: Source) -> None:
    if 0 in (*source.shape, *source.stack_shape):
        raise ValueError("it has no pixels")
    if source.dtype.kind not in "uif":
        raise ValueError(f"pixels of type {source.dtype} are not numbers that an image can hold")


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises in the ``with`` block into an `UnreadableImageError` that names the file; see `quiet`."""
    try:
        with quiet():
            yield
    except FileNotFoundError as error:
        raise UnreadableImageError(f"cannot read {path}: {_missing(path, error)}; check the name and the drive") from error
    except MemoryError as error:
        raise UnreadableImageError(
            f"cannot read {path}: there is not enough memory to decode it at once; convert it to a tiled TIFF or to "
            "OME-Zarr, which are read piece by piece"
        ) from error
    except AdviceError as error:
        raise UnreadableImageError(f"cannot read {path}: {error}") from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"cannot read {path}: {reason_of(error)} (damaged, or not what its extension says; replace it or leave it out)"
        ) from error


def _missing(path: Path, error: FileNotFoundError) -> str:
    if path.exists():
        return f"a part of it is missing ({error})"
    return (
        f"it is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "the file is not there (any more)"
    )
