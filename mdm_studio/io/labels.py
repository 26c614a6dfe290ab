"""Label maps: which file belongs to which image, and which pixels carry which class.

A label map is an image of any readable lossless format with one whole number a pixel. Of a palette PNG the indices count, not
the colours; three equal channels count as one. With ``unlabelled=0`` a pixel of value 0 says nothing; with ``unlabelled=None``
every pixel is labelled and 0 is a class like the others (dense masks).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import LabelMap, Pixels
from mdm_studio.errors import LabelsError, NoImagesError
from mdm_studio.io.images import ImageFile, Plane, find_images, image_name, open_image
from mdm_studio.io.lossy import lossy_format

MANY_CLASSES = 50
"""More classes than this are hardly ever painted: a picture that was taken for a label map has as many values."""
MAX_CLASSES = 255  # far above any set of painted classes, below the number of objects in a crowded instance mask

_LARGEST = np.iinfo(np.uint16).max
_WANTED = f"whole numbers from 0 to {_LARGEST} are wanted"
_ROWS = 64  # compared with the image at a time; nearly always the first ones tell
_BAND_PIXELS = 1 << 24  # pixels looked at together, so that a large map needs no temporary arrays of its own size


def find_labels(images: Sequence[Path], folder: str | Path) -> dict[Path, Path]:
    """Label maps of those `images` that have one.

    Parameters
    ----------
    images : sequence of Path
        Image files.
    folder : str or Path
        A folder (or a pattern, or one file) with label maps called like their images, whatever the extensions.

    Returns
    -------
    dict
        Image -> label map, in the order of `images`; images without a label map are left out.

    Raises
    ------
    LabelsError
        If no image has a label map, or two label maps are called like the same image.
    """
    try:
        files = find_images([folder])
    except NoImagesError as error:
        raise LabelsError(f"no label maps: {error}") from error
    by_name: dict[str, Path] = {}
    wanted = {image_name(image) for image in images}
    for file in files:
        other = by_name.setdefault(image_name(file), file)
        if other is not file and image_name(file) in wanted:
            raise LabelsError(f"{other} and {file} are called like the same image: keep one of them in the folder of labels")
    found = {image: by_name[image_name(image)] for image in images if image_name(image) in by_name}
    if not found:
        example = f"for example {image_name(images[0])}.png; " if images else ""
        raise LabelsError(
            f"none of the {len(images)} images has a label map in {folder}: a file called like the image is wanted, "
            f"{example}there are {len(files)} others, for example {files[0].name}"
        )
    return found


def read_labels_of(path: str | Path, image: ImageFile, plane: int = 0) -> LabelMap:
    """`read_labels` of an open image.

    Raises
    ------
    LabelsError
        As `read_labels`; also if the image was given as its own label map: the same file, or the same pixels.
    """
    if same_file(Path(path), image.path):
        raise LabelsError(f"{path} is the image itself and not its label map: name the folder that holds the label maps")
    labels = read_labels(path, (image.height, image.width), plane)
    if _is_picture(labels, image.plane(plane)):
        raise LabelsError(
            f"the label map {path} has the very pixels of the image {image.path}: it is a copy of the image; replace it by a "
            "map with the values 1, 2, ... of the classes"
        )
    return labels


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, by a link perhaps."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_picture(labels: LabelMap, plane: Plane) -> bool:
    """Whether a label map is equal to a grey image, or to a colour picture that is grey; one value alone says nothing."""
    if len(labels) == 0 or (labels == labels.flat[0]).all():
        return False
    for top in range(0, len(labels), _ROWS):
        band = plane.read(slice(top, top + _ROWS), slice(None))
        if not all(np.array_equal(channel, labels[top : top + _ROWS]) for channel in band):
            return False
    return True


def read_labels(path: str | Path, shape: tuple[int, int], plane: int = 0) -> LabelMap:
    """Read a label map.

    Parameters
    ----------
    path : str or Path
        Any readable image. Floats are accepted if they are whole numbers.
    shape : (int, int)
        Height and width of the image that it labels.
    plane : int
        Which plane of a stack.

    Returns
    -------
    (H, W) uint8 or uint16
        The smaller type that holds the largest value.

    Raises
    ------
    LabelsError
        If it has another size, colours, or values that are not whole numbers from 0 to 65535.
    UnreadableImageError
        If it cannot be decoded.
    """
    path = Path(path)
    if lossy := lossy_format(path):
        raise LabelsError(
            f"the label map {path} is stored as {lossy}, which changes the values it stores, whatever its name says: write it "
            "anew from where it was made, as PNG or TIFF"
        )
    with open_image(path, values=True) as file:
        if (file.height, file.width) != tuple(shape):
            raise LabelsError(
                f"the label map {path} has {file.height} x {file.width} pixels and its image {shape[0]} x {shape[1]}: "
                "both must have the same height and width"
            )
        if plane >= file.planes:
            raise LabelsError(
                f"the label map {path} has {file.planes} planes and plane {plane} is wanted: each plane of the image needs one"
            )
        pixels = file.plane(plane).read(slice(None), slice(None))
    if len(pixels) != 1 and not (len(pixels) == 3 and _equal(pixels)):
        raise LabelsError(
            f"the label map {path} has {len(pixels)} channels that differ: one whole number a pixel is wanted, not "
            "colours; save it as an indexed picture (palette), or give every colour a number"
        )
    return _smallest(pixels[0], path)


def _equal(pixels: Pixels) -> bool:
    return all(np.array_equal(pixels[0], channel) for channel in pixels[1:])


def _smallest(values: NDArray[Any], path: Path) -> LabelMap:
    """`values` as uint8 or uint16, or the LabelsError that tells why they are no labels."""
    low, high = values.min(), values.max()  # not-a-number shows in both
    if not (low >= 0 and high <= _LARGEST):
        raise LabelsError(f"the label map {path} has values from {low} to {high}: {_WANTED}")
    labels: LabelMap = values.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    if values.dtype.kind == "f" and not np.array_equal(values, labels):
        raise LabelsError(f"the label map {path} has fractions in it: {_WANTED}")
    return labels


def labelled_points(
    label_map: LabelMap, unlabelled: int | None, *, limit: int | None = None, seed: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp], LabelMap]:
    """Coordinates and values of the labelled pixels, row by row.

    Parameters
    ----------
    label_map : (H, W) unsigned integers
    unlabelled : int or None
        The value that means "not labelled"; with None every pixel is labelled.
    limit : int, optional
        Keep about this many pixels, chosen evenly at random, if there are more. A dense mask of 20,000 x 20,000 has 400
        million, whose coordinates alone would fill 6.4 GB.
    seed : int
        Of that choice.

    Returns
    -------
    rows, cols : (N,) intp
    values : (N,) of the map's type
        As they are in the map.
    """
    width = label_map.shape[1]
    flat = np.ascontiguousarray(label_map).reshape(-1)
    bands = [flat[start : start + _BAND_PIXELS] for start in range(0, flat.size, _BAND_PIXELS)]
    keep = 1.0
    if limit is not None:
        total = flat.size if unlabelled is None else sum(int(np.count_nonzero(band != unlabelled)) for band in bands)
        keep = limit / max(total, 1)
    random = np.random.default_rng(seed)
    where = []
    for number, band in enumerate(bands):
        chosen = np.arange(band.size) if unlabelled is None else np.flatnonzero(band != unlabelled)
        if keep < 1:
            chosen = chosen[random.random(chosen.size, np.float32) < keep]
        where.append(chosen + number * _BAND_PIXELS)
    points = np.concatenate(where) if where else np.empty(0, np.intp)
    rows, cols = np.divmod(points, width)
    return rows, cols, flat[points]


def class_values(values_per_image: Sequence[LabelMap], unlabelled: int | None) -> tuple[int, ...]:
    """The classes that occur in label maps or in the values of `labelled_points`, ascending, without `unlabelled`."""
    found: set[int] = set()
    for values in values_per_image:
        flat = values.reshape(-1)
        for start in range(0, flat.size, _BAND_PIXELS):
            found.update(np.flatnonzero(np.bincount(flat[start : start + _BAND_PIXELS])).tolist())
    return tuple(sorted(found - {unlabelled}))


def check_learnable(
    values_per_image: Sequence[LabelMap], unlabelled: int | None, *, maps: int | None = None
) -> tuple[int, ...]:
    """Make sure that there is something to learn from.

    Parameters
    ----------
    values_per_image : sequence of arrays
        Label maps, or the values of their labelled pixels.
    unlabelled : int or None
        The value that means "not labelled".
    maps : int, optional
        How many label maps these values are of, if not one each.

    Returns
    -------
    tuple of int
        The classes, ascending (see `class_values`).

    Raises
    ------
    LabelsError
        If no pixel is labelled, if all labelled pixels have one class, or if there are more than `MAX_CLASSES` classes.
    """
    classes = class_values(values_per_image, unlabelled)
    number = len(values_per_image) if maps is None else maps
    where = f"{number} label map" + ("s" if number != 1 else "")
    dense = "" if unlabelled is None else f", or pass --unlabelled none if {unlabelled} is a class of its own (dense masks)"
    if not classes:
        raise LabelsError(
            f"no labelled pixel in {where}: every value is {unlabelled}, which means unlabelled; draw strokes with the values "
            f"1, 2, ...{dense}"
        )
    if len(classes) == 1:
        raise LabelsError(
            f"all labelled pixels in {where} have the value {classes[0]} and two classes at least are needed: label another "
            f"class{dense}"
        )
    if len(classes) > MAX_CLASSES:
        raise LabelsError(
            f"{len(classes)} different values in {where}, and at most {MAX_CLASSES} classes can be learned: if the values "
            "number objects, give every object the value of its class"
        )
    return classes


def many_classes(classes: Sequence[int]) -> str:
    """Words of warning about more classes than anybody paints; empty if there are no more than `MANY_CLASSES`."""
    if len(classes) <= MANY_CLASSES:
        return ""
    first, last = ", ".join(map(str, classes[:3])), classes[-1]
    return (
        f"{len(classes)} classes are in the labels (the values {first} ... {last}): label maps that are pictures, or were "
        "saved as JPEG once, look like this; if they are meant, say so with --many-classes, or name them with --classes"
    )
