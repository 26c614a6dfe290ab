"""What becomes of memory that a process has freed. No torch: a worker asks for it before it loads that."""

from __future__ import annotations

import ctypes
import sys

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
