"""Noise schedules of DDPM, in float64."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["linear", "cosine"]


def betas(name: ScheduleName, t_max: int = 1000) -> Tensor:
    """Variances ``beta_t`` of the forward process, ``(T,)`` float64.

    ``linear``: Ho et al. 2020, rescaled to `t_max` steps. ``cosine``: Nichol and Dhariwal 2021, equation 17, capped at 0.999.
    """
    if name == "linear":
        return torch.linspace(0.1 / t_max, 20 / t_max, t_max, dtype=torch.float64)
    steps = torch.arange(t_max + 1, dtype=torch.float64) / t_max
    abar = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)


def alphas_cumprod(name: ScheduleName, t_max: int = 1000) -> Tensor:
    """Signal share ``abar_t``, the running product of ``1 - beta``, ``(T,)`` float64."""
    return torch.cumprod(1 - betas(name, t_max), dim=0)
