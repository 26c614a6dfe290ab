"""Which files hold the strokes of an image, told beside them: Zarr takes a file that is not there for a region without strokes.

::

    labels/NAME.ome.zarr/        the strokes, see `mdm_studio.io.label_store`
    labels/NAME.painted.json     {"chunks": ["0/1", ...]}: the files below NAME.ome.zarr/0/c that hold some

A file is listed after it was written, and struck off before it is removed: a program that is killed in between leaves strokes
that are not listed, which is no harm, and never a file that is listed and was erased by the user.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from mdm_studio.io.atomic import write_json
from mdm_studio.io.json_files import read_json

RECORD_SUFFIX = ".painted.json"
_FOLDER_SUFFIX = ".ome.zarr"
_WAY_OUT = "put back from a copy of the project what was removed, or paint it anew"


@dataclass(frozen=True)
class _Record:
    chunks: tuple[Annotated[str, Meta(pattern=r"^[0-9]{1,9}(/[0-9]{1,9})+$")], ...]


def record_path(folder: Path) -> Path:
    """Where the record of a folder of strokes belongs."""
    return folder.with_name(folder.name.removesuffix(_FOLDER_SUFFIX) + RECORD_SUFFIX)


def recorded_folder(record: Path) -> str:
    """Name of the folder of strokes that a record belongs to."""
    return record.name.removesuffix(RECORD_SUFFIX) + _FOLDER_SUFFIX


def read_record(folder: Path) -> frozenset[str] | None:
    """The files that hold strokes, by their places below ``0/c``; None if there is no record.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is damaged.
    """
    path = record_path(folder)
    if not os.path.lexists(path):
        return None
    return frozenset(read_json(path, _Record).chunks)


def write_record(folder: Path, chunks: frozenset[str]) -> None:
    """Replace the record, whole or not at all; OutputError if the system refuses."""
    write_json(record_path(folder), {"chunks": sorted(chunks)})


def chunk_names(folder: Path, axes: int) -> frozenset[str]:
    """The files that are there, by their places below ``0/c``."""
    chunks = folder / "0" / "c"
    names = (path.relative_to(chunks).parts for path in chunks.glob("/".join("*" * axes)))
    return frozenset("/".join(parts) for parts in names if all(part.isdecimal() for part in parts))


def missing_strokes(folder: Path, painted: int) -> str:
    """What is missing of the strokes of an image, in words; empty if nothing is, as far as can be told.

    It looks at names and sizes alone.

    Parameters
    ----------
    folder : Path
        Where its strokes belong.
    painted : int
        How many pixels the project takes for painted.
    """
    pixels = f"{painted:,} pixels were painted" if painted else "some pixels were painted"
    try:
        recorded = read_record(folder)
    except (OSError, ValueError) as error:
        return f"{record_path(folder).name} is damaged ({error}): whether all of them are there is not known"
    if recorded is None:  # of an earlier version, or gone with them
        gone = painted > 0 and not any((folder / "0" / "c").glob("*/*"))
        return f"{pixels} and none are there: {_WAY_OUT} ({folder})" if gone else ""
    lost = sorted(name for name in recorded if not _has_bytes(folder / "0" / "c" / name))
    if not lost:
        return ""
    found = "none are there" if len(lost) == len(recorded) else f"{len(lost)} of {len(recorded)} files are not there"
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return f"{pixels} and {found}: {_WAY_OUT} ({folder / '0' / 'c' / lost[0]}{more})"


def _has_bytes(path: Path) -> bool:
    try:
        return os.stat(path).st_size > 0
    except FileNotFoundError:
        return False
    except OSError:  # it is read, and told about, when the image is opened
        return True
