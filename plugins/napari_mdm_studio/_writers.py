"""Labels layers as masks: one file a layer, whose numbers are the class values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdm_studio.errors import OutputError
from mdm_studio.io.masks import MaskFormat, class_palette, mask_path, open_mask

_FORMATS: dict[str, MaskFormat] = {".png": "png", ".tif": "tiff", ".tiff": "tiff"}
_STACK_AXES = {0: "", 1: "Z", 2: "TZ"}
_BAND = 512  # rows written at a time: a large array of strokes is never loaded whole
_UNITS = {"micrometer", "nanometer", "millimeter", "meter", "centimeter", "angstrom", "inch"}


def write_mask(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a Labels layer to a PNG (one plane) or a TIFF (stacks, too), replacing what is there.

    Raises
    ------
    OutputError
        If the values do not fit into 16 bits, or the file cannot be written.
    UsageError
        If the format cannot hold the layer.
    """
    target = Path(path)
    kind = _FORMATS.get(target.suffix.lower(), "png" if np.ndim(_finest(data)) == 2 else "tiff")
    stem = target.with_suffix("") if target.suffix.lower() in _FORMATS else target
    return [_write(stem, _finest(data), attributes, kind)]


def write_masks(path: str, layers: Sequence[tuple[Any, Mapping[str, Any], str]]) -> list[str]:
    """Write several Labels layers into a folder of that name, each called like its layer; see `write_mask`."""
    target = Path(path)
    kind = _FORMATS.get(target.suffix.lower())
    folder = target.with_suffix("") if kind else target
    written = []
    for data, attributes, _ in layers:
        array = _finest(data)
        chosen = kind or ("png" if array.ndim == 2 else "tiff")
        written.append(_write(folder / str(attributes["name"]).replace("/", "_"), array, attributes, chosen))
    return written


def _finest(data: Any) -> Any:
    """The full resolution of a pyramid, or the array itself."""
    return data if hasattr(data, "shape") and hasattr(data, "dtype") else data[0]


def _write(stem: Path, array: Any, attributes: Mapping[str, Any], kind: MaskFormat) -> str:
    *stack, height, _ = array.shape
    axes = _STACK_AXES.get(len(stack))
    if axes is None:
        raise OutputError(f"{attributes['name']} has {array.ndim} axes, and masks have two of a stack at most: slice it first")
    places = list(itertools.product(*(range(length) for length in stack)))
    parts = [(place, top) for place in places for top in range(0, height, _BAND)]
    highest = 0
    for place, top in parts:
        band = np.asarray(array[(*place, slice(top, top + _BAND))])
        highest = max(highest, int(band.max()))
        if band.min() < 0 or highest > np.iinfo(np.uint16).max:
            raise OutputError(f"{attributes['name']} has values from {band.min()} to {band.max()}: masks hold 0 to 65535")
    deep = highest > np.iinfo(np.uint8).max
    scale = attributes.get("scale")
    size = (float(scale[-2]), float(scale[-1])) if scale is not None else None
    unit = _unit(attributes)
    palette = None if deep else _palette(attributes)
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    shape, axes = tuple(array.shape), f"{axes}YX"
    stem.parent.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, Any] = {"pixel_size": size, "unit": unit} if unit else {}
    with open_mask(stem, shape, dtype, format=kind, axes=axes, palette=palette, overwrite=True, **sizes) as writer:
        for place, top in parts:
            writer.write(top, 0, np.asarray(array[(*place, slice(top, top + _BAND))]).astype(dtype), index=place)
    return str(mask_path(stem.parent, stem.name, kind))


def _palette(attributes: Mapping[str, Any]) -> dict[int, str]:
    """The colours that the layer shows its values in, where it has chosen ones."""
    colors = getattr(attributes.get("colormap"), "color_dict", {})
    palette = class_palette(255)
    for value, color in colors.items():
        if isinstance(value, int) and 1 <= value <= 255:
            parts = [round(255 * float(part)) for part in np.asarray(color)[:3]]
            palette[value] = "#" + "".join(f"{part:02x}" for part in parts)
    return palette


def _unit(attributes: Mapping[str, Any]) -> str | None:
    units = list(attributes.get("units") or ())
    name = str(units[-1]) if units else ""
    return name if name in _UNITS else None
