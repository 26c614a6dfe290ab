"""What a live session does next: a pure function from what the user wants and what is there to an ordered list of tasks.

It knows no thread, no clock, no pixels. Whoever runs the tasks asks again after each, so the plan never grows stale: a newer
stroke or another view simply gives another list.

The order serves the eye. A stroke first gives a preview of everything in view (few members, every fourth pixel that the screen
shows), then an exact fit, then the exact picture, tile by tile from the centre outwards. Features come in stages: the
filter bank, which is quick, and then the backbone; tiles with strokes go before others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

from mdm_studio.engine.tiles import TileGrid

PREVIEW = 4
"""A preview looks at every fourth of the pixels, along each side, that the exact picture has."""
COARSE = 4
"""Finest step of a preview in image pixels: what the features of a tile are kept ready for."""
MOST_TILES = 128
"""Tiles nearest to the centre of a view that are computed; of a whole slide at once there would be thousands."""
WHOLE_IMAGE = 16
"""Images of up to so many tiles are computed beyond the view too, when nothing else is to be done."""
_COARSEST = 64  # step of the coarsest picture: previews then have a few pixels a tile
_ROUND = 32  # windows start and end at multiples of it, so that panning a little changes nothing


class Stage(IntEnum):
    """Which features of a tile are at hand."""

    NONE = 0
    FILTERS = 1
    ALL = 2


class PlaneKey(NamedTuple):
    """One plane of one image; `plane` counts along the last axis of the stack first."""

    image: str
    plane: int


class Tile(NamedTuple):
    """One tile of a plane's grid."""

    plane: PlaneKey
    row: int
    col: int


class Window(NamedTuple):
    """A rectangle of image pixels, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> slice:
        """As a slice."""
        return slice(self.top, self.bottom)

    @property
    def cols(self) -> slice:
        """As a slice."""
        return slice(self.left, self.right)

    @property
    def empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.bottom <= self.top or self.right <= self.left

    def within(self, other: Window) -> bool:
        """Whether `other` covers it."""
        inside_rows = other.top <= self.top and self.bottom <= other.bottom
        return inside_rows and other.left <= self.left and self.right <= other.right

    def cut(self, other: Window) -> Window:
        """The part that `other` covers too."""
        return Window(
            max(self.top, other.top), min(self.bottom, other.bottom), max(self.left, other.left), min(self.right, other.right)
        )


@dataclass(frozen=True)
class View:
    """What the screen shows of a plane.

    Attributes
    ----------
    rows, cols : slice
        In image pixels; may reach beyond the image.
    pixel : float
        Image pixels a screen pixel, along each side.
    """

    rows: slice
    cols: slice
    pixel: float = 1.0

    @property
    def step(self) -> int:
        """Every how many-th image pixel the screen can show: a power of two, 1 to 64."""
        return min(1 << math.floor(math.log2(max(self.pixel, 1.0)) + 1e-6), _COARSEST)


@dataclass(frozen=True)
class Head:
    """A trained ensemble.

    Attributes
    ----------
    number : int
        Grows from head to head.
    labels : int
        Generation of the strokes it has learnt.
    stage, needs : Stage
        Features it reads, and the least it can draw a preview from (members that read the filters alone).
    tiles : frozenset
        Those whose strokes it has learnt.
    converged : bool
        Trained to the end.
    loaded : bool
        From a file: no stroke has touched it.
    """

    number: int
    labels: int
    stage: Stage
    needs: Stage
    tiles: frozenset[Tile] = frozenset()
    converged: bool = False
    loaded: bool = False


@dataclass(frozen=True)
class Made:
    """The picture of a tile: of which head, at which step, where, and whether smoothed across the borders of tiles."""

    head: int
    step: int
    window: Window
    final: bool = False


@dataclass(frozen=True)
class Intent:
    """What the user wants.

    Attributes
    ----------
    views : mapping
        What the screen shows, plane by plane.
    learn : bool
        Strokes that no head knows are to be learnt.
    labels : int
        Generation of the strokes.
    strokes : mapping
        Classes painted in each tile that has strokes, of the planes that are prepared.
    painted : collection
        All planes that have strokes, shown or not: they are prepared after those in view.
    stages : tuple of Stage
        The stages in which features come, see `Stage`; only the last reads everything.
    margin : int
        Pixels around the view that its picture depends on.
    paused : bool
        Nothing is to be done.
    beyond : bool
        Small images are computed beyond the view too.
    """

    views: Mapping[PlaneKey, View] = field(default_factory=dict)
    learn: bool = True
    labels: int = 0
    strokes: Mapping[Tile, frozenset[int]] = field(default_factory=dict)
    painted: Collection[PlaneKey] = ()
    stages: tuple[Stage, ...] = (Stage.ALL,)
    margin: int = 0
    paused: bool = False
    beyond: bool = True


@dataclass(frozen=True)
class Facts:
    """What is there.

    Attributes
    ----------
    grids : mapping
        Tiles of the planes that are prepared.
    maps, coarse : mapping
        Features in memory: whole, and at every fourth pixel (which is kept longer, being a small part of it).
    stored : mapping
        Features in the cache on disk.
    sampled : mapping
        Features of the strokes of a tile, gathered and up to date.
    made : mapping
        Pictures of tiles.
    head : Head or None
        The newest.
    broken : collection
        Tiles and planes whose computation failed; they are left alone until the user retries.
    """

    grids: Mapping[PlaneKey, TileGrid] = field(default_factory=dict)
    maps: Mapping[Tile, Stage] = field(default_factory=dict)
    coarse: Mapping[Tile, Stage] = field(default_factory=dict)
    stored: Mapping[Tile, Stage] = field(default_factory=dict)
    sampled: Mapping[Tile, Stage] = field(default_factory=dict)
    made: Mapping[Tile, Made] = field(default_factory=dict)
    head: Head | None = None
    broken: Collection[Tile | PlaneKey] = frozenset()


@dataclass(frozen=True)
class Prepare:
    """Open a plane: its grid, its place in the cache, its strokes."""

    plane: PlaneKey


@dataclass(frozen=True)
class Extract:
    """Bring the features of a tile into memory, from the cache or by computing them."""

    tile: Tile
    stage: Stage


@dataclass(frozen=True)
class Learn:
    """Train on the strokes of `tiles`: a short slice from where the last head stands or, if `converge`, anew and to the end."""

    labels: int
    stage: Stage
    tiles: frozenset[Tile]
    converge: bool


@dataclass(frozen=True)
class Predict:
    """Draw a window of a tile."""

    tile: Tile
    head: int
    step: int
    window: Window
    preview: bool


@dataclass(frozen=True)
class Settle:
    """Smooth the exact picture of a view across the borders of its tiles."""

    plane: PlaneKey
    head: int
    step: int
    window: Window


Task = Prepare | Extract | Learn | Predict | Settle


def plan(intent: Intent, facts: Facts) -> tuple[Task, ...]:
    """What is to be done, the most urgent first; empty when everything is up to date."""
    if intent.paused:
        return ()
    return tuple(dict.fromkeys(task for task in _tasks(intent, facts) if not _is_broken(task, facts.broken)))


def _tasks(intent: Intent, facts: Facts) -> Iterator[Task]:
    shown = {key: tiles_in_view(view, facts.grids[key]) for key, view in intent.views.items() if key in facts.grids}
    in_view = [Tile(key, *place) for key, places in shown.items() for place in places]
    strokes = [tile for tile in intent.strokes if tile.plane in facts.grids]
    strokes.sort(key=lambda tile: tile.plane not in intent.views)  # what is looked at goes before what is not shown
    head = facts.head
    planes = dict.fromkeys([*intent.views, *sorted(intent.painted)])
    yield from (Prepare(key) for key in planes if key not in facts.grids)
    wanted = learnable(intent, facts) if intent.learn else None
    current = head if head is not None and (wanted is None or _knows(head, wanted)) else None
    if wanted and not current:
        yield wanted
    elif current and not current.converged:
        yield from _pictures(intent, facts, in_view, current, exact=False)
    if Stage.FILTERS in intent.stages:
        yield from _of_strokes(facts, strokes, Stage.FILTERS)
        yield from _of_view(intent, facts, in_view, Stage.FILTERS)
    if wanted and current and not current.converged:
        yield replace(wanted, converge=True)
    yield from _of_strokes(facts, strokes, Stage.ALL)
    if current and current.converged:
        yield from _pictures(intent, facts, in_view, current, exact=True)
        yield from _settling(intent, facts, current)
    yield from _of_view(intent, facts, in_view, Stage.ALL)
    small = [key for key in shown if intent.beyond and len(facts.grids[key]) <= WHOLE_IMAGE]
    rest = [Tile(key, *place) for key in small for place in facts.grids[key]]
    yield from (Extract(tile, Stage.ALL) for tile in rest if _stored(facts, tile) < Stage.ALL)
    if current and current.converged:
        yield from _around(intent, facts, [tile for tile in rest if tile not in in_view], current)


def learnable(intent: Intent, facts: Facts) -> Learn | None:
    """What can be learnt now: on the stage at hand that covers most of the painted classes; None if none covers two."""
    best: Learn | None = None
    most = 1
    for stage in reversed(intent.stages):
        tiles = frozenset(tile for tile in intent.strokes if _at_hand(tile, facts) >= stage)
        classes = len(frozenset[int]().union(*(intent.strokes[tile] for tile in tiles)))
        if classes > most:
            best, most = Learn(intent.labels, stage, tiles, converge=False), classes
    return best


def _at_hand(tile: Tile, facts: Facts) -> Stage:
    return max(facts.maps.get(tile, Stage.NONE), facts.sampled.get(tile, Stage.NONE))


def _stored(facts: Facts, tile: Tile) -> Stage:
    return max(facts.maps.get(tile, Stage.NONE), facts.stored.get(tile, Stage.NONE))


def _knows(head: Head | None, wanted: Learn) -> bool:
    if head is None:
        return False
    same = (head.labels, head.stage, head.tiles) == (wanted.labels, wanted.stage, wanted.tiles)
    return same or (head.loaded and head.labels == wanted.labels)


def _is_broken(task: Task, broken: Collection[Tile | PlaneKey]) -> bool:
    if isinstance(task, Prepare):
        return task.plane in broken
    return isinstance(task, Extract | Predict) and task.tile in broken


def _of_strokes(facts: Facts, tiles: Iterable[Tile], stage: Stage) -> Iterator[Extract]:
    """Features that the strokes still need: once gathered, the maps may be forgotten."""
    return (Extract(tile, stage) for tile in tiles if _at_hand(tile, facts) < stage)


def _of_view(intent: Intent, facts: Facts, tiles: Iterable[Tile], stage: Stage) -> Iterator[Extract]:
    """Features that the picture still needs, or that are nowhere; those of an up-to-date picture may be forgotten."""
    for tile in tiles:
        step = intent.views[tile.plane].step
        in_memory = _in_memory(facts, tile, step if stage is Stage.ALL else COARSE)  # the filters alone serve previews
        if in_memory >= stage:
            continue
        made, head = facts.made.get(tile), facts.head
        enough = step if stage is Stage.ALL else preview_step(intent.views[tile.plane])
        drawn = head is None or (made is not None and made.head == head.number and made.step <= enough)
        if not drawn or _stored(facts, tile) < stage:
            yield Extract(tile, stage)


def _in_memory(facts: Facts, tile: Tile, step: int) -> Stage:
    return (facts.maps if step < COARSE else facts.coarse).get(tile, Stage.NONE)


def _pictures(intent: Intent, facts: Facts, tiles: Iterable[Tile], head: Head, *, exact: bool) -> Iterator[Predict]:
    for tile in tiles:
        view = intent.views[tile.plane]
        full = exact and _in_memory(facts, tile, view.step) >= head.stage
        if not full and facts.coarse.get(tile, Stage.NONE) < head.needs:
            continue
        step = view.step if full else preview_step(view)
        window = window_of(tile, view, facts.grids[tile.plane], intent.margin)
        made = facts.made.get(tile)
        fresh = made is not None and made.head == head.number and made.step <= step and window.within(made.window)
        if not fresh and not window.empty:
            yield Predict(tile, head.number, step, window, preview=not full)


def _around(intent: Intent, facts: Facts, tiles: Iterable[Tile], head: Head) -> Iterator[Predict]:
    """Rough pictures beyond the view, by which the next stroke can be suggested."""
    for tile in tiles:
        made = facts.made.get(tile)
        if facts.coarse.get(tile, Stage.NONE) >= head.needs and (made is None or made.head != head.number):
            rows, cols = facts.grids[tile.plane].core(tile.row, tile.col)
            window = Window(rows.start, rows.stop, cols.start, cols.stop)
            yield Predict(tile, head.number, preview_step(intent.views[tile.plane]), window, preview=True)


def _settling(intent: Intent, facts: Facts, head: Head) -> Iterator[Settle]:
    if not intent.margin:
        return
    for key, view in intent.views.items():
        if key not in facts.grids:
            continue
        grid = facts.grids[key]
        made = [facts.made.get(Tile(key, *place)) for place in tiles_in_view(view, grid)]
        ready = [m for m in made if m and m.head == head.number and m.step == view.step]
        if ready and len(ready) == len(made) and not all(m.final for m in ready):
            yield Settle(key, head.number, view.step, view_window(view, grid, intent.margin))


def preview_step(view: View) -> int:
    """Step of a preview in image pixels."""
    return max(COARSE, PREVIEW * view.step)


def view_window(view: View, grid: TileGrid, margin: int) -> Window:
    """What the picture of a view depends on: whole steps of the preview, `margin` pixels around it included.

    It ends at the last tile that is in view itself: for sixteen pixels around the view no further tile is computed.
    """
    inner, (height, width) = _whole_steps(view, grid, 0), grid.tile
    seen = Window(
        inner.top // height * height,
        -(-inner.bottom // height) * height,
        inner.left // width * width,
        -(-inner.right // width) * width,
    )
    return _whole_steps(view, grid, margin).cut(seen)


def _whole_steps(view: View, grid: TileGrid, margin: int) -> Window:
    whole = max(_ROUND, preview_step(view))
    return Window(*_widened(view.rows, margin, whole, grid.height), *_widened(view.cols, margin, whole, grid.width))


def _widened(span: slice, margin: int, whole: int, size: int) -> tuple[int, int]:
    start, stop = max(span.start - margin, 0), min(span.stop + margin, size)
    return min(start // whole * whole, size), max(min(-(-stop // whole) * whole, size), 0)


def window_of(tile: Tile, view: View, grid: TileGrid, margin: int) -> Window:
    """The part of a tile that a view needs."""
    rows, cols = grid.core(tile.row, tile.col)
    return view_window(view, grid, margin).cut(Window(rows.start, rows.stop, cols.start, cols.stop))


def tiles_in_view(view: View, grid: TileGrid) -> list[tuple[int, int]]:
    """Tiles that a view touches, the one at its centre first, then outwards; at most `MOST_TILES`."""
    window = _whole_steps(view, grid, 0)
    if window.empty:
        return []
    (height, width) = grid.tile
    centre = ((view.rows.start + view.rows.stop) / 2 / height - 0.5, (view.cols.start + view.cols.stop) / 2 / width - 0.5)
    places = [
        (row, col)
        for row in range(window.top // height, -(-window.bottom // height))
        for col in range(window.left // width, -(-window.right // width))
    ]
    return sorted(places, key=lambda at: (at[0] - centre[0]) ** 2 + (at[1] - centre[1]) ** 2)[:MOST_TILES]
