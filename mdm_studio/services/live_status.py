"""The state of a live session in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mdm_studio.services.live_plan import (
    MOST_TILES,
    Extract,
    Facts,
    Intent,
    Learn,
    Predict,
    Prepare,
    Stage,
    Task,
    Tile,
    tiles_in_view,
)


@dataclass(frozen=True)
class Status:
    """Everything that a status line says.

    Attributes
    ----------
    text : str
        In words.
    busy : bool
        Whether something is being computed.
    tiles_done, tiles_in_view : int
        Of what is being computed now: features, or the picture.
    painted : int
        Painted pixels.
    loss : float or None
        Mean over members, the last one in training.
    seconds : float or None
        From the last stroke to its exact picture, once that is there.
    updated_at : float or None
        `time.perf_counter` of the last change of the picture.
    error : str or None
        What went wrong last, if it has not been put right.
    device : str
        Where the backbone runs.
    """

    text: str = "starting"
    busy: bool = False
    tiles_done: int = 0
    tiles_in_view: int = 0
    painted: int = 0
    loss: float | None = None
    seconds: float | None = None
    updated_at: float | None = None
    error: str | None = None
    device: str = ""


@dataclass(frozen=True)
class Doing:
    """What a status is made of, beside intent and facts."""

    running: Collection[Task] = ()
    loading: str = ""
    images: int = 0
    painted: int = 0
    classes: int = 0
    live: bool = True
    loss: float | None = None
    seconds: float | None = None
    updated_at: float | None = None
    error: str | None = None
    device: str = ""
    showing: str = ""  # what is shown instead of the ensemble
    beside: str = ""  # what is being done while nothing in view waits
    names: Mapping[str, str] = field(default_factory=dict)  # of images, by key


def status_of(intent: Intent, facts: Facts, doing: Doing) -> Status:
    """What there is to say."""
    in_view = [
        Tile(key, *place)
        for key, view in intent.views.items()
        if key in facts.grids
        for place in tiles_in_view(view, facts.grids[key])
    ]
    text, done = _words(intent, facts, doing, in_view)
    if doing.error:
        text = doing.error
    busy = bool(doing.running) or bool(doing.loading)
    return Status(
        text, busy, done, len(in_view), doing.painted, doing.loss, doing.seconds, doing.updated_at, doing.error, doing.device
    )


def _words(intent: Intent, facts: Facts, doing: Doing, in_view: list[Tile]) -> tuple[str, int]:
    """What is going on, and the tiles in view that have it behind them."""
    head = facts.head
    ready = sum(max(facts.maps.get(t, Stage.NONE), facts.stored.get(t, Stage.NONE)) is Stage.ALL for t in in_view)
    drawn = sum((made := facts.made.get(t)) is not None and head is not None and made.head == head.number for t in in_view)
    if doing.loading or not doing.images:
        return doing.loading or "choose an image", 0
    if intent.paused:
        return "stopped; the next stroke, or Update once, goes on", drawn
    kinds = {type(task) for task in doing.running}
    if Learn in kinds:
        loss = "" if doing.loss is None else f", loss {doing.loss:.3f}"
        return f"learning from {doing.painted:,} painted pixels{loss}", drawn
    if Predict in kinds and drawn < len(in_view):
        return f"drawing: {drawn} of {len(in_view)} tiles in view", drawn
    extracted = next((task.tile.plane.image for task in doing.running if isinstance(task, Extract)), None)
    if extracted is not None and not in_view:  # the screen shows none of it, or has not told yet
        return f"computing features of {doing.names.get(extracted, extracted)}", 0
    if extracted is not None:
        beyond = " (now those around it)" if ready == len(in_view) else ""
        return f"computing features: {ready} of {len(in_view)} tiles in view{beyond}", ready
    opened = next((task.plane.image for task in doing.running if isinstance(task, Prepare)), None)
    if opened is not None:
        return f"opening {opened}", ready
    return _at_rest(intent, facts, doing, in_view), drawn


def _at_rest(intent: Intent, facts: Facts, doing: Doing, in_view: list[Tile]) -> str:
    """What there is to say when nothing is being computed."""
    head = facts.head
    if doing.beside or doing.showing:
        return doing.beside or f"showing {doing.showing}"
    if head is not None and head.loaded and head.labels == intent.labels:
        return "showing the classifier that was loaded"
    if doing.classes < 2:
        return f"ready: paint a few strokes of at least two classes ({doing.classes} painted so far)"
    if not doing.live and (head is None or head.labels != intent.labels):
        return "there are strokes that are not learnt yet: press Update once"
    if len(in_view) >= MOST_TILES:
        return f"the {MOST_TILES} tiles nearest to the centre are up to date; zoom in for the others"
    after = "" if doing.seconds is None else f", {doing.seconds:.1f} s after the last stroke"
    return f"up to date: {doing.painted:,} painted pixels{after}"
