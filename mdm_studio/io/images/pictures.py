"""PNG, JPEG, BMP, GIF and WebP files."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.io.images.source import TRANSPARENCY, Source, check_untiled, from_axes, without_bool
from mdm_studio.io.images.words import parts

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_BAND_ROWS = 1024  # rows copied out of a decoded picture at a time, so that it is never held three times
_COLOUR_PNG_TYPES = {2: 3, 4: 1, 6: 3}  # PNG colour type -> samples without transparency: RGB, grey + alpha, RGBA

_pillow_limit = threading.Lock()


@contextlib.contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit of 179 million pixels, a guard for web servers; 20,000 x 20,000 scans are 400 million.

    Our own `MAX_UNTILED_PIXELS` is checked instead. The limit is one global of Pillow's, hence the lock.
    """
    from PIL import Image

    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_pillow(path: Path, *, values: bool) -> Source:
    """Open a PNG, JPEG, BMP, GIF or WebP file: `Opener`."""
    left_out: list[str] = []
    array = _deep_colour_png(path, left_out)
    if array is None:
        from PIL import Image, ImageOps

        with _no_pillow_limit(), Image.open(path) as image:
            check_untiled(*image.size)
            frames = getattr(image, "n_frames", 1)
            image.seek(0)  # counting may have gone on to the last
            image.load()
            left_out += [parts(_frame(image), range(2, frames + 1), frames)] if frames > 1 else []
            left_out += [TRANSPARENCY] if _is_transparent(image) else []
            ImageOps.exif_transpose(image, in_place=True)
            array = _from_pillow(_plain_mode(image, values=values))
    if array.dtype == np.int32 and array.min(initial=0) >= 0 and array.max(initial=0) <= np.iinfo(np.uint16).max:
        array = array.astype(np.uint16)  # Pillow's mode I: 16-bit grey in the wider type it calculates with
    source = from_axes("YXS"[: array.ndim], array.shape, array.dtype, lambda selection: array[selection])
    return without_bool(replace(source, rgb=array.ndim == 3, left_out=tuple(left_out)), values=values)


def _frame(image: PillowImage) -> str:
    return {"MPO": "picture", "TIFF": "page"}.get(image.format or "", "frame")


def _is_transparent(image: PillowImage) -> bool:
    """Whether transparency tells pixels apart: a layer that is the same everywhere has nothing to lose."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        low, high = image.getchannel(len(image.getbands()) - 1).getextrema()
        return low != high
    return "transparency" in image.info and image.mode in ("P", "L", "RGB", "1", "I") and _has_clear_pixels(image)


def _has_clear_pixels(image: PillowImage) -> bool:
    with contextlib.suppress(ValueError, TypeError):  # Pillow does not know every spelling
        low, high = image.convert("RGBA").getchannel("A").getextrema()
        return low != high
    return True


def _plain_mode(image: PillowImage, *, values: bool) -> PillowImage:
    """The picture in a mode that is grey or RGB, or its stored numbers."""
    if image.mode in ("LA", "La", "PA") and (values or image.mode != "PA"):
        return image.getchannel(0)
    if image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16") or (image.mode == "P" and values):
        return image
    image.info.pop("transparency", None)  # dropped anyway; Pillow warns about some of its spellings
    return image.convert("RGB")


def _from_pillow(image: PillowImage) -> NDArray[Any]:
    """Copy a loaded picture band by band to an array ``(H, W)`` or ``(H, W, 3)``."""
    width, height = image.size
    first = np.asarray(image.crop((0, 0, width, 1)))
    array = np.empty((height, *first.shape[1:]), first.dtype)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, height)
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def _deep_colour_png(path: Path, left_out: list[str]) -> NDArray[Any] | None:
    """A PNG of 16 bits with colour or transparency, which Pillow would cut to 8 bits; None for every other file."""
    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 26 or head[24] != 16 or head[25] not in _COLOUR_PNG_TYPES:
        return None
    import imagecodecs

    check_untiled(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    content = path.read_bytes()
    array: NDArray[Any] = imagecodecs.png_decode(content)  # (H, W, samples)
    samples = _COLOUR_PNG_TYPES[head[25]]
    alpha = array[..., samples] if array.shape[-1] > samples else None
    frames = _frames_of_png(content)
    left_out += [parts("frame", range(2, frames + 1), frames)] if frames > 1 else []
    left_out += [TRANSPARENCY] if alpha is not None and alpha.min() != alpha.max() else []
    return array[..., :3] if samples == 3 else array[..., 0]


def _frames_of_png(content: bytes) -> int:
    """Frames of an animation: the chunk acTL, which stands before the pixels, counts them."""
    at = content.find(b"acTL", 0, content.find(b"IDAT"))
    return int.from_bytes(content[at + 4 : at + 8], "big") if at > 0 else 1
