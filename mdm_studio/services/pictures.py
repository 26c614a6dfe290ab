"""What a live session shows: arrays in which predictions appear tile by tile, with coarser levels for large images."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mdm_studio.services.live_plan import Window

ONE_LEVEL: Final = 1024 * 1024
"""Pixels of a plane up to which a picture has a single level; a viewer shows that at once."""
_SMALLEST = 512  # pixels along the longer side of the coarsest level


class Picture:
    """One output of an image, all planes of its stack.

    Parameters
    ----------
    stack_shape : tuple of int
        Of the image.
    height, width : int
        Of a plane in pixels.
    dtype : dtype
        Of the values; 0 everywhere until something is drawn.

    Attributes
    ----------
    levels : list of arrays
        ``stack_shape + (ceil(H / 2**l), ceil(W / 2**l))``, the finest first. Their memory is taken as it is drawn on (the
        operating system gives pages of zeros), so a slide of which a corner was seen costs a corner.
    """

    def __init__(self, stack_shape: tuple[int, ...], height: int, width: int, dtype: DTypeLike) -> None:
        self.levels: list[NDArray[Any]] = [np.zeros((*stack_shape, height, width), dtype)]
        while height * width > ONE_LEVEL and max(self.levels[-1].shape[-2:]) > _SMALLEST:
            shape = [-(-size // 2) for size in self.levels[-1].shape[-2:]]
            self.levels.append(np.zeros((*stack_shape, *shape), dtype))
        self._drawn: dict[int, Window] = {}  # what is drawn on lies within, by plane

    def draw(self, plane: int, window: Window, step: int, values: NDArray[Any]) -> None:
        """Draw `values` of every `step`-th pixel of a window on all levels.

        Parameters
        ----------
        plane : int
            Counted along the last axis of the stack first.
        window : Window
            Image pixels; its corner is at multiples of `step`.
        step : int
            A power of two.
        values : (ceil(h / step), ceil(w / step))
            Of the window.
        """
        around = self._drawn.get(plane, window)
        self._drawn[plane] = Window(
            min(around.top, window.top),
            max(around.bottom, window.bottom),
            min(around.left, window.left),
            max(around.right, window.right),
        )
        for level, whole in enumerate(self.levels):
            flat = whole.reshape(-1, *whole.shape[-2:])[plane]
            fine = 1 << level
            shown = values
            if step > fine:  # each value stands for a square of pixels
                shown = np.repeat(np.repeat(values, step // fine, axis=0), step // fine, axis=1)
            elif step < fine:
                shown = values[:: fine // step, :: fine // step]
            top, left = -(-window.top // fine), -(-window.left // fine)
            bottom, right = (
                min(-(-window.bottom // fine), top + shown.shape[0]),
                min(-(-window.right // fine), left + shown.shape[1]),
            )
            flat[top:bottom, left:right] = shown[: bottom - top, : right - left]

    def erase(self) -> None:
        """Make it 0 everywhere again; untouched memory stays untouched."""
        for plane, window in self._drawn.items():
            for level, whole in enumerate(self.levels):
                flat = whole.reshape(-1, *whole.shape[-2:])[plane]
                flat[window.top >> level : (window.bottom >> level) + 1, window.left >> level : (window.right >> level) + 1] = 0
        self._drawn.clear()
