"""Axes, dtypes and value ranges: said here once, kept everywhere else.

* **raw pixels**: ``(C, H, W)``, the file's own dtype (integer, bool or float), never scaled.
* **image** inside the engine: ``(C, H, W)`` float32 in [-1, 1].
* **feature map** of a block and timestep: ``(C_b, ceil(H/s), ceil(W/s))`` at its own stride ``s``; cell ``(i, j)`` covers
  image rows ``i*s .. (i+1)*s - 1`` and columns ``j*s .. (j+1)*s - 1`` (pixel-edge aligned, ``align_corners=False``).
* **label map**: ``(H, W)`` unsigned integers, 0 = unlabelled, 1..K = classes.
* **probabilities**: ``(K, H, W)`` float32, summing to 1 over K. **uncertainty**: ``(H, W)`` float32, >= 0.

This module needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import ChannelsError

Pixels = NDArray[Any]
"""Raw pixels ``(C, H, W)`` in the file's dtype."""
Image = NDArray[np.float32]
"""``(C, H, W)`` float32 in [-1, 1]."""
LabelMap = NDArray[np.unsignedinteger[Any]]
"""``(H, W)``; 0 = unlabelled, 1..K = classes."""

IntensityLaw = Literal["percentile", "range"]
"""How raw values become [-1, 1].

``percentile``: the image's own 0.1 and 99.9 percentiles become -1 and 1 (microscopy: 12 bits in uint16, dim fields).
``range``: the dtype's range, 0..255 for uint8 (photographs, and the published checkpoints: ``x / 127.5 - 1``).
"""

PERCENTILES = (0.1, 99.9)  # hot pixels and dead corners do not decide the window
_SAMPLE_PIXELS = 1 << 20  # percentiles of a million strided pixels differ from the exact ones by less than a grey level
_MIN_WINDOW = 4 / 255  # of the dtype's range: an empty field stays flat instead of having its noise blown up


@dataclass(frozen=True)
class IntensityWindow:
    """Raw values that become -1 and 1, one pair a channel."""

    low: tuple[float, ...]
    high: tuple[float, ...]


def stride_for_sample(height: int, width: int, sample: int = _SAMPLE_PIXELS) -> int:
    """Step that leaves about `sample` pixels of a ``height`` x ``width`` plane."""
    return max(1, int(np.sqrt(height * width / sample)))


def dtype_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Lowest and highest value that `dtype` stands for: its full range for integers, 0..1 for bool and floats."""
    if dtype.kind in "ui":
        info = np.iinfo(dtype)
        return (0.0 if dtype.kind == "u" else float(info.min)), float(info.max)
    return 0.0, 1.0


def intensity_window(sample: Pixels, law: IntensityLaw, *, joint: bool) -> IntensityWindow:
    """Window of raw values that becomes [-1, 1].

    Parameters
    ----------
    sample : (C, H, W)
        The image, or an evenly strided sample of it. Not-a-number and infinite values are left out.
    law : {"percentile", "range"}
        See `IntensityLaw`. Floats outside 0..1 under ``range`` fall back to their own minimum and maximum.
    joint : bool
        One window for all channels (RGB, so that colours stay) or one for each (fluorescence channels).

    Notes
    -----
    A window is never narrower than 4/255 of an integer dtype's used range, so that an empty image stays flat. A channel
    with no finite value gets the window 0..1.
    """
    groups = [sample] if joint else [channel[None] for channel in sample]
    windows = [_window(group, law) for group in groups]
    if joint:
        windows = windows * sample.shape[0]
    return IntensityWindow(tuple(w[0] for w in windows), tuple(w[1] for w in windows))


def _window(values: Pixels, law: IntensityLaw) -> tuple[float, float]:
    low, high = dtype_range(values.dtype)
    finite = values if values.dtype.kind != "f" else values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    if law == "range" or values.dtype.kind == "b":
        if values.dtype.kind == "f" and (finite.min() < low or finite.max() > high):
            low, high = float(finite.min()), float(finite.max())
        return (low, high) if high > low else (low, low + 1.0)
    p_low, p_high = (float(p) for p in np.percentile(finite, PERCENTILES))
    # 12 bits stored in 16 must not make the narrowest window 16 times wider: take the range that is used
    used = float(finite.max()) if values.dtype.kind in "ui" and values.dtype.itemsize > 1 else high - low
    narrowest = _MIN_WINDOW * max(used, 1.0) if values.dtype.kind in "ui" else 1e-6 * max(abs(p_high), abs(p_low), 1e-6)
    if p_high - p_low < narrowest:
        p_high = p_low + narrowest
    return p_low, p_high


def normalise(raw: Pixels, window: IntensityWindow) -> Image:
    """Raw pixels ``(C, H, W)`` to an image ``(C, H, W)`` float32 in [-1, 1]; outside the window is clipped, NaN becomes -1."""
    low = np.asarray(window.low, np.float32)[:, None, None]
    high = np.asarray(window.high, np.float32)[:, None, None]
    image = (raw.astype(np.float32) - low) / (high - low) * 2 - 1
    if raw.dtype.kind == "f":
        image = np.nan_to_num(image, nan=-1.0, posinf=1.0, neginf=-1.0)
    return np.clip(image, -1, 1, out=image)


def fit_channels(raw: Pixels, wanted: int, *, name: str) -> Pixels:
    """Give `raw` the number of channels the backbone reads.

    One channel is repeated, two are padded with a zero channel; anything else must match.

    Raises
    ------
    ChannelsError
        If there is no obvious way, naming both counts.
    """
    have = raw.shape[0]
    if have == wanted:
        return raw
    if have == 1:
        return np.broadcast_to(raw, (wanted, *raw.shape[1:]))
    if have == 2 and wanted == 3:
        return np.concatenate([raw, np.zeros_like(raw[:1])])
    raise ChannelsError(
        f"{name} has {have} channels and the backbone reads {wanted}: choose {wanted} or 1 of them, for example "
        f"{','.join(str(i) for i in range(min(wanted, have)))} (with --channels, or in the list of images)"
    )


def bin_pixels(image: Image, factor: int) -> Image:
    """Mean of squares of `factor` x `factor` pixels of ``(C, H, W)``, H and W multiples of `factor`."""
    if factor == 1:
        return image
    channels, height, width = image.shape
    squares = image.reshape(channels, height // factor, factor, width // factor, factor)  # (C, h, k, w, k)
    means: Image = squares.mean(axis=(2, 4), dtype=np.float32)
    return means
