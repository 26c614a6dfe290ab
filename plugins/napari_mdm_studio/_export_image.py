"""The image in view for a preview: which file or pixels it is, and where its preview lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import InputError
from mdm_studio.io.images import find_images, image_name
from napari_mdm_studio._planes import planes_of
from napari_mdm_studio._views import part_shown

if TYPE_CHECKING:
    from napari.layers import Image

    from mdm_studio.io.array_planes import ArrayImage
    from napari_mdm_studio._geometry import Geometry
    from napari_mdm_studio._session_home import SessionHome


@dataclass(frozen=True)
class LayerSource:
    """Where a layer was read from; `names` are the images that our reader has stacked from a folder."""

    path: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, layer: Image) -> LayerSource:
        """Of a layer."""
        return cls(str(layer.source.path or ""), tuple(layer.metadata.get("names", ())))

    def files(self) -> list[Path]:
        """The files, one of each image in order; none for what did not come from files. It looks at the disk."""
        path = Path(self.path)
        if not self.path or path.is_file() or path.suffix.lower() == ".zarr":
            return [path] if self.path and path.exists() else []
        try:
            found = {image_name(file): file for file in find_images([path])}
        except InputError:
            return []
        return [found[name] for name in self.names if name in found]


@dataclass(frozen=True)
class ShownImage:
    """The image that a preview is of.

    Attributes
    ----------
    key, name : str
        In the session; for people.
    place : tuple of int
        The plane that is shown, in its stack.
    planes : ArrayImage
        All of its pixels, all channels.
    source : LayerSource
        Where it came from.
    centre : (int, int) or None
        Row and column in the middle of what the screen shows of it; None where it shows nothing.
    file : Path or None
        Its file in the project.
    """

    key: str
    name: str
    place: tuple[int, ...]
    planes: ArrayImage
    source: LayerSource
    centre: tuple[int, int] | None = None
    file: Path | None = None

    def as_file(self, folder: Path) -> Path:
        """A file that begins with this plane; written to `folder` if there is none. It reads pixels: call it on a thread."""
        files = [self.file] if self.file is not None else self.source.files()
        if files and not self.place:
            return files[0]
        if len(self.place) == 1 and len(files) == self.planes.stack_shape[0] > 1:
            return files[self.place[0]]
        plane = self.planes.plane(self.place)
        pixels = plane.read(slice(None), slice(None))  # (C, H, W)
        path = folder / "plane.npy"
        np.save(path, np.moveaxis(pixels, 0, -1) if plane.rgb else pixels[0] if len(pixels) == 1 else pixels)
        return path


def image_shown(home: SessionHome) -> ShownImage | None:
    """The image in front; None if none is chosen."""
    bound = home.bridge.current()
    if bound is None:
        return None
    place = tuple(home.bridge.plane(bound.key)) if bound.geometry.shape[:-2] else ()
    planes = planes_of(bound.layer, bound.channel_axis)
    everything = planes.reading(tuple(range(planes.available)))
    workspace = home.workspace
    entries = () if workspace is None else workspace.entries
    file = next((entry.path for entry in entries if entry.id == bound.key), None)
    part = part_shown(home.viewer, bound.strokes)
    centre = None if part is None else ((part.rows.start + part.rows.stop) // 2, (part.cols.start + part.cols.stop) // 2)
    source = LayerSource.of(bound.layer)
    name = source.names[place[0]] if len(place) == 1 and place[0] < len(source.names) else bound.layer.name
    return ShownImage(bound.key, name, place, everything, source, centre, file)


def placed(
    geometry: Geometry, place: tuple[int, ...], corner: tuple[int, int], data: NDArray[Any]
) -> tuple[NDArray[Any], dict[str, Any]]:
    """A part ``(h, w)`` of a plane as data and place of a layer over its image.

    Parameters
    ----------
    place : tuple of int
        The plane, in its stack.
    corner : (int, int)
        Row and column of the part's first pixel.
    """
    options = geometry.options()
    linear = geometry.rotate @ geometry.shear @ np.diag(geometry.scale)
    options["translate"] = tuple(np.asarray(geometry.translate) + linear @ np.array((*place, *corner), float))
    return data[(None,) * len(place)], options
