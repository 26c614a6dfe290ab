"""The classical filter bank of interactive pixel classifiers, as a source of features beside a network's blocks.

Smoothed intensity, Laplacian of Gaussian, gradient magnitude, and the eigenvalues of the structure tensor and of the Hessian,
over several scales: the features that ilastik (Berg et al. 2019) computes and most pixel classifiers share. Large scales are
taken from the image binned by 2, 4 and 8, which a Gaussian that wide hardly notices, so that their maps are small.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import hessian_matrix_eigvals, structure_tensor_eigenvalues

from mdm_studio.arrays import Image, bin_pixels

Stride = Literal[1, 2, 4, 8]

SIGMAS: dict[Stride, tuple[float, ...]] = {1: (0.7, 1.0, 1.6), 2: (3.5, 5.0), 4: (10.0,), 8: (20.0,)}
"""Standard deviations in image pixels, by the stride of the map they are kept in: ilastik's, and one octave more."""

HALO = 96
"""Pixels seen around a region: no filter reaches further (3 sigma of the largest, and of its structure tensor)."""

_TRUNCATE = 3.0  # a Gaussian's tail beyond 3 sigma weighs 0.3 %
_FIRST, _SECOND = (-0.5, 0.0, 0.5), (1.0, -2.0, 1.0)  # weights of central differences
_PER_SIGMA = 7  # smoothed, Laplacian, gradient, 2 structure tensor eigenvalues, 2 Hessian eigenvalues


def filter_channels(in_channels: int, stride: Stride) -> int:
    """Channels of the map of `stride` for images of `in_channels` channels."""
    return in_channels * _PER_SIGMA * len(SIGMAS[stride])


def filter_bank(image: Image, stride: Stride) -> NDArray[np.float32]:
    """Filters of one stride.

    Parameters
    ----------
    image : (C, H, W) float32
        Normalised; H and W are multiples of `stride`. Beyond its border it is mirrored.
    stride : {1, 2, 4, 8}
        The map's stride, which decides the scales, see `SIGMAS`.

    Returns
    -------
    (D, H / stride, W / stride) float32
        Channel by channel, sigma by sigma: smoothed intensity, Laplacian, gradient magnitude, structure tensor eigenvalues
        (large, small; their square roots, which have the unit of a gradient), Hessian eigenvalues (large, small). Derivatives
        are multiplied by sigma to their order (Lindeberg's scale normalisation), so that all scales have like values.
    """
    binned = bin_pixels(image, stride)
    maps = [each for plane in binned for sigma in SIGMAS[stride] for each in _filters(plane, sigma / stride)]
    return np.stack(maps)


def _filters(plane: NDArray[np.float32], sigma: float) -> list[NDArray[np.float32]]:
    smooth = _gaussian(plane, sigma)
    # differences of the smoothed image: unlike a truncated derivative of a Gaussian they are exactly zero where it is flat
    d_row, d_col = (sigma * _differences(smooth, axis, _FIRST) for axis in (0, 1))
    h_rr, h_cc = (sigma**2 * _differences(smooth, axis, _SECOND) for axis in (0, 1))
    h_rc = sigma * _differences(d_row, 1, _FIRST)
    tensor = [_gaussian(product, sigma / 2) for product in (d_row * d_row, d_row * d_col, d_col * d_col)]  # half, as in ilastik
    structure = np.sqrt(np.maximum(structure_tensor_eigenvalues(tensor), 0))  # type: ignore[no-untyped-call]  # (2, h, w)
    hessian = hessian_matrix_eigvals([h_rr, h_rc, h_cc])  # type: ignore[no-untyped-call]  # (2, h, w)
    return [smooth, h_rr + h_cc, np.hypot(d_row, d_col), *structure, *hessian]


def _gaussian(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    out: NDArray[np.float32] = ndimage.gaussian_filter(values, sigma, mode="reflect", truncate=_TRUNCATE)
    return out


def _differences(values: NDArray[np.float32], axis: int, weights: tuple[float, float, float]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = ndimage.correlate1d(values, weights, axis=axis, mode="reflect")
    return out
