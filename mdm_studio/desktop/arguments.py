"""What the user gave us to open: arguments of the program, or something dropped on its window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm_studio.desktop.recent import PROJECT_FILE, is_project
from mdm_studio.errors import InputError, UsageError
from mdm_studio.io.paths import user_path


@dataclass(frozen=True)
class Wanted:
    """What is to be opened.

    Attributes
    ----------
    project : Path or None
        A project.
    folder : Path or None
        A folder of images: of it a project can be made.
    images : tuple of Path
        Image files, and stores such as ``.zarr``.
    classifier : Path or None
        A classifier, to predict with.
    """

    project: Path | None = None
    folder: Path | None = None
    images: tuple[Path, ...] = ()
    classifier: Path | None = None


def sort_out(paths: Sequence[Path]) -> Wanted:
    """Tell projects, folders, images and classifiers apart.

    Raises
    ------
    InputError
        If one of them is not there.
    UsageError
        If there are more than can be opened at once.
    """
    paths = [user_path(path).absolute() for path in paths]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} is not there; give a project, a folder of images, image files or a classifier (.mdm)")
    projects = [path.parent if path.name == PROJECT_FILE else path for path in paths if _is_project(path)]
    classifiers = [path for path in paths if path.suffix.lower() == ".mdm"]
    folders = [path for path in paths if path.is_dir() and not _is_project(path) and path.suffix.lower() != ".zarr"]
    images = tuple(path for path in paths if path not in [*classifiers, *folders] and not _is_project(path))
    if len(projects) + len(folders) > 1:
        raise UsageError(f"{len(projects) + len(folders)} folders were given; open one project or folder at a time")
    if len(classifiers) > 1:
        raise UsageError(f"{len(classifiers)} classifiers were given; open one at a time")
    if images and (projects or folders):
        raise UsageError("image files and a folder were given; open the folder, or the files")
    return Wanted(next(iter(projects), None), next(iter(folders), None), images, next(iter(classifiers), None))


def _is_project(path: Path) -> bool:
    return is_project(path) or (path.name == PROJECT_FILE and path.is_file())


def place_for(images: Path, documents: Path) -> Path:
    """Where the project of a folder of images goes unless the user says otherwise: beside it, or in the documents.

    Not inside it: what a project holds would be found as images. The name is one that is not taken.
    """
    import os

    parent = images.parent if os.access(images.parent, os.W_OK) and images.parent != images else documents
    wanted = parent / f"{images.name or 'images'} project"
    number, place = 1, wanted
    while place.exists():
        number += 1
        place = wanted.with_name(f"{wanted.name} {number}")
    return place
