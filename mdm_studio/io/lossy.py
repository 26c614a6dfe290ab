"""Whether a file was compressed so that its values changed, whatever its name says: the file's own marks decide.

A label map or mask that was stored in such a format has values that nobody painted.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from mdm_studio.io.file_signature import state_of
from mdm_studio.io.images.tiff_parts import check_chain
from mdm_studio.io.quiet import quiet

_JPEG_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}  # start-of-frame markers of lossless JPEG
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_TAGS = {6, 7, 33007}  # values of the TIFF tag Compression
_JPEG_2000_TAGS = {33003, 33004, 33005, 34712}
_WEBP_TAGS = {34927, 50001}
_ZARR_LOSSY = ("jpeg", "jpeg2k", "j2k", "jpegxr", "webp", "avif", "heif", "bitround", "quantize", "lerc", "zfp")
_MOST_METADATA = 64  # files of a zarr that are looked at
_HEAD = 1 << 16  # bytes of a picture that its marks stand in


def lossy_format(path: Path) -> str:
    """Name of the lossy format that a file, or an OME-Zarr folder, is in; empty if it is in none or cannot be read.

    Examples
    --------
    >>> from PIL import Image
    >>> Image.new("L", (8, 8)).save("labels.png", format="jpeg")
    >>> lossy_format(Path("labels.png"))
    'JPEG'
    """
    return _looked_up(path, state_of(path))


@lru_cache(maxsize=64)  # a stack is asked for plane by plane
def _looked_up(path: Path, state: tuple[int, ...] | None) -> str:
    with quiet(), contextlib.suppress(OSError, ValueError, struct.error):
        if path.is_dir():
            return _of_zarr(path)
        if not path.is_file():
            return ""  # a named pipe would be waited for
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return _of_tiff(path)
            return _of_picture(head, file)
    return ""


def _of_picture(head: bytes, file: BinaryIO) -> str:
    if head[:3] == b"\xff\xd8\xff":
        return "" if _frame(head) in _JPEG_LOSSLESS else "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        file.seek(12)
        return "WebP" if b"VP8 " in _webp_chunks(file) else ""
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1"):
        return "AVIF"
    if head[:4] == b"\xff\x4f\xff\x51" or head[4:8] == b"jP  ":
        return "JPEG 2000" if _is_irreversible(head) else ""
    return ""


def _frame(data: bytes) -> int:
    """The marker of the frame of a JPEG: how it is compressed; 0 if it is not found."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            return marker
        if marker in {0x01, 0xFF, *range(0xD0, 0xD9)}:  # without a length
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _webp_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Kinds of the chunks of a WebP file, those of its frames among them."""
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        yield kind
        # a frame holds chunks of its own after 16 bytes
        file.seek(16 if kind == b"ANMF" else size + size % 2, 1)


def _is_irreversible(data: bytes) -> bool:
    """Whether a JPEG 2000 code stream says that it was transformed by the wavelet that rounds (9-7)."""
    at = data.find(b"\xff\x52")  # COD; its last byte but the precinct sizes is the wavelet
    return at >= 0 and len(data) > at + 13 and data[at + 13] == 0


def _of_tiff(path: Path) -> str:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            check_chain(tif)  # pages that lead round in a circle would be gone through for ever
            found: dict[int, Any] = {}
            for each in tif.pages:
                page: Any = each.keyframe
                found[page.compression] = page
            for compression, page in found.items():
                if name := _of_segment(int(compression), _first_segment(tif, page)):
                    return f"{name} inside a TIFF"
    except (tifffile.TiffFileError, RuntimeError, EOFError, LookupError, TypeError, AttributeError):
        return ""  # damaged: whoever reads it says so
    return ""


def _first_segment(tif: Any, page: Any) -> bytes:
    offset, count = page.dataoffsets[0], page.databytecounts[0]
    tif.filehandle.seek(offset)
    data: bytes = tif.filehandle.read(min(count, _HEAD))
    return data


def _of_segment(compression: int, data: bytes) -> str:
    if compression in _JPEG_TAGS:
        return "" if _frame(data) in _JPEG_LOSSLESS else "JPEG"
    if compression in _WEBP_TAGS:
        return "WebP" if b"VP8 " in _webp_chunks(io.BytesIO(data[12:])) else ""
    if compression in _JPEG_2000_TAGS:
        return "JPEG 2000" if _is_irreversible(data) else ""
    return ""


def _of_zarr(folder: Path) -> str:
    """Codecs that change values, of any array of a zarr."""
    patterns = ("zarr.json", ".zarray", "*/zarr.json", "*/.zarray", "*/*/zarr.json", "*/*/.zarray")
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))[:_MOST_METADATA]]
    for file in files:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            for name in _codecs(json.loads(file.read_bytes())):
                short = name.lower().replace("imagecodecs_", "").replace("numcodecs.", "")
                if short in _ZARR_LOSSY:
                    return f"{short} inside an OME-Zarr"
    return ""


def _codecs(facts: Any) -> Iterator[str]:
    """Names of all codecs and filters in the metadata of an array; those inside of shards too."""
    if isinstance(facts, list):
        for each in facts:
            yield from _codecs(each)
    elif isinstance(facts, dict):
        if isinstance(facts.get("configuration"), dict):
            yield from _codecs(facts["configuration"].get("codecs"))
        for key in ("name", "id"):
            if isinstance(facts.get(key), str):
                yield facts[key]
        for key in ("codecs", "compressor", "filters"):
            yield from _codecs(facts.get(key))
