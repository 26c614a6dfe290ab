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
_PIECE_BYTES = 256 << 20  # probabilities of a piece: a tile of 512 x 512 pixels and 255 classes


def guided_filter(
    probabilities: NDArray[np.float32],
    guide: NDArray[np.float32],
    radius: int,
    epsilon: float = EPSILON,
    *,
    out: NDArray[np.float32] | None = None,
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
    out : (K, H, W) float32, optional
        Where the result goes; `probabilities` itself will do.

    Returns
    -------
    (K, H, W) float32
        They sum to what they summed to; single ones may leave [0, 1] by a little and are clipped.
    """
    size = 2 * radius + 1

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Along columns, then along rows: both as contiguous lines, four times as fast."""
        down = ndimage.uniform_filter1d(np.ascontiguousarray(values.T), size, axis=1, mode="reflect")
        across: NDArray[np.float32] = ndimage.uniform_filter1d(np.ascontiguousarray(down.T), size, axis=1, mode="reflect")
        return across

    of_guide = mean(guide)
    variance = mean(guide * guide) - of_guide**2
    smoothed = np.empty_like(probabilities) if out is None else out
    for index, each in enumerate(probabilities):  # class by class: memory does not grow with their number
        of_each = mean(each)
        slope = (mean(guide * each) - of_guide * of_each) / (variance + epsilon)
        fitted = mean(slope) * guide + mean(of_each - slope * of_guide)
        np.clip(fitted, 0, 1, out=smoothed[index])
    return smoothed


def predict_plane(
    ensemble: PixelMLPEnsemble, source: PlaneFeatures, *, smooth: int = 0
) -> Iterator[tuple[slice, slice, Prediction]]:
    """Predict a plane piece by piece, each pixel once.

    Parameters
    ----------
    ensemble : PixelMLPEnsemble
        The classifier.
    source : PlaneFeatures
        Features of the plane.
    smooth : int
        Radius of the guided filter in pixels; 0 leaves the votes as they are. The labels of smoothed pixels are the most
        probable classes.

    Yields
    ------
    rows, cols : slice
        The piece's place in the plane: a tile, or some rows of it where there are very many classes. Smoothed pieces lie
        further up and to the left, by as much as the filter reaches.
    Prediction
        The same as for the untiled plane.

    Notes
    -----
    Memory holds the probabilities of a piece and, smoothed, those of as many rows of the plane as the filter reaches, twice.
    """
    pieces = _pieces(ensemble, source)
    yield from _smoothed(ensemble.n_classes, source, pieces, smooth) if smooth else pieces


def _pieces(ensemble: PixelMLPEnsemble, source: PlaneFeatures) -> Iterator[tuple[slice, slice, Prediction]]:
    """Unsmoothed: row by row of tiles, tile by tile, from the top down; all tiles of a row are cut at the same rows."""
    height = max(_PIECE_BYTES // (4 * ensemble.n_classes * min(source.grid.tile[1], source.width)), 1)
    for tile in source.grid:
        held = [source.maps(*tile)]
        core, cols = source.grid.core(*tile)
        for top in range(core.start, core.stop, height):
            rows = slice(top, min(top + height, core.stop))
            last = rows.stop == core.stop  # then the maps are needed no more, and not held beside what comes of them
            yield rows, cols, predict_window(ensemble, held.pop() if last else held[0], rows, cols)


def _smoothed(
    n_classes: int, source: PlaneFeatures, pieces: Iterator[tuple[slice, slice, Prediction]], radius: int
) -> Iterator[tuple[slice, slice, Prediction]]:
    """Smooth pieces as they come.

    A pixel is given out once everything that the filter reaches from it is known: `reach` pixels below and to the right of it.
    What a later one reaches is remembered, twice `reach`: rows of the whole plane above, and columns to the left for each
    height at which a row of tiles is cut.
    """
    reach, (height, width) = 2 * radius, (source.height, source.width)
    above = np.zeros((n_classes + 1, min(2 * reach, height), width), np.float32)  # the last is the uncertainty
    beside: dict[int, NDArray[np.float32]] = {}
    for rows, cols, found in pieces:
        top, bottom = _given_out(rows, reach, height)
        left, right = _given_out(cols, reach, width)
        first, start = max(top - reach, 0), max(left - reach, 0)
        seen = np.empty((n_classes + 1, rows.stop - first, cols.stop - start), np.float32)
        corner = rows.start - first, cols.start - start  # of the piece in what is seen
        seen[:, : corner[0], corner[1] :] = above[:, above.shape[1] - corner[0] :, cols]
        seen[:-1, corner[0] :, corner[1] :] = found.probabilities
        seen[-1, corner[0] :, corner[1] :] = found.uncertainty
        del found  # as large as what is seen
        if corner[1]:
            seen[:, :, : corner[1]] = beside.pop(rows.start)
        if cols.stop < width:
            beside[rows.start] = seen[:, :, max(right - reach, 0) - start :].copy()
        below = min(above.shape[1], seen.shape[1])
        above[:, above.shape[1] - below :, cols] = seen[:, seen.shape[1] - below :, corner[1] :]
        if bottom > top and right > left:
            guide = source.brightness(slice(first, rows.stop), slice(start, cols.stop))
            guided_filter(seen[:-1], guide, radius, out=seen[:-1])
            part = seen[:, top - first : bottom - first, left - start : right - start]
            yield slice(top, bottom), slice(left, right), Prediction(part[:-1].argmax(0), part[:-1], part[-1])
            del part
        del seen  # before the next piece is predicted


def _given_out(span: slice, reach: int, size: int) -> tuple[int, int]:
    """What a piece completes along an axis of the plane."""
    return max(span.start - reach, 0), span.stop if span.stop == size else max(span.stop - reach, 0)
