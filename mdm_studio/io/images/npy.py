"""NumPy array files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.io.images.source import Source, from_axes, without_bool


def open_npy(path: Path, *, values: bool) -> Source:
    """Open a NumPy array file: `Opener`."""

    def mapped() -> NDArray[Any]:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    array = mapped()
    if array.ndim not in (2, 3):
        raise ValueError(f"an array of shape {array.shape} is not an image: (H, W), (H, W, C) or (C, H, W) is")
    channels_last = array.ndim == 3 and 1 <= array.shape[-1] <= 4
    axes = "YX" if array.ndim == 2 else "YXC" if channels_last else "CYX"
    # mapped anew at each read: pages of a lasting map would count as this process's memory
    source = from_axes(axes, array.shape, array.dtype, lambda selection: np.array(mapped()[selection]))
    rgb = channels_last and array.shape[-1] == 3 and array.dtype == np.uint8
    return without_bool(replace(source, rgb=rgb), values=values)
