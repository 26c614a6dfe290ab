"""Which device and which precision: decided once, here."""

from __future__ import annotations

import ctypes
import sys
from typing import Literal

import torch

from mdm_studio.errors import UsageError

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


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Let this process keep large blocks that it has freed, for the next step of a training on the CPU.

    glibc hands each back to the system and gets it anew, page by page: up to 300,000 page faults a step, 4 to 15 percent of
    its time. The process then keeps its peak until it ends: for a process that does nothing but train. Nothing elsewhere.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries of Linux have none
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_MAX, 0)
