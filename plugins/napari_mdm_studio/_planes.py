"""Image layers of napari as the planes that a session reads, and arrays to paint into."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdm_studio.io.array_planes import ArrayImage
from napari_mdm_studio._geometry import ChannelAxis

if TYPE_CHECKING:
    from napari.layers import Image

IN_MEMORY = 1 << 30
"""Strokes up to this many bytes are a NumPy array; larger ones are chunks that exist where something was painted."""
_CHUNK = 512
_MANY_CHANNELS = 16  # a leading axis this long is more likely a stack than channels


def planes_of(layer: Image, channel_axis: ChannelAxis = None) -> ArrayImage:
    """The planes of an image layer; nothing is read yet.

    Raises
    ------
    InputError
        If the layer cannot be an image of this kind, for example a stack without an axis for channels.
    """
    data = list(layer.data) if layer.multiscale else layer.data
    path = layer.source.path
    source = Path(path) if path and Path(path).exists() else None
    axis = None if layer.rgb else channel_axis
    return ArrayImage(data, rgb=bool(layer.rgb), channel_axis=axis, name=layer.name, source=source)


def channel_axes(layer: Image) -> tuple[ChannelAxis, ...]:
    """Axes of a layer that may be channels, None first; RGB layers leave no choice."""
    if layer.rgb or layer.ndim < 3:
        return (None,)
    leading: tuple[ChannelAxis, ...] = (None, 0) if layer.ndim == 3 else (None, 0, 1)
    return (*leading, -1)


def likely_channel_axis(layer: Image) -> ChannelAxis:
    """The axis of a layer whose name says that it counts channels, or else None."""
    for axis, name in enumerate(layer.axis_labels):
        wanted = axis if axis < layer.ndim - 1 else -1
        if name.lower() in ("c", "channel", "channels") and wanted in channel_axes(layer):
            return wanted
    return None


def describe_channels(layer: Image, channel_axis: ChannelAxis) -> str:
    """The choice of `channel_axis` in words."""
    if layer.rgb:
        return "RGB"
    if channel_axis is None:
        return "one channel"
    count = (layer.data[0] if layer.multiscale else layer.data).shape[channel_axis]
    where = {0: "first axis", 1: "second axis", -1: "last axis"}[channel_axis]
    return f"{where}: {count} channels" + (" (many!)" if count > _MANY_CHANNELS else "")


def empty_strokes(shape: tuple[int, ...]) -> Any:
    """An array of zeros (uint8) to paint into; a large one takes memory only where it is painted."""
    if math.prod(shape) <= IN_MEMORY:
        return np.zeros(shape, np.uint8)
    import zarr  # here, because most images need none

    chunks = (1,) * (len(shape) - 2) + (_CHUNK, _CHUNK)
    return zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype="uint8", fill_value=0)
