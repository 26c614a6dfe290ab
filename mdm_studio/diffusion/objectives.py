"""Losses of pretraining: callables on ``(prediction, target)`` that return one loss a sample."""

from __future__ import annotations

import math

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


def hybrid_loss(prediction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, betas: Tensor) -> Tensor:
    """Loss of a network that learns its variance: squared error of the noise plus the variational bound; ``(B,)``.

    Parameters
    ----------
    prediction : (B, 2C, H, W)
        Noise, then the share of the variance between its bounds, -1 to 1.
    x0, x_t, noise : (B, C, H, W)
        Clean image in [-1, 1], noisy image, and the noise in it.
    t : (B,) int
        Timesteps.
    betas : (T,) float64
        Variances of the forward process.

    Notes
    -----
    Nichol and Dhariwal 2021, equation 16, with the weighting of guided-diffusion's ``learn_sigma``: one term of the bound, in
    bits a dimension and not multiplied by T, beside the squared error. The bound teaches the variance only; its mean is
    detached.
    """
    answer, share = prediction.float().chunk(2, dim=1)
    return mse_loss(answer, noise) + variational_bound(answer.detach(), share, x0, x_t, t, betas)


def variational_bound(noise: Tensor, share: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, betas: Tensor) -> Tensor:
    """Term t of the variational bound, in bits a dimension; ``(B,)``.

    The divergence of the network's step from the true posterior, and at t = 0 the likelihood of the 8-bit image itself.
    `noise` and `share` are the two halves of the prediction; the others are those of `hybrid_loss`.
    """
    betas = betas.to(x_t.device)
    abar = torch.cumprod(1 - betas, dim=0)
    before = torch.cat([torch.ones_like(abar[:1]), abar[:-1]])
    posterior = betas * (1 - before) / (1 - abar)
    posterior[0] = posterior[1]  # 0 there, and of no use: the first step has its own likelihood

    def at(values: Tensor) -> Tensor:
        return values[t.long()][:, None, None, None].float()  # (B, 1, 1, 1)

    x0_share, x_share = at(betas * before.sqrt() / (1 - abar)), at((1 - betas).sqrt() * (1 - before) / (1 - abar))
    true_mean = x0_share * x0 + x_share * x_t
    mean = x0_share * (at((1 / abar).sqrt()) * x_t - at((1 / abar - 1).sqrt()) * noise) + x_share * x_t
    low, high = at(posterior.log()), at(betas.log())
    log_variance = low + (share + 1) / 2 * (high - low)
    divergence = (log_variance - low + torch.exp(low - log_variance) - 1 + (true_mean - mean) ** 2 / log_variance.exp()) / 2
    first = (t == 0)[:, None, None, None]
    bound = torch.where(first, -_discretised_log_likelihood(x0, mean, log_variance / 2), divergence)
    return bound.mean(dim=(1, 2, 3)) / math.log(2)


def _discretised_log_likelihood(x0: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the 8-bit level around `x0` under a Gaussian (Ho et al. 2020, equation 13); outer levels are open."""
    centred, narrow = x0 - mean, torch.exp(-log_scale)
    above, below = _normal_cdf(narrow * (centred + 1 / 255)), _normal_cdf(narrow * (centred - 1 / 255))
    inside = torch.where(x0 > 0.999, 1 - below, torch.where(x0 < -0.999, above, above - below))
    return inside.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """Tanh approximation of the normal distribution, the one in the published code."""
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
