"""Which state of a file something was made of.

Take it before the file is opened, and look again when all of it was read: a state that is noted afterwards may be that of
another file, and what was made of the old one would count as up to date for ever.
"""

from __future__ import annotations

import os
from pathlib import Path

Signature = tuple[int, int]
"""Bytes and time of change (nanoseconds): of a file, or of all files of a folder."""

State = tuple[int, ...] | None
"""What `state_of` gives."""

_MOST = 4096  # files of a folder that are looked at; of larger ones what describes the zarr stands for all
_DESCRIBES = ("zarr.json", ".zattrs")


def signature(path: Path) -> Signature | None:
    """Signature of a file or a zarr folder; None if it is not there."""
    try:
        if not path.is_dir():
            facts = path.stat()
            return facts.st_size, facts.st_mtime_ns
        size, newest, number = 0, 0, 0
        for folder, _, names in os.walk(path):
            for name in names:
                facts = os.stat(os.path.join(folder, name))
                size, newest, number = size + facts.st_size, max(newest, facts.st_mtime_ns), number + 1
            if number > _MOST:
                return describing(path)
    except OSError:
        return None
    return size, newest


def describing(path: Path) -> Signature | None:
    """Signature of the file that describes a zarr folder, as exports up to version 0.2 noted it; of a file its own."""
    try:
        inner = next((path / name for name in _DESCRIBES if (path / name).is_file()), path)
        facts = inner.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


def state_of(path: Path) -> State:
    """`signature`, and of a file also which one it is: a file moved into its place differs, whatever its time says."""
    found = signature(path)
    try:
        facts = path.stat()
    except OSError:
        return None
    return found if found is None or path.is_dir() else (*found, facts.st_ino, facts.st_ctime_ns)
