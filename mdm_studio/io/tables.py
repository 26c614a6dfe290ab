"""Tables as CSV files, and the objects of a mask with what is measured on them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import LabelMap, Pixels
from mdm_studio.io.atomic import write_text

_BAND_ROWS = 2048  # rows labelled at a time: scikit-image needs 8 bytes a pixel, 3.2 GB for 20,000 x 20,000
_MEASURED = {
    "label": "label",
    "area": "area",
    "centroid-0": "centroid_y",
    "centroid-1": "centroid_x",
    "bbox-0": "bbox_top",
    "bbox-1": "bbox_left",
    "bbox-2": "bbox_bottom",
    "bbox-3": "bbox_right",
    "equivalent_diameter_area": "equivalent_diameter",
    "eccentricity": "eccentricity",
}


def write_rows(path: str | Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file (UTF-8, commas, a header line), whole or not at all.

    Columns come in the order in which the rows first name them; None, not-a-number and absent values are empty fields. No
    rows give an empty file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    if columns:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_field(row.get(column)) for column in columns] for row in rows)
    write_text(path, text.getvalue())


def _field(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def objects_from_mask(mask: LabelMap, min_size: int = 0, *, background: Collection[int] = (0,)) -> LabelMap:
    """Number the objects of a mask: regions of one class whose pixels touch, corners included.

    Parameters
    ----------
    mask : (H, W) unsigned integers
        Touching regions of different classes are different objects.
    min_size : int
        Objects of fewer pixels are left out.
    background : collection of int
        Classes that are no objects.

    Returns
    -------
    (H, W) uint16, or uint32 from 65,536 objects
        0 = no object, 1, 2, ... = objects in the order of their first pixel, row by row, within bands of 2048 rows.

    Notes
    -----
    Bands are labelled one by one and joined along their borders, so that 20,000 x 20,000 pixels take 1.6 GB, not 6.4.
    """
    numbers = np.zeros(mask.shape, np.uint32)
    touching = []
    count = 0
    for top in range(0, mask.shape[0], _BAND_ROWS):
        band = _without(mask[top : top + _BAND_ROWS], background)
        count = _number_band(band, numbers[top : top + _BAND_ROWS], count)
        if top:
            rows = slice(top - 1, top + 1)
            touching.append(_touching(_without(mask[rows], background), numbers[rows]))
    merged = _merge(count, np.concatenate(touching) if touching else np.empty((0, 2), np.int64))
    sizes = np.zeros(merged.max() + 1, np.int64)
    for top in range(0, mask.shape[0], _BAND_ROWS):
        sizes += np.bincount(merged[numbers[top : top + _BAND_ROWS]].ravel(), minlength=len(sizes))
    kept = sizes >= min_size
    kept[0] = False
    final = np.where(kept, np.cumsum(kept), 0)[merged]
    for top in range(0, mask.shape[0], _BAND_ROWS):
        band_numbers = numbers[top : top + _BAND_ROWS]
        band_numbers[:] = final[band_numbers]
    return numbers.astype(np.uint16) if kept.sum() <= np.iinfo(np.uint16).max else numbers


def _without(mask: LabelMap, background: Collection[int]) -> NDArray[np.int32]:
    """`mask` with -1 in place of the background classes."""
    return np.where(np.isin(mask, list(background)), -1, mask.astype(np.int32))


def _number_band(band: NDArray[np.int32], numbers: NDArray[np.uint32], count: int) -> int:
    """Write the numbers ``count + 1, ...`` of the band's objects into `numbers`; the new count."""
    from skimage.measure import label

    found, new = label(band, background=-1, connectivity=2, return_num=True)  # type: ignore[no-untyped-call]
    numbers[:] = np.where(found > 0, found + count, 0)
    return count + int(new)


def _touching(mask: NDArray[np.int32], numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Pairs ``(N, 2)`` of objects in the upper and the lower of two rows that touch and have one class."""
    width = mask.shape[1]
    pairs = []
    for shift in (-1, 0, 1):  # the lower pixel lies to the left, below, or to the right
        upper, lower = slice(max(0, -shift), width - max(0, shift)), slice(max(0, shift), width - max(0, -shift))
        same = (mask[0, upper] == mask[1, lower]) & (mask[0, upper] >= 0)
        pairs.append(np.stack([numbers[0, upper][same], numbers[1, lower][same]], axis=1))
    return np.concatenate(pairs).astype(np.int64)


def _merge(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each number from 0 to `count` the number of its whole object; 0 stays, the others keep their order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.uint8), (pairs[:, 0], pairs[:, 1])), shape=(count + 1, count + 1))
    _, parts = connected_components(graph, directed=False)
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    merged: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse].astype(np.int64)
    return merged


def object_table(
    instances: NDArray[Any],
    mask: LabelMap,
    intensity: Pixels | None = None,
    pixel_size: tuple[float, float] | None = None,
    unit: str | None = None,
) -> list[dict[str, int | float]]:
    """Measure every object.

    Parameters
    ----------
    instances : (H, W) integers
        0 = no object; see `objects_from_mask`.
    mask : (H, W) integers
        Gives each object its class.
    intensity : (C, H, W), optional
        Raw pixels, whose mean is taken for each channel.
    pixel_size, unit : (float, float), str, optional
        Height and width of a pixel; adds area, diameter and centroid in that unit.

    Returns
    -------
    list of dict
        One row for each object: ``label``, ``class``, ``area`` in pixels, ``centroid_y`` and ``centroid_x`` (the first
        pixel's middle is 0), ``bbox_top``, ``bbox_left``, ``bbox_bottom``, ``bbox_right`` (the last two lie outside),
        ``equivalent_diameter``, ``eccentricity``, ``mean_intensity_0`` ...; then ``area_micrometer2``,
        ``equivalent_diameter_micrometer``, ``centroid_y_micrometer``, ``centroid_x_micrometer`` for that unit.

    Raises
    ------
    ValueError
        If the arrays do not have one height and width.
    """
    if mask.shape != instances.shape or (intensity is not None and intensity.shape[1:] != instances.shape):
        given = "none" if intensity is None else intensity.shape
        raise ValueError(f"objects {instances.shape}, mask {mask.shape} and intensity {given} differ in height or width")
    if not instances.any():
        return []
    from skimage.measure import regionprops_table

    properties = ["label", "area", "centroid", "bbox", "equivalent_diameter_area", "eccentricity"]
    channels = 0 if intensity is None else len(intensity)
    pixels = None if intensity is None else np.moveaxis(intensity, 0, -1)  # (H, W, C)
    if channels:
        properties.append("intensity_mean")
    table = regionprops_table(instances, pixels, properties)  # type: ignore[no-untyped-call]
    classes = np.zeros(int(instances.max()) + 1, mask.dtype)
    classes[instances] = mask
    columns = {name: table[key] for key, name in _MEASURED.items()}
    columns = {"label": columns.pop("label"), "class": classes[table["label"]], **columns}
    columns |= {f"mean_intensity_{c}": table[f"intensity_mean-{c}"] for c in range(channels)}
    if pixel_size is not None:
        columns |= _physical(columns, pixel_size, unit or "unit")
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def _physical(columns: Mapping[str, NDArray[Any]], size: tuple[float, float], unit: str) -> dict[str, NDArray[Any]]:
    area = columns["area"] * size[0] * size[1]
    return {
        f"area_{unit}2": area,
        f"equivalent_diameter_{unit}": np.sqrt(4 * area / np.pi),
        f"centroid_y_{unit}": columns["centroid_y"] * size[0],
        f"centroid_x_{unit}": columns["centroid_x"] * size[1],
    }
