"""Small pictures of images, uint8 RGB, kept on disk until the image changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def thumbnail(path: Path, size: int, cache: Path) -> NDArray[np.uint8]:
    """A picture ``(h, w, 3)`` of an image, `size` pixels along its longer side."""
    raise NotImplementedError
