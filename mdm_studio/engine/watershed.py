"""Touching objects cut apart: a watershed on how deep inside, and how probable, each pixel of a region is.

A well fitted classifier is sure of every pixel inside, so that its probability alone has no valleys where two objects touch.
The distance to the region's edge has them; weighted with the probability it also falls where the classifier hesitates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def cut_apart(
    region: NDArray[np.bool_], probability: NDArray[np.float32], distance: int, min_size: int = 0
) -> NDArray[np.int32]:
    """Cut a region into pieces.

    Parameters
    ----------
    region : (h, w) bool
        Its pixels; they touch, corners included.
    probability : (h, w) float32
        Of the region's class.
    distance : int
        Pixels between the middles of two pieces, at least.
    min_size : int
        A piece of fewer pixels goes to its neighbours.

    Returns
    -------
    (h, w) int32
        1, 2, ... inside the region, 0 outside.

    Notes
    -----
    What lies around the region does not count, so that the pieces are the same whatever window it is seen in.
    """
    whole = region.astype(np.int32)
    if max(region.shape) <= distance:  # there is no room for two middles
        return whole
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1] * probability
    height = np.where(region, ndimage.gaussian_filter(depth, distance / 4, mode="constant"), 0)
    middles = peak_local_max(height, min_distance=max(distance, 1), exclude_border=False)  # type: ignore[no-untyped-call]
    markers = np.zeros(region.shape, np.int32)
    markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
    while markers.max() > 1:
        pieces: NDArray[Any] = watershed(-height, markers, connectivity=2, mask=region)  # type: ignore[no-untyped-call]
        sizes = np.bincount(pieces.ravel())
        kept = sizes >= min_size
        kept[[0, 1 + int(np.argmax(sizes[1:]))]] = False, True  # the largest stays, whatever its size
        if kept[1:].all():
            return pieces.astype(np.int32)
        markers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[markers]
    return whole
