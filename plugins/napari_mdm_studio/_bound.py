"""A chosen image: its layer, its strokes, its outputs, and what listens to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mdm_studio._geometry import ChannelAxis, Geometry, finest
from napari_mdm_studio._pictures import PictureLayers
from napari_mdm_studio._planes import Channels, empty_strokes
from napari_mdm_studio._strokes import StrokesWatcher
from napari_mdm_studio._views import part_shown, plane_shown

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels, Layer

    from mdm_studio.services.session import View
    from mdm_studio.services.workspace import LoadedImage

_SUFFIX = " strokes"
_FEWEST, _SHARE = 4, 100  # pixels of a new brush at least, and which part of the shorter side it is


@dataclass
class BoundImage:
    """A chosen image: its layer, its strokes, its outputs.

    `key` is its name in the session and never changes; `array` holds the strokes, and the session writes into it, too.
    `kept`: somebody else opened it in the session and decides when it is closed there, as a project does with its images.
    """

    key: str
    layer: Image
    strokes: Labels
    array: Any
    channel_axis: ChannelAxis
    channels: Channels
    pictures: PictureLayers
    watcher: StrokesWatcher
    kept: bool = False
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

    def follow(self) -> None:
        """The image was given another place: its layers go there, too."""
        self.pictures.geometry = Geometry.of(self.layer, self.channel_axis)
        for layer in self.layers[1:]:
            self.geometry.apply(layer)

    def let_go(self) -> None:
        """Watch and listen no longer."""
        self.watcher.close()
        for emitter, callback in self._listening:
            emitter.disconnect(callback)
        self._listening.clear()

    def take_back(self) -> str:
        """The strokes layer was given other data: copy what can be strokes into `array`, and show that again.

        Returns
        -------
        str
            What was not taken over, in words; there the strokes are as they were.
        """
        given: Any = self.strokes.data
        shape, wanted, top = tuple(getattr(given, "shape", ())), self.geometry.shape, np.iinfo(self.array.dtype).max
        refused = 0
        for plane in self.planes if shape == wanted else ():
            values = np.asarray(given[plane])
            fits = (values >= 0) & (values <= top)
            refused += int(values.size - np.count_nonzero(fits))
            self.array[plane] = values if fits.all() else np.where(fits, values, self.array[plane])
        mode = self.strokes.mode
        self.strokes.data = self.array
        if shape != wanted:
            self.geometry.apply(self.strokes)  # with another number of axes its place was lost
            self.strokes.mode = mode
            return f"the strokes of {self.layer.name} need the shape {wanted} and were given {shape}: they stay as they were"
        if not refused:
            return ""
        name = self.layer.name
        return f"{refused:,} pixels pasted into the strokes of {name} are not of 0 to {top}: there they stay as they were"


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


def views_of(viewer: Viewer, images: Iterable[BoundImage]) -> dict[tuple[str, tuple[int, ...]], View]:
    """What the screen shows of each image and plane, as the session wants to know it."""
    from mdm_studio.services.session import View

    views = {}
    for bound in images:
        shown = part_shown(viewer, bound.strokes)
        if shown is not None and any(layer.visible for layer in bound.layers):
            views[bound.key, plane_shown(viewer, bound.strokes)] = View(shown.rows, shown.cols, shown.pixel)
    return views


def image_layer(viewer: Viewer, image: LoadedImage) -> Image:
    """Show an image of a project."""
    place = {"scale": image.scale, "units": _units(image), "contrast_limits": image.limits}
    return viewer.add_image(_data(image), multiscale=len(image.levels) > 1, rgb=image.rgb, name=image.name, **place)


def fits(bound: BoundImage, image: LoadedImage) -> bool:
    """Whether the strokes of an image, and its outputs, can show those of another one; napari takes seconds for new layers."""
    return type(bound.array) is type(image.labels) and bound.array.ndim == image.labels.ndim


def show_pixels(viewer: Viewer, layer: Image, image: LoadedImage) -> Image:
    """Show another image in a layer or, where napari cannot have it so, in a new one in its place."""
    old: Any = finest(layer)
    new: Any = image.levels[0]
    same_kind = (layer.rgb, old.ndim, old.dtype) == (image.rgb, len(new.shape), new.dtype)
    if not same_kind or layer.multiscale != (len(image.levels) > 1):
        layers, active = viewer.layers, viewer.layers.selection.active
        made = image_layer(viewer, image)
        layers.move(layers.index(made), layers.index(layer))
        layers.remove(layer)
        layers.selection.active = made if active is layer else active
        return made
    layer.data = _data(image)
    layer.name = image.name
    layer.scale = image.scale
    layer.units = _units(image)
    layer.reset_contrast_limits_range()
    if image.limits is None:
        layer.reset_contrast_limits()
    else:
        layer.contrast_limits = image.limits
    return layer


def show_strokes(strokes: Labels, image: LoadedImage, geometry: Geometry) -> None:
    """Show the strokes of another image in a layer."""
    mode = strokes.mode
    strokes.editable = False  # napari forgets what could be undone: it was painted in the other image
    strokes.data = image.labels  # editable again
    strokes.mode = mode
    strokes.name = image.name + _SUFFIX
    geometry.apply(strokes)


def _units(image: LoadedImage) -> tuple[str, ...]:
    return ("pixel",) * (len(image.scale) - 2) + (image.units or "pixel",) * 2


def _data(image: LoadedImage) -> Any:
    return list(image.levels) if len(image.levels) > 1 else image.levels[0]


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
