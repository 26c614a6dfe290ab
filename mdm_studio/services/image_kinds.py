"""What kind of images a classifier was fitted on, and whether an image is of that kind.

Channels that differ are refused, because the classifier would call them all one class without a word; grey and colour pictures
may stand for each other. What only makes masks worse (whole numbers or fractions, another pixel size) is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdm_studio.arrays import IntensityLaw
from mdm_studio.errors import ChannelsError
from mdm_studio.io.classifier_file import ClassifierInfo, SeenImages

OTHER_SIZE = 1.5
"""Pixels of an image that are so many times larger or smaller than those fitted on are worth a word."""
MICROMETRES = {
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "inch": 25_400.0,
    "meter": 1e6,
}
"""Micrometres in units as OME-Zarr spells them."""
_NUMBERS = {"u": "whole numbers", "b": "whole numbers", "i": "numbers with a sign", "f": "fractions"}


@dataclass(frozen=True)
class ImageKind:
    """What is read of an image.

    Attributes
    ----------
    channels, rgb : int, bool
        Number of channels after the choice, and whether they are the red, green and blue of a colour picture.
    dtype : str
        Type of the pixels.
    pixel_um : tuple of float
        Height and width of a pixel in micrometres; empty if that is not known.
    """

    channels: int
    rgb: bool
    dtype: str
    pixel_um: tuple[float, ...] = ()

    @classmethod
    def of(cls, image: Any) -> ImageKind:
        """Of an open image or a plane: an `ImageFile`, an `ArrayImage`, or any `Plane`, which may not know its pixel size."""
        channels = image.channels if hasattr(image, "channels") else image.shape[0]
        factor = MICROMETRES.get(getattr(image, "unit", None) or "")
        size = getattr(image, "pixel_size", None)
        known = tuple(float(each) * factor for each in size) if factor and size else ()
        return cls(int(channels), bool(image.rgb), np.dtype(image.dtype).name, known)

    @property
    def picture(self) -> bool:
        """Grey or coloured: these may stand for each other."""
        return self.channels == 1 or (self.rgb and self.channels == 3)

    def words(self) -> str:
        """Its channels, for people."""
        return "red, green and blue" if self.rgb else "1 channel" if self.channels == 1 else f"{self.channels} channels"


def seen_images(kinds: Collection[ImageKind], intensity: IntensityLaw) -> SeenImages | None:
    """What a classifier notes of the images that it was fitted on; None of none."""
    if not kinds:
        return None
    sizes = [size for kind in kinds for size in kind.pixel_um]
    return SeenImages(
        channels=tuple(sorted({kind.channels for kind in kinds})),
        rgb=any(kind.rgb for kind in kinds),
        dtypes=tuple(sorted({kind.dtype for kind in kinds})),
        intensity=intensity,
        pixel_um=(min(sizes), max(sizes)) if sizes else None,
    )


def check_alike(kinds: Mapping[Path, ImageKind]) -> None:
    """Make sure that labelled images can be fitted on together.

    Raises
    ------
    ChannelsError
        If their channels differ.
    """
    if clash := clashing(kinds):
        (one, first), (other, second) = clash
        raise ChannelsError(
            f"{one} has {first.words()} and {other} {second.words()}: a classifier is fitted on images of one kind; leave the "
            "others out, or choose channels that all of them have, for example --channels 0"
        )


def clashing(kinds: Mapping[Any, ImageKind]) -> tuple[tuple[Any, ImageKind], tuple[Any, ImageKind]] | None:
    """Two images whose channels cannot stand for each other, by their keys; None if there are none."""
    items = list(kinds.items())
    for key, kind in items[1:]:
        if not _alike(items[0][1], kind):
            return items[0], (key, kind)
    return None


def _alike(one: ImageKind, other: ImageKind) -> bool:
    return one.channels == other.channels or (one.picture and other.picture)


def mixed_words(kinds: Iterable[ImageKind]) -> str:
    """What differs between the images that a classifier is fitted on, for people; empty if nothing worth a word."""
    found = list(kinds)
    parts = []
    if len({_numbers(kind.dtype) for kind in found}) > 1:
        parts.append(f"pixels of the types {', '.join(sorted({kind.dtype for kind in found}))}")
    sizes = [size for kind in found for size in kind.pixel_um]
    if sizes and max(sizes) > OTHER_SIZE * min(sizes):
        parts.append(f"pixel sizes from {min(sizes):.3g} to {max(sizes):.3g} um")
    both = " and ".join(parts)
    return f"the labelled images have {both}: the classifier learns from all of them as they are" if parts else ""


def differences(info: ClassifierInfo, image: Any, name: str) -> str:
    """What of an image differs from those that a classifier was fitted on, in words that do not name it; empty if nothing.

    Parameters
    ----------
    image
        As `ImageKind.of` takes it, with the classifier's channels chosen.
    name : str
        Of the image, for the error.

    Raises
    ------
    ChannelsError
        If its channels are other ones. Nothing is said of a classifier that does not know what it was fitted on.
    """
    return differences_of(info.images, ImageKind.of(image), name)


def differences_of(seen: SeenImages | None, kind: ImageKind, name: str) -> str:
    """`differences` of a kind of image."""
    if seen is None:
        return ""
    pictures = 1 in seen.channels or (seen.rgb and 3 in seen.channels)
    if kind.channels not in seen.channels and not (kind.picture and pictures):
        raise ChannelsError(
            f"{name} has {kind.words()}, and the classifier was fitted on images of {_channels(seen)}: choose images of that "
            "kind, or fit one on images like this, or on channels that all of them have (--channels)"
        )
    parts = []
    if kind.channels == 3 and 3 in seen.channels and kind.rgb != seen.rgb:
        parts.append("colours where it was fitted on 3 channels" if kind.rgb else "3 channels where it was fitted on colours")
    if seen.dtypes and _numbers(kind.dtype) not in {_numbers(each) for each in seen.dtypes}:
        parts.append(f"{_numbers(kind.dtype)} ({kind.dtype}) where it was fitted on {_listed(seen.dtypes)}")
    elif seen.intensity == "range" and kind.dtype not in seen.dtypes:
        parts.append(f"{kind.dtype} where it was fitted on {_listed(seen.dtypes)}, and its range of values decides")
    if kind.pixel_um and seen.pixel_um:
        low, high = seen.pixel_um
        if max(kind.pixel_um) > OTHER_SIZE * high or min(kind.pixel_um) < low / OTHER_SIZE:
            parts.append(f"pixels of {_size(kind.pixel_um)} um where it was fitted on {_size(seen.pixel_um)} um")
    return "; ".join(parts)


def _numbers(dtype: str) -> str:
    try:
        return _NUMBERS.get(np.dtype(dtype).kind, dtype)
    except TypeError:  # of a file that somebody has edited
        return dtype


def _channels(seen: SeenImages) -> str:
    if seen.rgb:
        return "red, green and blue" if seen.channels == (3,) else "grey or colour"
    return "1 channel" if seen.channels == (1,) else f"{' or '.join(map(str, seen.channels))} channels"


def _listed(dtypes: Iterable[str]) -> str:
    return ", ".join(dtypes)


def _size(sizes: Iterable[float]) -> str:
    return " to ".join(dict.fromkeys(f"{size:.3g}" for size in sorted(sizes)))
