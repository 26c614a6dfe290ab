"""The layers that show what a session computed for one image: prediction, uncertainty, probability of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mdm_studio._geometry import Geometry

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels, Layer

    from mdm_studio.io.classifier_file import LabelClass

PREDICTION, UNCERTAINTY, PROBABILITY = "prediction", "uncertainty", "probability:"
OUTPUT = {"mdm-studio": "output"}
"""Metadata of the layers made here: they are no images to label."""
_UNKNOWN = "#9a9a9a"  # strokes of a value that is no class


def title(output: str, classes: Sequence[LabelClass]) -> str:
    """The name of an output in words."""
    if output.startswith(PROBABILITY):
        value = int(output.removeprefix(PROBABILITY))
        named = {each.value: each.name for each in classes}
        return f"probability of {named.get(value, f'class {value}')}"
    return output


def class_colormap(classes: Sequence[LabelClass], *, unknown: bool) -> Any:
    """Colours of the classes for a Labels layer; other values are grey if `unknown`, else not shown."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Any] = {None: _UNKNOWN if unknown else "transparent", 0: "transparent"}
    colors |= {each.value: each.color for each in classes}
    return DirectLabelColormap(color_dict=colors)


@dataclass
class Look:
    """How predictions are shown."""

    visible: bool = True
    contour: bool = False
    opacity: float = 0.5

    def as_options(self) -> dict[str, object]:
        """As attributes of a Labels layer."""
        return {"visible": self.visible, "contour": int(self.contour), "opacity": self.opacity}


class PictureLayers:
    """The output layers of one image.

    Parameters
    ----------
    viewer : napari.Viewer
        Where they are shown.
    name : callable
        The image's name now.
    geometry : Geometry
        Its place.
    below : callable
        The layer that outputs stay beneath: the strokes.
    """

    def __init__(self, viewer: Viewer, name: Callable[[], str], geometry: Geometry, below: Callable[[], Layer]) -> None:
        self._viewer, self._name, self._below = viewer, name, below
        self.geometry = geometry
        self.layers: dict[str, Layer] = {}
        self._guests: list[Layer] = []  # what others have added

    def show(self, output: str, levels: Sequence[Any], classes: Sequence[LabelClass], look: Look) -> Layer:
        """The layer of an output, made if it is not there (any more); `levels` are the session's own arrays."""
        layer = self.layers.get(output)
        if layer is None or layer not in self._viewer.layers:
            layer = self.layers[output] = self._make(output, levels, classes, look)
            self._guests.remove(layer)
        return layer

    def _make(self, output: str, levels: Sequence[Any], classes: Sequence[LabelClass], look: Look) -> Layer:
        multiscale = len(levels) > 1
        data = list(levels) if multiscale else levels[0]
        name = f"{self._name()} {title(output, classes)}"
        if output == PREDICTION:
            layer = self.add(name, data, "labels", multiscale=multiscale, colormap=class_colormap(classes, unknown=False))
            layer.editable = False
            for attribute, value in look.as_options().items():
                setattr(layer, attribute, value)
            return layer
        high = 0.7 if output == UNCERTAINTY else 1.0  # ln 2: undecided between two classes
        options = {"colormap": "inferno" if output == UNCERTAINTY else "viridis", "contrast_limits": (0.0, high)}
        return self.add(name, data, "image", multiscale=multiscale, opacity=0.6, blending="translucent", **options)

    def add(self, name: str, data: Any, kind: str, **options: Any) -> Any:
        """Add a layer over the image, beneath its strokes; the active layer stays active."""
        layers = self._viewer.layers
        active = layers.selection.active
        make = self._viewer.add_labels if kind == "labels" else self._viewer.add_image
        layer = make(data, name=name, metadata=dict(OUTPUT), **(self.geometry.options() | options))
        self._guests = [*(guest for guest in self._guests if guest in layers), layer]
        below = self._below()
        if below in layers:
            layers.move(layers.index(layer), layers.index(below))
        if active is not None and active in layers:
            layers.selection.active = active
        return layer

    def dismiss(self) -> None:
        """Remove the layers that others have added: they show this image, and another one comes in its place."""
        for layer in self._guests:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._guests.clear()

    def move_to(self, name: Callable[[], str], geometry: Geometry) -> None:
        """Belong to another image from now on; `refill` shows its outputs."""
        self._name, self.geometry = name, geometry

    def refill(self, output: str, levels: Sequence[Any], classes: Sequence[LabelClass]) -> None:
        """Show the output of another image at its place in the same layer; where that cannot be, the layer goes."""
        layer: Any = self.layers[output]
        if layer.multiscale != (len(levels) > 1) or layer.ndim != levels[0].ndim:
            self.hide(output)
            return
        layer.data = list(levels) if layer.multiscale else levels[0]
        layer.editable = layer.editable and output != PREDICTION  # new data is editable anew
        layer.name = f"{self._name()} {title(output, classes)}"
        self.geometry.apply(layer)

    def hide(self, output: str) -> None:
        """Remove the layer of an output."""
        layer = self.layers.pop(output, None)
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def refresh(self, output: str) -> bool:
        """Show what the session wrote since; False where nobody sees it."""
        layer = self.layers.get(output)
        if layer is None or not layer.visible or layer not in self._viewer.layers:
            return False
        layer.refresh(thumbnail=False, highlight=False, extent=False)  # those two would look at the whole array
        return True

    def prediction(self) -> Labels | None:
        """The prediction layer, if it is there."""
        layer: Any = self.layers.get(PREDICTION)
        return layer if layer is not None and layer in self._viewer.layers else None

    def is_shown(self) -> bool:
        """Whether the prediction is there and visible."""
        layer = self.prediction()
        return layer is not None and bool(layer.visible)

    def close(self) -> None:
        """Remove all of them."""
        for output in list(self.layers):
            self.hide(output)
