"""Objects of a mask: regions of one class, numbered; found band by band, so that memory does not grow with the image.

A band of rows is labelled on its own, and what touches across a border is joined in a table: the numbers that are kept for the
pixels are provisional, and the table says which object each of them belongs to. Cutting and measuring take the objects a window
at a time (see `windows`), so that each is seen whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mdm_studio.engine.watershed import cut_apart

ObjectMethod = Literal["components", "watershed"]
Numbers = NDArray[np.uint32]
_T = TypeVar("_T")

_BAND_PIXELS = 3 << 20  # labelled at a time: 200 MB with all that it takes
_BAND_ROWS = 128  # a multiple of the height of a chunk on the disk, which is else read and written twice
_CELL = 1024  # objects are taken together that begin in one such square; their window has twice its side at most
WHOLE = 1 << 24
"""Pixels of the box around the largest object that is looked at whole: 4096 x 4096, half a gigabyte with all that it takes."""


@dataclass(frozen=True)
class ObjectOptions:
    """How the objects of a mask are found.

    Attributes
    ----------
    method : {"components", "watershed"}
        Regions of one class whose pixels touch, corners included; or these cut apart where they are narrow and their
        probability is low.
    min_size : int
        Objects of fewer pixels are dropped. The watershed cuts nothing smaller than that off.
    fill_holes : bool
        Background inside a single object becomes part of it.
    background : int or None
        Class value that is no object; None takes the lowest class.
    distance : int
        For the watershed: pixels between the middles of two objects, at least.
    """

    method: ObjectMethod = "components"
    min_size: int = 0
    fill_holes: bool = False
    background: int | None = None
    distance: int = 8


@dataclass
class Objects:
    """The objects of a plane.

    Attributes
    ----------
    provisional : (H, W) uint32, array or zarr array
        Numbers of parts of objects; 0 = none.
    table : (parts + 1,) uint32
        Number of the object of each part: 1, 2, ... in the order of their first pixels, and pieces of one region next to each
        other; 0 for what is no object.
    classes : (objects + 1,)
        Class value of each object.
    boxes : (objects + 1, 4) int64
        Top, left, bottom and right of each object, the last two outside of it.
    uncut : int
        Regions that are too large to be cut apart and stayed whole.
    """

    provisional: Any
    table: Numbers
    classes: NDArray[Any]
    boxes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 4), np.int64))
    uncut: int = 0

    def __len__(self) -> int:
        return len(self.classes) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the plane."""
        height, width = self.provisional.shape
        return int(height), int(width)

    def read(self, rows: slice, cols: slice) -> Numbers:
        """Numbers of the objects in a window, (h, w)."""
        numbers: Numbers = self.table[np.asarray(self.provisional[rows, cols])]
        return numbers

    def only(self, window: tuple[slice, slice], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """A window with 1, 2, ... for the `wanted` objects, which are sorted, and 0 for the others."""
        numbers = self.read(*window)
        place = np.minimum(np.searchsorted(wanted, numbers), len(wanted) - 1)
        return np.where(wanted[place] == numbers, place + 1, 0)


def find_objects(
    mask: Any,
    options: ObjectOptions,
    background: int,
    scratch: Callable[[str, tuple[int, int], Any], Any],
    probability: Any = None,
) -> Generator[None, None, Objects]:
    """Find the objects of a mask; yields after each band or window and returns them.

    Parameters
    ----------
    mask : (H, W) unsigned integers, array or zarr array
        Class values. Touching regions of different classes are different objects.
    options : ObjectOptions
        How.
    background : int
        Class value that is no object.
    scratch : callable
        Gives an array of zeros for a name, a shape and a type: ``mdm_studio.io.scratch.Scratch.array``.
    probability : (H, W) float32, optional
        Of each pixel's own class; the watershed wants it.

    Notes
    -----
    Small regions are dropped first, then holes are filled, then regions are cut apart: a speck in a hole does not keep it open.
    """
    shape = (int(mask.shape[0]), int(mask.shape[1]))
    provisional = scratch("objects", shape, np.uint32)

    def classes_of(rows: slice) -> NDArray[np.int32]:
        band = np.asarray(mask[rows]).astype(np.int32)
        return np.where(band == background, -1, band)

    merged, sizes, classes = yield from _number(classes_of, provisional, 2)
    kept = sizes >= options.min_size
    kept[0] = False
    table = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)[merged]
    objects = Objects(provisional, table, np.concatenate([classes[:1], classes[kept]]))
    if options.fill_holes:
        yield from _fill_holes(objects, scratch)
    yield from _locate(objects)
    if options.method == "watershed" and len(objects):
        yield from _cut(objects, probability, options)
        yield from _locate(objects)
    return objects


def number_objects(
    mask: NDArray[Any], options: ObjectOptions, background: int = 0, probability: NDArray[np.float32] | None = None
) -> Numbers:
    """The objects of a mask in memory, ``(H, W)`` uint32; see `find_objects`.

    Examples
    --------
    >>> number_objects(np.array([[1, 1, 0, 2]], np.uint8), ObjectOptions()).tolist()
    [[1, 1, 0, 2]]
    """
    steps = find_objects(mask, options, background, lambda name, shape, dtype: np.zeros(shape, dtype), probability)
    objects = finished(steps)
    return objects.read(slice(None), slice(None))


def finished(steps: Generator[Any, None, _T]) -> _T:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


def bands(shape: tuple[int, int]) -> Iterator[slice]:
    """Rows of the bands that a plane is gone through in."""
    height = max(1, _BAND_PIXELS // shape[1])
    height -= height % _BAND_ROWS if height > _BAND_ROWS else 0
    return (slice(top, min(top + height, shape[0])) for top in range(0, shape[0], height))


def windows(boxes: NDArray[np.int64]) -> Iterator[tuple[tuple[slice, slice], NDArray[np.int64]]]:
    """Windows of a plane, and the objects that are to be looked at in each: every object once, and whole.

    Small objects that begin near one another share a window; a large one has its own. The largest, whose boxes have more than
    `WHOLE` pixels, have none: see `is_giant`.
    """
    numbers = np.flatnonzero(~is_giant(boxes))
    numbers = numbers[numbers > 0]
    heights, widths = boxes[numbers, 2] - boxes[numbers, 0], boxes[numbers, 3] - boxes[numbers, 1]
    small = (heights <= _CELL) & (widths <= _CELL)
    cells = boxes[numbers, :2] // _CELL
    order = np.lexsort((numbers, cells[:, 1], cells[:, 0]))
    together = [n for n in order if small[n]]
    edges = [i for i in range(1, len(together)) if (cells[together[i]] != cells[together[i - 1]]).any()]
    groups = [numbers[part] for part in np.split(np.array(together, np.int64), edges)] if together else []
    for group in (*groups, *(numbers[n : n + 1] for n in np.flatnonzero(~small))):
        (top, left), (bottom, right) = boxes[group, :2].min(axis=0), boxes[group, 2:].max(axis=0)
        yield (slice(int(top), int(bottom)), slice(int(left), int(right))), np.sort(group)


def is_giant(boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which objects have a box of more than `WHOLE` pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > WHOLE


# ------------------------------------------------------------------------------------------------------------ numbering


def _number(
    values_of: Callable[[slice], NDArray[np.int32]], provisional: Any, connectivity: Literal[1, 2]
) -> Generator[None, None, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]]:
    """Number the regions of equal values; -1 is none.

    Writes provisional numbers and returns, for each of them, the number of its region; and sizes and values of the regions.
    """
    from skimage.measure import label

    pairs, sizes, values = [], [np.zeros(1, np.int64)], [np.full(1, -1, np.int32)]
    count = 0
    above: tuple[NDArray[np.int32], Numbers] | None = None
    for rows in bands(provisional.shape):
        band = values_of(rows)
        found, new = label(band, background=-1, connectivity=connectivity, return_num=True)  # type: ignore[no-untyped-call]
        numbers = np.where(found > 0, found + count, 0).astype(np.uint32)
        provisional[rows] = numbers
        sizes.append(np.bincount(found.ravel(), minlength=new + 1)[1:])
        of_regions = np.empty(new + 1, np.int32)
        of_regions[found] = band
        values.append(of_regions[1:])
        if above is not None:
            pairs.append(_touching(np.stack([above[0], band[0]]), np.stack([above[1], numbers[0]]), connectivity))
        above = (band[-1].copy(), numbers[-1].copy())
        count += int(new)
        yield
    merged = _merge(count, np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64))
    whole = np.zeros(merged.max() + 1, np.int64)
    np.add.at(whole, merged, np.concatenate(sizes))
    classes = np.empty(len(whole), np.int32)
    classes[merged] = np.concatenate(values)
    return merged, whole, classes


def _touching(values: NDArray[np.int32], numbers: Numbers, connectivity: Literal[1, 2]) -> NDArray[np.int64]:
    """Pairs ``(N, 2)`` of regions in the upper and the lower of two rows that touch and have one value."""
    width = values.shape[1]
    pairs = []
    for shift in (-1, 0, 1) if connectivity == 2 else (0,):  # the lower pixel lies to the left, below, or to the right
        upper, lower = slice(max(0, -shift), width - max(0, shift)), slice(max(0, shift), width - max(0, -shift))
        same = (values[0, upper] == values[1, lower]) & (values[0, upper] >= 0)
        pairs.append(np.stack([numbers[0, upper][same], numbers[1, lower][same]], axis=1))
    return np.concatenate(pairs).astype(np.int64)


def _merge(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each number from 0 to `count` the number of its whole region; 0 stays, the others keep their order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.uint8), (pairs[:, 0], pairs[:, 1])), shape=(count + 1, count + 1))
    _, parts = connected_components(graph, directed=False)
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    merged: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse].astype(np.int64)
    return merged


def _locate(objects: Objects) -> Generator[None, None, None]:
    """Fill in the boxes."""
    boxes = np.zeros((len(objects) + 1, 4), np.int64)
    boxes[:, :2] = max(objects.shape)
    for rows in bands(objects.shape):
        present, local = np.unique(objects.read(rows, slice(None)), return_inverse=True)
        spans = ndimage.find_objects(local.reshape(-1, objects.shape[1]) + 1)
        for number, (y, x) in zip(present, spans, strict=True):
            box = boxes[number]
            box[:] = min(box[0], rows.start + y.start), min(box[1], x.start), rows.start + y.stop, max(box[3], x.stop)
        yield
    boxes[0] = 0
    objects.boxes = boxes


# --------------------------------------------------------------------------------------------------------------- holes


def _fill_holes(objects: Objects, scratch: Callable[[str, tuple[int, int], Any], Any]) -> Generator[None, None, None]:
    """Give background that touches one object alone, and not the border of the plane, to that object."""
    holes = scratch("holes", objects.shape, np.uint32)

    def background(rows: slice) -> NDArray[np.int32]:
        return np.where(objects.read(rows, slice(None)) == 0, 0, -1).astype(np.int32)

    merged, sizes, _ = yield from _number(background, holes, 1)
    lowest, highest = np.full(len(sizes), np.iinfo(np.int64).max), np.zeros(len(sizes), np.int64)
    height = objects.shape[0]
    for rows in bands(objects.shape):
        seen = slice(max(rows.start - 1, 0), rows.stop)  # with the last row above, which touches the first
        hole, number = merged[np.asarray(holes[seen])], objects.read(seen, slice(None)).astype(np.int64)
        for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
            for a, b in ((first, second), (second, first)):
                beside = (hole[a] > 0) & (number[b] > 0)
                np.minimum.at(lowest, hole[a][beside], number[b][beside])
                np.maximum.at(highest, hole[a][beside], number[b][beside])
        open_ = [hole[:, 0], hole[:, -1]]
        open_ += [hole[0]] if rows.start == 0 else []
        open_ += [hole[-1]] if rows.stop == height else []
        lowest[np.concatenate(open_)] = 0
        yield
    owners = np.where(lowest == highest, highest, 0)
    owners[0] = 0
    part = np.zeros(len(objects) + 1, np.uint32)  # a provisional number of each object
    part[objects.table[::-1]] = np.arange(len(objects.table), dtype=np.uint32)[::-1]
    part[0] = 0
    for rows in bands(objects.shape):
        filled = part[owners[merged[np.asarray(holes[rows])]]]
        if filled.any():
            objects.provisional[rows] = np.where(filled > 0, filled, np.asarray(objects.provisional[rows]))
        yield


# ------------------------------------------------------------------------------------------------------------- cutting


def _cut(objects: Objects, probability: Any, options: ObjectOptions) -> Generator[None, None, None]:
    """Cut every region apart, a window at a time; region by region, so that windows do not show."""
    old = objects.table
    parents: list[int] = []  # region of each new piece
    fresh = len(old)
    for window, numbers in windows(objects.boxes):
        found, likely = objects.only(window, numbers), np.asarray(probability[window])
        provisional = np.asarray(objects.provisional[window])
        corner = np.array([window[0].start, window[1].start])
        changed = False
        for local, number in enumerate(numbers, start=1):
            (top, left), (bottom, right) = objects.boxes[number, :2] - corner, objects.boxes[number, 2:] - corner
            place = np.s_[top:bottom, left:right]
            pieces = cut_apart(found[place] == local, likely[place], options.distance, options.min_size)
            count = int(pieces.max())
            if count > 1:
                shifted = (pieces + np.uint32(fresh - 2)).astype(np.uint32)  # piece 2 has the first new number
                np.copyto(provisional[place], shifted, where=pieces > 1)
                parents += [int(number)] * (count - 1)
                fresh += count - 1
                changed = True
        if changed:
            objects.provisional[window] = provisional
            # until all are cut a piece is read as its region, by windows that overlap this one
            objects.table = np.concatenate([old, np.array(parents, np.uint32)])
        yield
    _renumber(objects, old, np.array(parents, np.int64))
    objects.uncut = int(is_giant(objects.boxes).sum())


def _renumber(objects: Objects, old: Numbers, parents: NDArray[np.int64]) -> None:
    """Put each new piece behind the rest of its region; `old` is the table without them."""
    extra = np.bincount(parents, minlength=len(objects) + 1)
    first = np.arange(len(objects) + 1) + np.concatenate([[0], np.cumsum(extra)[:-1]])  # new number of each region's rest
    order = np.argsort(parents, kind="stable")
    pieces = np.empty(len(parents), np.int64)
    before = np.concatenate([[0], np.cumsum(extra)[:-1]])[parents[order]]
    pieces[order] = first[parents[order]] + 1 + np.arange(len(parents)) - before
    objects.table = np.concatenate([first[old], pieces]).astype(np.uint32)
    classes = np.empty(len(objects) + 1 + len(parents), objects.classes.dtype)
    classes[first], classes[pieces] = objects.classes, objects.classes[parents]
    objects.classes = classes
