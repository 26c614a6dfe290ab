"""Small pictures of images, uint8 RGB, kept on disk until the image changes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from mdm_studio.arrays import Pixels, intensity_window, normalise
from mdm_studio.errors import OutputError
from mdm_studio.io.array_planes import usual_channels
from mdm_studio.io.atomic import make_folder, replacing
from mdm_studio.io.image_levels import level_for
from mdm_studio.io.images import decoding, image_signature, open_image

FOLDER = "thumbnails"
"""Name of their folder in the cache folder."""
_SAMPLED = 1 << 20  # pixels that a thumbnail is made of at most
_VERSION = 1  # of the way they are made


def thumbnail(path: Path, size: int, cache: Path | None) -> NDArray[np.uint8]:
    """A picture of an image, or of the middle plane of a stack, stretched to the percentiles of its pixels.

    Parameters
    ----------
    path : Path
        The image.
    size : int
        Pixels along its longer side; a smaller image is not enlarged.
    cache : Path or None
        Folder of the thumbnails, see `FOLDER`. They are found again as long as the image's place, size and time of change are
        the same; a folder that cannot be written only costs time.

    Returns
    -------
    (h, w, 3) uint8
        Grey images in grey, two channels in green and magenta, of more than three the first three.

    Raises
    ------
    UnreadableImageError
        If the image cannot be read.
    """
    kept = None if cache is None else cache / _file(path, size)
    if kept is not None:
        with contextlib.suppress(OSError, ValueError, SyntaxError), PILImage.open(kept) as picture:
            return np.asarray(picture.convert("RGB"))
    made = make_thumbnail(path, size)
    if kept is not None:
        with contextlib.suppress(OutputError):
            _keep(kept, made)
    return made


def _keep(path: Path, picture: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    with replacing(path) as unfinished:
        PILImage.fromarray(picture).save(unfinished, format="png", compress_level=1)


def _file(path: Path, size: int) -> str:
    with decoding(path):
        os.stat(path)
    length, time = image_signature(path) or (0, 0)
    known = f"{_VERSION} {size} {os.path.abspath(path)} {length} {time}"
    digest = hashlib.blake2b(known.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return f"{digest[:2]}/{digest}.png"


def make_thumbnail(path: Path, size: int) -> NDArray[np.uint8]:
    """`thumbnail`, made anew."""
    pixels, rgb = _pixels(path, 4 * size * size)
    window = intensity_window(pixels, "percentile", joint=rgb)
    grey = np.rint((normalise(pixels, window) + 1) * 127.5).astype(np.uint8)  # (C, h, w)
    if len(grey) == 2:
        grey = grey[[1, 0, 1]]  # magenta and green
    colours = np.repeat(grey[:1], 3, axis=0) if len(grey) < 3 else grey[:3]
    picture = PILImage.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0)))
    longest = max(picture.size)
    if longest > size:
        height, width = (max(1, math.ceil(n * size / longest)) for n in (picture.height, picture.width))
        picture = picture.resize((width, height), PILImage.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture)


def _pixels(path: Path, wanted: int) -> tuple[Pixels, bool]:
    """Pixels ``(C, h, w)`` to make a thumbnail of, and whether they are colours."""
    with open_image(path) as image:
        channels, rgb, middle = image.channels, image.rgb, image.planes // 2
        coarse = level_for(path, wanted) if image.height * image.width > _SAMPLED else None
        if coarse is None:
            plane = image.plane(middle)
            sample = plane.sample(_SAMPLED)
            return sample[: len(usual_channels(channels))], rgb
    levels = coarse.as_image()
    index = tuple(n // 2 for n in levels.stack_shape)
    return levels.plane(index).sample(_SAMPLED), rgb
