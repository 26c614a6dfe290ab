"""How each image format is opened: one function a format, all giving the same `Source`.

========================  ==========================================================================================
PNG JPEG BMP GIF WebP     decoded when opened (these formats have no tiles) and held; first frame; turned as EXIF says;
                          palette and CMYK become RGB, transparency is dropped, one bit becomes 0 and 255
TIFF (also OME, ImageJ)   first series, full resolution. Tiled: region by region. Uncompressed: read in place. Strips that
                          are compressed: a plane is decoded at its first read and held until another plane is read
OME-Zarr 0.1 to 0.5       first multiscale, level 0, region by region
NPY                       ``(H, W)``; ``(H, W, C)`` if the last axis is 1 to 4 long; ``(C, H, W)`` otherwise; read in place
========================  ==========================================================================================

Pixel values are those stored: a TIFF whose tag says that 0 is white is not inverted (ImageJ and tifffile do not either, and
tifffile writes that tag for every boolean array).
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from tifffile import TiffFile, TiffPageSeries

# Formats without tiles have to be decoded as a whole: 2**30 pixels (32768 x 32768) are 1 GiB in grey and 3 GiB in colour
MAX_UNTILED_PIXELS = 1 << 30
_BAND_ROWS = 1024  # rows copied out of a decoded picture at a time, so that it is never held three times
_COLOUR_PNG_TYPES = {2: 3, 4: 1, 6: 3}  # PNG colour type -> samples without transparency: RGB, grey + alpha, RGBA
_CENTIMETRE = 3  # value of the TIFF tag ResolutionUnit

_UNITS = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometre", "\\u00b5m"), "micrometer"),
    **dict.fromkeys(("nm", "nanometre"), "nanometer"),
    **dict.fromkeys(("mm", "millimetre"), "millimeter"),
    **dict.fromkeys(("cm", "centimetre"), "centimeter"),
    **dict.fromkeys(("å", "ångström"), "angstrom"),
    **dict.fromkeys(("m", "metre"), "meter"),
    "in": "inch",
}
_NO_UNITS = ("", "none", "pixel", "pixels", "reference frame")

# tifffile logs each damaged tag; what matters of it comes as our one-line error, unless a program asks for its log
logging.getLogger("tifffile").addHandler(logging.NullHandler())


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


class Opener(Protocol):
    """What opens the files of one format."""

    def __call__(self, path: Path, *, values: bool) -> Source:
        """Open `path`; with `values`, palette indices and bits stay numbers instead of becoming colours."""


# ---------------------------------------------------------------------------------------------- any axes to (C, H, W)


def _source(axes: str, shape: Sequence[int], dtype: np.dtype[Any], get: Callable[[tuple[Any, ...]], NDArray[Any]]) -> Source:
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


def _converted(source: Source, channels: int, dtype: np.dtype[Any], convert: Callable[[Pixels], Pixels]) -> Source:
    """`source` with every region passed through `convert`, which gives `channels` channels of `dtype`."""

    def region(plane: int, rows: slice, cols: slice) -> Pixels:
        return convert(source.region(plane, rows, cols))

    return replace(source, shape=(channels, *source.shape[1:]), dtype=dtype, region=region)


def _without_bool(source: Source, *, values: bool) -> Source:
    """Bits as uint8: 0 and 255 in an image, 0 and 1 where numbers are wanted."""
    if source.dtype.kind != "b":
        return source
    white = np.uint8(1 if values else 255)
    return _converted(source, source.shape[0], np.dtype(np.uint8), lambda block: block.astype(np.uint8) * white)


def _spacing(size_y: float, size_x: float, unit: str | None) -> tuple[tuple[float, float] | None, str | None]:
    """Pixel size and unit if they say anything, otherwise (None, None)."""
    unit = (unit or "").strip().lower()
    if unit in _NO_UNITS or not all(math.isfinite(s) and s > 0 for s in (size_y, size_x)):
        return None, None
    return (size_y, size_x), _UNITS.get(unit, unit)


# ------------------------------------------------------------------------------------------------------------- Pillow

_pillow_limit = threading.Lock()


@contextlib.contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit of 179 million pixels, a guard for web servers; 20,000 x 20,000 scans are 400 million.

    Our own `MAX_UNTILED_PIXELS` is checked instead. The limit is one global of Pillow's, hence the lock.
    """
    from PIL import Image

    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_pillow(path: Path, *, values: bool) -> Source:
    """Open a PNG, JPEG, BMP, GIF or WebP file: `Opener`."""
    array = _deep_colour_png(path)
    if array is None:
        from PIL import Image, ImageOps

        with _no_pillow_limit(), Image.open(path) as image:
            _check_untiled(*image.size)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            array = _from_pillow(_plain_mode(image, values=values))
    if array.dtype == np.int32 and array.min(initial=0) >= 0 and array.max(initial=0) <= np.iinfo(np.uint16).max:
        array = array.astype(np.uint16)  # Pillow's mode I: 16-bit grey in the wider type it calculates with
    source = _source("YXS"[: array.ndim], array.shape, array.dtype, lambda selection: array[selection])
    return _without_bool(replace(source, rgb=array.ndim == 3), values=values)


def _check_untiled(width: int, height: int) -> None:
    if width * height > MAX_UNTILED_PIXELS:
        raise ValueError(
            f"its {height} x {width} pixels would have to be decoded at once; convert it to a tiled TIFF or to OME-Zarr, "
            "which are read piece by piece"
        )


def _plain_mode(image: PillowImage, *, values: bool) -> PillowImage:
    """The picture in a mode that is grey or RGB, or its stored numbers."""
    if image.mode in ("LA", "La", "PA") and (values or image.mode != "PA"):
        return image.getchannel(0)
    if image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16") or (image.mode == "P" and values):
        return image
    image.info.pop("transparency", None)  # dropped anyway; Pillow warns about some of its spellings
    return image.convert("RGB")


def _from_pillow(image: PillowImage) -> NDArray[Any]:
    """Copy a loaded picture band by band to an array ``(H, W)`` or ``(H, W, 3)``."""
    width, height = image.size
    first = np.asarray(image.crop((0, 0, width, 1)))
    array = np.empty((height, *first.shape[1:]), first.dtype)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, height)
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def _deep_colour_png(path: Path) -> NDArray[Any] | None:
    """A PNG of 16 bits with colour or transparency, which Pillow would cut to 8 bits; None for every other file."""
    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 26 or head[24] != 16 or head[25] not in _COLOUR_PNG_TYPES:
        return None
    import imagecodecs

    _check_untiled(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    array: NDArray[Any] = imagecodecs.png_decode(path.read_bytes())  # (H, W, samples)
    samples = _COLOUR_PNG_TYPES[head[25]]
    return array[..., :3] if samples == 3 else array[..., 0]


# --------------------------------------------------------------------------------------------------------------- TIFF


def open_tiff(path: Path, *, values: bool) -> Source:
    """Open a TIFF file, plain, OME or ImageJ: `Opener`."""
    import tifffile

    with contextlib.ExitStack() as stack:
        tif = stack.enter_context(tifffile.TiffFile(path))
        if not tif.series:
            raise ValueError("the TIFF file holds no image")
        series = tif.series[0]
        _check_whole(tif, series)
        source = _source(series.axes, series.shape, np.dtype(series.dtype), _tiff_pixels(path, series))
        source = _tiff_colours(source, series, values=values)
        pixel_size, unit = _tiff_spacing(tif, series)
        return replace(source, close=stack.pop_all().close, pixel_size=pixel_size, unit=unit)


def _check_whole(tif: TiffFile, series: TiffPageSeries) -> None:
    """Raise EOFError if pixels are not in the file: tifffile would give zeros for some of them."""
    if series.is_multifile:
        return
    for page in (series.pages[0], series.pages[-1]):
        if page is not None:
            if not page.dataoffsets:
                raise EOFError("the file is damaged: it does not say where its pixels are")
            end = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
            if end > tif.filehandle.size:
                raise EOFError(f"the file is cut off: {end} bytes are needed and {tif.filehandle.size} are there")


def _tiff_pixels(path: Path, series: TiffPageSeries) -> Callable[[tuple[Any, ...]], NDArray[Any]]:
    """The function that gives a selection of a TIFF series, the way that decodes and holds least."""
    keyframe = series.keyframe
    if keyframe.is_tiled:
        import zarr

        tiles = zarr.open_array(series.aszarr(level=0), mode="r")
        return lambda selection: np.asarray(tiles[selection])
    offset = series.dataoffset
    if offset is not None and keyframe.is_memmappable:
        dtype = np.dtype(series.dtype).newbyteorder(keyframe.parent.byteorder)
        # mapped anew at each read: pages of a lasting map would count as this process's memory
        return lambda selection: np.array(np.memmap(path, dtype, "r", offset, tuple(series.shape))[selection])
    _check_untiled(keyframe.imagewidth, keyframe.imagelength)
    return _HeldPlane(series)


class _HeldPlane:
    """Selections of a TIFF series in compressed strips: the plane read last is held, decoded."""

    def __init__(self, series: TiffPageSeries) -> None:
        self._series = series
        self._lock = threading.Lock()
        self._which: tuple[int, ...] | None = None
        self._pixels: NDArray[Any] | None = None

    def __call__(self, selection: tuple[Any, ...]) -> NDArray[Any]:
        which = tuple(s for s in selection if not isinstance(s, slice))
        with self._lock:
            if self._pixels is None or which != self._which:
                self._pixels = None  # before decoding the next: never two planes at once
                self._pixels = self._decode(tuple(slice(None) if isinstance(s, slice) else s for s in selection))
                self._which = which
            pixels = self._pixels
        return pixels[tuple(s for s in selection if isinstance(s, slice))]

    def _decode(self, selection: tuple[Any, ...]) -> NDArray[Any]:
        if len(self._series.pages) == 1:
            pixels: NDArray[Any] = np.asarray(self._series.asarray()).reshape(self._series.shape)[selection]
            return pixels
        import tifffile
        import zarr

        pages = self._series.aszarr(level=0, chunkmode=tifffile.CHUNKMODE.PAGE)
        return np.asarray(zarr.open_array(pages, mode="r")[selection])


def _tiff_colours(source: Source, series: TiffPageSeries, *, values: bool) -> Source:
    """Palette and CMYK as RGB, transparency dropped, bits as bytes."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    page, channels = series.keyframe, source.shape[0]
    photometric = page.photometric
    if photometric == PHOTOMETRIC.PALETTE and channels == 1 and not values:
        palette = _eight_bits(np.asarray(page.colormap))  # (3, 2**bits)
        return replace(_converted(source, 3, palette.dtype, lambda block: palette[:, block[0]]), rgb=True)
    if channels != page.samplesperpixel or channels == 1:
        return _without_bool(source, values=values)
    if photometric == PHOTOMETRIC.SEPARATED and channels == 4 and source.dtype.kind == "u":
        return replace(_converted(source, 3, source.dtype, _cmyk_to_rgb), rgb=True)
    if photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        # samples in separate planes are what tifffile writes for any uint8 or uint16 array of 3 or 4 planes, so that the
        # fourth may well be a stain: transparency is dropped only where colours lie side by side, as photographs have them
        if channels == 4 and page.planarconfig == 1:
            source = _converted(source, 3, source.dtype, lambda block: block[:3])
        return replace(source, rgb=source.shape[0] == 3)
    alpha = bool(page.extrasamples) and page.extrasamples[-1] in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
    if channels == 2 and alpha:
        source = _converted(source, 1, source.dtype, lambda block: block[:1])
    return _without_bool(source, values=values)


def _eight_bits(colormap: NDArray[Any]) -> NDArray[np.uint8]:
    # the tag has 16 bits a colour; some writers fill in 8 only
    shift = 8 if colormap.max(initial=0) > np.iinfo(np.uint8).max else 0
    eight: NDArray[np.uint8] = (colormap >> shift).astype(np.uint8)
    return eight


def _cmyk_to_rgb(block: Pixels) -> Pixels:
    full = np.iinfo(block.dtype).max
    ink = block.astype(np.float32) / full  # (4, h, w): cyan, magenta, yellow, black
    light = (1 - ink[:3]) * (1 - ink[3:])
    converted: Pixels = np.rint(light * full).astype(block.dtype)
    return converted


def _tiff_spacing(tif: TiffFile, series: TiffPageSeries) -> tuple[tuple[float, float] | None, str | None]:
    """Pixel size of OME-TIFF, ImageJ, and plain TIFF in pixels per centimetre (per inch is a printer's resolution)."""
    if tif.is_ome and tif.ome_metadata:
        pixels = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
        get = {} if pixels is None else pixels.attrib
        size_x = float(get.get("PhysicalSizeX", 0))
        return _spacing(float(get.get("PhysicalSizeY", 0)), size_x, get.get("PhysicalSizeXUnit", "µm"))
    tags = series.keyframe.tags
    per_x, per_y = (_ratio(tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if not per_x or not per_y:
        return None, None
    if tif.is_imagej and tif.imagej_metadata:
        return _spacing(1 / per_y, 1 / per_x, str(tif.imagej_metadata.get("unit", "")))
    if tags.valueof("ResolutionUnit") == _CENTIMETRE:
        return _spacing(1e4 / per_y, 1e4 / per_x, "micrometer")
    return None, None


def _ratio(value: object) -> float:
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return float(value[0]) / float(value[1])
    return 0.0


# ----------------------------------------------------------------------------------------------------- OME-Zarr, NPY


def open_zarr(path: Path, *, values: bool) -> Source:
    """Open an OME-Zarr folder: `Opener`.

    The few fields needed are read here, with zarr alone: importing `ome_zarr` takes a second (it brings dask).
    """
    import zarr

    group = zarr.open_group(path, mode="r")
    metadata = _ome_metadata(group.attrs.asdict())
    if "multiscales" not in metadata and "0" in group:  # the layout of bioformats2raw: one numbered group a series
        group = zarr.open_group(path / "0", mode="r")
        metadata = _ome_metadata(group.attrs.asdict())
    if "plate" in metadata:
        raise ValueError("it is a plate of many wells; name the images inside it, for example PLATE.zarr/A/1/0")
    if not metadata.get("multiscales"):
        raise ValueError("it has no 'multiscales' metadata, so it is not an OME-Zarr image")
    multiscale = metadata["multiscales"][0]
    dataset = multiscale["datasets"][0]
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"its level {dataset['path']!r} is not an array")
    axes = multiscale.get("axes") or list("tczyx"[-array.ndim :])
    names = "".join((axis if isinstance(axis, str) else axis["name"])[:1].upper() for axis in axes)
    source = _source(names, array.shape, array.dtype, lambda selection: np.asarray(array[selection]))
    pixel_size, unit = _zarr_spacing(names, axes, multiscale, dataset)
    source = replace(source, rgb=_says_rgb(metadata, source), pixel_size=pixel_size, unit=unit)
    return _without_bool(source, values=values)


def _ome_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(attributes.get("ome", attributes))  # 0.5 keeps under "ome" what was at the top before


def _zarr_spacing(
    names: str, axes: Sequence[Any], multiscale: Mapping[str, Any], dataset: Mapping[str, Any]
) -> tuple[tuple[float, float] | None, str | None]:
    scale = np.ones(len(names))
    steps = [*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())]
    for step in steps:
        if step.get("type") == "scale" and "scale" in step:
            scale = scale * np.asarray(step["scale"], float)
    axis = axes[names.index("X")]
    unit = None if isinstance(axis, str) else axis.get("unit")
    return _spacing(float(scale[names.index("Y")]), float(scale[names.index("X")]), unit)


def _says_rgb(metadata: Mapping[str, Any], source: Source) -> bool:
    """Whether three 8-bit channels are shown as exactly red, green and blue: how converters store a colour slide."""
    colours = [str(c.get("color", "")).upper() for c in (metadata.get("omero") or {}).get("channels", ())]
    return source.shape[0] == 3 and source.dtype == np.uint8 and colours == ["FF0000", "00FF00", "0000FF"]


def open_npy(path: Path, *, values: bool) -> Source:
    """Open a NumPy array file: `Opener`."""

    def mapped() -> NDArray[Any]:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    array = mapped()
    if array.ndim not in (2, 3):
        raise ValueError(f"an array of shape {array.shape} is not an image: (H, W), (H, W, C) or (C, H, W) is")
    channels_last = array.ndim == 3 and 1 <= array.shape[-1] <= 4
    axes = "YX" if array.ndim == 2 else "YXC" if channels_last else "CYX"
    # mapped anew at each read: pages of a lasting map would count as this process's memory
    source = _source(axes, array.shape, array.dtype, lambda selection: np.array(mapped()[selection]))
    rgb = channels_last and array.shape[-1] == 3 and array.dtype == np.uint8
    return _without_bool(replace(source, rgb=rgb), values=values)


OPENERS: dict[str, Opener] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"), open_pillow),
    **dict.fromkeys((".tif", ".tiff"), open_tiff),
    ".zarr": open_zarr,
    ".npy": open_npy,
}
"""Lower-case extension -> how to open it."""
