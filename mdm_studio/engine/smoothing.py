"""Probabilities that keep to the image's edges: the guided filter.

A classifier judges every pixel for itself, so its masks fray at borders and in noise. The guided filter (He, Sun and Tang,
"Guided Image Filtering", TPAMI 2013, eqs. 5, 6 and 8) fits the probabilities in every window by a linear function of the
image's brightness: flat regions become smooth, and borders move to where the image has them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.heads import Prediction, predict_window
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble

EPSILON = 1e-3
"""Variance of brightness (0..1) below which a window counts as flat: noise of 3 % of the range is smoothed away."""


def guided_filter(
    probabilities: NDArray[np.float32], guide: NDArray[np.float32], radius: int, epsilon: float = EPSILON
) -> NDArray[np.float32]:
    """Smooth probabilities along a guide.

    Parameters
    ----------
    probabilities : (K, H, W) float32
        Of each class.
    guide : (H, W) float32
        Brightness, 0 to 1.
    radius : int
        Of the windows in pixels: ``2 * radius + 1`` squared. A pixel depends on those up to ``2 * radius`` away.
    epsilon : float
        Regularisation of the fit, in squared units of the guide.

    Returns
    -------
    (K, H, W) float32
        They sum to what they summed to; single ones may leave [0, 1] by a little and are clipped.
    """
    size = 2 * radius + 1

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        axes = (0,) * (values.ndim - 2)
        out: NDArray[np.float32] = ndimage.uniform_filter(values, (*axes, size, size), mode="reflect")
        return out

    of_guide = mean(guide)
    variance = mean(guide * guide) - of_guide**2
    smoothed = np.empty_like(probabilities)
    for index, each in enumerate(probabilities):  # class by class: memory does not grow with their number
        of_each = mean(each)
        slope = (mean(guide * each) - of_guide * of_each) / (variance + epsilon)
        smoothed[index] = mean(slope) * guide + mean(of_each - slope * of_guide)
    return np.clip(smoothed, 0, 1, out=smoothed)


def predict_plane(
    ensemble: PixelMLPEnsemble, source: PlaneFeatures, *, smooth: int = 0
) -> Iterator[tuple[slice, slice, Prediction]]:
    """Predict a plane tile by tile, row by row of tiles.

    Parameters
    ----------
    ensemble : PixelMLPEnsemble
        The classifier.
    source : PlaneFeatures
        Features of the plane.
    smooth : int
        Radius of the guided filter in pixels; 0 leaves the votes as they are. A smoothed tile comes when the row of tiles below
        it is known, and its labels are the most probable classes.

    Yields
    ------
    rows, cols : slice
        The tile's place in the plane.
    Prediction
        The same as for the untiled plane.
    """
    if not smooth:
        for tile in source.grid:
            rows, cols = source.grid.core(*tile)
            yield rows, cols, predict_window(ensemble, source.maps(*tile), rows, cols)
        return
    bands: dict[int, _Band] = {}  # rows of tiles that are still needed: at most three
    n_rows = source.grid.shape[0]
    for row in range(n_rows):
        bands[row] = _Band(ensemble, source, row)
        if row:
            yield from _smoothed(source, bands, row - 1, smooth)
        bands.pop(row - 2, None)
    yield from _smoothed(source, bands, n_rows - 1, smooth)


class _Band:
    """Probabilities ``(K, h, W)`` and uncertainty ``(h, W)`` of a row of tiles."""

    def __init__(self, ensemble: PixelMLPEnsemble, source: PlaneFeatures, row: int) -> None:
        self.rows = source.grid.core(row, 0)[0]
        found = []
        for col in range(source.grid.shape[1]):
            rows, cols = source.grid.core(row, col)
            found.append(predict_window(ensemble, source.maps(row, col), rows, cols))
        self.probabilities = np.concatenate([each.probabilities for each in found], axis=2)
        self.uncertainty = np.concatenate([each.uncertainty for each in found], axis=1)


def _smoothed(
    source: PlaneFeatures, bands: dict[int, _Band], row: int, radius: int
) -> Iterator[tuple[slice, slice, Prediction]]:
    """The tiles of a row, seen with the pixels of the rows above and below that the filter reaches."""
    band, reach = bands[row], 2 * radius
    near = [bands[r] for r in (row - 1, row, row + 1) if r in bands]
    first, last = max(band.rows.start - reach, near[0].rows.start), min(band.rows.stop + reach, near[-1].rows.stop)
    kept = [each.probabilities[:, max(first - each.rows.start, 0) : max(last - each.rows.start, 0)] for each in near]
    guide = source.brightness(slice(first, last), slice(0, source.width))
    whole = guided_filter(np.concatenate(kept, axis=1), guide, radius)[:, band.rows.start - first :]
    for col in range(source.grid.shape[1]):
        rows, cols = source.grid.core(row, col)
        probabilities = np.ascontiguousarray(whole[:, : rows.stop - rows.start, cols])
        yield rows, cols, Prediction(probabilities.argmax(0), probabilities, band.uncertainty[:, cols])
