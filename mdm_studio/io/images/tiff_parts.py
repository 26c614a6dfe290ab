"""Which images a TIFF holds, which of them is the main one, and whether all of it is there.

tifffile gives zeros for what is missing of a file; here it is an error that names what is missing.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm_studio.io.images.ome_xml import OmeImage, OmeXml, parse_ome_xml, read_companion
from mdm_studio.io.images.words import is_aside, parts, reason_of
from mdm_studio.io.quiet import quiet

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

_ODD = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RuntimeError)
TIFF_SUFFIXES = (".tif", ".tiff")
_NAMED = 5  # missing files that an error names
_LONGEST = 120  # letters of a reason that a remark gives
_UNCOMPRESSED = 1
_DESCRIPTION = 270
_MOST_TAGS = 4096  # of a page, as tifffile has it


@dataclass(frozen=True)
class Metadata:
    """What a TIFF says of itself, as far as it makes sense; `notes` say what does not."""

    ome: OmeXml = field(default_factory=OmeXml)
    imagej: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MainImage:
    """The image of a TIFF that is read, what OME-XML says of it, and what should be known of it; see `Source`."""

    series: TiffPageSeries
    ome: OmeImage | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


# ---- metadata ----------------------------------------------------------------------------------------------------------


def open_tiff_file(path: Path) -> tuple[TiffFile, Metadata]:
    """The open file and its metadata; where these make no sense, its pages are taken as they come.

    Raises
    ------
    FileNotFoundError
        If it is a part, and the file with the metadata of the whole is not there.
    """
    import tifffile

    tif = tifffile.TiffFile(path)
    try:
        if not tif.pages:
            raise ValueError("the TIFF file holds no image")
        ome, notes = _ome(tif, path.name)
        if ome.master:
            tif.close()
            tif, ome = _open_whole(path, ome.master)
        imagej, odd = _imagej(tif)
        notes += odd
        check_chain(tif)
        for name in {file for image in ome.images for file in image.files if file}:
            _check_part(tif, path.parent / name)
        if tif.is_ome and not ome.images:
            tif = _without(tif, is_ome=False)
        try:
            len(tif.series)
        except _ODD as error:
            notes += (f"its metadata make no sense ({_reason(error)}): its pages are taken as they come",)
            tif = _without(tif, is_ome=False, is_imagej=False, is_shaped=False)
            ome, imagej = OmeXml(), {}
    except BaseException:
        tif.close()
        raise
    return tif, Metadata(ome, imagej, notes)


def _check_part(tif: TiffFile, path: Path) -> None:
    """Refuse a part of an image that tifffile would wait for, or go round in, for ever; one that is missing is named later."""
    import tifffile

    if not path.exists() or os.path.samefile(path, tif.filehandle.path):
        return
    if not path.is_file():
        raise ValueError(f"its part {path.name} is no file")
    try:
        with tifffile.TiffFile(path) as part:
            check_chain(part)
    except (OSError, EOFError, struct.error, *_ODD) as error:
        raise ValueError(f"its part {path.name}: {_reason(error)}") from error


def _without(tif: TiffFile, **flags: Any) -> TiffFile:
    import tifffile

    tif.close()
    return tifffile.TiffFile(tif.filehandle.path, **flags)


def _open_whole(path: Path, master: str) -> tuple[TiffFile, OmeXml]:
    """The image of which `path` is a part that has no more metadata than the name of the file that has them all."""
    import tifffile

    place = path.parent / master
    if not place.is_file():
        raise FileNotFoundError(master)
    if place.suffix.lower() not in TIFF_SUFFIXES:
        text = read_companion(place)
        return tifffile.TiffFile(path, omexml=text), parse_ome_xml(text, path.name)
    tif = tifffile.TiffFile(place)
    ome, notes = _ome(tif, place.name)
    if notes or ome.master:
        tif.close()
        raise ValueError(f"{master}, which it is a part of, has no metadata of the whole")
    return tif, ome


def _ome(tif: TiffFile, name: str) -> tuple[OmeXml, tuple[str, ...]]:
    try:
        text = tif.ome_metadata if tif.is_ome else None
        return (parse_ome_xml(text, name) if text else OmeXml()), ()
    except _ODD as error:
        words = f"its OME-XML cannot be used ({_reason(error)}): its pages are taken as they come, without a pixel size"
        return OmeXml(), (words,)


def _imagej(tif: TiffFile) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        return dict(tif.imagej_metadata or {}) if tif.is_imagej else {}, ()
    except _ODD as error:
        return {}, (f"what ImageJ says of it cannot be used ({_reason(error)})",)


def _reason(error: Exception) -> str:
    return reason_of(error)[:_LONGEST]


def ome_of_file(path: Path, own_name: str) -> OmeXml:
    """OME-XML of a TIFF or of a companion, as the file `own_name` reads it; empty where there is none."""
    import tifffile

    try:
        if path.suffix.lower() not in TIFF_SUFFIXES:
            return parse_ome_xml(read_companion(path), own_name)
        with quiet(), tifffile.TiffFile(path) as tif:
            return _ome(tif, own_name)[0]
    except (OSError, tifffile.TiffFileError, struct.error, *_ODD):
        return OmeXml()


def first_of_parts(path: Path) -> Path:
    """The first file, of those that are there, of the image that `path` is a part of; itself if it is no part, or damaged."""
    ome = ome_of_file(path, path.name)
    place = path.parent / ome.master
    if ome.master and place.is_file():
        if place.suffix.lower() in TIFF_SUFFIXES:
            return place
        ome = ome_of_file(place, path.name)
    first = path
    for image in ome.images:
        there = [path if file in ("", path.name) else path.parent / file for file in image.files]
        there = [file for file in there if file.is_file()]
        if path not in there:
            continue
        if there[0] == path:
            return path
        first = there[0] if first == path else first
    return first


# ---- the main image ----------------------------------------------------------------------------------------------------


def main_image(tif: TiffFile, metadata: Metadata, path: Path) -> MainImage:
    """The image to read, all of which is there.

    Of several images that is the first one which is neither a thumbnail, label or overview (by name, by the tag that says
    "reduced", or by size) nor held by other files altogether.

    Raises
    ------
    FileNotFoundError
        Naming files of the image that are not there.
    EOFError
        If the file is cut off.
    """
    if not tif.series:
        raise ValueError("the TIFF file holds no image")
    described = _described(tif.series, metadata.ome)
    own = {"", path.name}
    here = [s for s, ome in zip(tif.series, described, strict=True) if ome is None or own & set(ome.files)]
    here = here or list(tif.series)
    if not all(map(_area, here)):  # a page that lost its size may be the very image
        raise ValueError("the file is damaged: one of its pages has no height or no width")
    series = _main(here)
    ome = described[tif.series.index(series)]
    _check_description(tif)
    _check_parts(series, ome, path.parent)
    _check_imagej(tif, series, metadata.imagej)
    empty = _check_bytes(series)
    left_out = [_others(here, series), *_undescribed(metadata.ome, described), _unused_pages(tif)]
    others = [file for file in ome.files if file not in own] if ome is not None else []
    notes = [f"it is one image with {_listed(others)}" if others else "", empty]
    if metadata.ome.images and series.kind in ("generic", "uniform"):
        notes.append("its OME-XML does not fit its pages: they are taken as they come")
    return MainImage(series, ome, tuple(words for words in left_out if words), tuple(words for words in notes if words))


def _described(series: Sequence[TiffPageSeries], ome: OmeXml) -> list[OmeImage | None]:
    """What the OME-XML says of each series; tifffile passes over images without pixels."""
    if all(each.kind != "ome" for each in series):  # tifffile could not make use of it
        own = ome.images[0] if len(ome.images) == 1 and ome.images[0].files == ("",) else None
        return [own, *(None for _ in series[1:])]
    left = list(ome.images)
    found: list[OmeImage | None] = []
    for each in series:
        at = next((i for i, image in enumerate(left) if image.name == each.name), None) if each.kind == "ome" else None
        found.append(None if at is None else left[at])
        left = left if at is None else left[at + 1 :]
    return found


def _main(series: Sequence[TiffPageSeries]) -> TiffPageSeries:
    proper = [s for s in series if not (is_aside(s.name) or s.keyframe.is_reduced or s.keyframe.is_mask)]
    kept = proper or series
    largest = max(_area(s) for s in kept)
    return next(s for s in kept if 2 * _area(s) >= largest)


def _area(series: TiffPageSeries) -> int:
    return int(series.keyframe.imagelength * series.keyframe.imagewidth)


def _others(series: Sequence[TiffPageSeries], main: TiffPageSeries) -> str:
    others = [(number, s) for number, s in enumerate(series, start=1) if s is not main]
    names = [s.name.strip() or f"{s.keyframe.imagelength} x {s.keyframe.imagewidth}" for _, s in others]
    return parts("scene" if main.kind == "ome" else "image", [number for number, _ in others], len(series), names)


def _undescribed(ome: OmeXml, described: Sequence[OmeImage | None]) -> list[str]:
    """Images of the OME-XML, said to be in this file, of which there are no pixels that can be read."""
    if not any(described):
        return []
    known = {id(each) for each in described}
    lost = [(number, each) for number, each in enumerate(ome.images, start=1) if id(each) not in known and "" in each.files]
    words = parts("scene", [number for number, _ in lost], len(ome.images), [each.name for _, each in lost])
    return [f"{words}: their pixels are not stored in a way that can be read"] if words else []


def _unused_pages(tif: TiffFile) -> str:
    """Pages that belong to no image, where the metadata decide which do."""
    if tif.series[0].kind not in ("ome", "imagej", "shaped"):
        return ""
    used: set[Any] = set()
    for series in tif.series:
        pages = [page for level in series.levels for page in level.pages if page is not None]
        used |= {page.index for page in pages if page.parent.filehandle.path == tif.filehandle.path}
        used |= set(range(math.prod(series.shape) // series.keyframe.size)) if len(series.pages) == 1 else set()
    total = len(tif.pages)
    return parts("page", [number + 1 for number in range(total) if number not in used], total, ["not named by its metadata"])


# ---- whether all is there ----------------------------------------------------------------------------------------------


def check_chain(tif: TiffFile) -> None:
    """Raise EOFError if a page points to a further one that is not there, ValueError if to one before it.

    tifffile stops at the first without a word, and goes round with the second for ever.
    """
    form, file = tif.tiff, tif.filehandle
    seen: set[int] = set()
    offset = tif.pages.first.offset
    while offset:
        if offset in seen:
            raise ValueError("the file is damaged: its pages lead round in a circle")
        seen.add(offset)
        file.seek(offset)
        head = file.read(form.tagnosize)
        tags = struct.unpack(form.tagnoformat, head)[0] if len(head) == form.tagnosize else 0
        file.seek(tags * form.tagsize, 1)
        end = file.read(form.offsetsize)
        if not 0 < tags <= _MOST_TAGS or len(end) < form.offsetsize:
            raise EOFError(f"the file is cut off: pages are missing after the first {max(len(seen) - 1, 1)}")
        offset = struct.unpack(form.offsetformat, end)[0]


def _check_description(tif: TiffFile) -> None:
    """Raise EOFError if the text of the first page, which names the axes, lies beyond the end; tifffile passes over it."""
    form, file = tif.tiff, tif.filehandle
    if form.tagsize != 4 + 2 * form.offsetsize:  # the scanner files that stretch TIFF beyond 4 GB in their own way
        return
    file.seek(tif.pages[0].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    entries = file.read(tags * form.tagsize)
    for start in range(0, len(entries) - form.tagsize + 1, form.tagsize):
        (code,) = struct.unpack(f"{form.byteorder}H", entries[start : start + 2])
        if code == _DESCRIPTION:
            numbers = entries[start + 4 : start + 4 + 2 * form.offsetsize]
            count, place = (struct.unpack(form.offsetformat, numbers[i:][: form.offsetsize])[0] for i in (0, form.offsetsize))
            if count > form.offsetsize and place + count > file.size:
                raise EOFError("the file is cut off: the text that describes it lies beyond its end")


def _check_parts(series: TiffPageSeries, ome: OmeImage | None, folder: Path) -> None:
    """Raise FileNotFoundError or EOFError if planes are missing, and name the files that hold them."""
    if ome is not None:
        missing = [file for file in ome.files if file and not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(_listed(missing))
    absent = sum(page is None for page in series.pages)
    if absent:
        total = len(series.pages)
        raise EOFError(f"{absent} of its {total} planes are missing: the file is cut off, or its metadata are wrong")


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:_NAMED]) + (f" and {len(files) - _NAMED} more" if len(files) > _NAMED else "")


def _check_imagej(tif: TiffFile, series: TiffPageSeries, imagej: dict[str, Any]) -> None:
    """Raise EOFError if ImageJ counted more planes than there are."""
    if not tif.is_imagej or not imagej:
        return
    counts = [imagej.get(name, 1) for name in ("slices", "frames", "channels")]
    said = [n for n in (imagej.get("images", 1), math.prod(counts)) if isinstance(n, int)]
    page = series.keyframe
    held = len(tif.pages) if len(tif.pages) > 1 else math.prod(series.shape) // max(page.imagelength * page.imagewidth, 1)
    held = max(held, len(tif.pages) * page.samplesperpixel)  # colours may be counted as channels
    if held < max(said, default=1):
        raise EOFError(f"the file is cut off: ImageJ wrote {max(said)} planes and {held} are there")


def _check_bytes(series: TiffPageSeries) -> str:
    """Raise EOFError if pixels of any plane lie beyond the end; says which parts of it are empty by themselves."""
    if series.dataoffset is not None:
        size = series.keyframe.parent.filehandle.size
        end = series.dataoffset + math.prod(series.shape) * series.dtype.itemsize
        if end > size:
            raise EOFError(f"the file is cut off: {end} bytes are needed and {size} are there")
        return ""
    pages = [page for page in series.pages if page is not None]
    empty, total = 0, 0
    for page in pages:
        empty += _check_page(page, series.keyframe)
        total += len(page.databytecounts)
    if empty == total:
        raise EOFError("the file holds no pixels: it says of each part that it is empty")
    what = "tiles" if series.keyframe.is_tiled else "strips"
    return f"{empty} of its {total} {what} are empty: no pixels were stored there" if empty else ""


def _check_page(page: TiffPage | TiffFrame, keyframe: TiffPage) -> int:
    """Number of tiles or strips of a page that are empty; EOFError if some lie beyond the end."""
    offsets, counts, size = page.dataoffsets, page.databytecounts, page.parent.filehandle.size
    if len(offsets) != len(counts) or len(offsets) < math.prod(keyframe.chunked):
        raise EOFError("the file is damaged: it does not say where all of its pixels are")
    _check_packed(sum(counts), keyframe)
    if keyframe.is_contiguous:
        counts = (keyframe.nbytes,)
    end = max(offset + count for offset, count in zip(offsets, counts, strict=False))
    if end > size:
        raise EOFError(f"the file is cut off: {end} bytes are needed and {size} are there")
    whole = keyframe.bitspersample % 8 == 0 and keyframe.compression == _UNCOMPRESSED and not keyframe.is_subsampled
    if whole and not keyframe.is_tiled and all(counts) and sum(counts) < keyframe.nbytes:
        raise EOFError(f"the file is damaged: {keyframe.nbytes} bytes of pixels are wanted and {sum(counts)} are there")
    return sum(not (offset and count) for offset, count in zip(offsets, counts, strict=False))


def _check_packed(stored: int, keyframe: TiffPage) -> None:
    """Raise EOFError if a page of fewer than 8 bits a pixel holds bytes for whole ones: a tag that is lost says 1 bit."""
    bits = keyframe.bitspersample
    if bits >= 8 or keyframe.compression != _UNCOMPRESSED or keyframe.is_tiled:
        return
    row = math.ceil(keyframe.imagewidth * keyframe.samplesperpixel * bits / 8)
    if stored >= 2 * row * keyframe.imagelength:
        raise EOFError(f"the file is damaged: it says {bits} bits a pixel and holds {stored} bytes, more than twice as many")
