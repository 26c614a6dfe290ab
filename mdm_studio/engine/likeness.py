"""How alike pictures are: the best place of a picture inside others, over all shifts and mirrorings.

Training draws crops anywhere and mirrors them, so a copy of a training image may come from any place of it and be mirrored.
The measure is Pearson's correlation of the grey values, which no change of brightness or contrast disturbs: normalised
cross-correlation (Lewis 1995), by Fourier transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_FLAT = 1e-4  # variance, in [-1, 1]: one grey level of 256. What is flatter looks like nothing
_MIRRORINGS = ((), (-2,), (-1,), (-2, -1))  # as in pretraining; none, up and down, left and right, both


@dataclass(frozen=True)
class Likeness:
    """Best place of each of Q pictures in each of F fields.

    Attributes
    ----------
    correlation : (Q, F) float32
        In [-1, 1]; 0 where the picture or all of the field is flat.
    place : (Q, F, 3) int64
        Row and column of the best window's corner, and the mirroring (bit 0: up and down, bit 1: left and right) that makes
        the window look like the picture.
    """

    correlation: NDArray[np.float32]
    place: NDArray[np.int64]


def shrink(images: Tensor, scale: float) -> Tensor:
    """Grey pictures ``(N, h, w)`` of ``(N, C, H, W)``: the mean of the channels, made smaller by `scale`."""
    grey = images.float().mean(dim=1, keepdim=True)
    if scale >= 1:
        return grey[:, 0]
    size = [max(1, round(side * scale)) for side in grey.shape[-2:]]
    return F.interpolate(grey, size=size, mode="bilinear", antialias=True, align_corners=False)[:, 0]


@torch.inference_mode()
def best_places(pictures: Tensor, fields: Sequence[Tensor]) -> Likeness:
    """Search every picture in every field.

    Parameters
    ----------
    pictures : (Q, h, w)
        Grey values in [-1, 1].
    fields : sequence of (H, W)
        Grey values; each at least as large as a picture.

    Raises
    ------
    ValueError
        If a field is smaller than the pictures.
    """
    height, width = pictures.shape[-2:]
    centred = pictures.float() - pictures.float().mean(dim=(-2, -1), keepdim=True)  # (Q, h, w)
    energy = centred.square().sum(dim=(-2, -1))  # (Q,)
    unit = centred * (energy.clamp(min=1e-12).rsqrt() * (energy > _FLAT * height * width))[:, None, None]
    mirrored = torch.cat([unit.flip(dims) if dims else unit for dims in _MIRRORINGS])  # (4Q, h, w)
    found, places = [], []
    for field in fields:
        if field.shape[0] < height or field.shape[1] < width:
            raise ValueError(f"a field of {tuple(field.shape)} pixels is smaller than the pictures of {height} x {width}")
        best, where = _correlate(mirrored, field.float()).flatten(1).max(dim=1)  # (4Q,)
        best, mirroring = best.view(len(_MIRRORINGS), -1).max(dim=0)  # (Q,)
        where = where.view(len(_MIRRORINGS), -1).gather(0, mirroring[None])[0]
        columns = field.shape[1] - width + 1
        found.append(best)
        places.append(torch.stack([where // columns, where % columns, mirroring], dim=1))
    return Likeness(torch.stack(found, dim=1).numpy(), torch.stack(places, dim=1).numpy())


def _correlate(unit: Tensor, field: Tensor) -> Tensor:
    """Correlation of zero-mean pictures of norm 1, ``(N, h, w)``, with every window of a field: ``(N, H-h+1, W-w+1)``."""
    height, width = unit.shape[-2:]
    shape = field.shape
    centred = field - field.mean()  # smaller numbers, smaller rounding
    spectrum = torch.fft.rfft2(centred) * torch.fft.rfft2(unit, s=tuple(shape)).conj()
    rows, columns = shape[0] - height + 1, shape[1] - width + 1
    products = torch.fft.irfft2(spectrum, s=tuple(shape))[:, :rows, :columns]
    mean, square = (F.avg_pool2d(each[None, None].double(), (height, width), 1)[0, 0] for each in (centred, centred**2))
    variance = square - mean**2  # (H-h+1, W-w+1)
    norm = (variance * height * width).clamp(min=1e-12).rsqrt().float() * (variance > _FLAT)
    correlation: Tensor = (products * norm).clamp(-1, 1)
    return correlation


def unmirrored(window: NDArray[np.float32], mirroring: int) -> NDArray[np.float32]:
    """A window ``(..., h, w)`` of a field, mirrored so that it looks like the picture that was found there."""
    dims = _MIRRORINGS[mirroring]
    return np.flip(window, axis=dims).copy() if dims else window
