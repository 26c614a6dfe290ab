"""Where jobs are: the folders of the user's own, and a note for each that lies elsewhere.

::

    user_data_dir()/jobs/
      ID/            a job of the window
      ID.json        {"folder": ".."}: a job that `pretrain --out` made somewhere else
      lanes/NAME/    held by the job that runs in this lane
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm_studio.config import user_data_dir
from mdm_studio.io.atomic import make_folder, write_json
from mdm_studio.io.folder_lock import lock_state
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs.kinds import asked_device, lane_of
from mdm_studio.services.jobs.states import LIVING, JobView, Lock, judge

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
    make_folder(jobs_root())
    write_json(jobs_root() / f"{job_id}.json", {"folder": str(folder)})
    return job_id


def look(job_id: str, root: Path) -> JobView:
    """What a job is doing, from its files."""
    folder = JobFolder(root)
    try:
        about = folder.job.stat()
        asked = _asked(folder.job, about.st_mtime_ns, about.st_size)
    except OSError:
        asked = {}
    status = folder.read_status()
    lock: Lock = "free"
    if status.get("state", "queued") in LIVING and (lock := lock_state(root)) == "free":
        # a process that ends writes its last status before it lets go; one that begins takes the lock before it writes
        status = folder.read_status()
        lock = lock_state(root)
    if asked and not status.get("device"):
        status["device"] = asked_device(asked)
    if not status.get("result") and status.get("state") == "done" and folder.backbone.is_dir():  # version 0.1
        status["result"] = str(folder.backbone)
    return judge(job_id, root, asked, status, lock, time.time(), lane=lane_of(asked))


@functools.lru_cache(maxsize=1000)
def _asked(job: Path, mtime_ns: int, size: int) -> Mapping[str, Any]:
    """What views need of job.json: front ends look every second, and thousands of images may be named in it."""
    asked = JobFolder(job.parent).read_job()
    if not asked:
        return {}
    config = asked.get("config")
    device = config.get("device") if isinstance(config, dict) else None
    common: dict[str, Any] = {"created": mtime_ns / 1e9, "device": device}  # version 0.1 did not say when
    return common | {key: asked[key] for key in ("kind", "name", "device", "created") if key in asked}


def look_at_all() -> tuple[JobView, ...]:
    """All jobs of the user, newest first."""
    views = [look(job_id, folder) for job_id, folder in known_jobs().items()]
    return tuple(sorted(views, key=lambda view: (view.created, view.id), reverse=True))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"
