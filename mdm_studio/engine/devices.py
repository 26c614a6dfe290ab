"""Which device and which precision: decided once, here."""

from __future__ import annotations

from typing import Literal

import torch

from mdm_studio.engine.freed_memory import keep_freed_memory
from mdm_studio.errors import UsageError

__all__ = ["DeviceName", "Precision", "fast_bf16", "keep_freed_memory", "pick_device", "pick_precision"]

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32"]


def pick_device(name: str = "auto") -> torch.device:
    """Turn a ``--device`` into a device: the first GPU if there is one, else the CPU.

    Raises
    ------
    UsageError
        If the device asked for is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); use --device cpu") from error
    return device


def fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are fast on `device`: any CUDA GPU that supports them, or a CPU with the instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))
    return False


def pick_precision(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """``auto`` becomes bf16 where it is fast."""
    if precision == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return precision
