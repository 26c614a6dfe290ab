"""One job at a time on a device; the others wait for their turn in the order in which they were made."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

from mdm_studio.errors import JobError, OutputError, ProjectError
from mdm_studio.io.folder_lock import FolderLock
from mdm_studio.io.paths import real_path
from mdm_studio.services.jobs.places import lane_folder, look_at_all
from mdm_studio.services.jobs.states import JobView

_LOOK_SECONDS = 0.5


def wait_for_turn(
    folder: Path, lane: str, stop: Callable[[], bool], *, patient: bool = True
) -> Generator[str, None, FolderLock | None]:
    """Yield what is waited for until the lane is free; return its lock.

    Returns
    -------
    FolderLock or None
        None if it was stopped, if there can be no lanes because the user's data folder cannot be written, or, where it is not
        `patient`, if somebody else is running.
    """
    while not stop():
        try:
            known = look_at_all()
        except JobError:  # there are no lanes to read of either
            known = ()
        ahead = jobs_ahead(real_path(folder), known, lane)
        if not ahead or not patient:
            try:
                return FolderLock(lane_folder(lane))
            except OutputError:
                return None
            except ProjectError:
                if not patient:
                    return None
        yield f"waits for {ahead[0].name!r}" if ahead else f"waits until {lane} is free"
        time.sleep(_LOOK_SECONDS)
    return None


def jobs_ahead(folder: Path, jobs: tuple[JobView, ...], lane: str) -> list[JobView]:
    """Jobs that come before the one in `folder`: what runs in its lane, and what has waited there for longer, in order."""
    own = next((job for job in jobs if real_path(job.folder) == folder), None)
    turn = (float("inf"), "") if own is None else (own.created, own.id)
    ahead = [
        job
        for job in jobs
        if job is not own and job.lane == lane and job.living and (job.state == "running" or (job.created, job.id) < turn)
    ]
    return sorted(ahead, key=lambda job: (job.state != "running", job.created, job.id))
