"""One level of the Haar transform, as MaskDM's high-resolution experiments use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# rows: approximation, horizontal, vertical and diagonal detail (as pywt names them); columns: the pixels of a square of 2 x 2,
# row by row. Symmetric, and four times its own inverse.
_SIGNS = ((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, -1.0, -1.0), (1.0, -1.0, 1.0, -1.0), (1.0, -1.0, -1.0, 1.0))
_SCALE, _SHIFT = (1 / 2, 1 / 4, 1 / 4, 1 / 4), (1.0, 0.0, 0.0, 0.0)
_LOW, _HIGH = (-1.0, -1.0, -1.0, -1.0), (3.0, 1.0, 1.0, 1.0)


def haar(x: Tensor) -> Tensor:
    """Haar coefficients of images ``(B, C, H, W)`` in [-1, 1], H and W even, in the place of the pixels.

    Of each square of 2 x 2 pixels the top left becomes the approximation, then row by row the horizontal, the vertical and the
    diagonal detail. They are scaled as in the released code: coefficients of the image in [0, 1], the approximation then
    doubled less 1. So it lies in [-1, 3] and the details in [-1, 1].
    """
    signs, scale, shift = x.new_tensor(_SIGNS), x.new_tensor(_SCALE), x.new_tensor(_SHIFT)
    return _mixed(x, signs * scale[:, None]) + _tiled(shift, x)


def inverse_haar(z: Tensor) -> Tensor:
    """Images of coefficients: the inverse of `haar`."""
    signs, scale, shift = z.new_tensor(_SIGNS), z.new_tensor(_SCALE), z.new_tensor(_SHIFT)
    return _mixed(z - _tiled(shift, z), signs / scale / 4)


def haar_bounds(z: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest coefficients of images in [-1, 1], each ``(H, W)``, for coefficients ``(B, C, H, W)``."""
    return _tiled(z.new_tensor(_LOW), z), _tiled(z.new_tensor(_HIGH), z)


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    """Apply a 4 x 4 matrix to each square of 2 x 2 in its place."""
    b, channels, height, width = x.shape
    squares = F.pixel_unshuffle(x, 2).reshape(b, channels, 4, height // 2, width // 2)
    return F.pixel_shuffle(torch.einsum("kp,bcphw->bckhw", matrix, squares).flatten(1, 2), 2)


def _tiled(values: Tensor, like: Tensor) -> Tensor:
    """One value for each place in a square, repeated over the ``(H, W)`` of `like`."""
    return values.view(2, 2).repeat(like.shape[2] // 2, like.shape[3] // 2)
