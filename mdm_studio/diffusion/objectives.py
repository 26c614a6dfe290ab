"""Losses of pretraining: callables on ``(prediction, target)`` that return one loss a sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_C1, _C2 = 0.01**2, 0.03**2  # (0.01 L)^2, (0.03 L)^2 with L = 1, as in the released code although the data span 2
_SIGMA = 1.5


def _gaussian(window: int, like: Tensor) -> Tensor:
    offsets = torch.arange(window, dtype=torch.float32, device=like.device) - window // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    return weights / weights.sum()


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Separable depthwise Gaussian with zero padding; ``(B, C, H, W)``."""
    channels, width = x.shape[1], kernel.numel()
    rows = kernel.view(1, 1, width, 1).expand(channels, 1, width, 1)
    cols = kernel.view(1, 1, 1, width).expand(channels, 1, 1, width)
    x = F.conv2d(x, rows, padding=(width // 2, 0), groups=channels)
    return F.conv2d(x, cols, padding=(0, width // 2), groups=channels)


def ssim_map(a: Tensor, b: Tensor, window: int = 5) -> Tensor:
    """Structural similarity of every pixel and channel, ``(B, C, H, W)`` (Wang et al. 2004, equation 13).

    Gaussian window of `window` pixels, sigma 1.5, zero padding, constants for a data range of 1: what the MDM authors trained
    with. One separable blur over the five stacked moments instead of five two-dimensional ones.
    """
    a, b = a.float(), b.float()
    moments = _blur(torch.cat([a, b, a * a, b * b, a * b], dim=1), _gaussian(window, a))  # (B, 5C, H, W)
    mu_a, mu_b, aa, bb, ab = moments.chunk(5, dim=1)
    covariance = ab - mu_a * mu_b
    variances = (aa - mu_a**2) + (bb - mu_b**2)
    return ((2 * mu_a * mu_b + _C1) * (2 * covariance + _C2)) / ((mu_a**2 + mu_b**2 + _C1) * (variances + _C2))


def ssim_loss(prediction: Tensor, target: Tensor, window: int = 5) -> Tensor:
    """Loss of MDM (Pan et al. 2023, section 3.3): ``clamp(1 - SSIM, 0, 1) / 2``, averaged over pixels and channels; ``(B,)``.

    Pixels with a negative SSIM saturate at 0.5 and give no gradient, as in the released code.
    """
    return ((1 - ssim_map(prediction, target, window)).clamp(0, 1) / 2).mean(dim=(1, 2, 3))


def mse_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample; ``(B,)``."""
    return ((prediction.float() - target.float()) ** 2).mean(dim=(1, 2, 3))
