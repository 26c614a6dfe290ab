"""A chosen image: its layer, its strokes, its outputs, and what listens to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mdm_studio._geometry import ChannelAxis, Geometry
from napari_mdm_studio._pictures import PictureLayers
from napari_mdm_studio._planes import Channels, empty_strokes
from napari_mdm_studio._strokes import StrokesWatcher

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels, Layer

_SUFFIX = " strokes"
_FEWEST, _SHARE = 4, 100  # pixels of a new brush at least, and which part of the shorter side it is


@dataclass
class BoundImage:
    """A chosen image: its layer, its strokes, its outputs.

    `key` is its name in the session and never changes; `array` holds the strokes, and the session writes into it, too.
    """

    key: str
    layer: Image
    strokes: Labels
    array: Any
    channel_axis: ChannelAxis
    channels: Channels
    pictures: PictureLayers
    watcher: StrokesWatcher
    _listening: list[tuple[Any, Callable[..., object]]] = field(default_factory=list)

    @property
    def geometry(self) -> Geometry:
        """Where it lies."""
        return self.pictures.geometry

    @property
    def layers(self) -> list[Layer]:
        """All layers that belong to it."""
        return [self.layer, self.strokes, *self.pictures.layers.values()]

    @property
    def planes(self) -> list[tuple[int, ...]]:
        """Places in its stack; one, ``()``, without a stack."""
        return list(np.ndindex(self.geometry.shape[:-2]))

    def listen(self, emitter: Any, callback: Callable[..., object]) -> None:
        """Connect an event of one of its layers until `let_go`."""
        emitter.connect(callback)
        self._listening.append((emitter, callback))

    def let_go(self) -> None:
        """Watch and listen no longer."""
        self.watcher.close()
        for emitter, callback in self._listening:
            emitter.disconnect(callback)
        self._listening.clear()

    def take_back(self) -> bool:
        """The strokes layer was given other data: copy it into `array` and show that again; False if it does not fit."""
        given: Any = self.strokes.data
        if tuple(given.shape) != self.geometry.shape or int(np.max(given)) > np.iinfo(self.array.dtype).max:
            return False
        for plane in self.planes:
            self.array[plane] = np.asarray(given[plane])
        self.strokes.data = self.array
        return True


def strokes_layer(viewer: Viewer, layer: Image, geometry: Geometry, array: Any = None) -> Labels:
    """The strokes of an image: a layer called so, as the samples bring one, or a new one on top.

    Parameters
    ----------
    array : array-like, optional
        What the new layer shows, and is painted into; an empty one unless it is given.
    """
    from napari.layers import Labels

    name = layer.name + _SUFFIX
    found = viewer.layers[name] if array is None and name in viewer.layers else None
    if isinstance(found, Labels) and not found.multiscale and tuple(found.data.shape) == geometry.shape:
        values = found.data
        if values.dtype.kind == "i" and np.min(values) >= 0 and np.max(values) <= np.iinfo(np.uint8).max:
            found.data = np.asarray(values).astype(np.uint8)  # napari's own layers may be signed
        if found.data.dtype.kind == "u":
            return found
    shown = empty_strokes(geometry.shape) if array is None else array
    strokes = viewer.add_labels(shown, name=name, opacity=0.9, **geometry.options())
    strokes.brush_size = max(_FEWEST, round(min(geometry.shape[-2:]) / _SHARE))
    return strokes


def opening(layers: Sequence[Image]) -> list[Image]:
    """The images to choose at first: those that no earlier one overlaps."""
    chosen: list[Image] = []
    for layer in layers:
        if not any(overlap(layer, other) for other in chosen):
            chosen.append(layer)
    return chosen


def overlap(one: Image, other: Image) -> bool:
    """Whether the displayed planes of two layers share more than an edge."""
    low_a, high_a = one.extent.world[:, -2:]
    low_b, high_b = other.extent.world[:, -2:]
    return bool(((low_a < high_b) & (low_b < high_a)).all())
