"""Masks as OME-Zarr 0.5: a pyramid with the classes' colours and names, which napari and Fiji open as labels."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.io.mask_spec import OME_AXES, TILE, MaskSpec, MaskWriter, ome_axes, rgb

if TYPE_CHECKING:
    import zarr


class _ZarrWriter(MaskWriter):
    """Writes into the level 0 of an OME-Zarr image whose axes are called `names`."""

    def __init__(self, spec: MaskSpec, level: zarr.Array[Any], names: str) -> None:
        super().__init__(spec)
        self._level, self._names = level, names

    def _store(self, index: tuple[int, ...], y0: int, x0: int, block: NDArray[Any]) -> None:
        height, width = block.shape[-2:]
        stack = ome_axes(self._spec.axes)[: len(index)]
        place: dict[str, Any] = {"Y": slice(y0, y0 + height), "X": slice(x0, x0 + width), "C": slice(None)}
        place.update(zip(stack, index, strict=True))
        self._level[tuple(place[axis] for axis in self._names)] = block


@contextlib.contextmanager
def write_ome_zarr(path: Path, spec: MaskSpec) -> Iterator[MaskWriter]:
    """Yield a writer into a new group `path`; levels and description are written when the block ends."""
    import zarr

    from mdm_studio.io.zarr_store import FolderStore

    lengths = dict(zip(ome_axes(spec.axes), spec.shape, strict=True))
    names = "".join(axis for axis in OME_AXES if axis in lengths)
    path.mkdir()
    group = zarr.create_group(FolderStore(path), zarr_format=3)
    level = _new_level(group, "0", tuple(lengths[axis] for axis in names), spec, names)
    yield _ZarrWriter(spec, level, names)
    levels = 1
    while max(level.shape[-2:]) > TILE:
        shape = (*level.shape[:-2], *(-(-n // 2) for n in level.shape[-2:]))
        smaller = _new_level(group, str(levels), shape, spec, names)
        _fill_half(level, smaller, means=spec.dtype.kind == "f")
        level, levels = smaller, levels + 1
    _write_zarr_metadata(group, spec, names, levels)


def _new_level(group: zarr.Group, name: str, shape: tuple[int, ...], spec: MaskSpec, names: str) -> zarr.Array[Any]:
    chunks = (1,) * (len(shape) - 2) + tuple(min(TILE, n) for n in shape[-2:])
    return group.create_array(name, shape=shape, dtype=spec.dtype, chunks=chunks, dimension_names=list(names.lower()))


def _fill_half(source: zarr.Array[Any], target: zarr.Array[Any], *, means: bool) -> None:
    """Fill `target` with `source` at half its height and width, a band of rows at a time."""
    for lead in np.ndindex(source.shape[:-2]):
        for top in range(0, source.shape[-2], 2 * TILE):
            band = np.asarray(source[(*lead, slice(top, top + 2 * TILE))])  # (<= 1024, W)
            half = _mean_of_four(band) if means else band[::2, ::2]
            target[(*lead, slice(top // 2, top // 2 + len(half)))] = half


def _mean_of_four(band: NDArray[Any]) -> NDArray[Any]:
    even = np.pad(band, [(0, n % 2) for n in band.shape], mode="edge")
    mean: NDArray[Any] = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).mean(axis=(1, 3), dtype=band.dtype)
    return mean


def _write_zarr_metadata(group: zarr.Group, spec: MaskSpec, names: str, levels: int) -> None:
    with warnings.catch_warnings():  # ome-zarr 0.14 to 0.18 warn of a class of their own while they are imported
        warnings.simplefilter("ignore", DeprecationWarning)
        from ome_zarr.format import FormatV05
        from ome_zarr.writer import add_metadata, write_multiscales_metadata

    size = dict(zip("YX", spec.pixel_size or (1.0, 1.0), strict=True))
    datasets = []
    for level in range(levels):
        factor = 2**level
        scale = [size.get(axis, 1.0) * (factor if axis in "YX" else 1) for axis in names]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if level:  # a pixel of a smaller level lies in the middle of those that it stands for
            shift = [size[axis] * (factor - 1) / 2 if axis in "YX" else 0.0 for axis in names]
            steps.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    axes = [{"name": axis.lower(), "type": OME_AXES[axis]} for axis in names]
    if spec.pixel_size and spec.unit:
        axes[-2]["unit"] = axes[-1]["unit"] = spec.unit
    write_multiscales_metadata(group, datasets, fmt=FormatV05(), axes=axes, name=spec.name)
    if spec.dtype.kind == "u" and "C" not in names:
        add_metadata(group, {"image-label": _label_facts(spec)}, fmt=FormatV05())


def _label_facts(spec: MaskSpec) -> dict[str, Any]:
    """Colours and names of the classes; readers want both for the same values, or one of them alone."""
    facts: dict[str, Any] = {"version": "0.5"}
    if spec.palette:
        facts["colors"] = [{"label-value": value, "rgba": [*rgb(colour), 255]} for value, colour in spec.palette.items()]
    if spec.names:
        wanted = spec.palette or spec.names
        facts["properties"] = [{"label-value": value, "class": spec.names.get(value, "")} for value in wanted]
    return facts
