"""Image layers of napari as the planes that a session reads, and arrays to paint into."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdm_studio.errors import ChannelsError
from mdm_studio.io.array_planes import ArrayImage, usual_channels
from napari_mdm_studio._geometry import ChannelAxis, finest
from napari_mdm_studio._numbers import parse_numbers

if TYPE_CHECKING:
    from napari.layers import Image

Channels = tuple[int, ...] | None
"""Which channels are read, in this order; None leaves it to `usual_channels`."""

IN_MEMORY = 1 << 30
"""Strokes up to this many bytes are a NumPy array; larger ones are chunks that exist where something was painted."""
_CHUNK = 512
_MANY_CHANNELS = 16  # a leading axis this long is more likely a stack than channels


def planes_of(layer: Image, channel_axis: ChannelAxis = None, channels: Channels = None) -> ArrayImage:
    """The planes of an image layer; nothing is read yet.

    Raises
    ------
    InputError
        If the layer cannot be an image of this kind, for example a stack without an axis for channels.
    ChannelsError
        If it does not have these channels.
    """
    data = list(layer.data) if layer.multiscale else layer.data
    path = layer.source.path
    source = Path(path) if path and Path(path).exists() else None
    axis = None if layer.rgb else channel_axis
    planes = ArrayImage(data, rgb=bool(layer.rgb), channel_axis=axis, name=layer.name, source=source)
    return planes.reading(channels or usual_channels(planes.available))


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


def count_channels(layer: Image, channel_axis: ChannelAxis) -> int:
    """How many channels there are to choose from; 1 where there is no choice."""
    return 1 if layer.rgb or channel_axis is None else int(finest(layer).shape[channel_axis])


def parse_channels(text: str, name: str, available: int) -> tuple[int, ...]:
    """The channels in `text`, in its order.

    Parameters
    ----------
    text : str
        ``0,1,2`` or ``0-2``.
    name : str
        The image, for messages.
    available : int
        How many there are.

    Raises
    ------
    ChannelsError
        If these are no channels of it.
    """
    channels = parse_numbers(text, available - 1, ordered=True)
    if channels is None:
        raise ChannelsError(
            f"{text.strip() or 'nothing'!r} are no channels of {name}: it has {available}, counted from 0 to {available - 1}; "
            f"type for example {as_typed(usual_channels(available))}"
        )
    return channels


def as_typed(channels: Iterable[int]) -> str:
    """Channels as `parse_channels` reads them."""
    return ",".join(map(str, channels))


def describe_channels(layer: Image, channel_axis: ChannelAxis) -> str:
    """The choice of `channel_axis` in words."""
    if layer.rgb:
        return "RGB"
    if channel_axis is None:
        return "one channel"
    count = count_channels(layer, channel_axis)
    where = {0: "first axis", 1: "second axis", -1: "last axis"}[channel_axis]
    return f"{where}: {count} channels" + (" (many!)" if count > _MANY_CHANNELS else "")


def empty_strokes(shape: tuple[int, ...]) -> Any:
    """An array of zeros (uint8) to paint into; a large one takes memory only where it is painted."""
    if math.prod(shape) <= IN_MEMORY:
        return np.zeros(shape, np.uint8)
    import zarr  # here, because most images need none

    chunks = (1,) * (len(shape) - 2) + (_CHUNK, _CHUNK)
    return zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype="uint8", fill_value=0)
