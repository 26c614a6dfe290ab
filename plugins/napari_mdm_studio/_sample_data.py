"""The bundled images as napari sample data: every image with its strokes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.config import resource
from mdm_studio.errors import NoImagesError
from mdm_studio.io.images import find_images, image_name, open_image
from mdm_studio.io.labels import find_labels, read_labels

LayerData = tuple[NDArray[Any], dict[str, Any], str]

_GAP = 16  # pixels between neighbours, so that a thick brush on one image does not touch the next


def nuclei() -> list[LayerData]:
    """Bundled nuclei, in fluorescence and in stained tissue, as napari layers.

    Returns
    -------
    list of (data, attributes, layer type)
        First the images from left to right in one row, ``(H, W)`` grey or ``(H, W, 3)`` RGB in the file's dtype; above them
        one labels layer ``(H, W)`` for each, with its strokes, or empty where it has none.

    Raises
    ------
    InputError
        If the sample images did not come with this installation.
    """
    folder = resource("samples/nuclei")
    if not (folder / "images").is_dir():
        raise NoImagesError(f"{folder} has no folder 'images'; this installation is incomplete: install MDM Studio again")
    return _row_of_layers(find_images([folder / "images"]), folder / "strokes")


def _row_of_layers(images: list[Path], strokes: Path) -> list[LayerData]:
    stroke_files = find_labels(images, strokes) if strokes.is_dir() else {}
    image_layers: list[LayerData] = []
    label_layers: list[LayerData] = []
    left = 0
    for path in images:
        pixels, rgb = _read_image(path)
        height, width = pixels.shape[:2]
        drawn = stroke_files.get(path)
        labels = np.zeros((height, width), np.uint8) if drawn is None else read_labels(drawn, (height, width))
        common = {"translate": (0, left)}
        image_layers.append((pixels, {"name": image_name(path), "rgb": rgb, **common}, "image"))
        label_layers.append((labels, {"name": f"{image_name(path)} strokes", **common}, "labels"))
        left += width + _GAP
    return image_layers + label_layers


def _read_image(path: Path) -> tuple[NDArray[Any], bool]:
    """Pixels as napari wants them, ``(H, W)`` or ``(H, W, 3)``, and whether they are RGB."""
    with open_image(path) as image:
        pixels = image.plane().read(slice(None), slice(None))
        if image.rgb:
            return np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), True  # (3, H, W) -> (H, W, 3)
        return pixels[0], False
