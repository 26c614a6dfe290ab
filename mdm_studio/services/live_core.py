"""The machinery of a live session: who works on what, and what becomes of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.config import DEFAULT_BACKBONE, SMOOTH
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import Plane
from mdm_studio.services.crew import Crew, Job
from mdm_studio.services.live_plan import (
    Extract,
    Facts,
    Head,
    Intent,
    Learn,
    PlaneKey,
    Predict,
    Prepare,
    Settle,
    Stage,
    Task,
    Tile,
    View,
    Window,
    plan,
    tiles_in_view,
)
from mdm_studio.services.live_status import Doing, Status, status_of
from mdm_studio.services.pictures import Picture
from mdm_studio.services.strokes import StrokeIndex
from mdm_studio.services.suggestions import Suggestion

if TYPE_CHECKING:  # torch is imported by the session's own threads: a window that opens does not wait for it
    from mdm_studio.engine.backbones import Backbone
    from mdm_studio.services.live_work import Bench, Drawing

log = logging.getLogger(__name__)

MEMORY = 2 << 30
"""Bytes of features kept in memory by default."""
Role = Literal["head", "features"]
_ROLES: tuple[Role, Role] = ("head", "features")
_STATUS_SECONDS = 0.1


@dataclass(frozen=True)
class LiveSettings:
    """What is read; None, or no `noise`, leaves it to the backbone. `n_blocks` is known once the backbone is loaded."""

    backbone: str = DEFAULT_BACKBONE
    blocks: tuple[int, ...] | None = None
    timesteps: tuple[int, ...] | None = None
    scales: tuple[int, ...] | None = None
    filters: bool | None = None
    smooth: int = SMOOTH
    device: str = "auto"
    n_blocks: int | None = None
    noise: str = ""


@dataclass
class LiveImage:
    """An open image: its pixels, the array of its labels, and its pictures by output."""

    key: str
    source: ArrayImage
    labels: Any
    pictures: dict[str, Picture] = field(default_factory=dict)

    def index(self, plane: int) -> tuple[int, ...]:
        """Place of a plane in the stack."""
        return tuple(int(i) for i in np.unravel_index(plane, self.source.stack_shape)) if self.source.stack_shape else ()

    def number(self, index: Sequence[int]) -> int:
        """Number of a plane, along the last axis of the stack first."""
        return int(np.ravel_multi_index(tuple(index), self.source.stack_shape)) if self.source.stack_shape else 0

    def read_labels(self, plane: int, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Labels ``(h, w)`` of a window, a copy."""
        values: NDArray[np.unsignedinteger[Any]] = np.array(self.labels[(*self.index(plane), window.rows, window.cols)])
        return values

    def write_labels(self, plane: int, window: Window, values: NDArray[Any]) -> None:
        """Write labels ``(h, w)`` into the array that the viewer shows."""
        self.labels[(*self.index(plane), window.rows, window.cols)] = values


class LiveCore:
    """Threads and tasks of a live session; `LiveErrands` adds the errands, `mdm_studio.services.session.Session` the verbs.

    An errand is a small job that comes before all tasks: taking over strokes, loading a backbone. A job beside (the explorer,
    the advisor) is a generator; a step of it is done whenever nothing in view waits.
    """

    status_changed = Signal(Status)
    settings_changed = Signal(LiveSettings)
    picture_changed = Signal(str, str)
    labels_rewritten = Signal(str)
    labels_absorbed = Signal(str, int, Window)
    suggested = Signal(Suggestion)
    failed = Signal(str)
    noticed = Signal(str)
    updated = Signal(str, float)
    jobs_changed = Signal(frozenset)

    def __init__(self, cache: FeatureCache | None, memory: int, settings: LiveSettings, live: bool) -> None:
        self.settings, self.live = settings, live
        self.images: dict[str, LiveImage] = {}
        self.status = Status()
        self.strokes = StrokeIndex()
        self.bench: Bench | None = None
        self._cache, self._memory = cache, memory
        self._lock = threading.RLock()
        self._tasking = threading.Lock()
        self._backbone: Backbone | None = None
        self._views: dict[PlaneKey, View] = {}
        self._errands: dict[Role, deque[Job]] = {role: deque() for role in _ROLES}
        self._running: dict[Role, Task | None] = dict.fromkeys(_ROLES)
        self._jobs: dict[str, Iterator[object]] = {}
        self._earlier: list[Suggestion] = []
        self._paused = self._once = self._closed = False
        self._loading, self._error, self._beside = "", "", ""
        self._unlearnable = -1  # generation of strokes that could not be learnt
        self._stroke_at: float | None = None
        self._told: dict[str, tuple[int, int]] = {}  # generation of strokes, and bench, whose preview or picture was announced
        self._seconds: float | None = None
        self._updated_at: float | None = None
        self._loss: float | None = None
        self._status_at = 0.0
        self._crew = Crew(_ROLES, self._next_job)

    # ---- what is wanted, what is there -------------------------------------------------------------------------------

    def _intent(self, bench: Bench) -> Intent:
        with self._lock:
            generation = self.strokes.generation
            views, paused = dict(self._views), self._paused
            if bench.fixed is not None:
                return Intent(views, False, generation, margin=bench.margin, paused=paused, beyond=bench.last)
            learn = (self.live or self._once) and self._unlearnable != generation
            grids = {key: source.grid for key, source in bench.planes.items()}
            strokes = self.strokes.by_tile(grids)
            painted = {key for key in self.strokes.planes() if key.image in self.images}
            return Intent(views, learn, generation, strokes, painted, bench.stages, bench.margin, paused)

    @property
    def views(self) -> dict[PlaneKey, View]:
        """What the screen shows."""
        with self._lock:
            return dict(self._views)

    def plane(self, key: PlaneKey) -> Plane:
        """Raw pixels of a plane."""
        image = self.images[key.image]
        return image.source.plane(image.index(key.plane))

    def _go_on(self) -> None:
        self._paused = False
        self._crew.wake()

    # ---- the threads -------------------------------------------------------------------------------------------------

    def _send(self, role: Role, errand: Job) -> None:
        self._errands[role].append(errand)
        self._crew.wake()

    def _next_job(self, role: str) -> Job | None:
        mine: Role = "head" if role == "head" else "features"
        if self._closed:
            return None
        if self._errands[mine]:
            errand = self._errands[mine].popleft()
            return lambda: self._do_errand(errand)
        with self._tasking:  # the two threads choose one after the other, so that they never take the same task
            bench = self.bench
            task = self._choose_task(mine, bench) if bench else None
            self._running[mine] = task
        if bench and task:
            chosen = task
            return lambda: self._do(mine, bench, chosen)
        if mine == "features" and self._jobs and not self._paused:
            return self._step_of_job()
        if mine == "head" and not any(self._running.values()) and not any(self._errands.values()):
            self._once = False  # whatever `update_once` asked for is done
        self._tell(always=True)
        return None

    def _choose_task(self, role: Role, bench: Bench) -> Task | None:
        other = self._running["features" if role == "head" else "head"]
        for task in plan(self._intent(bench), bench.facts()):
            if not _clashes(task, other) and _suits(role, task, bench) and not self._is_stale(bench, task):
                return task
        return None

    def _do_errand(self, errand: Job) -> None:
        self._guarded(errand, ())
        self._crew.wake()

    def _do(self, role: Role, bench: Bench, task: Task) -> None:
        self._tell()
        learnt = bench.head.facts.number if bench.head else 0
        stale = partial(self._is_stale, bench, task)
        self._guarded(lambda: bench.carry_out(task, stale, self._report_loss, head=role == "head"), (task,))
        while bench.kinds.words:
            self.noticed.emit(bench.kinds.words.pop(0))
        if bench.head and bench.head.facts.number != learnt:
            self._loss = bench.head.loss
            if bench.head.facts.converged and bench.head.facts.labels == self.strokes.generation:
                self._once = False
        self._running[role] = None
        self._crew.wake()
        if isinstance(task, Predict | Settle):
            self._updated_at = time.perf_counter()
            self._announce()
        self._tell()

    def _guarded(self, job: Job, tasks: Sequence[Task]) -> None:
        """Do a job; whatever goes wrong is told, and its task is left alone until the user retries."""
        try:
            job()
        except Exception as error:  # the one place that drives jobs: the session lives on
            if self._closed or (self._paused and isinstance(error, InterruptedError)) or self._is_of_closed_image(tasks):
                return
            if not isinstance(error, MDMStudioError):
                log.exception("live work failed")
            with self._lock:
                self._error = str(error) if isinstance(error, MDMStudioError) else f"{type(error).__name__}: {error}"
                for task in tasks:
                    if isinstance(task, Learn):
                        self._unlearnable = task.labels
                    elif self.bench:
                        self.bench.broken.add(task.plane if isinstance(task, Prepare | Settle) else task.tile)
            self.failed.emit(self._error)
            self._tell(always=True)

    def _is_of_closed_image(self, tasks: Sequence[Task]) -> bool:
        planes = (
            task.tile.plane if isinstance(task, Extract | Predict) else task.plane
            for task in tasks
            if not isinstance(task, Learn)
        )
        return any(plane.image not in self.images for plane in planes)

    def _is_stale(self, bench: Bench, task: Task) -> bool:
        """Whether a task that is being done is not wanted any more."""
        if self._closed or self._paused or bench is not self.bench:
            return True
        stroke = bool(self._errands["head"])  # one more is waiting to be taken over
        if isinstance(task, Learn):
            return stroke or task.labels != self.strokes.generation
        if isinstance(task, Predict):
            view, head = self._views.get(task.tile.plane), bench.head
            gone = view is None or view.step > task.step
            return stroke or gone or head is None or head.facts.number != task.head
        return False

    def _report_loss(self, loss: float) -> None:
        self._loss = loss
        self._tell()

    def run_job(self, name: str, steps: Iterator[object]) -> None:
        """Run a generator on the features' thread, a step whenever nothing in view waits; it replaces one of that name."""
        with self._lock:
            self._jobs.pop(name, None)  # so that it comes before those that were started earlier
            self._jobs[name] = steps
        self.jobs_changed.emit(frozenset(self._jobs))
        self._go_on()

    def _step_of_job(self) -> Job | None:
        with self._lock:
            if not self._jobs:  # stopped just now
                return None
            name, steps = next(reversed(self._jobs.items()))  # what was asked for last

        def step() -> None:
            try:
                next(steps)
            except StopIteration:
                self._drop_job(name, steps)
            except MDMStudioError:
                self._drop_job(name, steps)
                raise

        return lambda: self._guarded(step, ())

    def _drop_job(self, name: str, steps: Iterator[object]) -> None:
        with self._lock:
            if self._jobs.get(name) is steps:
                del self._jobs[name]
        self.jobs_changed.emit(frozenset(self._jobs))

    # ---- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._closed or (not always and now - self._status_at < _STATUS_SECONDS):
            return
        self._status_at = now
        bench = self.bench
        counts = self.strokes.counts()
        doing = Doing(
            running=tuple(task for task in self._running.values() if task),
            loading=self._loading,
            images=len(self.images),
            painted=sum(counts.values()),
            classes=len(counts),
            live=self.live,
            loss=self._loss,
            seconds=self._seconds,
            updated_at=self._updated_at,
            error=self._error or None,
            device=str(self._backbone.device) if self._backbone else "",
            showing="the fine-tuned network" if bench and bench.fixed else "",
            beside=self._beside,
            names={key: image.source.name for key, image in list(self.images.items())},
        )
        intent, facts = (self._intent(bench), bench.facts()) if bench else (Intent(), Facts())
        status = status_of(intent, facts, doing)
        if status != self.status:
            self.status = status
            self.status_changed.emit(status)

    @property
    def up_to_date(self) -> str:
        """``exact`` or ``preview`` if everything in view shows the newest strokes, and how; else empty."""
        bench = self.bench
        if bench is None or any(self._errands.values()) or not self.views:
            return ""
        facts = bench.facts()
        head = facts.head
        if head is None or (head.labels != self.strokes.generation and bench.fixed is None):
            return ""
        return _completeness(facts, head, self.views, bench.margin)

    def _announce(self) -> None:
        """Say that everything in view shows the newest strokes, the first time that it does."""
        kind, what = self.up_to_date, (self.strokes.generation, id(self.bench))
        if kind and self._told.get(kind) != what:
            self._told[kind] = what
            seconds = time.perf_counter() - self._stroke_at if self._stroke_at else 0.0
            if kind == "exact":
                self._seconds = seconds if self._stroke_at else None
                if self.bench and not self.bench.broken:
                    self._error = ""
            self.updated.emit(kind, seconds)

    def show(self, drawing: Drawing) -> None:
        """Write a drawing into the pictures that are wanted."""
        image = self.images.get(drawing.plane.image)
        if image is None or self._closed:
            return
        for output, picture in list(image.pictures.items()):
            values = _output(drawing, output)
            if values is not None:
                picture.draw(drawing.plane.plane, drawing.window, drawing.step, values)
                self.picture_changed.emit(image.key, output)


def _clashes(task: Task, other: Task | None) -> bool:
    """Whether a task must wait for what the other thread is doing."""
    if other is None:
        return False
    if (isinstance(task, Extract) and isinstance(other, Extract)) or (isinstance(task, Predict) and isinstance(other, Predict)):
        return task.tile == other.tile
    if isinstance(task, Settle) or isinstance(other, Settle):
        return isinstance(other, Predict) or isinstance(task, Predict)
    return task == other or (isinstance(task, Learn) and isinstance(other, Learn))


def _suits(role: Role, task: Task, bench: Bench) -> bool:
    """The head must be free to answer a stroke within moments: it never computes a network's features."""
    if isinstance(task, Learn | Settle):
        return role == "head"
    if isinstance(task, Extract):
        return role == "features" or bench.is_quick(task)
    return True


def _completeness(facts: Facts, head: Head, views: Mapping[PlaneKey, View], margin: int) -> str:
    """``exact`` or ``preview``: what everything in view shows of a head; empty if not everything does."""
    exact = head.converged and head.stage is Stage.ALL  # a head of the filters alone answers until the network's are there
    for key, view in views.items():
        if key not in facts.grids:
            return ""
        for place in tiles_in_view(view, facts.grids[key]):
            made = facts.made.get(Tile(key, *place))
            if made is None or made.head != head.number:
                return ""
            exact = exact and made.step <= view.step and (made.final or not margin)
    return "exact" if exact else "preview"


def _output(drawing: Drawing, output: str) -> NDArray[Any] | None:
    if output == "prediction":
        return drawing.labels
    if output == "uncertainty":
        return drawing.uncertainty
    value = int(output.partition(":")[2])
    return drawing.probabilities[drawing.values.index(value)] if value in drawing.values else None
