"""Helpers for tests of MDM Studio and of packages that extend it: closed-form weights, inputs and synthetic images.

The closed formulas rebuild the weights and inputs behind the golden numbers without any random generator or download.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def golden_fill(module: nn.Module) -> None:
    """Fill every float entry of the state dict, in its order, from a closed formula (in place).

    Entry ``k``, flat index ``i``: more than one axis, ``sin(0.1 (i mod 997) + k) * 1.5 / sqrt(fan_in)``; a vector whose name
    ends in ``weight``, ``1 + 0.1 sin(i + k)``; any other, ``0.1 sin(i + k)``.
    """
    for k, (name, value) in enumerate(module.state_dict().items()):
        if not value.is_floating_point():
            continue
        i = torch.arange(value.numel(), dtype=torch.float64)
        if value.ndim > 1:
            fan_in = value.numel() / value.shape[0]
            filled = torch.sin(0.1 * (i % 997) + k) * 1.5 / math.sqrt(fan_in)
        elif name.endswith("weight"):
            filled = 1 + 0.1 * torch.sin(i + k)
        else:
            filled = 0.1 * torch.sin(i + k)
        value.copy_(filled.reshape(value.shape))


def golden_input(shape: tuple[int, ...], s: int) -> Tensor:
    """Float32 input ``sin(0.05 (i mod 1009) (1 + 0.1 s) + s)`` of the given shape."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.05 * (i % 1009) * (1 + 0.1 * s) + s).reshape(shape).float()


def blobs(
    height: int, width: int, *, seed: int = 0, n: int = 12, rgb: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bright discs on a dark noisy ground.

    Returns
    -------
    image : (H, W, 3) or (H, W) uint8
    mask : (H, W) uint8
        1 = ground, 2 = disc.
    """
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(n):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.04, 0.1) * min(height, width)
        mask |= (rows - y) ** 2 + (cols - x) ** 2 <= r**2
    grey = np.where(mask, 170.0, 50.0) + rng.normal(0, 12, mask.shape)
    image = np.clip(grey, 0, 255).astype(np.uint8)
    return (np.repeat(image[..., None], 3, axis=2) if rgb else image), (mask.astype(np.uint8) + 1)
