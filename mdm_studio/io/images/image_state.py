"""Signature and state of an image, which may be several files: see `mdm_studio.io.file_signature`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from mdm_studio.io.file_signature import Signature, State, signature, state_of
from mdm_studio.io.images.ome_xml import OmeXml
from mdm_studio.io.images.tiff_parts import TIFF_SUFFIXES, ome_of_file

_KNOWN = 256  # files whose parts are remembered: an image is asked for tile by tile


def image_signature(path: Path) -> Signature | None:
    """`signature` of an image: of one that is several files, all bytes of them, and a number that stands for every time."""
    own, others = signature(path), _other_files(path)
    if own is None or not others:
        return own
    found = [own, *(signature(other) or (0, 0) for other in others)]
    return sum(size for size, _ in found), _number(found)


def image_state(path: Path) -> State:
    """`state_of` an image and, where it is several files, of all of them."""
    own, others = state_of(path), _other_files(path)
    found = image_signature(path) if others else None
    if own is None or found is None:
        return own
    return (*found, _number([own, *(state_of(other) or () for other in others)]))


def _other_files(path: Path) -> tuple[Path, ...]:
    """Files beside `path` that hold parts of its image, or say which files do; of those that are missing too."""
    if path.suffix.lower() not in TIFF_SUFFIXES or not path.is_file():
        return ()
    ome, found = _ome_of(path, path.name, state_of(path)), []
    own = {"", path.name}
    if ome.master:
        whole = path.parent / ome.master
        found.append(whole)
        is_tiff = whole.suffix.lower() in TIFF_SUFFIXES
        ome = _ome_of(whole, whole.name if is_tiff else path.name, state_of(whole)) if whole.is_file() else OmeXml()
        own |= {whole.name}
    files = (file for image in ome.images if not own.isdisjoint(image.files) for file in image.files)
    found += [path.parent / file for file in files if file not in own]
    return tuple(dict.fromkeys(found))


@functools.lru_cache(maxsize=_KNOWN)
def _ome_of(path: Path, own_name: str, state: State) -> OmeXml:
    return ome_of_file(path, own_name)


def _number(facts: Sequence[Sequence[int]]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=7).digest(), "big")
