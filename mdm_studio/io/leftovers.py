"""Unfinished files: how they are named, and what becomes of those whose writer was killed.

The name of an unfinished file tells which process writes it. Whoever comes to the folder next removes those whose process is
gone; those of living processes, and what other machines wrote in the last day, stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path

from mdm_studio.io.processes import PATTERN, is_alive, own_name

UNFINISHED_SUFFIX = ".part"
SET_ASIDE_SUFFIX = ".old"
"""Of a folder while another one takes its place."""
_LONGEST = 150  # bytes of the name that are kept, so that a target of the longest name allowed has room for the rest
_PARTS = re.compile(
    rf"\.(?P<name>.+?)\.(?:(?P<process>{PATTERN})\.)?[0-9a-f]{{8}}(?P<suffix>\.part|\.part\.raw|\.old)", re.DOTALL
)
_FOREIGN_SECONDS = 86400.0  # after which what another machine (or an earlier version) left is taken for abandoned


def unfinished_name(name: str) -> str:
    """A hidden name, used by nobody yet, for a file that will be called `name`."""
    whole = name.encode("utf-8", "surrogateescape")
    kept = whole[:_LONGEST].decode("utf-8", "ignore") if len(whole) > _LONGEST else name
    return f".{kept}.{own_name()}.{uuid.uuid4().hex[:8]}{UNFINISHED_SUFFIX}"


def is_unfinished(name: str) -> bool:
    """Whether this is the name of a file that somebody has not finished (yet)."""
    return _PARTS.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`; what cannot be removed, or read, stays.

    A folder that was to take another one's place when its process was killed between the two renames takes it now.
    """
    with contextlib.suppress(OSError):
        found = sorted(name for name in os.listdir(folder) if is_unfinished(name))
        for name in found:
            _settle(folder, name)


def _settle(folder: Path, name: str) -> None:
    path, match = folder / name, _PARTS.fullmatch(name)
    if match is None or not _abandoned(path, match["process"]):
        return
    if match["suffix"] == SET_ASIDE_SUFFIX:
        target, new = folder / match["name"], path.with_suffix(UNFINISHED_SUFFIX)
        cut = len(match["name"].encode("utf-8", "surrogateescape")) > _LONGEST - 4
        if not cut and not os.path.lexists(target):
            with contextlib.suppress(OSError):
                (new if os.path.lexists(new) else path).rename(target)
    remove(path)


def _abandoned(path: Path, process: str | None) -> bool:
    alive = is_alive(process) if process else None
    if alive is not None:
        return not alive
    try:
        return time.time() - path.lstat().st_mtime > _FOREIGN_SECONDS
    except OSError:
        return False


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing is said if it is not there, or cannot be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
