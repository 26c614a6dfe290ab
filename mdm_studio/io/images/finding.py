"""The search for image files: in folders, by patterns, in zarr folders, among the parts of one image."""

from __future__ import annotations

import errno
import fnmatch
import functools
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mdm_studio.errors import InputError, NoImagesError
from mdm_studio.io.images.formats import LISTED, OPENERS, image_name
from mdm_studio.io.images.tiff_parts import TIFF_SUFFIXES, first_of_parts
from mdm_studio.io.images.zarr_groups import SUFFIX, holds_images, images_in, is_zarr, zarr_root
from mdm_studio.io.paths import user_path
from mdm_studio.io.remarks import tell

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Image files that `inputs` name.

    Parameters
    ----------
    inputs : sequence of str or Path
        Folders (the images directly in them), files, ``.zarr`` folders, and patterns such as ``slides/**/*.tif``. Hidden files
        are left out of folders and patterns, and so is what has no image extension. A zarr folder is one image, or as many as
        its plate has fields or its slide series. Of the files that are one OME-TIFF together, the first is taken.

    Returns
    -------
    list of Path
        Each image once, in natural order (``img2`` before ``img10``), however many links lead to its folder.

    Raises
    ------
    NoImagesError
        If one of `inputs` is missing, cannot be looked through, or gives no image.
    """
    if not inputs:
        raise NoImagesError("no images were named: give a folder, a pattern or files")
    paths = (_whole(path) for item in inputs for path in _images_of(item))
    real = functools.cache(os.path.realpath)
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(os.path.join(real(path.parent), path.name), path)  # a link to a file keeps its own name
    return sorted(found.values(), key=_natural)


def check_unique_names(paths: Sequence[Path]) -> None:
    """Make sure that results named after the images do not overwrite one another.

    Names are compared without regard to case, because Windows and macOS do so.

    Raises
    ------
    InputError
        Naming two images whose names without extension are the same.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(image_name(path).lower(), path)
        if other is not path:
            raise InputError(
                f"{other} and {path} have the same name without extension, so their results would overwrite each other: "
                "rename one of them or run them into different folders"
            )


def not_images(folder: Path) -> list[str]:
    """Names of the files directly in a folder, hidden ones left out, that have no image extension; sorted."""
    return [path.name for path in _children(folder) if path.suffix.lower() not in OPENERS and path.is_file()]


# ---- one input ---------------------------------------------------------------------------------------------------------


def _images_of(item: str | Path) -> list[Path]:
    path = user_path(item)
    try:
        mode = _mode(path)
        if mode is None and not path.is_symlink() and glob.has_magic(str(path)):
            return _matching(path)
        if mode is None:
            raise NoImagesError(_absent(path))
        if stat.S_ISDIR(mode) and not is_zarr(path):
            return _in_folder(path)
    except OSError as error:
        raise NoImagesError(
            f"{path} cannot be looked through ({error.strerror or error}): choose a place you may read"
        ) from error
    if stat.S_ISDIR(mode):
        return _in_zarr(path)
    if not stat.S_ISREG(mode):
        raise NoImagesError(
            f"{path} is {_SPECIAL.get(stat.S_IFMT(mode), 'no file')}, and no image can be read from it: leave it out"
        )
    if path.suffix.lower() not in OPENERS:
        raise NoImagesError(f"{path} is not an image that can be read: the extensions read are {LISTED}")
    return [path]


def _absent(path: Path) -> str:
    if path.is_symlink():
        return f"{path} is a link to {os.readlink(path)}, which is not there: mend the link or leave it out"
    return f"{path} does not exist: give a folder, a pattern or files with the extensions {LISTED}"


def _in_folder(folder: Path) -> list[Path]:
    with os.scandir(folder):  # that it may be read
        images = [image for path in _children(folder) for image in _images_at(path)]
    if not images:
        raise NoImagesError(f"no image in the folder {folder}: {_what_is_there(folder)}; the extensions read are {LISTED}")
    return images


def _matching(pattern: Path) -> list[Path]:
    fixed = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    inside = any(part.lower().endswith(SUFFIX) for part in pattern.parts[:-1])  # who names a zarr folder means what is in it
    found = _walk(Path(*pattern.parts[:fixed]), list(pattern.parts[fixed:]))
    images = [image for path in found for image in _images_at(path, inside=inside)]
    if not images:
        raise NoImagesError(f"no image matches {pattern}: the extensions read are {LISTED}")
    return images


def _images_at(path: Path, *, inside: bool = False) -> list[Path]:
    """The images of one thing found; with `inside`, groups inside a zarr folder count."""
    try:
        mode = _mode(path)
    except OSError:
        mode = None  # opening it will tell what is wrong
    folder = mode is not None and stat.S_ISDIR(mode)
    if inside and folder and path.suffix.lower() != SUFFIX and zarr_root(path) is not None:
        return _in_zarr(path) if holds_images(path) else []
    if path.suffix.lower() not in OPENERS:
        return []
    if folder and path.suffix.lower() == SUFFIX:
        return _in_zarr(path)
    if folder:
        return []
    if mode is not None and not stat.S_ISREG(mode):
        tell(path, f"it is {_SPECIAL.get(stat.S_IFMT(mode), 'no file')}, no image, and passed over")
        return []
    if path.suffix.lower() == SUFFIX:
        tell(path, "it is a file, no folder as an OME-Zarr is, and passed over")
        return []
    return [path]


def _in_zarr(path: Path) -> list[Path]:
    try:
        found = images_in(path)
    except (OSError, ValueError):
        return [path]  # opening it will tell what is wrong
    if len(found.paths) == 1 and found.series:
        return [path]
    return list(found.paths) or [path]


def _whole(path: Path) -> Path:
    """The first file of the image that a file is a part of."""
    return first_of_parts(path) if path.suffix.lower() in TIFF_SUFFIXES else path


# ---- the disk ----------------------------------------------------------------------------------------------------------


def _mode(path: Path) -> int | None:
    """What a path leads to, following links; None if nothing is there."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise


def _children(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, hidden things left out; one that cannot be read is named, and has nothing."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        tell(folder, f"the folder cannot be looked through ({error.strerror or error}), and is passed over")
        return []
    return [folder / name for name in names]


def _walk(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """What matches the parts of a pattern below a folder; not `glob`, which follows a link to an own folder for ever."""
    first, rest = parts[0], parts[1:]
    if first == "**":
        for each in _folders(folder):
            yield from _walk(each, rest or ["*"])
    elif not glob.has_magic(first):
        if rest:
            yield from _walk(folder / first, rest)
        elif _mode(folder / first) is not None:
            yield folder / first
    else:
        for child in _children(folder):
            if fnmatch.fnmatch(child.name, first):
                if not rest:
                    yield child
                elif child.is_dir():
                    yield from _walk(child, rest)


def _folders(top: Path) -> Iterator[Path]:
    """A folder and those below it, each once, links after all that are none; zarr folders are not entered."""
    seen: set[tuple[int, int]] = set()
    waiting: list[Path] = [top]
    links: list[Path] = []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            facts = folder.stat()
        except OSError:
            continue
        if not stat.S_ISDIR(facts.st_mode) or (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        yield folder
        for child in reversed(_children(folder)):
            if child.suffix.lower() == SUFFIX:
                continue
            if child.is_symlink():
                links.append(child)
            elif child.is_dir():
                waiting.append(child)


def _what_is_there(folder: Path) -> str:
    children = _children(folder)
    if any(child.is_dir() for child in children):
        return f"its sub-folders are not searched (for that give the pattern '{folder / '**' / '*'}')"
    return f"none of its {len(children)} files is one" if children else "it is empty"


def _natural(path: Path) -> list[tuple[int, int | str]]:
    # numbers before words at the same place, as file managers do; the pairs keep numbers and words comparable
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", str(path).lower()) if part]
