"""The brush paints in whichever image it is over, and classes are chosen for all images at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

PAINTING = frozenset({"paint", "erase", "fill", "polygon"})


def is_over(layer: Labels, position: Any) -> bool:
    """Whether a world position lies in the layer's planes."""
    row, col = np.round(layer.world_to_data(position))[-2:]
    height, width = layer.data.shape[-2:]
    return bool(0 <= row < height and 0 <= col < width)


def hand_over(source: Labels, target: Labels) -> None:
    """Give `target` the tool of `source`: mode, brush size on the screen, class."""
    target.mode = source.mode
    target.brush_size = source.brush_size * _pixel(source) / _pixel(target)
    target.selected_label = source.selected_label
    target.contiguous, target.preserve_labels = source.contiguous, source.preserve_labels


def arm(viewer: Viewer, strokes: Labels, classes: Sequence[int]) -> None:
    """Put the brush into the hand, with a class: who chose a first image is about to paint."""
    strokes.mode = "paint"
    if classes and strokes.selected_label not in classes:
        strokes.selected_label = classes[0]
    viewer.layers.selection.active = strokes


def _pixel(layer: Labels) -> float:
    """Size of a pixel in the world; napari's brush is measured in data pixels of the finest axis."""
    return float(np.min(np.abs(layer.scale[-2:])))


class BrushFollower:
    """Makes the strokes of the image under the mouse the active layer, while a painting tool is in hand.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose mouse is followed.
    strokes : callable
        The strokes layers of the images now.
    """

    def __init__(self, viewer: Viewer, strokes: Callable[[], Iterable[Labels]]) -> None:
        self._viewer, self._strokes = viewer, strokes
        viewer.mouse_move_callbacks.append(self._moved)

    def _moved(self, viewer: Viewer, event: Any) -> None:
        active: Any = viewer.layers.selection.active
        layers = list(self._strokes())
        if event.is_dragging or active not in layers or str(active.mode) not in PAINTING or is_over(active, event.position):
            return
        if str(active.mode) == "polygon" and _drawing_polygon(active):
            return
        for layer in layers:
            if layer is not active and layer.visible and is_over(layer, event.position):
                hand_over(active, layer)
                viewer.layers.selection.active = layer
                return

    def close(self) -> None:
        """Follow no longer."""
        if self._moved in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._moved)


def _drawing_polygon(layer: Labels) -> bool:
    """Whether corners were set already; napari keeps them in an overlay that has no public name."""
    overlay = getattr(layer, "_overlays", {}).get("polygon")
    return bool(overlay is not None and len(overlay.points))
