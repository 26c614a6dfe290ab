"""Masks, probabilities and uncertainty maps as files, written tile by tile.

Memory does not grow with the image, but for PNG, which Pillow wants whole.

================  ==============  ====================================================================================
format            file            what it holds
================  ==============  ====================================================================================
``png``           NAME.png        One mask ``(H, W)``: 8-bit palette, so that a viewer shows the class colours and the
                                  stored numbers are the classes; 16-bit grey once a value exceeds 255
``tiff``          NAME.tif        Any axes and type: OME-TIFF, tiles of 512, zlib; BigTIFF from 4 GB
``ome-zarr``      NAME.ome.zarr   Any axes and type: OME-Zarr 0.5 with a pyramid (masks: every second pixel; floats: means)
``npy``           NAME.npy        Any axes and type: a plain NumPy array, which can be mapped into memory
================  ==============  ====================================================================================

Tiles may come in any order, and what is never written is 0. PNG and TIFF want their pixels in order, so that tiles wait in
an unfinished file in the same folder. That file is written and read, not mapped: mapped pages would count as memory used.
"""

from __future__ import annotations

import colorsys
import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image as PILImage

from mdm_studio.errors import OutputError, UnreadableImageError, UsageError
from mdm_studio.io.atomic import replacing
from mdm_studio.io.images import open_image
from mdm_studio.io.mask_spec import TILE, MaskSpec, MaskWriter, ome_axes, rgb
from mdm_studio.io.mask_zarr import write_ome_zarr

MaskFormat = Literal["png", "tiff", "ome-zarr", "npy"]

_EXTENSIONS: dict[MaskFormat, str] = {"png": ".png", "tiff": ".tif", "ome-zarr": ".ome.zarr", "npy": ".npy"}
_CLASSIC_TIFF = 0xF0000000  # bytes of pixels that still leave room for the tables of a TIFF with 32-bit offsets
_METRES = {"angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "meter": 1.0}
_OME_SYMBOLS = {
    "angstrom": "Å", "nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "inch": "in",
}  # fmt: skip

# Okabe and Ito's colours, told apart with any colour vision, but for the black, which stands for class 0
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


@contextlib.contextmanager
def open_mask(
    stem: str | Path,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    *,
    format: MaskFormat,  # noqa: A002 - the word of the command line's --format
    axes: str = "YX",
    palette: Mapping[int, str] | None = None,
    names: Mapping[int, str] | None = None,
    pixel_size: tuple[float, float] | None = None,
    unit: str | None = None,
    overwrite: bool = False,
) -> Iterator[MaskWriter]:
    """Write a mask file; it takes its final name, whole, when the block ends without an exception.

    Parameters
    ----------
    stem : str or Path
        Folder and name without extension (see `mask_path`).
    shape : tuple of int
        Lengths of `axes`.
    dtype : dtype
        uint8 or uint16 for masks, float32 for probabilities and uncertainty.
    format : {"png", "tiff", "ome-zarr", "npy"}
        See the module's table.
    axes : str
        Stack axes if any, then C if there are channels (probabilities: the classes), then YX; for example "TZCYX".
    palette : mapping, optional
        Value -> colour "#rrggbb", stored by the formats that can (PNG, OME-Zarr); see `class_palette`.
    names : mapping, optional
        Value -> name of its class, stored by OME-Zarr beside the colours.
    pixel_size, unit : (float, float), str, optional
        Height and width of a pixel, and the unit as OME-Zarr spells it ("micrometer").
    overwrite : bool
        Replace an existing file.

    Yields
    ------
    MaskWriter
        Takes the tiles.

    Raises
    ------
    UsageError
        If the format cannot hold such data.
    OutputError
        If the file exists and `overwrite` is not set, or if it cannot be written; nothing is left behind then.
    """
    stem = Path(stem)
    spec = MaskSpec(tuple(shape), axes, np.dtype(dtype), palette, pixel_size, unit, names, stem.name)
    if len(axes) != len(shape) or not axes.endswith("YX") or len(set(axes)) != len(axes) or "C" in spec.stack_axes:
        raise ValueError(f"axes {axes!r} do not describe the shape {shape}: stack axes, C, Y, X in this order are wanted")
    _check_format(format, spec)
    path = mask_path(stem.parent, stem.name, format)
    if os.path.exists(path) and not overwrite:
        raise OutputError(f"{path} exists already: pass --overwrite to replace it, or choose another folder")
    with replacing(path) as unfinished, _FORMATS[format](unfinished, spec) as writer:
        yield writer


def mask_path(out_dir: str | Path, name: str, format: MaskFormat) -> Path:  # noqa: A002 - as in open_mask
    """The file that `open_mask` writes for an image called `name`."""
    return Path(out_dir) / f"{name}{_EXTENSIONS[format]}"


def has_whole(path: str | Path, *, decoded: bool = False) -> bool:
    """Whether a mask file is there and can be opened, so that a resumed run may leave it alone.

    Files written here are whole or absent; this finds those that another program, or a broken disk, cut off. With `decoded`
    all of it is read, which finds spoilt bytes in the middle, too.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".png" and not decoded:  # opening it would decode it all; the last chunk tells as much
            with path.open("rb") as file:
                file.seek(-12, 2)
                return file.read() == _PNG_END
        with open_image(path, values=True) as file:
            for number in range(file.planes if decoded else 0):
                file.plane(number).digest()
    except (UnreadableImageError, OSError):
        return False
    return True


def class_palette(classes: int) -> dict[int, str]:
    """Colours for label maps of `classes` classes: 0 is black, 1 to `classes` are told apart well.

    Examples
    --------
    >>> class_palette(2)
    {0: '#000000', 1: '#e69f00', 2: '#56b4e9'}
    """
    palette = {0: "#000000"}
    for value in range(1, classes + 1):
        palette[value] = _COLOURS[value - 1] if value <= len(_COLOURS) else _further_colour(value)
    return palette


def _further_colour(value: int) -> str:
    # steps of the golden ratio never come back to a hue; lightness alternates, so that neighbours differ twice
    parts = colorsys.hls_to_rgb(value * 0.61803398875 % 1, (0.4, 0.55, 0.7)[value % 3], (0.9, 0.65)[value // 3 % 2])
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _check_format(kind: MaskFormat, spec: MaskSpec) -> None:
    if kind == "png" and spec.axes != "YX":
        raise UsageError("PNG holds a single mask, neither stacks nor probabilities: choose --format tiff, ome-zarr or npy")
    if kind == "png" and spec.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"PNG holds whole numbers of 8 or 16 bits, not {spec.dtype}: choose --format tiff, ome-zarr or npy")
    if kind in ("tiff", "ome-zarr") and len(spec.stack_axes) > 2:
        raise UsageError(f"OME files hold stacks of two axes at most, and this one has {spec.stack_axes}: choose --format npy")
    for colour in (spec.palette or {}).values():
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise UsageError(f"the colour {colour!r} is not understood: #rrggbb is wanted, for example #e69f00")


# -------------------------------------------------------------------------------- NPY, and the plain file PNG and TIFF use


class _PlainWriter(MaskWriter):
    """Writes the pixels of an array, row after row, behind `offset` bytes of a file that is open for writing."""

    def __init__(self, spec: MaskSpec, file: BinaryIO) -> None:
        super().__init__(spec)
        self._file, self._offset = file, file.tell()
        self.largest = 0
        file.truncate(self._offset + spec.nbytes)  # what is not written reads as zeros and takes no room on most disks

    def _store(self, index: tuple[int, ...], y0: int, x0: int, block: NDArray[Any]) -> None:
        spec = self._spec
        height, width = spec.shape[-2:]
        planes = block.reshape(-1, *block.shape[-2:])  # (C or 1, h, w)
        outer = spec.shape[: len(index)]
        first = int(np.ravel_multi_index(index, outer)) * len(planes) if index else 0
        self.largest = max(self.largest, int(block.max())) if spec.dtype.kind == "u" else 0
        for number, plane in enumerate(planes, first):
            pieces = [plane] if plane.shape[1] == width else list(plane)  # whole rows lie next to one another
            for row, piece in enumerate(pieces, y0):
                self._file.seek(self._offset + ((number * height + row) * width + x0) * spec.dtype.itemsize)
                self._file.write(piece.data)


@contextlib.contextmanager
def _npy(path: Path, spec: MaskSpec) -> Iterator[MaskWriter]:
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(spec.dtype), "fortran_order": False, "shape": spec.shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield _PlainWriter(spec, file)


@contextlib.contextmanager
def _waiting(path: Path, spec: MaskSpec) -> Iterator[tuple[_PlainWriter, Callable[[], Iterator[NDArray[Any]]]]]:
    """A plain file beside `path` that takes tiles in any order, and the function that reads it back in bands.

    The bands ``(<= 512, W)`` come plane after plane, from the top down. The file is removed at the end.
    """
    waiting = path.with_name(path.name + ".raw")
    height, width = spec.shape[-2:]

    def bands() -> Iterator[NDArray[Any]]:
        file.flush()
        with waiting.open("rb") as pixels:
            for _ in range(math.prod(spec.shape[:-2])):
                for top in range(0, height, TILE):
                    rows = min(TILE, height - top)
                    yield np.fromfile(pixels, spec.dtype, rows * width).reshape(rows, width)

    try:
        with waiting.open("wb") as file:
            yield _PlainWriter(spec, file), bands
    finally:
        waiting.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------- PNG


_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every whole PNG


@contextlib.contextmanager
def _png(path: Path, spec: MaskSpec) -> Iterator[MaskWriter]:
    """PNG through Pillow, which wants the whole mask in memory: 400 MB for 20,000 x 20,000."""
    with _waiting(path, spec) as (writer, bands):
        yield writer
        deep = writer.largest > np.iinfo(np.uint8).max
        mask = np.empty(spec.shape, np.uint16 if deep else np.uint8)
        top = 0
        for band in bands():
            mask[top : top + len(band)] = band
            top += len(band)
        picture = PILImage.fromarray(mask)
        if spec.palette is not None and not deep:
            colours = class_palette(255) | dict(spec.palette)
            picture.putpalette([part for value in range(256) for part in rgb(colours[value])])  # the mode becomes P
        picture.save(path, format="png", **_png_resolution(spec))


def _png_resolution(spec: MaskSpec) -> dict[str, tuple[float, float]]:
    """Dots per inch, the only words for a pixel size that Pillow's PNG has."""
    if spec.pixel_size is None or spec.unit not in _METRES:
        return {}
    size_y, size_x = (size * _METRES[spec.unit] for size in spec.pixel_size)
    dpi = (0.0254 / size_x, 0.0254 / size_y)
    return {"dpi": dpi} if all(0 < value * 39.4 < 1 << 31 for value in dpi) else {}


# --------------------------------------------------------------------------------------------------------------- TIFF


@contextlib.contextmanager
def _tiff(path: Path, spec: MaskSpec) -> Iterator[MaskWriter]:
    import tifffile

    tile = tuple(min(TILE, -(-n // 16) * 16) for n in spec.shape[-2:])  # a multiple of 16, as the format asks

    def tiles() -> Iterator[NDArray[Any]]:
        for band in bands():
            for top in range(0, band.shape[0], tile[0]):
                for left in range(0, band.shape[1], tile[1]):
                    yield band[top : top + tile[0], left : left + tile[1]]

    with _waiting(path, spec) as (writer, bands):
        yield writer
        tifffile.imwrite(
            path,
            tiles(),
            shape=spec.shape,
            dtype=spec.dtype,
            tile=tile,
            compression="zlib",
            photometric="minisblack",
            bigtiff=spec.nbytes > _CLASSIC_TIFF,
            ome=True,
            **_tiff_spacing(spec),
        )


def _tiff_spacing(spec: MaskSpec) -> dict[str, Any]:
    """Axes and pixel size as arguments of tifffile: in OME's words, and as a resolution for plain readers."""
    metadata: dict[str, Any] = {"axes": ome_axes(spec.axes)}
    if spec.pixel_size is None or spec.unit not in _OME_SYMBOLS:
        return {"metadata": metadata}
    for axis, size in zip("YX", spec.pixel_size, strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": _OME_SYMBOLS[spec.unit]}
    if spec.unit not in _METRES:
        return {"metadata": metadata}
    per_y, per_x = (0.01 / (size * _METRES[spec.unit]) for size in spec.pixel_size)
    if not all(1e-9 < value < 1 << 32 for value in (per_y, per_x)):  # a tag of two 32-bit numbers; OME's words hold it
        return {"metadata": metadata}
    return {"metadata": metadata, "resolution": (per_x, per_y), "resolutionunit": "CENTIMETER"}


_FORMATS: dict[MaskFormat, Callable[[Path, MaskSpec], AbstractContextManager[MaskWriter]]] = {
    "png": _png,
    "tiff": _tiff,
    "ome-zarr": write_ome_zarr,
    "npy": _npy,
}
