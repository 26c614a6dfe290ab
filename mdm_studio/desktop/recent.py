"""The projects opened lately: pure functions on the tuple of folders that the settings keep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOST: Final = 10
PROJECT_FILE: Final = "project.json"


@dataclass(frozen=True)
class Recent:
    """One of them as the start page shows it.

    Attributes
    ----------
    folder : Path
        The project.
    there : bool
        Whether it can be opened now; its drive may be away.
    """

    folder: Path
    there: bool

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.folder.name

    @property
    def place(self) -> str:
        """Where it lies, with ~ for the home folder."""
        return short(self.folder.parent)


def short(path: Path) -> str:
    """A path as people read it: ~ for the home folder."""
    home = Path(os.path.expanduser("~"))
    return f"~/{path.relative_to(home).as_posix()}".removesuffix("/.") if path.is_relative_to(home) else str(path)


def with_project(recent: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The list after `folder` was opened."""
    return (str(folder), *without(recent, folder))[:MOST]


def without(recent: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The list with `folder` taken out."""
    return tuple(each for each in recent if Path(each) != folder)


def look_up(recent: Sequence[str]) -> tuple[Recent, ...]:
    """The list with what is there. Reads the disk, and a network share may keep it waiting: call it on a thread."""
    return tuple(Recent(Path(each), is_project(Path(each))) for each in recent)


def is_project(folder: Path) -> bool:
    """Whether a folder is a project of ours."""
    try:
        return (folder / PROJECT_FILE).is_file()
    except OSError:
        return False
