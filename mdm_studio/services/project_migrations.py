"""Projects of earlier versions, mended step by step when they are opened; each step says what it changes and why.

The text of ``project.json`` is mended by `migrate`, the label files by `move_labels`. Both may be interrupted at any point and
done again: nothing is removed before what replaces it is there.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mdm_studio.io.atomic import output_error, write_json, write_text
from mdm_studio.io.json_files import read_json
from mdm_studio.io.label_store import LEVEL, SUFFIX, label_image

Facts = dict[str, Any]

_LONGEST_NAME = 50  # characters of up to four bytes; the key and the extension follow, and file systems take 255 bytes


def migrate(facts: Mapping[str, Any], version: int) -> Facts:
    """What a ``project.json`` of an earlier version holds, as the present one has it; ValueError if it is damaged."""
    mended = dict(facts)
    try:
        for step in _STEPS[version - 1 :]:
            mended = step(mended)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return mended


def images_have_places_and_marks(facts: Facts) -> Facts:
    """1 to 2: an image had the absolute path of its source alone; its path from the project, its marks and results join it."""
    images = {key: dict(image) if isinstance(image, dict) else image for key, image in facts["images"].items()}
    for image in images.values():
        if isinstance(image, dict):
            image["path"], image["absolute"] = None, image.pop("source", None)
    return facts | {"version": 2, "images": images, "ranking": {}}


_STEPS: tuple[Callable[[Facts], Facts], ...] = (images_have_places_and_marks,)


def move_labels(labels: Path, names: Mapping[str, str]) -> None:
    """1 to 2: labels lay in ``KEY.zarr``, an array that napari showed without colours; they move into ``NAME-KEY.ome.zarr``.

    Chunks are moved with their folder, not written again.

    Parameters
    ----------
    labels : Path
        Folder of all label images.
    names : mapping
        Names of the images by key, as far as they are known.

    Raises
    ------
    OutputError
        If the system refuses.
    """
    for old in sorted(labels.glob("*.zarr")):
        key = old.name.removesuffix(".zarr")
        if old.name.endswith(SUFFIX) or not re.fullmatch(r"\w+", key, re.ASCII):
            continue
        new = labels / folder_name(names.get(key, ""), key)
        if (new / LEVEL).exists():
            continue  # another program put it there: neither is thrown away
        try:
            axes = _with_axis_names(old / "zarr.json")
            new.mkdir(exist_ok=True)
            write_text(new / "zarr.json", label_image(names.get(key, key), (), (1,) * (axes - 2)))
            old.rename(new / LEVEL)
        except OSError as error:
            raise output_error(new, error) from error


def _with_axis_names(path: Path) -> int:
    """Name the axes of an array on disk, as OME-Zarr wants them; how many there are (2 if that cannot be read)."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        array = read_json(path, dict[str, Any])
        axes = len(array["shape"])
        named = json.loads(label_image("", (), (1,) * (axes - 2)))["attributes"]["ome"]["multiscales"][0]["axes"]
        write_json(path, array | {"dimension_names": [axis["name"] for axis in named]})
        return max(axes, 2)
    return 2


def folder_name(name: str, key: str) -> str:
    """Name of the labels of an image: readable, allowed by every file system, and with the key at its end."""
    plain = re.sub(r"[^\w. +()-]", "_", name).strip(" .")[:_LONGEST_NAME].rstrip(" .")
    return f"{plain or 'image'}-{key}{SUFFIX}"
