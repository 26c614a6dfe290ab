"""What becomes of images and strokes whose layers somebody removed: no stroke is lost, and the user is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari_mdm_studio._bound import BoundImage
    from napari_mdm_studio._bridge import Bridge


class RemovedLayers:
    """Follows layers that are removed from a viewer, once napari has removed all it was asked to.

    napari announces each layer in the midst of removing several; one that was removed from there would be removed twice.

    Parameters
    ----------
    bridge : Bridge
        Whose images these are.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._soon = QTimer(singleShot=True, interval=0)
        self._soon.timeout.connect(self.tidy_up)
        bridge.viewer.layers.events.removed.connect(self._removed)

    def _removed(self, event: Any) -> None:
        if self._bridge.bound_to(event.value) is not None:
            self._soon.start()

    def tidy_up(self) -> None:
        """An image takes its outputs along; its strokes come back as long as it is there."""
        self._soon.stop()
        bridge, layers, gone = self._bridge, self._bridge.viewer.layers, []
        for bound in list(bridge.images.values()):
            if bound.layer not in layers:
                gone.append(bound.layer.name)
                bridge.remove(bound.key)
            elif bound.strokes not in layers:
                self._bring_back(bound)
            else:
                for output in [name for name, layer in bound.pictures.layers.items() if layer not in layers]:
                    bridge.hide_output(bound, output)
        if gone:
            words = "What was painted is kept: open the image again to go on."
            bridge.told.emit(f"No longer labelled: {', '.join(gone)}. {words}")

    def _bring_back(self, bound: BoundImage) -> None:
        """Show strokes again whose layer was removed while their image is still labelled."""
        layers = self._bridge.viewer.layers
        layers.insert(1 + max(layers.index(layer) for layer in bound.layers if layer in layers), bound.strokes)
        layers.selection.active = bound.strokes
        words = "is back: its strokes are the labels. Erase them, or untick the image to label it no longer."
        self._bridge.told.emit(f"The layer {bound.strokes.name!r} {words}")

    def close(self) -> None:
        """Follow no longer."""
        self._soon.stop()
        self._soon.timeout.disconnect(self.tidy_up)
        self._bridge.viewer.layers.events.removed.disconnect(self._removed)
