"""Layers shared by the networks: group norm with borrowed statistics, sinusoidal time embedding, small helpers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass
class NormStatistics:
    """Group-norm means and variances of one network pass, in the order in which the norms are called.

    Group norm looks at its whole input, so a tile cut from a large image is normalised differently from the image. Here
    the statistics of a batch of windows are pooled once and lent to every tile of the image, which makes a tiled pass of a
    convolutional network equal to an untiled one up to its receptive field.
    """

    moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    recording: bool = True
    _next: int = 0

    def rewind(self, *, recording: bool) -> NormStatistics:
        """Start a pass: `recording` pools the statistics of the batch, otherwise the recorded ones are applied."""
        self.recording, self._next = recording, 0
        if recording:
            self.moments = []
        return self

    def of(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next norm, each ``(groups,)`` float32; `x` is ``(B, C, H, W)``."""
        if self.recording:
            grouped = x.float().view(len(x), groups, -1, *x.shape[2:])  # (B, G, C/G, H, W)
            variance, mean = torch.var_mean(grouped, dim=(0, 2, 3, 4), correction=0)
            self.moments.append((mean, variance))
            return mean, variance
        mean, variance = self.moments[self._next]
        self._next += 1
        return mean, variance


class GroupNorm(nn.GroupNorm):
    """Group norm, computed in float32 whatever the input, optionally with borrowed `NormStatistics`."""

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        """Normalise ``(B, C, ...)``; the dtype of `x` is kept."""
        if statistics is None:
            if x.dtype == self.weight.dtype or x.device.type == "cpu":  # CPUs take float32 weights with bfloat16 input
                return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
            return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)
        mean, variance = statistics.of(x, self.num_groups)
        width = x.shape[1] // self.num_groups
        scale = self.weight * (variance + self.eps).rsqrt().repeat_interleave(width)
        shift = self.bias - mean.repeat_interleave(width) * scale
        return torch.addcmul(shift[:, None, None].to(x.dtype), x, scale[:, None, None].to(x.dtype))


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding ``[cos | sin]`` of ``(B,)`` timesteps, ``(B, dim)`` float32; t is used as it is, not rescaled."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies  # (B, half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, dim % 2))


def convolve_doubled(x: Tensor, conv: nn.Module) -> Tensor:
    """Nearest-neighbour doubling, then a 3 x 3 convolution with a margin of 1; ``(B, C, H, W)`` to ``(B, O, 2H, 2W)``.

    Each of the four pixels that come of one sees its 3 x 3 neighbours as 2 x 2 different ones, so four 2 x 2 convolutions whose
    weights are sums of the 3 x 3 ones do with 4/9 of the multiplications. Equal up to rounding; pays on CPUs.
    """
    assert isinstance(conv, nn.Conv2d)
    rows = [_halved(conv.weight, 2, odd) for odd in (False, True)]  # each (O, C, 2, 3)
    kernels = [_halved(row, 3, odd).contiguous(memory_format=torch.channels_last) for row in rows for odd in (False, True)]
    # an even pixel's neighbours lie above (left of) it, an odd one's below (right of) it
    margins = [(1, 0, 1, 0), (0, 1, 1, 0), (1, 0, 0, 1), (0, 1, 0, 1)]
    quarters = [F.conv2d(F.pad(x, m), kernel, conv.bias) for m, kernel in zip(margins, kernels, strict=True)]
    stacked = torch.stack([quarter.permute(0, 2, 3, 1) for quarter in quarters])  # (4, B, H, W, O), channels last
    b, height, width, channels = stacked.shape[1:]
    woven = stacked.view(2, 2, b, height, width, channels).permute(2, 3, 0, 4, 1, 5)  # (B, H, 2, W, 2, O)
    return woven.reshape(b, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def _halved(weight: Tensor, dim: int, odd: bool) -> Tensor:
    """Three taps along `dim` as two: after doubling, two of them fall on the same pixel."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first + middle, last] if odd else [first, middle + last], dim)


def zero_init(module: _Module) -> _Module:
    """Set every parameter of `module` to zero, so that its residual branch starts as the identity (ADM)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
