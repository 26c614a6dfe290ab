"""What a front end holds: all jobs of the user, whoever started them, and the verbs to steer them."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from psygnal import Signal

from mdm_studio.errors import JobError, MDMStudioError, OutputError, UsageError
from mdm_studio.io.atomic import output_error, write_json
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.leftovers import remove
from mdm_studio.io.paths import real_path
from mdm_studio.services.jobs.holding import held, lives, take
from mdm_studio.services.jobs.kinds import check_kind
from mdm_studio.services.jobs.places import jobs_root, known_jobs, look, look_at_all, new_id, note_of, register
from mdm_studio.services.jobs.states import JobView
from mdm_studio.services.jobs.worker import start_worker

_RESTARTS = 3  # a job whose process dies as soon as it lives is not started for ever


class JobBoard:
    """Jobs as their folders say; it holds no truth of its own, so any number of boards and programs agree.

    Attributes
    ----------
    changed : Signal
        All jobs, newest first, whenever one of them has changed; emitted from the thread that `watch` starts.
    """

    changed = Signal(tuple)

    def __init__(self) -> None:
        self._closing, self._news = False, threading.Event()
        self._thread: threading.Thread | None = None

    def jobs(self) -> tuple[JobView, ...]:
        """All jobs, newest first."""
        return look_at_all()

    def find(self, job_id: str) -> JobView:
        """The job of this ID, of the only ID that begins so, or in this folder.

        Raises
        ------
        JobError
            If there is none, or several; it names those there are.
        """
        known = known_jobs()
        fitting = [job_id] if job_id in known else [name for name in known if name.startswith(job_id)]
        if not fitting and job_id and "\0" not in job_id:
            place = real_path(job_id)
            folders = ((name, folder) for name, folder in known.items() if isinstance(folder, Path))
            fitting = [name for name, folder in folders if real_path(folder) == place]
        if len(fitting) != 1:
            there = ", ".join(sorted(fitting or known)) or "(none)"
            what = "several jobs begin with" if fitting else "there is no job"
            raise JobError(f"{what} {job_id!r}; give one of: {there}")
        return look(fitting[0], known[fitting[0]])

    def add(self, kind: str, settings: Mapping[str, Any], name: str) -> JobView:
        """Make a job of the user's own and start a worker for it.

        The backbone that a pretraining makes will be in the list of backbones.

        Raises
        ------
        JobError
            If the kind is unknown.
        OutputError
            If the user's data folder cannot be written.
        """
        asked = {"version": 1, **settings, "kind": kind, "name": name, "created": time.time()}
        if kind == "pretrain":
            asked["publish"] = True
        check_kind(asked)
        folder = JobFolder(jobs_root() / new_id(name))
        folder.create(asked)
        return self.start(folder)

    def start(self, folder: JobFolder, *, steps: int | None = None, minutes: float | None = None) -> JobView:
        """Start a worker for a job whose folder has been made, wherever it lies; with another budget if one is given."""
        return self._launch(register(folder.root), folder, steps=steps, minutes=minutes)

    def pause(self, job_id: str) -> JobView:
        """Ask the job to save and stop; it says `paused` when it has.

        Raises
        ------
        JobError
            If there is nothing to pause.
        """
        return self._ask(job_id, "pause", "paused", ("interrupted",))

    def cancel(self, job_id: str) -> JobView:
        """Give the job up; what it saved stays until it is removed, and it may be resumed after all.

        Raises
        ------
        JobError
            If it is over already.
        """
        return self._ask(job_id, "cancel", "cancelled", ("interrupted", "paused", "failed"))

    def resume(self, job_id: str, *, steps: int | None = None, minutes: float | None = None) -> JobView:
        """Go on with a job in the background, with another budget (in all, not in addition) if one is given.

        Raises
        ------
        JobError
            If it is running, damaged, or done and no larger budget is given.
        UsageError
            If jobs of this kind have no budget.
        """
        view = self.find(job_id)
        if view.state == "damaged" and not view.kind:  # of one whose status alone is damaged the kind is known
            raise JobError(f"{view.id} cannot be resumed: {view.message}")
        return self._launch(view.id, JobFolder(view.folder), steps=steps, minutes=minutes)

    def remove(self, job_id: str) -> None:
        """Delete a job of the user's own with its folder; of a job elsewhere only the note, its folder stays.

        Raises
        ------
        JobError
            If it is running.
        """
        view = self.find(job_id)
        if view.living:
            raise JobError(f"{view.id} is {view.state}; cancel it first (mdm-studio jobs cancel {view.id})")
        own = jobs_root() / view.id
        if view.folder == own and own.is_dir():
            _remove_folder(view.id, own)
        remove(note_of(view.id))
        self._news.set()

    def revive(self) -> tuple[JobView, ...]:
        """Start again what ran in the background and was interrupted (power cut, shutdown).

        What ran in a terminal is left to whoever sits there.
        """
        revived = []
        for view in self.jobs():
            folder = JobFolder(view.folder)
            if view.state != "interrupted" or not folder.read_status().get("background"):
                continue
            with contextlib.suppress(MDMStudioError):  # another window was quicker
                revived.append(self._launch(view.id, folder, revived=True))
        return tuple(revived)

    def log(self, job_id: str) -> str:
        """The end of the job's log."""
        return JobFolder(self.find(job_id).folder).read_log()

    def follow(self, job_id: str, every: float = 0.5) -> Iterator[JobView]:
        """The job again and again until it neither runs nor waits any more; at least once."""
        view = self.find(job_id)
        yield view
        while view.living:
            time.sleep(every)
            view = look(view.id, view.folder)
            yield view

    def watch(self, every: float = 1.0) -> None:
        """Look at the files every so many seconds from now on, and emit `changed`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, args=(every,), name="mdm-studio jobs", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the watching; jobs live on."""
        self._closing = True
        self._news.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self, every: float) -> None:
        before: tuple[JobView, ...] | None = None
        while not self._closing:
            self._news.clear()
            try:
                now = self.jobs()
            except JobError:  # the folder of jobs cannot be read just now
                now = ()
            if now != before and not self._closing:
                before = now
                self.changed.emit(now)
            self._news.wait(every)

    def _ask(self, job_id: str, want: str, state: str, from_states: tuple[str, ...]) -> JobView:
        view = self.find(job_id)
        folder = JobFolder(view.folder)
        if view.living:
            folder.write_request(want)
        elif view.state in from_states:
            with held(folder):
                folder.write_status(**folder.read_status() | {"state": state, "message": ""})
        else:
            raise JobError(f"{view.id} is {view.state}: there is nothing to {want}")
        self._news.set()
        return look(view.id, view.folder)

    def _launch(self, job_id: str, folder: JobFolder, **how: Any) -> JobView:
        """Queue a job and start a worker, which holds the folder from the moment at which this process lets go."""
        with held(folder) as hold:
            prepare(folder, **how)
            try:
                start_worker(folder, hold)
            except MDMStudioError as error:
                folder.write_status(**folder.read_status() | {"state": "failed", "message": str(error)})
                raise
        self._news.set()
        return look(job_id, folder.root)


def requeue(folder: JobFolder, *, steps: int | None = None, minutes: float | None = None) -> None:
    """Make a job ready to be driven (again), see `prepare`.

    Raises
    ------
    JobError
        If another process drives it, or if it is done and has no new budget.
    """
    with held(folder):
        prepare(folder, steps=steps, minutes=minutes)


def prepare(folder: JobFolder, *, steps: int | None = None, minutes: float | None = None, revived: bool = False) -> None:
    """Make a job ready to be driven (again): queued, nothing asked of it, its budget replaced if one is given.

    Whoever calls it holds the folder.

    Raises
    ------
    JobError
        If it is damaged, if it is done and has no new budget, or if its process died at once too often.
    """
    settings, status = folder.settings(), folder.read_status()
    check_kind(settings)
    budget = {key: value for key, value in (("steps", steps), ("minutes", minutes)) if value is not None}
    budgeted = "steps" in settings
    if budget and not budgeted:
        raise UsageError(f"a job of kind {settings['kind']} has no budget; resume it without --steps and --minutes")
    if status.get("state") == "done" and budgeted and not budget:  # an export tries again what failed
        raise JobError(f"the job in {folder.root} is done; give it more --steps or --minutes in all to go on with it")
    restarts = status.get("restarts", 0) + 1 if revived else 0
    if restarts > _RESTARTS:
        message = f"its process ended {_RESTARTS} times without a word; its log may say why, then resume it"
        folder.write_status(**status | {"state": "failed", "message": message})
        raise JobError(message)
    if budget:  # the new one replaces the old one as a whole
        write_json(folder.job, settings | {"steps": None, "minutes": None} | budget)
    folder.clear_request()
    now = time.time()
    fresh = {"version": 1, "state": "queued", "message": "starts", "heartbeat": now, "reported": now, "restarts": restarts}
    folder.write_status(**{"background": True} | status | fresh | {"process": None})


def _remove_folder(job_id: str, folder: Path) -> None:
    """Delete a job's folder, unless somebody holds it."""
    hold = None
    try:
        hold = take(folder)
    except JobError as error:
        raise JobError(f"{job_id} is running; cancel it first (mdm-studio jobs cancel {job_id})") from error
    except OutputError:  # something stands in the place of the lock, which then nobody can hold
        pass
    try:
        if lives(JobFolder(folder).read_status()):
            raise JobError(f"{job_id} is running; cancel it first (mdm-studio jobs cancel {job_id})")
        if sys.platform == "win32" and hold is not None:  # renames no folder with an open file in it
            hold.release()
        hidden = folder.with_name(f".{folder.name}.removed")
        remove(hidden)  # what a removal left that was killed
        try:
            folder.rename(hidden)  # at once for all who look
        except OSError as error:
            raise output_error(folder, error) from error
    finally:
        if hold is not None:
            hold.release()
    remove(hidden)
