"""OME-Zarr folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mdm_studio.io.images.source import Source, from_axes, without_bool
from mdm_studio.io.images.spacing import spacing


def open_zarr(path: Path, *, values: bool) -> Source:
    """Open an OME-Zarr folder: `Opener`.

    The few fields needed are read here, with zarr alone: importing `ome_zarr` takes a second (it brings dask).
    """
    import zarr

    group = zarr.open_group(path, mode="r")
    metadata = _ome_metadata(group.attrs.asdict())
    if "multiscales" not in metadata and "0" in group:  # the layout of bioformats2raw: one numbered group a series
        group = zarr.open_group(path / "0", mode="r")
        metadata = _ome_metadata(group.attrs.asdict())
    if "plate" in metadata:
        raise ValueError("it is a plate of many wells; name the images inside it, for example PLATE.zarr/A/1/0")
    if not metadata.get("multiscales"):
        raise ValueError("it has no 'multiscales' metadata, so it is not an OME-Zarr image")
    multiscale = metadata["multiscales"][0]
    dataset = multiscale["datasets"][0]
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"its level {dataset['path']!r} is not an array")
    axes = multiscale.get("axes") or list("tczyx"[-array.ndim :])
    names = "".join((axis if isinstance(axis, str) else axis["name"])[:1].upper() for axis in axes)
    source = from_axes(names, array.shape, array.dtype, lambda selection: np.asarray(array[selection]))
    pixel_size, unit = _zarr_spacing(names, axes, multiscale, dataset)
    source = replace(source, rgb=_says_rgb(metadata, source), pixel_size=pixel_size, unit=unit)
    return without_bool(source, values=values)


def _ome_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(attributes.get("ome", attributes))  # 0.5 keeps under "ome" what was at the top before


def _zarr_spacing(
    names: str, axes: Sequence[Any], multiscale: Mapping[str, Any], dataset: Mapping[str, Any]
) -> tuple[tuple[float, float] | None, str | None]:
    scale = np.ones(len(names))
    steps = [*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())]
    for step in steps:
        if step.get("type") == "scale" and "scale" in step:
            scale = scale * np.asarray(step["scale"], float)
    axis = axes[names.index("X")]
    unit = None if isinstance(axis, str) else axis.get("unit")
    return spacing(float(scale[names.index("Y")]), float(scale[names.index("X")]), unit)


def _says_rgb(metadata: Mapping[str, Any], source: Source) -> bool:
    """Whether three 8-bit channels are shown as exactly red, green and blue: how converters store a colour slide."""
    colours = [str(c.get("color", "")).upper() for c in (metadata.get("omero") or {}).get("channels", ())]
    return source.shape[0] == 3 and source.dtype == np.uint8 and colours == ["FF0000", "00FF00", "0000FF"]
