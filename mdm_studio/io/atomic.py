"""Files that are either whole or absent: write beside the target, flush to the disk, rename over it.

A reader (or a run that is resumed after a power cut) never meets half a file under its final name. The unfinished file
is hidden (its name starts with a dot), so that a folder scan does not take it for an image.

Nothing here makes the folder of a file: a folder that was there and is not any more was moved, or its drive is gone, and
whoever made a new one in its place would hide that. Who owns a folder makes it once, by `make_folder`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdm_studio.errors import OutputError
from mdm_studio.io.leftovers import SET_ASIDE_SUFFIX, UNFINISHED_SUFFIX, remove, remove_leftovers, unfinished_name

__all__ = [
    "UNFINISHED_SUFFIX", "make_folder", "output_error", "output_folder", "replacing", "write_bytes", "write_json", "write_text",
]  # fmt: skip

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "no permission to write there; choose a folder you may write to",
    errno.EPERM: "no permission to write there; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose a folder you may write to",
    errno.ENOENT: "the folder is not there (any more); check that the drive or network share is connected",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a file is in the way of the folder; choose another name",
    errno.EISDIR: "a folder of that name is in the way; remove it or choose another name",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """The `OutputError` that tells why `path` could not be written and what to do about it."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {path}: {reason}")


def make_folder(path: str | Path, *, within: str | Path | None = None) -> None:
    """Make a folder, and those above it, where they are missing.

    Parameters
    ----------
    path : str or Path
        The folder.
    within : str or Path, optional
        A folder above `path` that must be there: one that has gone is not made anew.

    Raises
    ------
    OutputError
        If the operating system refuses, `within` is gone, or a file is in the way.
    """
    path = Path(path)
    try:
        if within is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        within = Path(within)
        _check_there(within)
        for part in path.relative_to(within).parts:
            within = within / part
            within.mkdir(exist_ok=True)  # one step only, so that what has gone meanwhile stays gone
    except OSError as error:
        raise output_error(path, error) from error


@contextlib.contextmanager
def output_folder(path: str | Path) -> Iterator[None]:
    """Make a folder for what the block writes; one that was made here and stayed empty is removed at its end.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    path = Path(path)
    was_there = path.exists()
    make_folder(path)
    try:
        yield
    finally:
        if not was_there:
            with contextlib.suppress(OSError):  # something is in it
                path.rmdir()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or a folder to; it takes the name `path` when the block ends well.

    Parameters
    ----------
    path : str or Path
        The final name. Its folder must be there, see `make_folder`; a file or folder of that name is replaced.

    Yields
    ------
    Path
        A name in the same folder that does not exist yet. The block creates a file or a folder there.

    Raises
    ------
    OutputError
        If the operating system refuses, with its reason (disk full, read-only, ...).

    Notes
    -----
    When the block raises, what it wrote is removed, and an older `path` stays as it was. Replacing a *folder* takes two
    renames, so a power cut between them leaves none under the final name until somebody writes there again
    (`mdm_studio.io.leftovers`); files are replaced in one step.
    """
    path = Path(path)
    _tidy(path.parent)
    unfinished = path.with_name(unfinished_name(path.name))
    try:
        _check_there(path.parent)
        yield unfinished
        _flush(unfinished)
        _move(unfinished, path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        remove(unfinished)


@functools.lru_cache(maxsize=1000)
def _tidy(folder: Path) -> None:
    """Remove what killed processes left in a folder: once, before this process first writes there."""
    remove_leftovers(folder)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all (see `replacing`)."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` as UTF-8 with plain line feeds to `path`, whole or not at all (see `replacing`).

    Bytes of file names that are no text, which Python keeps as lone surrogates, are written as ``\\udce9``.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as indented JSON to `path`, whole or not at all (see `replacing`).

    File names that are no text come back exactly (see `write_text`): JSON reads what stands for them as it was.
    """
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False) + "\n")


def _check_there(folder: Path) -> None:
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _flush(path: Path) -> None:
    # without it a power cut can leave the new name with none of its bytes; a folder's files were written one by one
    # by a library, so flushing each would cost more than it protects
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    if not (source.is_dir() or target.is_dir()):
        os.replace(source, target)
    elif not target.exists():
        source.rename(target)
    else:  # a folder cannot be renamed over a folder that holds something
        old = source.with_suffix(SET_ASIDE_SUFFIX)
        target.rename(old)
        source.rename(target)
        remove(old)
    if os.name == "posix":  # the rename itself lives in the folder; other systems cannot open folders
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
