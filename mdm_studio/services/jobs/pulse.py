"""Signs of life of a running job, from a thread of its own: a slow step does not silence them, a dead process does."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from types import TracebackType
from typing import Any

from mdm_studio.errors import OutputError
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.processes import own_name
from mdm_studio.services.jobs.states import BEAT_SECONDS, JobReport, State

_LOOK_SECONDS = 0.5  # between two looks for a request
_MISSES = 3  # looks in a row that find no job.json: one alone may be a network drive catching its breath
_CALM_SECONDS = 60.0  # a process that lived this long has not failed at its start


class Pulse:
    """Writes status.json and reads request.json while a job runs; use it in a ``with`` block, and call `end` inside.

    Attributes
    ----------
    want : str
        What a front end asks for: ``pause`` or ``cancel``, else empty.
    gone : bool
        The job's folder is not there any more.
    """

    def __init__(self, folder: JobFolder, *, background: bool) -> None:
        self.want, self.gone = "", False
        self._folder = folder
        self._lock = threading.Lock()  # the status is written from two threads
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="mdm-studio pulse", daemon=True)
        now, self._begun = time.time(), time.monotonic()
        before = folder.read_status()
        kept = {key: before[key] for key in ("step", "steps", "done", "facts", "result", "device", "restarts") if key in before}
        self._status: dict[str, Any] = kept | {
            "version": 1,
            "state": "queued",
            "message": "",
            "pid": os.getpid(),
            "process": own_name(),
            "background": background,
            "started": now,
            "reported": now,
        }

    def __enter__(self) -> Pulse:
        self._write()
        self._thread.start()
        return self

    def set(self, state: State, message: str = "") -> None:
        """The job is in this state from now on."""
        with self._lock:
            self._status |= {"state": state, "message": message, "reported": time.time()}
        self._write()

    def report(self, report: JobReport) -> None:
        """Take over what the job tells; it is written with the next sign of life."""
        facts = dict(report.facts)
        with self._lock:
            self._status |= {key: facts.pop(key) for key in ("result", "device") if key in facts}
            self._status |= {
                "step": report.step,
                "steps": report.steps,
                "done": round(report.done, 6),
                "eta_s": None if report.eta_s is None else round(report.eta_s, 1),
                "rate": None if report.rate is None else round(report.rate, 3),
                "unit": report.unit,
                "message": report.note,
                "facts": facts,
                "reported": time.time(),
            }

    def end(self, state: State, message: str = "") -> None:
        """The last word; it is left unsaid where nothing can be written any more."""
        self._stop()
        with contextlib.suppress(OutputError):
            self.set(state, message)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write(self) -> None:
        with self._lock:
            self._status["heartbeat"] = time.time()
            if time.monotonic() - self._begun > _CALM_SECONDS:
                self._status.pop("restarts", None)
            self._folder.write_status(**self._status)

    def _beat(self) -> None:
        misses, beaten = 0, time.monotonic()
        while not self._closing.wait(_LOOK_SECONDS):
            misses = 0 if self._folder.exists() else misses + 1
            self.gone = misses >= _MISSES
            self.want = self._folder.read_request() or self.want
            if time.monotonic() - beaten >= BEAT_SECONDS:
                beaten = time.monotonic()
                with contextlib.suppress(OutputError):  # a full disk is told by the job itself when it saves
                    self._write()
