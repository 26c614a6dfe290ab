"""Where an image lies in the world, for the layers that go over it, and what of it the screen shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Image, Layer

ChannelAxis = int | None
"""Which axis of an image layer counts channels: 0, 1, -1, or None where there is none (or the layer is RGB)."""


@dataclass(frozen=True)
class Geometry:
    """Place of the planes of an image: that of its layer, without the channel axis.

    Attributes
    ----------
    shape : tuple of int
        Stack axes, then H and W: the shape of every layer over the image.
    axes : tuple of int
        Axes of the image layer that these are.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    rotate: NDArray[np.float64]
    shear: NDArray[np.float64]
    affine: NDArray[np.float64]
    axis_labels: tuple[str, ...] | None
    units: tuple[Any, ...]

    @classmethod
    def of(cls, layer: Image, channel_axis: ChannelAxis = None) -> Geometry:
        """Geometry of an image layer."""
        dropped = None if channel_axis is None or layer.rgb else channel_axis % layer.ndim
        axes = tuple(axis for axis in range(layer.ndim) if axis != dropped)
        full = finest(layer).shape
        names = tuple(layer.axis_labels)
        counted = names == tuple(str(axis) for axis in range(-layer.ndim, 0))  # napari's own: they number the axes
        square = np.ix_(axes, axes)
        homogeneous = (*axes, layer.ndim)
        return cls(
            shape=tuple(int(full[axis]) for axis in axes),
            axes=axes,
            scale=tuple(float(layer.scale[axis]) for axis in axes),
            translate=tuple(float(layer.translate[axis]) for axis in axes),
            rotate=np.asarray(layer.rotate)[square],
            shear=_shear_matrix(np.asarray(layer.shear), layer.ndim)[square],
            affine=np.asarray(layer.affine.affine_matrix)[np.ix_(homogeneous, homogeneous)],
            axis_labels=None if counted else tuple(names[axis] for axis in axes),
            units=tuple(layer.units[axis] for axis in axes),
        )

    def options(self) -> dict[str, Any]:
        """What ``viewer.add_labels`` and ``viewer.add_image`` take to put an array of `shape` over the image."""
        names = ("scale", "translate", "rotate", "shear", "affine", "axis_labels", "units")
        return {name: getattr(self, name) for name in names}

    def apply(self, layer: Layer) -> None:
        """Move a layer to this place."""
        for name, value in self.options().items():
            if not np.array_equal(np.asarray(getattr(layer, name), object), np.asarray(value, object)):
                setattr(layer, name, value)


def finest(layer: Any) -> Any:
    """The array of a layer at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


def _shear_matrix(shear: NDArray[np.float64], ndim: int) -> NDArray[np.float64]:
    """Shear as a matrix; napari tells the upper triangle alone where the rest is a unit matrix."""
    if shear.ndim == 2:
        return shear
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = shear
    return matrix


@dataclass(frozen=True)
class Shown:
    """What the screen shows of a plane, in its pixels: rows and columns ``[start, stop)``, and pixels a screen pixel."""

    rows: slice
    cols: slice
    pixel: float


def shown_part(
    shape: tuple[int, int], corners: NDArray[np.float64], canvas: tuple[int, int], plane_axes: Sequence[int] = (-2, -1)
) -> Shown | None:
    """The part of a plane that a canvas shows.

    Parameters
    ----------
    shape : (int, int)
        H and W of the plane.
    corners : (4, ndim)
        The canvas's corners in data coordinates: top left, top right, bottom left, bottom right. Pixel centres are whole
        numbers.
    canvas : (int, int)
        Height and width of the canvas in screen pixels.
    plane_axes : sequence of int
        Which coordinates are row and column.

    Returns
    -------
    Shown or None
        The bounding box (of a rotated plane, too), or None where the plane is out of sight.
    """
    points = np.asarray(corners)[:, list(plane_axes)]  # (4, 2)
    low = np.maximum(np.floor(points.min(axis=0) + 0.5), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=0) + 0.5), shape).astype(int)
    if (low >= high).any():
        return None
    across = np.linalg.norm(points[1] - points[0]) / max(canvas[1], 1)
    down = np.linalg.norm(points[2] - points[0]) / max(canvas[0], 1)
    return Shown(slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), float(min(across, down)))
