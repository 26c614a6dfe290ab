"""What napari opens through this plugin: folders of images, projects, and classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import InputError, MDMStudioError, UnreadableImageError
from mdm_studio.io.images import find_images, image_name, open_image

Reader = Callable[[Any], list[tuple[Any, ...]]]

PROJECT_FILE = "project.json"
"""A folder that holds this file is a project."""
CLASSIFIER_SUFFIX = ".mdm"
_NOTHING: list[tuple[Any, ...]] = [(None,)]  # napari's word for "read, and no layer came of it"
_TOLD = 5  # images of which it is told what is left out
_GAP = 16  # pixels between neighbours, as in the sample data


def reader(path: str | Sequence[str]) -> Reader | None:
    """A reader of a classifier, a folder of images or a project; None, at once, for whatever else it may be."""
    if not isinstance(path, str):
        return None
    if not Path(path).is_dir():
        return read_classifier if path.lower().endswith(CLASSIFIER_SUFFIX) else None
    if Path(path).suffix.lower() == ".zarr":
        return None
    if (Path(path) / PROJECT_FILE).is_file():
        return read_project
    try:
        find_images([path])
    except MDMStudioError:
        return None
    return read_folder


def read_folder(path: str) -> list[tuple[Any, ...]]:
    """Images of a folder: those of one size and type as one stack, read when they are shown; side by side where they differ.

    Returns
    -------
    list of (data, attributes, "image")
        Stacks are dask arrays ``(images, H, W)``, with colours or channels where the files have them; their
        ``metadata["names"]`` tells the images' names in order.

    Raises
    ------
    UnreadableImageError
        If no file can be read; where some can, a notice names the others.
    """
    groups: dict[tuple[Any, ...], list[Path]] = {}
    remarks: list[str] = []
    refused: list[str] = []
    for file in find_images([path]):
        try:
            with open_image(file) as image:
                facts = (image.planes, image.channels, image.height, image.width, str(image.dtype), image.rgb)
        except InputError as error:
            refused.append(str(error))
            continue
        groups.setdefault(facts, []).append(file)
        remarks += [f"{image.name}: {'; '.join(image.remarks)}"] if image.remarks else []
    if remarks:
        _tell(remarks)
    if refused:
        _report(path, refused, any(groups.values()))
    layers: list[tuple[Any, ...]] = []
    left = 0
    for (planes, channels, _, width, _, rgb), files in groups.items():
        data = _read(files[0]) if len(files) == 1 else _stack(files)
        names = [image_name(file) for file in files]
        stacks = (["image"] if len(files) > 1 else []) + (["plane"] if planes > 1 else [])
        labels = (*stacks, *(["channel"] if channels > 1 and not rgb else []), "y", "x")
        name = names[0] if len(names) == 1 else f"{Path(path).name} ({len(names)} images)"
        place = {"translate": (0,) * (len(labels) - 1) + (left,), "axis_labels": labels}
        layers.append((data, {"name": name, "rgb": rgb, "metadata": {"names": names}, **place}, "image"))
        left += width + _GAP
    return layers


def _tell(remarks: Sequence[str]) -> None:
    from napari.utils.notifications import show_info

    more = f" (and of {len(remarks) - _TOLD} other images)" if len(remarks) > _TOLD else ""
    show_info("\n".join(remarks[:_TOLD]) + more)


def _report(folder: str, refused: Sequence[str], some_are_read: bool) -> None:
    """Name the files of a folder that cannot be read."""
    if not some_are_read:
        raise UnreadableImageError(f"none of the {len(refused)} images in {folder} can be read; the first one: {refused[0]}")
    from napari.utils.notifications import show_warning

    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    show_warning(f"Not everything in {folder} is shown: {refused[0]}{more}")


def _stack(files: Sequence[Path]) -> Any:
    """Files of one kind as one array that reads each when it is looked at; dask comes with napari."""
    import dask.array
    from dask.delayed import delayed

    arrays: Any = dask.array
    first, later = _read(files[0]), delayed(_read)
    return arrays.stack([arrays.from_delayed(later(file), first.shape, first.dtype) for file in files])


def _read(file: Path) -> NDArray[Any]:
    """Pixels as napari wants them: planes and channels first where there are several, colours last."""
    with open_image(file) as image:
        planes = [image.plane(number).read(slice(None), slice(None)) for number in range(image.planes)]  # (C, H, W) each
        if image.rgb:
            planes = [np.moveaxis(plane, 0, -1) for plane in planes]
        elif image.channels == 1:
            planes = [plane[0] for plane in planes]
    return np.ascontiguousarray(planes[0] if len(planes) == 1 else np.stack(planes))


def read_project(path: str) -> list[tuple[Any, ...]]:
    """Open a project in the viewer in front, with its docks; no layer comes of it here."""
    from napari_mdm_studio._commands import open_project_folder

    open_project_folder(Path(path))
    return _NOTHING


def read_classifier(path: str) -> list[tuple[Any, ...]]:
    """Predict with a classifier in the viewer in front."""
    from napari_mdm_studio._commands import open_segment

    home = open_segment()
    if home is not None:
        home.session.load_classifier(Path(path))
        home.tell(f"Predicting with {Path(path).name} until the next stroke.")
    return _NOTHING
