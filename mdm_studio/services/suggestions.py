"""Where the next stroke would help most: where the members disagree, away from what was painted and suggested before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.uncertainty import top_uncertainty
from mdm_studio.services.live_plan import COARSE, PlaneKey, Tile, Window

SIDE = 128
"""Pixels along each side of a suggested window."""
_FAR = 512.0  # pixels from the nearest stroke at which a window counts as unexplored
_OTHER_IMAGE = 1.25  # what a window of an image without strokes is worth against one of an image with some


@dataclass(frozen=True)
class Suggestion:
    """A window that would help most if it were labelled, and why."""

    plane: PlaneKey
    window: Window
    why: str


def suggest(
    doubt: Mapping[Tile, tuple[Window, NDArray[np.float32]]],
    painted: Iterable[tuple[PlaneKey, float, float]],
    earlier: Sequence[Suggestion] = (),
    unseen: Sequence[tuple[PlaneKey, Window]] = (),
) -> Suggestion | None:
    """The window with the highest worth or, every second time, one that was never looked at; None if there is neither.

    Parameters
    ----------
    doubt : mapping
        Of each tile the window that has a picture, and its uncertainty ``(h, w)`` in nats, evenly spaced over it.
    painted : iterable of (plane, row, column)
        Middles of what was painted.
    earlier : sequence of Suggestion
        They are not made again.
    unseen : sequence of (plane, window)
        A window of each image of which nothing was drawn or painted yet.

    Notes
    -----
    Worth is the mean uncertainty of the most uncertain tenth of a window's pixels (as DatasetGAN ranks images), times one to
    two by its distance from the nearest stroke of that plane, so that strokes spread; a plane without any gets a quarter more.
    """
    new = [each for each in unseen if each not in [(e.plane, e.window) for e in earlier]]
    if new and (len(earlier) % 2 or not doubt):
        return Suggestion(*new[0], "Nothing of this image has been looked at yet")
    near = [*painted, *((e.plane, (e.window.top + e.window.bottom) / 2, (e.window.left + e.window.right) / 2) for e in earlier)]
    done = {(e.plane, e.window) for e in earlier}
    best: tuple[float, Suggestion] | None = None
    for tile, (window, uncertainty) in sorted(doubt.items()):
        for place, part in _windows(window, uncertainty):
            if (tile.plane, place) in done:
                continue
            doubtful = top_uncertainty(part)
            away = _distance(tile.plane, place, near)
            worth = doubtful * (1 + min(away / _FAR, 1.0)) if away is not None else doubtful * 2 * _OTHER_IMAGE
            if best is None or worth > best[0]:
                best = worth, Suggestion(tile.plane, place, _why(doubtful, away))
    return best[1] if best else None


def _windows(window: Window, uncertainty: NDArray[np.float32]) -> Iterable[tuple[Window, NDArray[np.float32]]]:
    height, width = uncertainty.shape
    if not uncertainty.size:
        return
    step = max(round((window.bottom - window.top) / height), COARSE, 1)
    side = max(SIDE // step, 1)
    for row in range(0, height, side):
        for col in range(0, width, side):
            top, left = window.top + row * step, window.left + col * step
            place = Window(top, min(top + side * step, window.bottom), left, min(left + side * step, window.right))
            yield place, uncertainty[row : row + side, col : col + side]


def _distance(plane: PlaneKey, place: Window, near: Iterable[tuple[PlaneKey, float, float]]) -> float | None:
    """Pixels from the middle of a window to the nearest stroke of its plane; None if it has none."""
    row, col = (place.top + place.bottom) / 2, (place.left + place.right) / 2
    here = [float(np.hypot(y - row, x - col)) for other, y, x in near if other == plane]
    return min(here) if here else None


def _why(doubtful: float, away: float | None) -> str:
    agreement = "The members disagree here most" if doubtful > 0.05 else "The members nearly agree everywhere; least so here"
    where = "and nothing is painted in this image yet" if away is None else f"{away:.0f} pixels from the nearest stroke"
    return f"{agreement} (uncertainty {doubtful:.2f}), {where}"
