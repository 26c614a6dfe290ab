"""TIFF files, plain, OME and ImageJ."""

from __future__ import annotations

import contextlib
import logging
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels
from mdm_studio.io.images.source import Source, check_untiled, converted, from_axes, without_bool
from mdm_studio.io.images.spacing import spacing

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_CENTIMETRE = 3  # value of the TIFF tag ResolutionUnit

# tifffile logs each damaged tag; what matters of it comes as our one-line error, unless a program asks for its log
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(path: Path, *, values: bool) -> Source:
    """Open a TIFF file, plain, OME or ImageJ: `Opener`."""
    import tifffile

    with contextlib.ExitStack() as stack:
        tif = stack.enter_context(tifffile.TiffFile(path))
        if not tif.series:
            raise ValueError("the TIFF file holds no image")
        series = tif.series[0]
        _check_whole(tif, series)
        source = from_axes(series.axes, series.shape, np.dtype(series.dtype), _tiff_pixels(path, series))
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


def _tiff_colours(source: Source, series: TiffPageSeries, *, values: bool) -> Source:
    """Palette and CMYK as RGB, transparency dropped, bits as bytes."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    page, channels = series.keyframe, source.shape[0]
    photometric = page.photometric
    if photometric == PHOTOMETRIC.PALETTE and channels == 1 and not values:
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
            source = converted(source, 3, source.dtype, lambda block: block[:3])
        return replace(source, rgb=source.shape[0] == 3)
    alpha = bool(page.extrasamples) and page.extrasamples[-1] in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
    if channels == 2 and alpha:
        source = converted(source, 1, source.dtype, lambda block: block[:1])
    return without_bool(source, values=values)


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
        return spacing(float(get.get("PhysicalSizeY", 0)), size_x, get.get("PhysicalSizeXUnit", "µm"))
    tags = series.keyframe.tags
    per_x, per_y = (_ratio(tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if not per_x or not per_y:
        return None, None
    if tif.is_imagej and tif.imagej_metadata:
        return spacing(1 / per_y, 1 / per_x, str(tif.imagej_metadata.get("unit", "")))
    if tags.valueof("ResolutionUnit") == _CENTIMETRE:
        return spacing(1e4 / per_y, 1e4 / per_x, "micrometer")
    return None, None


def _ratio(value: object) -> float:
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return float(value[0]) / float(value[1])
    return 0.0
