"""What the disk says about an export before it starts: images, names, room, masks that are there. Call it on a thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mdm_studio.errors import ClassifierError, InputError
from mdm_studio.io.classifier_file import read_classifier
from mdm_studio.io.file_signature import signature
from mdm_studio.io.images import ImageFile, check_unique_names, find_images, image_name, open_image
from mdm_studio.io.paths import real_path
from mdm_studio.services.export_form import ExportChoices, ExportFacts, Source, options_of, out_of
from mdm_studio.services.export_record import Record, judge
from mdm_studio.services.image_kinds import MICROMETRES

LOOKED_AT = 16  # images opened, from the first to the last; formats without tiles are decoded for it, and the others are alike
_SAME = 0.01  # areas of a pixel that differ by less are one scale
_NOTHING: Mapping[Source, str] = {
    "project": "The project has no images yet: add some.",
    "chosen": "No image is chosen in the list of images: select some there, or filter them.",
    "open": "None of the images that are open here comes from a file: export a folder instead.",
    "folder": "Choose the folder of the images, or drop it here.",
}
_NOWHERE = "Choose a folder to write to."


@dataclass(frozen=True)
class _Sample:
    """What a sample of the images holds; as in `ExportFacts`."""

    pixels: int
    largest: int
    stacks: tuple[str, ...]
    unreadable: tuple[str, ...]
    pixel_areas: tuple[float, ...]


def survey(
    choices: ExportChoices,
    images: Sequence[Path],
    root: Path | None,
    *,
    classes: int = 0,
    writers: Mapping[Path, str] = MappingProxyType({}),
) -> ExportFacts:
    """Look at what is chosen; nothing is written.

    Parameters
    ----------
    choices : ExportChoices
        The form.
    images : sequence of Path
        Of the project or the window; where a folder is chosen it is looked through here.
    root : Path or None
        Beside what the masks go if the form does not say: the project's folder or that of the images.
    classes : int
        Of the classifier that is being trained.
    writers : mapping, optional
        Folders that jobs write to now, and the jobs' names.
    """
    found, no_images = _images(choices, images)
    same_names = ""
    try:
        check_unique_names(found)
    except InputError as error:
        same_names = f"{error}."
    no_classifier = ""
    if choices.classifier == "file":
        classes, no_classifier = _classes(choices.file)
    place = out_of(choices, root)
    sample = _look(found)
    there, foreign = _count_there(choices, place, found) if place else (0, 0)
    return ExportFacts(
        images=tuple(found),
        no_images=no_images,
        pixels=sample.pixels,
        largest=sample.largest,
        stacks=sample.stacks,
        unreadable=sample.unreadable,
        pixel_areas=sample.pixel_areas,
        same_names=same_names,
        classes=classes,
        no_classifier=no_classifier,
        out=place or Path(),
        not_writable=why_not_writable(place) if place else _NOWHERE,
        free=shutil.disk_usage(_standing(place)).free if place else 0,
        there=there,
        foreign=foreign,
        busy=next((name for folder, name in writers.items() if place and real_path(folder) == real_path(place)), ""),
    )


def _images(choices: ExportChoices, images: Sequence[Path]) -> tuple[list[Path], str]:
    """The images, or why there are none."""
    found = list(images)
    if choices.source == "folder":
        try:
            found = find_images([choices.folder]) if choices.folder else []
        except InputError as error:
            return [], f"{error}."
    return found, "" if found else _NOTHING[choices.source]


def _classes(file: str) -> tuple[int, str]:
    """Number of classes of FILE.mdm, or what is wrong with it."""
    if not file:
        return 0, "Choose the classifier's file (.mdm)."
    try:
        info, _ = read_classifier(Path(file))
    except ClassifierError as error:
        return 0, f"{error}."
    return len(info.classes), ""


def _look(images: Sequence[Path]) -> _Sample:
    """Open some of the images, evenly spread."""
    count = min(len(images), LOOKED_AT)
    chosen = [images[number * (len(images) - 1) // max(1, count - 1)] for number in range(count)]
    pixels, largest, stacks, unreadable, areas = 0, 0, [], [], []
    for path in chosen:
        try:
            with open_image(path) as image:
                pixels += image.planes * image.height * image.width
                largest = max(largest, image.height * image.width)
                stacks += [image.name] if image.planes > 1 else []
                areas.append(_area(image))
        except InputError as error:
            reason = str(error).replace(f"cannot read {path}: ", "").replace(str(path), path.name)
            unreadable.append(f"{path.name} will fail: {reason}.")
    readable = count - len(unreadable)
    scaled = round(pixels * len(images) / readable) if readable else 0
    return _Sample(scaled, largest, tuple(stacks), tuple(unreadable), _different(areas))


def _area(image: ImageFile) -> float:
    """Of a pixel, in µm²; 0 if the image does not say."""
    micrometres = MICROMETRES.get(image.unit or "", 0.0)
    return image.pixel_size[0] * image.pixel_size[1] * micrometres**2 if image.pixel_size else 0.0


def _different(areas: Sequence[float]) -> tuple[float, ...]:
    kept: list[float] = []
    for area in sorted(areas):
        if not kept or area - kept[-1] > _SAME * area:
            kept.append(area)
    return tuple(kept)


def _standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def why_not_writable(folder: Path) -> str:
    """Why nothing can be written into a folder that is there or to be made, in words; empty if it can."""
    standing = _standing(folder)
    if not standing.is_dir():
        return f"{standing} is a file, not a folder: choose another folder to write to."
    if not os.access(standing, os.W_OK | os.X_OK):
        return f"Nothing may be written into {standing}: choose another folder to write to."
    return ""


def _count_there(choices: ExportChoices, out: Path, images: Sequence[Path]) -> tuple[int, int]:
    """Images that have outputs there, and those of them that have some which are not ours.

    Whether ours are up to date is seen when the job comes to them.
    """
    if not out.is_dir():
        return 0, 0
    record, options = Record(out), options_of(choices, out)
    there, foreign = 0, 0
    for image in images:
        states = {
            judge(record.files.get(path.relative_to(out).as_posix()), signature(path), None, "", whole=lambda: True)
            for path in options.paths(image_name(image)).values()
        }
        there += states != {"absent"}
        foreign += not states.isdisjoint({"foreign", "edited"})
    return there, foreign
