"""Images as planes of raw pixels ``(C, H, W)``, read region by region, and the search for image files.

`open_image` gives an `ImageFile`; its planes (one, or one for each z, t, ... of a stack) share the `Plane` interface with
`ArrayPlane`, which wraps an array in memory. `mdm_studio.io.readers` says what is read from which format.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import re
import struct
import tokenize
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from mdm_studio.arrays import Pixels, stride_for_sample
from mdm_studio.errors import ChannelsError, InputError, NoImagesError, UnreadableImageError
from mdm_studio.io.file_signature import State, state_of
from mdm_studio.io.readers import OPENERS, Source

EXTENSIONS = tuple(OPENERS)
"""Extensions of the files that `open_image` reads, lower case; a ``.zarr`` is a folder."""

_BAND_ROWS = 512  # rows decoded at a time for digests and samples: a few tiles high, 30 MB for 20,000 columns in RGB
_LISTED = ", ".join(EXTENSIONS)

# What decoders raise on damaged files. Errors of zarr, tifffile and imagecodecs are subclasses of ValueError, OSError,
# KeyError or RuntimeError; Pillow adds SyntaxError for a broken PNG, NumPy TokenError for a broken header.
_DECODER_ERRORS = (
    OSError, ValueError, RuntimeError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError, MemoryError, struct.error, tokenize.TokenError, zlib.error,
)  # fmt: skip


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
        return state_of(self._path) != self._state


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
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise UnreadableImageError(f"{path} is not an image that can be read: the extensions read are {_LISTED}")
    state = state_of(path)  # before it is opened
    with decoding(path):
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
    return ImageFile(path, source, channels, state)


def _check_pixels(source: Source) -> None:
    if 0 in (*source.shape, *source.stack_shape):
        raise ValueError("it has no pixels")
    if source.dtype.kind not in "uif":
        raise ValueError(f"pixels of type {source.dtype} are not numbers that an image can hold")


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises in the ``with`` block into an `UnreadableImageError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        missing = "the file is not there (any more)" if not path.exists() else f"a part of it is missing ({error})"
        raise UnreadableImageError(f"cannot read {path}: {missing}; check the name and the drive") from error
    except MemoryError as error:
        raise UnreadableImageError(
            f"cannot read {path}: there is not enough memory to decode it at once; convert it to a tiled TIFF or to "
            "OME-Zarr, which are read piece by piece"
        ) from error
    except _DECODER_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnreadableImageError(
            f"cannot read {path}: {reason} (damaged, or not what its extension says; replace it or leave it out)"
        ) from error


# ------------------------------------------------------------------------------------------------------ finding files


def image_name(path: str | Path) -> str:
    """Name of an image without its extension; ``.ome.tif`` and ``.ome.zarr`` count as one extension.

    Examples
    --------
    >>> image_name("slides/cell.7.OME.tiff")
    'cell.7'
    """
    path = Path(path)
    stem = path.stem if path.suffix.lower() in OPENERS else path.name
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Image files that `inputs` name.

    Parameters
    ----------
    inputs : sequence of str or Path
        Folders (the images directly in them), files, ``.zarr`` folders (one image each, never entered) and patterns such
        as ``slides/**/*.tif``. Hidden files are left out of folders and patterns, and so is what has no image extension.

    Returns
    -------
    list of Path
        Each image once, in natural order (``img2`` before ``img10``).

    Raises
    ------
    NoImagesError
        If one of `inputs` is missing or gives no image.
    """
    if not inputs:
        raise NoImagesError("no images were named: give a folder, a pattern or files")
    found = {path.absolute(): path for item in inputs for path in _images_of(item)}
    return sorted(found.values(), key=_natural)


def check_unique_names(paths: Sequence[Path]) -> None:
    """Make sure that results named after the images do not overwrite one another.

    Names are compared without regard to case, because Windows and macOS do so.

    Raises
    ------
    InputError
        Naming two images whose names without extension are the same.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(image_name(path).lower(), path)
        if other is not path:
            raise InputError(
                f"{other} and {path} have the same name without extension, so their results would overwrite each other: "
                "rename one of them or run them into different folders"
            )


def _images_of(item: str | Path) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_dir() and not _is_zarr(path):
        images = [child for child in path.iterdir() if _is_image(child)]
        if not images:
            raise NoImagesError(f"no image in the folder {path}: {_what_is_there(path)}; the extensions read are {_LISTED}")
        return images
    if path.exists():
        if path.suffix.lower() not in OPENERS and not _is_zarr(path):
            raise NoImagesError(f"{path} is not an image that can be read: the extensions read are {_LISTED}")
        return [path]
    if glob.has_magic(str(path)):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        images = [match for match in matches if _is_image(match) and not any(_is_zarr(p) for p in match.parents)]
        if not images:
            raise NoImagesError(f"no image matches {item}: the extensions read are {_LISTED}")
        return images
    raise NoImagesError(f"{path} does not exist: give a folder, a pattern or files with the extensions {_LISTED}")


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr"


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in OPENERS:
        return False
    return path.is_dir() == _is_zarr(path)


def _what_is_there(folder: Path) -> str:
    children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    if any(child.is_dir() for child in children):
        return f"its sub-folders are not searched (for that give the pattern '{folder / '**' / '*'}')"
    return f"none of its {len(children)} files is one" if children else "it is empty"


def _natural(path: Path) -> list[tuple[int, int | str]]:
    # numbers before words at the same place, as file managers do; the pairs keep numbers and words comparable
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", str(path).lower()) if part]
