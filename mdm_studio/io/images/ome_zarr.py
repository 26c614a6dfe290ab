"""OME-Zarr folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdm_studio.io.images.source import AdviceError, Source, from_axes, without_bool
from mdm_studio.io.images.spacing import Length, Spacing, spacing
from mdm_studio.io.images.words import parts
from mdm_studio.io.images.zarr_groups import Multiscale, OmeGroup, images_in, read_group

_SPARE = "QRUVWDEFGHIJK"  # letters for axes whose own is taken


@dataclass(frozen=True)
class Levels:
    """An open image: its arrays, finest first, the letters of their axes, its metadata, and what should be known of it."""

    arrays: list[Any]
    axes: str
    group: OmeGroup
    spacing: Spacing
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def open_zarr(path: Path, *, values: bool) -> Source:
    """Open an OME-Zarr folder: `Opener`."""
    levels = open_zarr_levels(path)
    array = levels.arrays[0]
    source = from_axes(levels.axes, array.shape, array.dtype, lambda selection: np.asarray(array[selection]))
    source = replace(
        source,
        rgb=_says_rgb(levels.group, source),
        pixel_size=levels.spacing.size,
        unit=levels.spacing.unit,
        left_out=levels.left_out,
        notes=(*levels.notes, *levels.spacing.notes),
    )
    return without_bool(source, values=values)


def open_zarr_levels(path: Path) -> Levels:
    """Arrays and metadata of an image.

    The few fields needed are read here, with zarr alone: importing `ome_zarr` takes a second (it brings dask).

    Raises
    ------
    OSError, ValueError
        If it is no image, or several.
    """
    import zarr

    place, left_out = _one_image(path)
    group = read_group(place)
    if not group.multiscales:
        raise ValueError("it has no 'multiscales' metadata, so it is not an OME-Zarr image")
    multiscale = group.multiscales[0]
    store = zarr.open_group(place, mode="r")
    found = [(store[dataset.path], dataset) for dataset in multiscale.datasets]
    if wrong := [dataset.path for array, dataset in found if not isinstance(array, zarr.Array)]:
        raise ValueError(f"its level {wrong[0]!r} is not an array")
    arrays: list[tuple[Any, Any]] = sorted(found, key=lambda pair: -_pixels(pair[0]))
    names = [str(each.name or "") for each in group.multiscales[1:]]
    total = len(group.multiscales)
    left_out += (parts("multiscale", range(2, total + 1), total, names),) if total > 1 else ()
    axes, notes = _axes(multiscale.axes, arrays[0][0].ndim)
    size = _spacing(axes, multiscale, arrays[0][1].coordinateTransformations)
    return Levels([array for array, _ in arrays], axes, group, size, left_out, notes)


def _one_image(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The group to read, and which others are left out."""
    found = images_in(path)
    if found.paths == (path,):
        return path, ()
    if not found.paths:
        raise ValueError("it is a plate without images")
    if not found.series:
        raise AdviceError(f"it holds {len(found.paths)} images: name one of them, for example {found.paths[0]}")
    total = len(found.paths) + len(found.aside)
    words = parts("series", range(2, len(found.paths) + 1), total, [each.name for each in found.paths[1:]])
    return found.paths[0], tuple(each for each in (words, ", ".join(found.aside)) if each)


def _pixels(array: Any) -> int:
    return int(np.prod(array.shape, dtype=np.int64))


def _axes(given: Any, ndim: int) -> tuple[str, tuple[str, ...]]:
    """A letter for each axis, and what is said of axes that make no sense: the last ones are then taken for the usual."""
    usual = "TCZYX"[-ndim:]
    if given is None:  # the first versions had no others
        return usual, ()
    letters = ""
    for axis in given if isinstance(given, list) else ():
        name, kind = (axis.get("name"), axis.get("type")) if isinstance(axis, dict) else (axis, None)
        letter = {"channel": "C", "time": "T"}.get(str(kind), str(name or "?")[:1].upper())
        letters += letter if letter not in letters else next(each for each in _SPARE if each not in letters)
    if len(letters) == ndim and {"Y", "X"} <= set(letters):
        return letters, ()
    return usual, (f"its axes make no sense: they are taken for {', '.join(usual.lower())}",)


def _spacing(axes: str, multiscale: Multiscale, transformations: Any) -> Spacing:
    steps = [*_scales(transformations), *_scales(multiscale.coordinateTransformations)]
    if not steps:
        return Spacing()
    at = {axis: axes.index(axis) for axis in "YX"}
    if any(not isinstance(step, list) or len(step) != len(axes) for step in steps):
        return Spacing(notes=("the pixel size is dropped: its scale does not fit the axes",))
    y, x = (Length(_product([step[i] for step in steps]), _unit(multiscale.axes, i)) for i in at.values())
    return spacing(y, x)


def _scales(transformations: Any) -> list[Any]:
    given = transformations if isinstance(transformations, list) else []
    return [step["scale"] for step in given if isinstance(step, dict) and step.get("type") == "scale" and "scale" in step]


def _product(factors: Sequence[Any]) -> Any:
    """Their product; the first one that is no number where there is one, for `spacing` to speak of."""
    odd = [factor for factor in factors if isinstance(factor, bool) or not isinstance(factor, int | float)]
    negative = [factor for factor in factors if not odd and not factor > 0]
    return (odd or negative or [float(np.prod(np.asarray(factors, float)))])[0]


def _unit(axes: Any, index: int) -> object:
    axis = axes[index] if isinstance(axes, list) and index < len(axes) else None
    return axis.get("unit") if isinstance(axis, dict) else None


def _says_rgb(group: OmeGroup, source: Source) -> bool:
    """Whether three 8-bit channels are shown as exactly red, green and blue: how converters store a colour slide."""
    channels = group.omero.get("channels") if isinstance(group.omero, dict) else None
    given = channels if isinstance(channels, list) else []
    colours = [str(each.get("color", "")).upper() if isinstance(each, dict) else "" for each in given]
    return source.shape[0] == 3 and source.dtype == np.uint8 and colours == ["FF0000", "00FF00", "0000FF"]
