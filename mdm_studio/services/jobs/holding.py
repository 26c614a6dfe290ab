"""Who holds the folder of a job: asked and decided by its lock, and by the process that its status names; never by the time.

The standard library alone, because a worker holds its folder before it does anything else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mdm_studio.errors import JobError, ProjectError
from mdm_studio.io.folder_lock import FolderLock, lock_state
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.processes import is_alive, own_name
from mdm_studio.services.jobs.states import LIVING, Lock

_TAKE_SECONDS = 3.0  # somebody who only asks whether a folder is held holds it for a moment
_LOOK_SECONDS = 0.1


def take(root: Path, *, inherited: int | None = None, seconds: float | None = None) -> FolderLock:
    """Hold a job's folder to drive it.

    Parameters
    ----------
    inherited : int or None
        The lock that this process was started with, see `mdm_studio.io.folder_lock.FolderLock`.
    seconds : float or None
        How long to try; None for as long as somebody may only be asking.

    Raises
    ------
    JobError
        If another process holds it.
    """
    deadline = time.monotonic() + (_TAKE_SECONDS if seconds is None else seconds)
    while True:
        try:
            return FolderLock(root, inherited=inherited)
        except ProjectError as error:
            if time.monotonic() > deadline:
                raise JobError(
                    f"the job in {root} is being run by another process; watch it with `mdm-studio jobs`, or pause it first"
                ) from error
            time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def held(folder: JobFolder) -> Iterator[FolderLock]:
    """Hold a job's folder for a moment, to change what only its driver may change.

    Raises
    ------
    JobError
        If it is gone, or a process drives the job.
    """
    if not folder.exists():
        raise JobError(f"the job's folder {folder.root} is gone or damaged; connect its drive again, or remove the job")
    running = f"the job in {folder.root} is running; pause or cancel it first"
    try:
        lock = take(folder.root)
    except JobError as error:
        raise JobError(running) from error
    try:
        if lives(folder.read_status()):
            raise JobError(running)
        yield lock
    finally:
        lock.release()


def lives(status: Mapping[str, Any]) -> bool:
    """Whether the process that a status names as the job's is alive; this process is not asked, its lock says more.

    It matters where a lock cannot be handed down (Windows), and where there are none (some network drives).
    """
    process = str(status.get("process") or "")
    return status.get("state") in LIVING and process != own_name() and is_alive(process) is True


def look_at_lock(root: Path, status: Mapping[str, Any]) -> Lock:
    """Whether some process holds the folder, or at least drives the job."""
    lock: Lock = lock_state(root)
    return "held" if lock != "held" and lives(status) else lock
