"""Moving average of weights while a network is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def ramped_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Moving average whose decay rises to `decay` over the first updates, for `torch.optim.swa_utils.AveragedModel`."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, n_averaged: Any) -> None:
        n = float(n_averaged)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + n) / (10 + n)))

    return update
