"""Strokes and settings are on disk a second after they were made, without anybody waiting for it."""

from __future__ import annotations

import copy
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import MDMStudioError, ProjectError
from mdm_studio.io.atomic import output_error
from mdm_studio.io.label_store import chunks_touching
from mdm_studio.services.project import Project, ProjectState

ReadLabels = Callable[[str, tuple[int, ...], slice, slice], NDArray[np.uint8]]
"""``read(key, index, rows, cols)``: the labels ``(h, w)`` uint8 of a region as they are now; runs on the thread that saves."""

Region = tuple[str, tuple[int, ...], slice, slice]
"""Key, position in the stack, rows and columns."""

DELAY = 1.0  # seconds; with the time to write, strokes are on disk within two
RETRY = 5.0  # seconds

# A reader goes through a viewer's layers, which may be gone or changed: one image that cannot be read must neither end the
# saving of the others nor go unnoticed.
_FAILURES = (
    MDMStudioError, OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError,
)  # fmt: skip

_Chunk = tuple[str, tuple[int, ...], int, int]  # key, position in the stack, first row, first column


class Autosave:
    """Writes what changed in the background.

    Every method may be called from any thread. Mark *after* the change: what is marked is read some time later.

    Parameters
    ----------
    project : Project
        Where to. The labels of a key must have been opened (`Project.open_labels`) before it is marked.
    read : callable
        See `ReadLabels`. It must not wait for a thread that may be waiting in `flush` or `close`.
    delay : float
        Seconds from the first unsaved change to the writing; later changes do not put it off.
    retry : float
        Seconds until a failed writing is tried again; a new change tries it after `delay`.
    on_problem : callable
        Told, in words, that saving fails; once, until the reason changes or saving works again. Like `on_recovery`, called on
        the thread that saves.
    on_recovery : callable
        Told that everything is saved after all.
    everything : callable
        Gives all that is painted, ``(key, index, rows, cols)`` each: marked when the project's folder had gone and is back.

    Attributes
    ----------
    problem : MDMStudioError or None
        Why the last writing failed; `FolderLostError` if the folder is not the project any more, and nothing was written.
    """

    def __init__(
        self,
        project: Project,
        read: ReadLabels,
        *,
        delay: float = DELAY,
        retry: float = RETRY,
        on_problem: Callable[[str], object],
        on_recovery: Callable[[], object],
        everything: Callable[[], Iterable[Region]] = tuple,
    ) -> None:
        self.problem: MDMStudioError | None = None
        self._project, self._read, self._everything = project, read, everything
        self._delay, self._retry = delay, retry
        self._on_problem, self._on_recovery = on_problem, on_recovery
        self._saving = threading.Lock()  # one save at a time: the thread's, or a flush
        self._problem = ""  # what was reported last
        self._wake = threading.Condition()  # guards what follows
        self._dirty: set[_Chunk] = set()
        self._state: Callable[[], ProjectState] | None = None
        self._taken: set[_Chunk] = set()  # being written
        self._taken_state: Callable[[], ProjectState] | None = None
        self._due = math.inf  # on time.monotonic
        self._stopping = False
        self._start()

    @property
    def pending(self) -> int:
        """Number of chunks of labels, and states, that are not on disk yet."""
        with self._wake:
            states = self._state is not None or self._taken_state is not None
            return len(self._dirty | self._taken) + states

    def mark(self, key: str, index: tuple[int, ...], rows: slice, cols: slice) -> None:
        """Say that the labels of a region have changed.

        Raises
        ------
        KeyError
            If the labels of `key` were not opened.
        """
        shape = self._project.labels(key).shape
        chunks = [(key, tuple(index), y.start, x.start) for y, x in chunks_touching(shape, rows, cols)]
        if chunks:
            with self._wake:
                self._dirty.update(chunks)
                self._changed()

    def mark_state(self, state: ProjectState | Callable[[], ProjectState]) -> None:
        """Say that this is the state now, or what will give it when it is written, on the thread that saves.

        TypeError if it holds what JSON does not have.
        """
        if isinstance(state, ProjectState):
            state.to_json()  # raises now, not when it is written
            kept = copy.deepcopy(state)  # which nobody changes while it waits
            state = lambda: kept  # noqa: E731
        with self._wake:
            self._state = state
            self._changed()

    def mark_everything(self) -> None:
        """Say that all that is painted is to be written, wherever the project is now."""
        for region in self._everything():
            self.mark(*region)

    def flush(self) -> None:
        """Write everything now, on the calling thread.

        Raises
        ------
        OutputError, ProjectError
            What went wrong first; what was not written stays pending.
        """
        problem = self._save()
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Flush and end the thread; it ends even if the flush fails, which is raised as by `flush`."""
        try:
            self.flush()
        finally:
            self.stop()

    def stop(self) -> None:
        """End the thread; what is pending is not written."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="autosave", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._wait():
                self._save()
        finally:
            if not self._stopping:  # something unforeseen was raised, which Python tells of: saving goes on all the same
                self._start()

    def _wait(self) -> bool:
        """Wait until something is to be written; False at the end."""
        with self._wake:
            while not self._stopping:
                seconds = self._due - time.monotonic()
                if seconds <= 0:
                    return True
                self._wake.wait(min(seconds, threading.TIMEOUT_MAX))
        return False

    def _changed(self) -> None:
        due = time.monotonic() + self._delay
        if due < self._due:
            self._due = due
            self._wake.notify_all()

    def _save(self) -> MDMStudioError | None:
        """Write what is pending; what went wrong first."""
        with self._saving:
            lost = self._look() if self.pending else None
            with self._wake:
                self._taken, self._dirty = self._dirty, set()
                self._taken_state, self._state = self._state, None
                self._due = math.inf
                chunks = sorted(self._taken)
            try:
                done = [lost] if lost is not None else [self._write_state(), *self._write_labels(chunks)]
                problems = [problem for problem in done if problem is not None]
            finally:
                self._put_back()
            self.problem = problems[0] if problems else None
            told, self._problem = self._problem, str(problems[0]) if problems else ""
        if self._problem != told:
            if problems:
                self._on_problem(str(problems[0]))
            else:
                self._on_recovery()
        return problems[0] if problems else None

    def _look(self) -> MDMStudioError | None:
        """Whether the folder is still the project; one that is back may lack what was written last."""
        try:
            if self._project.check():
                self.mark_everything()
        except _FAILURES as error:
            return _in_words(error, self._project.folder, "the project")
        return None

    def _put_back(self) -> None:
        """What was not written is pending again, unless it has been overtaken."""
        with self._wake:
            if self._taken or self._taken_state is not None:
                self._due = min(self._due, time.monotonic() + self._retry)
            self._dirty |= self._taken
            if self._state is None:
                self._state = self._taken_state
            self._taken, self._taken_state = set(), None

    def _write_state(self) -> MDMStudioError | None:
        if self._taken_state is None:
            return None
        try:
            self._project.save_state(self._taken_state())
        except _FAILURES as error:
            return _in_words(error, self._project.folder, "the settings")
        with self._wake:
            self._taken_state = None
        return None

    def _write_labels(self, chunks: Iterable[_Chunk]) -> list[MDMStudioError]:
        """Write whole chunks; an image that fails does not keep the others from being saved."""
        problems = []
        for key, group in itertools.groupby(chunks, key=itemgetter(0)):
            try:
                for chunk in group:
                    self._write_chunk(*chunk)
                    with self._wake:
                        self._taken.discard(chunk)
            except _FAILURES as error:
                problems.append(_in_words(error, self._project.folder, f"the labels of image {key}"))
        return problems

    def _write_chunk(self, key: str, index: tuple[int, ...], top: int, left: int) -> None:
        labels = self._project.labels(key)
        self._project.check()
        for rows, cols in chunks_touching(labels.shape, slice(top, top + 1), slice(left, left + 1)):
            labels.write(index, rows, cols, self._read(key, index, rows, cols))


def _in_words(error: BaseException, folder: Path, what: str) -> MDMStudioError:
    if isinstance(error, MDMStudioError):
        return error
    if isinstance(error, OSError):
        wrapped: MDMStudioError = output_error(folder, error)
    else:
        reason = f"{type(error).__name__}: {error}"
        wrapped = ProjectError(f"{what} could not be saved ({reason}); they are kept in memory: save the project elsewhere")
    wrapped.__cause__ = error
    return wrapped
