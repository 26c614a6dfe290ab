"""How uncertain an image is, as one number; without PyTorch, so that lists of images need not wait for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mdm_studio.errors import UsageError

_TOP = 10  # an image's uncertainty is the mean of its most uncertain tenth (DatasetGAN, Baranchuk)


def top_uncertainty(uncertainty: ArrayLike) -> float:
    """One number for an image: the mean of its most uncertain tenth of pixels (all of fewer than ten)."""
    values = np.sort(np.asarray(uncertainty, dtype=np.float64), axis=None)
    if values.size == 0:
        raise UsageError("the uncertainty of no pixel was given; give at least one")
    return float(values[-(values.size // _TOP) :].mean())
