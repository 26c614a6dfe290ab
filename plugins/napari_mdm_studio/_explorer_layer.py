"""The layer that shows a cell of the feature explorer over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mdm_studio._explorer_matrix import CLUSTER_COLORS, rgb_of

if TYPE_CHECKING:
    from mdm_studio.services.live_explore import ExplorerCell
    from napari_mdm_studio._geometry import Geometry
    from napari_mdm_studio._session_home import SessionHome


class CellLayer:
    """One layer, used again for every cell; its data are what is in view."""

    def __init__(self, home: SessionHome) -> None:
        self._home = home
        self.layer: Any = None
        self._image = ""
        self._data: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)

    def show(self, cell: ExplorerCell) -> None:
        """Draw a tile; the first one of a request makes the layer, or empties it."""
        if cell.tile.plane.image not in self._home.bridge.images:
            return
        if cell.done == 1:
            self._begin(cell)
        if self.layer is None or self.layer not in self._home.viewer.layers:
            return  # the user deleted it
        rows = slice(cell.window.top - cell.area.top, cell.window.bottom - cell.area.top)
        cols = slice(cell.window.left - cell.area.left, cell.window.right - cell.area.left)
        if cell.k:
            self._data[..., rows, cols] = cell.picture
        else:
            self._data[..., rows, cols, :3] = rgb_of(cell.picture)
            self._data[..., rows, cols, 3] = 255
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _begin(self, cell: ExplorerCell) -> None:
        bound = self._home.bridge.images[cell.tile.plane.image]
        index = self._home.session.images[bound.key].index(cell.tile.plane.plane)
        shape = (*(1 for _ in index), cell.area.bottom - cell.area.top, cell.area.right - cell.area.left)
        self._data = np.zeros(shape if cell.k else (*shape, 4), np.uint8)
        name = f"{'clusters' if cell.k else 'components'} {cell.place}"
        where = translated(bound.geometry, (*index, cell.area.top, cell.area.left))
        kind = "labels" if cell.k else "image"
        if not self._fits(bound.key, kind):
            self.close()
            options: dict[str, Any] = {"colormap": cluster_colormap()} if cell.k else {"rgb": True}
            self.layer = self._home.bridge.add_output(
                bound.key, name, self._data, kind, opacity=0.7, translate=where, **options
            )
            if cell.k:
                self.layer.editable = False
        else:
            self.layer.data = self._data
            bound.geometry.apply(self.layer)
            self.layer.translate = where
            self.layer.name = name
        self.layer.visible = True
        self._image = bound.key

    def _fits(self, image: str, kind: str) -> bool:
        """Whether the layer there is can be used again."""
        there = self.layer is not None and self.layer in self._home.viewer.layers
        return there and self._image == image and type(self.layer).__name__.lower() == kind

    def close(self) -> None:
        """Remove the layer."""
        if self.layer is not None and self.layer in self._home.viewer.layers:
            self._home.viewer.layers.remove(self.layer)
        self.layer = None


def translated(geometry: Geometry, offset: tuple[int, ...]) -> NDArray[np.float64]:
    """The `translate` that brings the first pixel of a cut-out to where the pixel `offset` of the whole array is."""
    linear = geometry.rotate @ geometry.shear @ np.diag(geometry.scale)  # as napari composes them
    moved: NDArray[np.float64] = np.asarray(geometry.translate) + linear @ np.asarray(offset, float)
    return moved


def cluster_colormap() -> Any:
    """Colours of clusters for a Labels layer."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    return DirectLabelColormap(color_dict=colors | dict(enumerate(CLUSTER_COLORS, start=1)))
