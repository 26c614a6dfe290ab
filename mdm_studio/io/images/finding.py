"""The search for image files."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from mdm_studio.errors import InputError, NoImagesError
from mdm_studio.io.images.formats import LISTED, OPENERS, image_name


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Image files that `inputs` name.

    Parameters
    ----------
    inputs : sequence of str or Path
        Folders (the images directly in them), files, ``.zarr`` folders (one image each, never entered) and patterns such
        as ``slides/**/*.tif``. Hidden files are left out of folders and patterns, and so is what has no image extension.

    Returns
    -------
    list of Path
        Each image once, in natural order (``img2`` before ``img10``).

    Raises
    ------
    NoImagesError
        If one of `inputs` is missing or gives no image.
    """
    if not inputs:
        raise NoImagesError("no images were named: give a folder, a pattern or files")
    found = {path.absolute(): path for item in inputs for path in _images_of(item)}
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


def _images_of(item: str | Path) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_dir() and not _is_zarr(path):
        images = [child for child in path.iterdir() if _is_image(child)]
        if not images:
            raise NoImagesError(f"no image in the folder {path}: {_what_is_there(path)}; the extensions read are {LISTED}")
        return images
    if path.exists():
        if path.suffix.lower() not in OPENERS and not _is_zarr(path):
            raise NoImagesError(f"{path} is not an image that can be read: the extensions read are {LISTED}")
        return [path]
    if glob.has_magic(str(path)):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        images = [match for match in matches if _is_image(match) and not any(_is_zarr(p) for p in match.parents)]
        if not images:
            raise NoImagesError(f"no image matches {item}: the extensions read are {LISTED}")
        return images
    raise NoImagesError(f"{path} does not exist: give a folder, a pattern or files with the extensions {LISTED}")


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr"


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in OPENERS:
        return False
    return path.is_dir() == _is_zarr(path)


def _what_is_there(folder: Path) -> str:
    children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    if any(child.is_dir() for child in children):
        return f"its sub-folders are not searched (for that give the pattern '{folder / '**' / '*'}')"
    return f"none of its {len(children)} files is one" if children else "it is empty"


def _natural(path: Path) -> list[tuple[int, int | str]]:
    # numbers before words at the same place, as file managers do; the pairs keep numbers and words comparable
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", str(path).lower()) if part]
