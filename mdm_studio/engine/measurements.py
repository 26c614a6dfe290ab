"""What is measured on the objects of a plane, as columns of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.objects import Objects, bands, is_giant, windows
from mdm_studio.io.images import Plane

Columns = dict[str, NDArray[Any]]

# our names for those of scikit-image
_SHAPE = {
    "area": "area", "centroid-0": "centroid_y", "centroid-1": "centroid_x",
    "bbox-0": "bbox_top", "bbox-1": "bbox_left", "bbox-2": "bbox_bottom", "bbox-3": "bbox_right",
    "equivalent_diameter_area": "equivalent_diameter", "perimeter": "perimeter",
    "axis_major_length": "major_axis", "axis_minor_length": "minor_axis", "orientation": "orientation",
    "eccentricity": "eccentricity", "solidity": "solidity",
}  # fmt: skip
_INTENSITY = ("mean", "min", "max", "std")
_LENGTHS = ("equivalent_diameter", "perimeter", "major_axis", "minor_axis")
_COUNTED = ("label", "class", "area", "bbox_top", "bbox_left", "bbox_bottom", "bbox_right")


def measure(
    objects: Objects, plane: Plane, pixel_size: tuple[float, float] | None = None, unit: str | None = None
) -> Generator[None, None, Columns]:
    """Measure every object; yields after each window and returns the columns.

    Parameters
    ----------
    objects : Objects
        Of the plane.
    plane : Plane
        Raw pixels, for the intensities.
    pixel_size, unit : (float, float), str, optional
        Height and width of a pixel; adds area, centroid and lengths in that unit.

    Returns
    -------
    dict
        Column -> a value of each object, in the order of their numbers: ``label``, ``class``, ``area`` in pixels,
        ``centroid_y`` and ``centroid_x`` (the first pixel's middle is 0), ``bbox_top``, ``bbox_left``, ``bbox_bottom``,
        ``bbox_right`` (the last two lie outside), ``equivalent_diameter``, ``perimeter``, ``major_axis``, ``minor_axis`` and
        ``orientation`` (radians from the y axis) of the ellipse of the same moments, its ``eccentricity``, ``solidity``, and
        ``mean_intensity_0``, ``min_...``, ``max_...``, ``std_...`` of each channel; then ``area_micrometer2``,
        ``centroid_y_micrometer`` ... for that unit. Perimeter and axes are left out of these where pixels are not square.

    Notes
    -----
    Objects of more than `mdm_studio.engine.objects.WHOLE` pixels around them are summed up band by band; their perimeter and
    solidity, which need them whole, are not-a-number.
    """
    channels = plane.shape[0]
    columns = {name: np.full(len(objects), np.nan) for name in _names(channels)}
    columns["label"], columns["class"] = np.arange(1, len(objects) + 1), objects.classes[1:]
    for window, numbers in windows(objects.boxes):
        found = _measured(objects.only(window, numbers), plane.read(*window), (window[0].start, window[1].start))
        for name, values in found.items():
            columns[name][numbers - 1] = values
        yield
    giants = np.flatnonzero(is_giant(objects.boxes))
    if len(giants):
        found = yield from _summed(objects, giants, plane)
        for name, values in found.items():
            columns[name][giants - 1] = values
    if pixel_size is not None:
        columns |= _physical(columns, pixel_size, unit or "unit")
    return columns | {name: columns[name].astype(np.int64) for name in _COUNTED}


def _names(channels: int) -> list[str]:
    return ["label", "class", *_SHAPE.values(), *(f"{kind}_intensity_{c}" for c in range(channels) for kind in _INTENSITY)]


def _measured(local: NDArray[np.int64], raw: NDArray[Any], corner: tuple[int, int]) -> Columns:
    """Columns of the objects 1, 2, ... of a window; `corner` is its first row and column."""
    from skimage.measure import regionprops_table

    pixels = np.moveaxis(raw.astype(np.uint8) if raw.dtype.kind == "b" else raw, 0, -1)  # (h, w, C)
    wanted = [*dict.fromkeys(name.partition("-")[0] for name in _SHAPE), *(f"intensity_{kind}" for kind in _INTENSITY)]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # objects of a few pixels have no hull
        table = regionprops_table(local, pixels, wanted)  # type: ignore[no-untyped-call]
    columns: Columns = {ours: table[theirs].astype(np.float64) for theirs, ours in _SHAPE.items()}
    for name in ("centroid_y", "bbox_top", "bbox_bottom"):
        columns[name] += corner[0]
    for name in ("centroid_x", "bbox_left", "bbox_right"):
        columns[name] += corner[1]
    columns["solidity"][~np.isfinite(columns["solidity"])] = 1.0  # a line is its own hull
    for c in range(pixels.shape[-1]):
        columns |= {f"{kind}_intensity_{c}": table[f"intensity_{kind}-{c}"] for kind in _INTENSITY}
    return columns


def _summed(objects: Objects, giants: NDArray[np.int64], plane: Plane) -> Generator[None, None, Columns]:
    """The same columns, but for perimeter and solidity, of objects too large for a window."""
    channels, n = plane.shape[0], len(giants)
    corners = objects.boxes[giants, :2]
    sums, squares = np.zeros((n, 6)), np.zeros((channels, n, 2))
    lowest, highest = np.full((channels, n), np.inf), np.full((channels, n), -np.inf)
    for rows in bands(objects.shape):
        local = objects.only((rows, slice(None)), giants)
        y, x = np.nonzero(local)
        which = local[y, x] - 1
        raw = plane.read(rows, slice(None))[:, y, x].astype(np.float64)
        down, right = y + rows.start - corners[which, 0], x - corners[which, 1]
        for column, weights in enumerate((None, down, right, down * down, right * right, down * right)):
            sums[:, column] += np.bincount(which, weights, n)
        for c, values in enumerate(raw):
            squares[c, :, 0] += np.bincount(which, values, n)
            with np.errstate(over="ignore"):  # of values beyond 1e154 the deviation is infinite
                squares[c, :, 1] += np.bincount(which, values**2, n)
            np.minimum.at(lowest[c], which, values)
            np.maximum.at(highest[c], which, values)
        yield
    area, middle = sums[:, 0], sums[:, 1:3] / sums[:, :1]
    boxes = objects.boxes[giants].T
    columns: Columns = {"area": area, "centroid_y": middle[:, 0] + corners[:, 0], "centroid_x": middle[:, 1] + corners[:, 1]}
    columns |= dict(zip(("bbox_top", "bbox_left", "bbox_bottom", "bbox_right"), boxes, strict=True))
    columns |= {"equivalent_diameter": np.sqrt(4 * area / np.pi)} | _ellipse(sums, middle)
    for c in range(channels):
        mean = squares[c, :, 0] / area
        std = np.sqrt(np.maximum(squares[c, :, 1] / area - mean**2, 0))
        columns |= {f"{k}_intensity_{c}": v for k, v in zip(_INTENSITY, (mean, lowest[c], highest[c], std), strict=True)}
    return columns


def _ellipse(sums: NDArray[np.float64], middle: NDArray[np.float64]) -> Columns:
    """Axes and orientation from the sums of 1, y, x, y^2, x^2, x y, as scikit-image has them."""
    of_y, of_x = (sums[:, 3:5] / sums[:, :1] - middle**2).T
    mixed = sums[:, 5] / sums[:, 0] - middle[:, 0] * middle[:, 1]
    half, root = (of_y + of_x) / 2, np.sqrt((of_y - of_x) ** 2 / 4 + mixed**2)
    large, small = half + root, np.maximum(half - root, 0)
    return {
        "major_axis": 4 * np.sqrt(large),
        "minor_axis": 4 * np.sqrt(small),
        "eccentricity": np.sqrt(1 - small / large),
        "orientation": 0.5 * np.arctan2(2 * mixed, of_y - of_x),
    }


def _physical(columns: Mapping[str, NDArray[Any]], size: tuple[float, float], unit: str) -> Columns:
    area = columns["area"] * size[0] * size[1]
    found = {
        f"area_{unit}2": area,
        f"equivalent_diameter_{unit}": np.sqrt(4 * area / np.pi),
        f"centroid_y_{unit}": columns["centroid_y"] * size[0],
        f"centroid_x_{unit}": columns["centroid_x"] * size[1],
    }
    if np.isclose(*size, rtol=1e-3):
        found |= {f"{name}_{unit}": columns[name] * size[0] for name in _LENGTHS[1:]}
    return found
