"""Which part of each image the screen shows, told once the camera has moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_mdm_studio._geometry import Shown, shown_part

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

_PAUSE = 30  # ms between two looks at the camera


def plane_shown(viewer: Viewer, layer: Labels) -> tuple[int, ...]:
    """Stack position of a layer that the viewer's sliders point at, inside the stack."""
    point = np.round(layer.world_to_data(np.asarray(viewer.dims.point))[:-2]).astype(int)
    return tuple(int(np.clip(place, 0, length - 1)) for place, length in zip(point, layer.data.shape[:-2], strict=True))


def is_on_a_plane(viewer: Viewer, layer: Labels) -> bool:
    """Whether the sliders point at a plane of the layer, rather than beside its stack."""
    point = np.round(layer.world_to_data(np.asarray(viewer.dims.point))[:-2])
    return bool(np.all((point >= 0) & (point < layer.data.shape[:-2])))


def part_shown(viewer: Viewer, layer: Labels) -> Shown | None:
    """What the canvas shows of the layer's plane; None in 3D, with other axes in front, or where it is out of sight."""
    dims = viewer.dims
    if dims.ndisplay != 2 or set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1} or not is_on_a_plane(viewer, layer):
        return None
    height, width = viewer.canvas.size
    return shown_part(layer.data.shape[-2:], _corners(viewer, layer), (height, width))


def _corners(viewer: Viewer, layer: Labels) -> NDArray[np.float64]:
    """The canvas's corners in data coordinates ``(4, ndim)``."""
    dims, camera = viewer.dims, viewer.scene.camera
    centre = np.asarray(camera.center)[-2:]
    half = np.asarray(viewer.canvas.size) / (2 * camera.zoom)
    world = np.tile(np.asarray(dims.point, float), (4, 1))
    world[:, list(dims.displayed)] = centre + half * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    return np.stack([layer.world_to_data(corner) for corner in world])


class ViewWatcher(QObject):
    """Calls `look` when camera, sliders, axes or canvas changed, at most every 30 ms and never while nothing changes."""

    def __init__(self, viewer: Viewer, look: Callable[[], object], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self, singleShot=True, interval=_PAUSE)
        self._timer.timeout.connect(look)
        self._look = look
        camera, dims = viewer.scene.camera.events, viewer.dims.events
        self._emitters = [camera.zoom, camera.center, viewer.canvas.events.size]
        self._emitters += [dims.current_step, dims.order, dims.ndisplay, dims.range]
        for emitter in self._emitters:
            emitter.connect(self.soon)

    def soon(self, event: Any = None) -> None:
        """Look once the pause is over."""
        if not self._timer.isActive():
            self._timer.start()

    def close(self) -> None:
        """Look no longer."""
        for emitter in self._emitters:
            emitter.disconnect(self.soon)
        self._emitters = []
        self._timer.stop()
        self._timer.timeout.disconnect(self._look)
        del self._look
