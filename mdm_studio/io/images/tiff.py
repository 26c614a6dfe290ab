"""TIFF files, plain, OME and ImageJ."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels
from mdm_studio.io.images.source import TRANSPARENCY, Source, check_untiled, converted, from_axes, without_bool
from mdm_studio.io.images.spacing import Length, Spacing, spacing
from mdm_studio.io.images.tiff_parts import MainImage, Metadata, main_image, open_tiff_file

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_CENTIMETRE = 3  # value of the TIFF tag ResolutionUnit
_GDAL_NODATA = 42113
_LOOKED_THROUGH = 1 << 22  # pixels whose transparency is looked through when the file is opened

# tifffile logs each damaged tag; what matters of it comes as our one-line error, unless a program asks for its log
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(path: Path, *, values: bool) -> Source:
    """Open a TIFF file, plain, OME or ImageJ: `Opener`."""
    with contextlib.ExitStack() as stack:
        tif, metadata = open_tiff_file(path)
        stack.callback(tif.close)
        main = main_image(tif, metadata, path)
        series = main.series
        source = from_axes(series.axes, series.shape, np.dtype(series.dtype), _tiff_pixels(series))
        display = tif.is_imagej or main.ome is not None
        source = _tiff_colours(source, series, values=values, display=display)
        source = source if values else _without_nodata(source, series)
        size = _tiff_spacing(tif, main, metadata)
        return replace(
            source,
            close=stack.pop_all().close,
            pixel_size=size.size,
            unit=size.unit,
            left_out=(*main.left_out, *source.left_out),
            notes=(*metadata.notes, *main.notes, *source.notes, *size.notes),
        )


def _tiff_pixels(series: TiffPageSeries) -> Callable[[tuple[Any, ...]], NDArray[Any]]:
    """The function that gives a selection of a TIFF series, the way that decodes and holds least."""
    keyframe = series.keyframe
    if keyframe.is_tiled:
        import zarr

        tiles = zarr.open_array(series.aszarr(level=0), mode="r")
        return lambda selection: np.asarray(tiles[selection])
    offset = series.dataoffset
    if offset is not None and keyframe.is_memmappable:
        path = keyframe.parent.filehandle.path
        dtype = np.dtype(series.dtype).newbyteorder(keyframe.parent.byteorder)
        # mapped anew at each read: pages of a lasting map would count as this process's memory
        return lambda selection: np.array(np.memmap(path, dtype, "r", offset, tuple(series.shape))[selection])
    check_untiled(keyframe.imagewidth, keyframe.imagelength)
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


def _tiff_colours(source: Source, series: TiffPageSeries, *, values: bool, display: bool) -> Source:
    """Palette and CMYK as RGB, transparency dropped, bits as bytes; with `display` a palette only says how grey is shown."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    page, channels = series.keyframe, source.shape[0]
    photometric = page.photometric
    if photometric == PHOTOMETRIC.PALETTE and channels == 1 and not values:
        if page.colormap is None or display or _is_ramp(np.asarray(page.colormap)):
            return source
        palette = _eight_bits(np.asarray(page.colormap))  # (3, 2**bits)
        return replace(converted(source, 3, palette.dtype, lambda block: palette[:, block[0]]), rgb=True)
    if channels != page.samplesperpixel or channels == 1:
        return without_bool(source, values=values)
    if photometric == PHOTOMETRIC.SEPARATED and channels == 4 and source.dtype.kind == "u":
        return replace(converted(source, 3, source.dtype, _cmyk_to_rgb), rgb=True)
    if photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        # samples in separate planes are what tifffile writes for any uint8 or uint16 array of 3 or 4 planes, so that the
        # fourth may well be a stain: transparency is dropped only where colours lie side by side, as photographs have them
        if channels == 4 and page.planarconfig == 1:
            source = _opaque(source)
        return replace(source, rgb=source.shape[0] == 3)
    alpha = bool(page.extrasamples) and page.extrasamples[-1] in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
    if channels == 2 and alpha:
        source = _opaque(source)
    return without_bool(source, values=values)


def _opaque(source: Source) -> Source:
    """Without the last channel, transparency; says so unless all of it is seen to be one value."""
    colours = source.shape[0] - 1
    words = TRANSPARENCY
    _, height, width = source.shape
    if not source.stack_shape and height * width <= _LOOKED_THROUGH:
        transparency = source.region(0, slice(0, height, 1), slice(0, width, 1))[colours]
        words = "" if transparency.min() == transparency.max() else words
    opaque = converted(source, colours, source.dtype, lambda block: block[:colours])
    return replace(opaque, left_out=(words,) if words else ())


def _is_ramp(colormap: NDArray[Any]) -> bool:
    """Whether colours only grow brighter in one hue with the number, which shows grey values in a colour or in grey."""
    steps = np.arange(colormap.shape[1]) / max(colormap.shape[1] - 1, 1)
    full = colormap[:, -1:].astype(np.float64)  # the brightest, (3, 1)
    return bool(full.any()) and bool((np.abs(colormap - full * steps) <= max(full.max() / 128, 1)).all())


def _without_nodata(source: Source, series: TiffPageSeries) -> Source:
    """Pixels of a float image that GDAL marks as "no data" become not-a-number; whole numbers have none, and stay."""
    text = series.keyframe.tags.valueof(_GDAL_NODATA)
    if text is None or source.dtype.kind != "f":
        return source
    try:
        nodata = source.dtype.type(str(text).strip(" \0"))
    except ValueError:
        return replace(source, notes=(*source.notes, f"the value for `no data` is dropped: {str(text)[:40]!r} is no number"))
    nan = source.dtype.type("nan")
    return converted(source, source.shape[0], source.dtype, lambda block: np.where(block == nodata, nan, block))


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


def _tiff_spacing(tif: TiffFile, main: MainImage, metadata: Metadata) -> Spacing:
    """Pixel size of OME-TIFF, ImageJ, and plain TIFF in pixels per centimetre (per inch is a printer's resolution)."""
    if main.ome is not None:
        return main.ome.spacing
    tags = main.series.keyframe.tags
    per_x, per_y = (_ratio(tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if not per_x or not per_y:
        return Spacing()
    if tif.is_imagej:
        unit = metadata.imagej.get("unit")
        return spacing(Length(1 / per_y, metadata.imagej.get("yunit", unit)), Length(1 / per_x, unit))
    if tags.valueof("ResolutionUnit") == _CENTIMETRE and not metadata.notes:
        return spacing(Length(1e4 / per_y, "micrometer"), Length(1e4 / per_x, "micrometer"))
    return Spacing()


def _ratio(value: object) -> float:
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return float(value[0]) / float(value[1])
    return 0.0
