"""What is in a folder of images, before anything is trained on it: how many, how large, what they look like, what is odd.

Opening thousands of files takes minutes, so a spread-out part of them is looked at. No torch: a front end may show it at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels, data_values, dtype_range, intensity_window, normalise, percentiles
from mdm_studio.errors import NoImagesError, UnreadableImageError
from mdm_studio.io.images import ImageFile, Plane, find_images, open_image

SAMPLE = 200
"""Images that are looked at: more of them seldom show another kind, and take seconds each where they are large."""
THUMBNAILS = 12
THUMBNAIL_SIDE = 96
"""Longer side of a thumbnail in pixels."""

_LARGE = 8192 * 8192  # pixels: of larger planes the middle is looked at, reading them whole takes too long
_MIDDLE = 1024  # side of that middle
_SIGNATURE = 24  # side of the small picture that images are compared by
_ALIKE = 0.985  # correlation of two such pictures: frames of one film, crops of one field, copies
_FLAT = 4 / 255  # of the dtype's used range, as in `mdm_studio.arrays`: nothing but noise
_DARK = 0.05  # of it: normalising blows up what noise there is
_TWELVE_BITS = 4095.0  # what most cameras put into 16 bits
_FEW_IMAGES, _FEW_CROPS = 10, 200  # fewer show a network the same things again and again within a few minutes


@dataclass(frozen=True)
class SurveyStep:
    """One more image was looked at."""

    done: int
    total: int
    name: str


@dataclass(frozen=True)
class SurveyedImage:
    """Facts about one readable image.

    `low` and `high` are raw values that nearly all pixels lie between; `remarks` say what is left out of it, see `ImageFile`.
    """

    path: Path
    height: int
    width: int
    planes: int
    channels: int
    rgb: bool
    dtype: str
    low: float
    high: float
    remarks: tuple[str, ...] = ()

    @property
    def contrast(self) -> float:
        """Width of its values as a share of what its dtype is usually filled with."""
        return (self.high - self.low) / _used_range(np.dtype(self.dtype))

    @property
    def brightness(self) -> float:
        """Its brightest pixels as such a share."""
        return self.high / _used_range(np.dtype(self.dtype))


@dataclass(frozen=True)
class Unreadable:
    """A file that is no image, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class Thumbnail:
    """A small picture ``(h, w, 3)`` uint8 of an image."""

    name: str
    rgb: NDArray[np.uint8] = field(compare=False, repr=False)


@dataclass(frozen=True)
class FolderSurvey:
    """What `survey_folder` found.

    Attributes
    ----------
    place : str
        What was looked through.
    paths : tuple of Path
        All image files there, in natural order, unreadable ones among them.
    images : tuple of SurveyedImage
        Those that were looked at and can be read.
    unreadable : tuple of Unreadable
        Those that were looked at and cannot.
    thumbnails : tuple of Thumbnail
        A dozen, spread out over the folder.
    alike : tuple of (str, str) or None
        Names of two images that look the same, if most images look like another one.
    """

    place: str
    paths: tuple[Path, ...]
    images: tuple[SurveyedImage, ...]
    unreadable: tuple[Unreadable, ...]
    thumbnails: tuple[Thumbnail, ...]
    alike: tuple[str, str] | None

    @property
    def looked_at(self) -> int:
        """Files that were opened."""
        return len(self.images) + len(self.unreadable)

    def summary(self) -> str:
        """Number, sizes, channels and bits in words."""
        count = f"{len(self.paths):,} image{'s' * (len(self.paths) != 1)}"
        if self.looked_at < len(self.paths):
            count += f" ({self.looked_at:,} of them looked at)"
        if not self.images:
            return f"{count}, none of them readable"
        planes = sorted({image.planes for image in self.images})
        stacks = "" if planes == [1] else f", {_span(planes)} planes each"
        return f"{count}, {_sizes(self.images)}, {_channels(self.images)}, {_depths(self.images)}{stacks}"

    def warnings(self, crop: int, scale: int = 1, *, reads: int | None = None) -> tuple[str, ...]:
        """What should be known before training on crops of `crop` x `crop` pixels of images binned by `scale`.

        Parameters
        ----------
        reads : int, optional
            Channels that the backbone to start from reads.
        """
        if not self.images:
            return ("None of these files can be read as an image.",)
        found = (
            _unreadable(self),
            _left_out(self.images),
            _mixed_channels(self.images, reads),
            _small(self.images, crop * scale),
            _few(self, crop * scale),
            _all_alike(self),
            _constant(self.images),
            _dark(self.images),
        )
        return tuple(words for words in found if words)


def survey_folder(
    place: str | Path, *, subfolders: bool = False, sample: int = SAMPLE
) -> Generator[SurveyStep, None, FolderSurvey]:
    """Look through a folder; yields after every image and returns the survey. Close it to stop.

    Parameters
    ----------
    place : str or Path
        A folder, or one image.
    subfolders : bool
        Images in folders below it count too.
    sample : int
        Of more images, so many are looked at, evenly spread.

    Raises
    ------
    NoImagesError
        If there is no image file at all, or the folder cannot be listed.
    """
    paths = _find(Path(place), subfolders)
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(sample, len(paths))).astype(int))]
    shown = set(np.unique(np.linspace(0, len(chosen) - 1, min(THUMBNAILS, len(chosen))).astype(int)).tolist())
    images: list[SurveyedImage] = []
    unreadable: list[Unreadable] = []
    thumbnails: list[Thumbnail] = []
    signatures: list[NDArray[np.float32] | None] = []
    for number, path in enumerate(chosen):
        try:
            with open_image(path) as image:
                plane = image.plane(image.planes // 2)
                pixels = _look(plane)
                facts = _facts(path, image, pixels)
        except UnreadableImageError as error:
            unreadable.append(Unreadable(path, str(error)))
            shown.add(number + 1)  # the next one is shown in its place
        else:
            images.append(facts)
            signatures.append(_signature(pixels) if facts.contrast >= _FLAT else None)
            if number in shown and len(thumbnails) < THUMBNAILS:
                thumbnails.append(Thumbnail(path.name, _thumbnail(pixels, rgb=image.rgb)))
        yield SurveyStep(number + 1, len(chosen), path.name)
    return FolderSurvey(
        str(place), tuple(paths), tuple(images), tuple(unreadable), tuple(thumbnails), _find_alike(images, signatures)
    )


def _find(place: Path, subfolders: bool) -> list[Path]:
    try:
        return find_images([str(place / "**" / "*") if subfolders and place.is_dir() else place])
    except OSError as error:
        raise NoImagesError(f"{place} cannot be looked through ({error.strerror}); choose a folder you may read") from error


# ---- one image ---------------------------------------------------------------------------------------------------------


def _look(plane: Plane) -> Pixels:
    """Raw pixels ``(C, h, w)``: some of the whole plane, or the middle of a huge one."""
    _, height, width = plane.shape
    if height * width <= _LARGE:
        return plane.sample(1 << 18)
    top, left = max(height - _MIDDLE, 0) // 2, max(width - _MIDDLE, 0) // 2
    return plane.read(slice(top, top + _MIDDLE), slice(left, left + _MIDDLE))


def _facts(path: Path, image: ImageFile, pixels: Pixels) -> SurveyedImage:
    data = data_values(pixels)
    low, high = percentiles(data) if data.size else (0.0, 0.0)
    size = (image.height, image.width, image.planes, image.channels)
    return SurveyedImage(path, *size, image.rgb, image.dtype.name, float(low), float(high), image.remarks)


def _used_range(dtype: np.dtype[np.generic]) -> float:
    low, high = dtype_range(dtype)
    return min(high - low, _TWELVE_BITS) if dtype.kind in "ui" else high - low


def _signature(pixels: Pixels) -> NDArray[np.float32]:
    """A small grey picture, mean 0 and length 1: the scalar product of two is their correlation."""
    grey = normalise(pixels, intensity_window(pixels, "percentile", joint=True)).mean(0)
    small = _shrunk(grey[None], _SIGNATURE, _SIGNATURE)[0]
    small -= small.mean()
    signature: NDArray[np.float32] = (small / (float(np.linalg.norm(small)) or 1.0)).ravel()
    return signature


def _thumbnail(pixels: Pixels, *, rgb: bool) -> NDArray[np.uint8]:
    """A picture ``(h, w, 3)``; of more than three channels the first three show, two are red and green."""
    image = normalise(pixels, intensity_window(pixels, "percentile", joint=rgb))  # (C, h, w) in [-1, 1]
    height, width = image.shape[1:]
    factor = min(1.0, THUMBNAIL_SIDE / max(height, width))
    small = _shrunk(image, max(1, round(height * factor)), max(1, round(width * factor)))
    channels = small[:3] if len(small) > 1 else np.repeat(small, 3, axis=0)
    if len(channels) == 2:
        channels = np.concatenate([channels, np.full_like(channels[:1], -1)])
    picture: NDArray[np.uint8] = np.rint((channels.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def _shrunk(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Means over a grid of `height` x `width` cells of ``(C, H, W)``; a smaller image's pixels are repeated."""
    rows, cols = ((np.arange(n) * size // n) for n, size in ((height, image.shape[1]), (width, image.shape[2])))
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=1), cols, axis=2)
    counts = [np.diff(np.append(starts, size)).clip(1) for starts, size in zip((rows, cols), image.shape[1:], strict=True)]
    means: NDArray[np.float32] = (sums / np.outer(*counts)).astype(np.float32)
    return means


def _find_alike(images: Sequence[SurveyedImage], signatures: Sequence[NDArray[np.float32] | None]) -> tuple[str, str] | None:
    """Two images that look the same, if more than half of all look like another one."""
    known = [(image, signature) for image, signature in zip(images, signatures, strict=True) if signature is not None]
    if len(known) < 2:
        return None
    stacked = np.stack([signature for _, signature in known])
    likeness = stacked @ stacked.T
    np.fill_diagonal(likeness, -1)
    if (likeness.max(1) > _ALIKE).mean() <= 0.5:
        return None
    one, other = np.unravel_index(int(likeness.argmax()), likeness.shape)
    return known[min(one, other)][0].path.name, known[max(one, other)][0].path.name


# ---- words -------------------------------------------------------------------------------------------------------------


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def _sizes(images: Sequence[SurveyedImage]) -> str:
    sizes = sorted({(image.width, image.height) for image in images}, key=lambda size: (size[0] * size[1], size))
    words = [f"{width:,} x {height:,}" for width, height in sizes]
    return f"{words[0]} px" if len(words) == 1 else f"{words[0]} to {words[-1]} px"


def _channels(images: Sequence[SurveyedImage]) -> str:
    kinds = Counter("RGB" if image.rgb else "grey" if image.channels == 1 else f"{image.channels} channels" for image in images)
    return " and ".join(kinds) if len(kinds) < 3 else f"{', '.join(list(kinds)[:-1])} and {list(kinds)[-1]}"


def _depths(images: Sequence[SurveyedImage]) -> str:
    depths = {np.dtype(image.dtype) for image in images}
    words = sorted(f"{8 * dtype.itemsize} bits{' floating point' if dtype.kind == 'f' else ''}" for dtype in depths)
    return " and ".join(dict.fromkeys(words))


def _some(count: int, total: int) -> str:
    return "The only image is" if total == count == 1 else f"{count:,} of {total:,} images {'is' if count == 1 else 'are'}"


def _unreadable(survey: FolderSurvey) -> str:
    count = len(survey.unreadable)
    if not count:
        return ""
    return f"{count:,} of {survey.looked_at:,} files cannot be read and will be left out; they are named below."


def _left_out(images: Sequence[SurveyedImage]) -> str:
    odd = [image for image in images if image.remarks]
    if not odd:
        return ""
    return f"{_some(len(odd), len(images))} not read whole or as meant ({odd[0].path.name}: {'; '.join(odd[0].remarks)})."


def _mixed_channels(images: Sequence[SurveyedImage], reads: int | None) -> str:
    counts = sorted({image.channels for image in images})
    if len(set(counts) - {1}) > 1 and max(counts) > 3:
        return f"The images have {', '.join(map(str, counts))} channels: name the same for all under Channels."
    needed = 3 if set(counts) <= {1, 2, 3} else max(counts)
    if reads is not None and needed != reads:
        return (
            f"The images have {needed} channels and the backbone to start from reads {reads}: name {reads} of them under "
            "Channels, or start from nothing."
        )
    if set(counts) <= {1, 3} and len(counts) > 1:
        return "Grey and colour images are mixed: grey ones are shown to the network as grey colours."
    return ""


def _small(images: Sequence[SurveyedImage], side: int) -> str:
    small = sum(min(image.height, image.width) < side for image in images)
    if 2 * small <= len(images):
        return ""
    border = "is mirrored at its border" if small == 1 else "are mirrored at their borders"
    return f"{_some(small, len(images))} smaller than a crop of {side} px and {border}: take a smaller crop."


def _few(survey: FolderSurvey, side: int) -> str:
    """Few images, or few different crops in them."""
    crops = sum(image.planes * max(1.0, image.height / side) * max(1.0, image.width / side) for image in survey.images)
    planes = sum(image.planes for image in survey.images)
    crops *= len(survey.paths) / max(survey.looked_at, 1)
    if planes >= _FEW_IMAGES and crops >= _FEW_CROPS:
        return ""
    what = f"{planes:,} image{'s' * (planes != 1)}"
    return (
        f"{what} with about {round(crops):,} different crops of {side} px are few: the network soon knows them by heart. "
        "More images of the same kind help more than more time."
    )


def _all_alike(survey: FolderSurvey) -> str:
    if survey.alike is None:
        return ""
    one, other = survey.alike
    return f"Most images look the same ({one} and {other}, for example): they teach the network as little as one of them."


def _constant(images: Sequence[SurveyedImage]) -> str:
    flat = [image for image in images if image.contrast < _FLAT]
    if not flat:
        return ""
    return f"{_some(len(flat), len(images))} nearly constant ({flat[0].path.name}): nothing is learnt from that."


def _dark(images: Sequence[SurveyedImage]) -> str:
    dark = [image for image in images if image.contrast >= _FLAT and image.dtype[0] in "ui" and image.brightness < _DARK]
    if 2 * len(dark) <= len(images):
        return ""
    return f"{_some(len(dark), len(images))} very dark ({dark[0].path.name}): normalising makes their noise strong."
