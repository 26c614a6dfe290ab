"""The one driver of jobs: command line, worker process and tests only iterate it."""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mdm_studio.errors import JobError, MDMStudioError
from mdm_studio.io.atomic import output_error
from mdm_studio.io.folder_lock import FolderLock
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.processes import is_alive
from mdm_studio.services.jobs.holding import lives, take
from mdm_studio.services.jobs.kinds import check_kind, lane_of, load_kind
from mdm_studio.services.jobs.lanes import wait_for_turn
from mdm_studio.services.jobs.pulse import Pulse
from mdm_studio.services.jobs.states import JobReport, judge_state

_NEVER: Callable[[], bool] = lambda: False  # noqa: E731 - a default that never stops
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")


def drive(
    folder: JobFolder,
    *,
    stop: Callable[[], bool] = _NEVER,
    background: bool = False,
    hold: FolderLock | None = None,
) -> Iterator[JobReport]:
    """Run or go on with the job in `folder`: hold it, wait for its turn, work, and keep its status true to the end.

    Closing the generator, or `stop` returning True, pauses the job; so does a front end's request, or cancels it.

    Parameters
    ----------
    background : bool
        A front end may take the job up again by itself. `stop` then means that the computer is shut down: the job
        is left ``interrupted``, not ``paused``.
    hold : FolderLock or None
        The folder's lock, if the caller has taken it; it is released in the end.

    Raises
    ------
    MDMStudioError
        If the job fails, in words (the status says the same), or if another process drives it (the status is that one's).

    Notes
    -----
    Of several processes of one job (``accelerate launch``) the first one drives, the others only work.
    """
    try:
        settings = folder.settings()
        check_kind(settings)
    except JobError:
        if hold is not None:
            hold.release()
        raise
    if int(os.environ.get("RANK", "0")) > 0:
        yield from load_kind(settings)(folder, stop=stop)
        return
    hold = hold or take(folder.root)
    try:
        if not hold.supported and _run_elsewhere(folder):
            raise JobError(f"the job in {folder.root} is being run by another process (its heartbeat is fresh); pause it first")
        folder.remove_leftovers()
        with Pulse(folder, background=background) as pulse:
            yield from _Sitting(folder, settings, pulse, stop, background).reports()
    finally:
        folder.clear_request()
        hold.release()


def _run_elsewhere(folder: JobFolder) -> bool:
    """Whether another process seems to drive the job, where no lock says so."""
    status = folder.read_status()
    alive = is_alive(status.get("process") or "")
    if alive is None:  # it runs on another machine, or is of an earlier version
        return judge_state(status, "unknown", time.time()) == "running"
    return lives(status)


class _Sitting:
    """One sitting of a job, from its start to its pause, failure or end."""

    def __init__(
        self, folder: JobFolder, settings: dict[str, Any], pulse: Pulse, stop: Callable[[], bool], background: bool
    ) -> None:
        self._folder, self._settings, self._pulse, self._background = folder, settings, pulse, background
        self._stopped_outside = stop
        self._last = JobReport(0.0)

    def reports(self) -> Iterator[JobReport]:
        self._folder.write_log(f"started by process {os.getpid()}")
        try:
            yield from self._queue()
            state, message = self._outcome()
        except GeneratorExit:
            self._end("paused", "")
            raise
        except Exception as error:  # the place that drives jobs: whatever happens is told to the user
            failure = in_words(error, self._folder)
            self._folder.write_log("".join(traceback.format_exception(error)).rstrip())
            self._end("failed", str(failure))
            if failure is error:
                raise
            raise failure from error
        except BaseException:  # Ctrl-C where nobody handles it
            self._end("interrupted" if self._background else "paused", "")
            raise
        self._end(state, message)

    def _end(self, state: Any, message: str) -> None:
        self._pulse.end(state, message)
        self._folder.write_log(f"{state}: {message}" if message else state)

    def _stop(self) -> bool:
        return bool(self._pulse.want) or self._pulse.gone or self._stopped_outside()

    def _queue(self) -> Iterator[JobReport]:
        """Wait for the turn, then work."""
        # of several processes the other ones have begun already
        turn = wait_for_turn(self._folder.root, lane_of(self._settings), self._stop, patient=not _one_of_several())
        lane: FolderLock | None = None
        while True:
            try:
                note = next(turn)
            except StopIteration as end:
                lane = end.value
                break
            if note != self._last.note:
                self._pulse.set("queued", note)
            self._last = JobReport(0.0, note=note)
            yield self._last
        try:
            if not self._stop():
                yield from self._work()
        finally:
            if lane is not None:
                lane.release()

    def _work(self) -> Iterator[JobReport]:
        self._pulse.set("running", "loading")
        with closing(load_kind(self._settings)(self._folder, stop=self._stop)) as steps:  # type: ignore[type-var]
            for report in steps:
                self._last = report
                self._pulse.report(report)
                if self._pulse.gone:
                    break
                yield report
        if self._pulse.gone:
            raise JobError(
                f"the job's folder {self._folder.root} is gone (removed, or its drive is not connected); put it back and "
                "resume the job, or start a new one"
            )

    def _outcome(self) -> tuple[str, str]:
        if self._last.done >= 1 or not (self._stop() or _one_of_several()):  # another process may have been told to stop
            return "done", self._last.note
        if self._pulse.want == "cancel":
            return "cancelled", ""
        return ("interrupted" if self._background and not self._pulse.want else "paused"), ""


def _one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def in_words(error: Exception, folder: JobFolder) -> MDMStudioError:
    """The failure of a job as one line that says what to do."""
    if isinstance(error, MDMStudioError):
        return error
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _MEMORY_WORDS):
        return JobError(f"out of memory ({text}); choose a smaller batch, crop or network, or close other programs")
    if isinstance(error, OSError):
        path = Path(error.filename) if isinstance(error.filename, str) else folder.root
        if error.errno in _NOT_WRITTEN:
            return output_error(path, error)
        return JobError(f"{path}: {error.strerror or text}; check that its drive is connected, then resume the job")
    return JobError(f"it failed unexpectedly ({type(error).__name__}: {text}); {folder.log} has the details, please report it")
