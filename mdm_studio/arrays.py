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
_HUGE = 1e29  # from here on a value stands for no data: GIS programs take -1e30, 1e30, the ends of float32
_NO_DATA_FROM = 999.0  # the smallest value that is in use for no data
_FAR = 1000.0  # times as large as everything else
_ABSURD = 1 << 24  # counts of no camera, and where float32 ends to hold all integers
_KINDS = 4  # of values for no data in one image, at most
_DIGITS = 1e-4  # of the largest value: a window at least as wide has a thousand steps in float32


@dataclass(frozen=True)
class IntensityWindow:
    """Raw values that become -1 and 1, one pair a channel.

    Attributes
    ----------
    low, high : tuple of float
        Finite, and ``low < high``.
    note : str
        What the user should know of the pixels: values left out as no data, a channel without any finite one; usually empty.
    empty : bool
        No channel has a finite pixel: there is nothing to see.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    note: str = ""
    empty: bool = False


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
        The image, or an evenly strided sample of it. Not-a-number and infinite values are left out, and so is what stands for
        no data, see the notes.
    law : {"percentile", "range"}
        See `IntensityLaw`. Floats outside 0..1 under ``range`` fall back to their own minimum and maximum.
    joint : bool
        One window for all channels (RGB, so that colours stay) or one for each (fluorescence channels).

    Notes
    -----
    A window is never narrower than 4/255 of an integer dtype's used range, so that an empty image stays flat, nor than what
    rounding leaves of floats. A channel with no finite value gets the window 0..1.

    Two kinds of values of floats, and of integers of 32 bits and more, stand for no data where others are there: those
    beyond 1e29, as GIS programs mark it; and the lowest or the highest value, if it is repeated so often that it would decide
    the window and is at least 999 away from zero (-9999, -2147483648). Both only where everything else is within a thousandth
    of them, and would become a single grey level, and is not the same everywhere.
    """
    groups = [sample] if joint else [channel[None] for channel in sample]
    windows = [_window(group, law) for group in groups]
    notes = [f"channel {i}: {each.note}" if len(groups) > 1 else each.note for i, each in enumerate(windows) if each.note]
    empty = all(each.empty for each in windows)
    if joint:
        windows = windows * sample.shape[0]
    low, high = (tuple(ends) for ends in zip(*((each.low[0], each.high[0]) for each in windows), strict=True))
    return IntensityWindow(low, high, "; ".join(notes), empty)


def _window(values: Pixels, law: IntensityLaw) -> IntensityWindow:
    """One pair for all values."""
    low, high = dtype_range(values.dtype)
    finite = values if values.dtype.kind != "f" else values[np.isfinite(values)]
    if finite.size == 0:
        return IntensityWindow((0.0,), (1.0,), "no pixel is finite", empty=True)
    if values.dtype.kind == "b":
        return IntensityWindow((low,), (high,))
    finite, note = _without_no_data(finite, law)
    least, most = float(finite.min()), float(finite.max())
    if law == "range":
        if values.dtype.kind == "f" and (least < low or most > high):
            low, high = least, most
        return IntensityWindow((low,), (high if high > low else _above(low, 1.0),), note)
    p_low, p_high = percentiles(finite)
    narrowest = _narrowest(values.dtype, least, most, p_low, p_high)
    if p_high - p_low < narrowest or p_high == p_low:
        p_high = _above(p_low, narrowest)
    return IntensityWindow((p_low,), (p_high,), note or (_constant(least) if least == most else ""))


def _constant(value: float) -> str:
    return f"all pixels looked at are {value:.10g}: there is nothing to see"


def _narrowest(dtype: np.dtype[Any], least: float, most: float, p_low: float, p_high: float) -> float:
    largest = max(abs(p_high), abs(p_low))
    if dtype.kind == "f":  # float64 holds small differences of large values
        return (1e-6 if dtype.itemsize < 8 else 1e-12) * largest if largest else 1e-12
    if dtype.itemsize == 1:
        low, high = dtype_range(dtype)
        return _MIN_WINDOW * (high - low)
    # 12 bits stored in 16 must not make the narrowest window 16 times wider: take the range that is used
    used = most
    if dtype.itemsize > 2:  # not as a camera counts
        if least > np.iinfo(np.uint16).max:  # all lie far from zero
            used, p_high = most - least, p_high - least
        if used > _ABSURD and _MIN_WINDOW * used > p_high > 0:  # a hot pixel, next to which all else would be flat
            used = p_high
    return _MIN_WINDOW * max(used, 1.0)


def _above(low: float, span: float) -> float:
    """``low + span``, or what comes next to `low` where that is the same, but finite."""
    high = low + span
    return high if low < high < np.inf else float(np.nextafter(low, np.inf))


def data_values(values: Pixels) -> Pixels:
    """Those that are finite and do not stand for no data, see `intensity_window`, in one row."""
    finite = values.ravel() if values.dtype.kind != "f" else values[np.isfinite(values)]
    return _without_no_data(finite, "percentile")[0] if finite.size else finite


def percentiles(finite: Pixels) -> tuple[float, float]:
    """`PERCENTILES` of finite values, one at least, whose differences may overflow their type."""
    least, most = float(finite.min()), float(finite.max())
    dtype = finite.dtype
    if dtype.kind == "f" and most / 2 - least / 2 > float(np.finfo(dtype).max) / 2:
        exponent = int(np.frexp(max(abs(least), abs(most)))[1])
        scaled = np.ldexp(finite.astype(np.float64), -exponent)  # within [-1, 1]
        return tuple(float(np.ldexp(p, exponent)) for p in np.percentile(scaled, PERCENTILES))  # type: ignore[return-value]
    if dtype.kind == "i" or dtype.itemsize == 8:
        finite = finite.astype(np.float64)
    low, high = (float(p) for p in np.percentile(finite, PERCENTILES))
    return low, high


def _without_no_data(finite: Pixels, law: IntensityLaw) -> tuple[Pixels, str]:
    """The values that are data, see `intensity_window`, and what was left out in words."""
    if finite.dtype.kind != "f" and (law == "range" or finite.dtype.itemsize < 4):
        return finite, ""
    kept, note, rest, names = finite, "", finite, []
    for _ in range(_KINDS):  # one may hide another: -9999 beside -32768
        extreme = max(rest.min(), rest.max(), key=lambda value: abs(float(value)))
        size = abs(float(extreme))
        huge = size >= _HUGE
        marked = (rest <= -_HUGE) | (rest >= _HUGE) if huge else rest == extreme
        if size < _NO_DATA_FROM or not (huge or marked.sum() > finite.size * PERCENTILES[0] / 100):
            break
        nearest = float(np.abs(rest[marked]).min()) if huge else size
        name = f"values beyond {_HUGE:g}" if huge else f"{float(extreme):.10g}"
        names.append(f"{name} ({100 * marked.sum() / finite.size:.2g} % of the pixels)")
        rest = rest[~marked]
        if rest.size == 0 or rest.min() == rest.max():  # there is nothing else to see
            break
        if _FAR * float(np.percentile(np.abs(rest.astype(np.float64)), PERCENTILES[1])) <= nearest:
            kept, note = rest, f"taken as no data: {', '.join(names)}"
    return kept, note


def normalise(raw: Pixels, window: IntensityWindow) -> Image:
    """Raw pixels ``(C, H, W)`` to an image ``(C, H, W)`` float32 in [-1, 1]; outside the window is clipped, NaN becomes -1."""
    with np.errstate(over="ignore"):  # what overflows lies outside the window and is clipped
        image = _scaled(raw, window)
    if raw.dtype.kind == "f":
        image = np.nan_to_num(image, nan=-1.0, posinf=1.0, neginf=-1.0)
    return np.clip(image, -1, 1, out=image)


def _scaled(raw: Pixels, window: IntensityWindow) -> Image:
    """The window to [-1, 1], in float32 where that has the range and the digits."""
    if suits_float32(window):
        low32, high32 = (np.asarray(ends, np.float32)[:, None, None] for ends in (window.low, window.high))
        image: Image = (raw.astype(np.float32) - low32) / (high32 - low32) * 2 - 1
        return image
    low, high = (np.asarray(ends, np.float64)[:, None, None] for ends in (window.low, window.high))
    largest = np.maximum(np.abs(low), np.abs(high))
    exponent = np.frexp(largest)[1]  # powers of two: exact, and nothing is too large or too small afterwards
    low, high = np.ldexp(low, -exponent), np.ldexp(high, -exponent)
    wide: NDArray[np.float64] = (np.ldexp(raw.astype(np.float64), -exponent) - low) / (high - low) * 2 - 1
    return wide.astype(np.float32)


def suits_float32(window: IntensityWindow) -> bool:
    """Whether float32 holds the window and what lies in it."""
    low, high = np.asarray(window.low), np.asarray(window.high)
    largest, half = np.maximum(np.abs(low), np.abs(high)), high / 2 - low / 2
    return bool(((largest < _HUGE) & (half > 1 / _HUGE) & (half > _DIGITS * largest)).all())


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
