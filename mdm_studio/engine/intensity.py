"""The intensity window of a plane, which is refused when there is nothing to see on it."""

from __future__ import annotations

import numpy as np

from mdm_studio.arrays import IntensityLaw, IntensityWindow, intensity_window
from mdm_studio.errors import InputError
from mdm_studio.io.images import Plane

_BAND_ROWS = 512
_ENOUGH = 1 << 20  # pixels of bands with a finite value


class EmptyPlaneError(InputError):
    """A plane without a finite pixel."""


def plane_window(plane: Plane, law: IntensityLaw) -> IntensityWindow:
    """How the raw values of a plane become [-1, 1], from a sample of its pixels.

    Raises
    ------
    EmptyPlaneError
        If the plane has no finite pixel.
    """
    window = intensity_window(plane.sample(), law, joint=plane.rgb)
    if window.empty:
        window = _of_bands(plane, law) or window
    if window.empty:
        raise EmptyPlaneError(
            f"{plane.name} has no finite pixel: all are not-a-number or infinite, so there is nothing to learn or to predict; "
            "replace the image, or leave it out"
        )
    return window


def _of_bands(plane: Plane, law: IntensityLaw) -> IntensityWindow | None:
    """The window of those bands of a plane that have finite pixels at all, where a sample missed them; None if none has."""
    _, height, width = plane.shape
    bands, pixels = [], 0
    for top in range(0, height, _BAND_ROWS):
        band = plane.read(slice(top, min(top + _BAND_ROWS, height)), slice(0, width))
        finite = np.isfinite(band).any(axis=(0, 1))  # (W,)
        if finite.any():
            bands.append(band[:, :, finite].reshape(len(band), 1, -1))
            pixels += bands[-1].shape[2]
        if pixels >= _ENOUGH:
            break
    return intensity_window(np.concatenate(bands, axis=2), law, joint=plane.rgb) if bands else None
