"""Polarity: whether a folder mixes bright objects on dark ground with dark objects on bright ground.

Few bright objects give intensities a long tail upwards, few dark ones a tail downwards: the sign of the skewness says
which, and a skewness beyond 1 is beyond doubt. Labels of the one kind then teach nothing about the other, unless their
negatives are learned from too (benchmarks/NOTES.md, 1, 2 and 8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from scipy.stats import skew

from mdm_studio.arrays import intensity_window, normalise
from mdm_studio.io.images import Plane

T = TypeVar("T")

_LOOKED_AT = 32  # images of a folder that are enough to know
_SKEWED = 1.0
_SHARE = 1 / 16  # of the images, for each polarity
_PIXELS = 1 << 16


def some_of(images: Sequence[T]) -> list[T]:
    """The images of a folder to look at: all of a few, else evenly spread ones."""
    places = np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).round().astype(int)
    return [images[place] for place in places]


def polarity(plane: Plane) -> int:
    """1 for a plane of bright objects on dark ground, -1 for the reverse, 0 where it is not clear."""
    raw = plane.sample(_PIXELS)
    brightness = normalise(raw, intensity_window(raw, "percentile", joint=plane.rgb)).mean(axis=0)
    if np.ptp(brightness) == 0:
        return 0
    value = float(skew(brightness, axis=None))
    return int(np.sign(value)) if abs(value) > _SKEWED else 0


def mixed(polarities: Iterable[int]) -> bool:
    """Whether both polarities have a share worth the name among those of `polarity`; False for no images at all."""
    found = list(polarities)
    return bool(found) and min(found.count(1), found.count(-1)) >= _SHARE * len(found)
