"""Where jobs are: the folders of the user's own, and a note for each that lies elsewhere.

::

    user_data_dir()/jobs/
      ID/            a job of the window
      ID.json        {"folder": ".."}: a job that `pretrain --out` made somewhere else
      lanes/NAME/    held by the job that runs in this lane
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
import uuid
from pathlib import Path

from mdm_studio.config import user_data_dir
from mdm_studio.io.atomic import write_json
from mdm_studio.io.folder_lock import lock_state
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs.kinds import asked_device, lane_of
from mdm_studio.services.jobs.states import LIVING, JobView, judge

_LANES = "lanes"


def jobs_root() -> Path:
    """Folder of the user's jobs; not made here."""
    return user_data_dir() / "jobs"


def lane_folder(lane: str) -> Path:
    """Folder whose lock the running job of a lane holds; each machine has lanes of its own, for homes on a network."""
    return jobs_root() / _LANES / f"{_slug(platform.node())}-{lane}"


def new_id(name: str) -> str:
    """An ID that begins with the job's name, so that a few letters are enough to type."""
    return f"{_slug(name)}-{uuid.uuid4().hex[:4]}"


def known_jobs() -> dict[str, Path]:
    """Folder of every job that the user has, by ID."""
    root = jobs_root()
    found = {path.parent.name: path.parent for path in root.glob("[!.]*/job.json")}  # a dot: being removed
    for note in root.glob("*.json"):
        try:
            found.setdefault(note.stem, Path(json.loads(note.read_text("utf-8"))["folder"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def register(folder: Path) -> str:
    """Make a job that lies elsewhere known to every front end, and give its ID.

    Raises
    ------
    OutputError
        If the user's data folder cannot be written.
    """
    folder = folder.resolve()
    if folder.parent == jobs_root().resolve():
        return folder.name
    job_id = f"{_slug(folder.name)}-{hashlib.blake2b(str(folder).encode(), digest_size=2).hexdigest()}"
    write_json(jobs_root() / f"{job_id}.json", {"folder": str(folder)})
    return job_id


def look(job_id: str, root: Path) -> JobView:
    """What a job is doing, from its files."""
    folder = JobFolder(root)
    asked = folder.read_job()
    if asked and "created" not in asked:  # version 0.1
        asked["created"] = folder.created()
    # the lock first: a process that ends writes its last status before it lets go
    lock = lock_state(root)
    status = folder.read_status()
    if lock == "free" and status.get("state") in LIVING:
        lock = lock_state(root)  # it may have started between the two
    if asked and not status.get("device"):
        status["device"] = asked_device(asked)
    if not status.get("result") and status.get("state") == "done" and folder.backbone.is_dir():  # version 0.1
        status["result"] = str(folder.backbone)
    return judge(job_id, root, asked, status, lock, time.time(), lane=lane_of(asked))


def look_at_all() -> tuple[JobView, ...]:
    """All jobs of the user, newest first."""
    views = [look(job_id, folder) for job_id, folder in known_jobs().items()]
    return tuple(sorted(views, key=lambda view: (view.created, view.id), reverse=True))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"
