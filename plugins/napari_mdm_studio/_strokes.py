"""What changed in a Labels layer: strokes, fills, polygons, code, undo and redo, each as the smallest regions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Labels

Plane = tuple[int, ...]


@dataclass(frozen=True)
class Changed:
    """A region of one plane whose labels changed: rows and columns ``[start, stop)``."""

    plane: Plane
    rows: slice
    cols: slice


def changed_regions(history_item: Iterable[Any], shape: Sequence[int]) -> list[Changed]:
    """The regions of a history item of napari, one bounding box a plane.

    Parameters
    ----------
    history_item : iterable
        Of "atoms": objects with a `slice_key`, one slice an axis, as brush, fill and polygon leave them; or tuples of
        ``(indices, old values, new values)`` as ``Labels.data_setitem`` leaves them.
    shape : sequence of int
        Shape of the labels: stack axes, H, W.
    """
    boxes: dict[Plane, list[int]] = {}  # plane -> top, bottom, left, right
    for atom in history_item:
        key = getattr(atom, "slice_key", None)
        found = _of_slices(key, shape) if key is not None else _of_indices(atom[0])
        for plane, (top, bottom, left, right) in found:
            box = boxes.setdefault(plane, [top, bottom, left, right])
            box[:] = min(box[0], top), max(box[1], bottom), min(box[2], left), max(box[3], right)
    return [Changed(plane, slice(top, bottom), slice(left, right)) for plane, (top, bottom, left, right) in boxes.items()]


def _of_slices(key: Sequence[slice], shape: Sequence[int]) -> Iterable[tuple[Plane, tuple[int, int, int, int]]]:
    spans = [each.indices(length)[:2] for each, length in zip(key, shape, strict=True)]
    if all(start < stop for start, stop in spans):
        for plane in itertools.product(*(range(*span) for span in spans[:-2])):
            yield plane, (*spans[-2], *spans[-1])


def _of_indices(indices: Sequence[Any]) -> Iterable[tuple[Plane, tuple[int, int, int, int]]]:
    points = np.stack([np.ravel(axis) for axis in np.broadcast_arrays(*indices)])  # (ndim, N)
    if points.shape[1] == 0:
        return
    planes, which = np.unique(points[:-2], axis=1, return_inverse=True) if len(points) > 2 else (points[:-2, :1], 0)
    for number in range(planes.shape[1]):
        rows, cols = points[-2:, np.ravel(which) == number] if len(points) > 2 else points[-2:]
        box = (int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1)
        yield tuple(int(place) for place in planes[:, number]), box


class StrokesWatcher:
    """Tells of every change of a Labels layer.

    Parameters
    ----------
    layer : napari.layers.Labels
        Undo and redo announce nothing in napari; while it is watched the layer's two methods do.
    changed : callable
        Gets a `Changed` for each plane.
    replaced : callable
        Called when the layer was given another array.
    done, undone : callable
        Called when a stroke can be undone from now on (with whether it is one that was undone before), and when one was undone.
    later : callable
        Calls a function as soon as the event loop has its turn. Polygons, and strokes of code, are announced by napari
        just before they are in the array.
    """

    def __init__(
        self,
        layer: Labels,
        changed: Callable[[Changed], object],
        replaced: Callable[[], object],
        later: Callable[[Callable[[], object]], object],
        done: Callable[[bool], object] = lambda again: None,
        undone: Callable[[], object] = lambda: None,
    ) -> None:
        self._layer, self._changed, self._replaced, self._later = layer, changed, replaced, later
        self._done, self._undone = done, undone
        self._waiting: list[Changed] = []
        layer.events.paint.connect(self._painted)
        layer.events.data.connect(self._data_set)
        # setattr, because these are methods of the class
        setattr(layer, "undo", lambda: self._replay("_undo_history", type(layer).undo, self._undone))  # noqa: B010
        setattr(layer, "redo", lambda: self._replay("_redo_history", type(layer).redo, partial(self._done, True)))  # noqa: B010
        setattr(layer, "data_setitem", self._set_item)  # noqa: B010

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke to undo."""
        return bool(getattr(self._layer, "_undo_history", True))

    @property
    def can_redo(self) -> bool:
        """Whether there is a stroke to paint again."""
        return bool(getattr(self._layer, "_redo_history", True))

    def _set_item(self, indices: Any, value: Any, refresh: bool = True) -> None:
        """Refuse what is no stroke: napari's own method makes 44 of an array that holds 300, and 255 of -1."""
        values, limits = np.asarray(value), np.iinfo(self._layer.data.dtype)
        if values.size and not (values.dtype.kind in "biu" and limits.min <= values.min() and values.max() <= limits.max):
            raise ValueError(f"strokes are whole numbers from {limits.min} to {limits.max}: nothing was painted")
        type(self._layer).data_setitem(self._layer, indices, value, refresh)

    def _painted(self, event: Any) -> None:
        self._done(False)
        regions = changed_regions(event.value, self._layer.data.shape)
        if getattr(self._layer, "_block_history", False):  # a stroke of the mouse has ended: it is all there
            self._tell(regions)
        else:
            self._waiting += regions
            self._later(self._flush)

    def _replay(self, history: str, method: Callable[[Any], None], tell: Callable[[], object]) -> None:
        waiting = getattr(self._layer, history, None)
        item = list(waiting[-1]) if waiting else None
        method(self._layer)
        if waiting is None:  # another napari keeps its history elsewhere: everything may have changed
            shape = self._layer.data.shape
            item = [_Everything(tuple(slice(0, length) for length in shape))]
        if item:
            tell()
            self._tell(changed_regions(item, self._layer.data.shape))

    def _tell(self, regions: Iterable[Changed]) -> None:
        for region in regions:
            self._changed(region)

    def _flush(self) -> None:
        regions, self._waiting = self._waiting, []
        self._tell(regions)

    def _data_set(self, event: Any) -> None:
        self._replaced()

    def close(self) -> None:
        """Watch no longer; what is in the array by now is told, a stroke whose mouse button is still down, too."""
        self._waiting += changed_regions(getattr(self._layer, "_staged_history", ()), self._layer.data.shape)
        self._flush()
        self._layer.events.paint.disconnect(self._painted)
        self._layer.events.data.disconnect(self._data_set)
        for method in ("undo", "redo", "data_setitem"):
            self._layer.__dict__.pop(method, None)


@dataclass(frozen=True)
class _Everything:
    slice_key: tuple[slice, ...]
