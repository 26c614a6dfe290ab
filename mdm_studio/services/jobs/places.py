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
import os
import platform
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from mdm_studio.config import user_data_dir
from mdm_studio.errors import JobError
from mdm_studio.io.atomic import make_folder, write_json
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.json_files import read_json
from mdm_studio.io.paths import real_path
from mdm_studio.services.jobs.holding import look_at_lock
from mdm_studio.services.jobs.kinds import asked_device, lane_of
from mdm_studio.services.jobs.states import LIVING, JobView, Lock, judge

_LANES = "lanes"


class _Note(TypedDict):
    """Content of a note."""

    folder: Annotated[str, Meta(min_length=1, max_length=10_000)]


def jobs_root() -> Path:
    """Folder of the user's jobs; not made here."""
    return user_data_dir() / "jobs"


def note_of(job_id: str) -> Path:
    """The note of a job that lies elsewhere."""
    return jobs_root() / f"{job_id}.json"


def lane_folder(lane: str) -> Path:
    """Folder whose lock the running job of a lane holds; each machine has lanes of its own, for homes on a network."""
    return jobs_root() / _LANES / f"{_slug(platform.node())}-{lane}"


def new_id(name: str) -> str:
    """An ID that begins with the job's name, so that a few letters are enough to type."""
    return f"{_slug(name)}-{uuid.uuid4().hex[:4]}"


def known_jobs() -> dict[str, Path | JobError]:
    """Folder of every job that the user has, by ID; of a note that cannot be read, what is wrong with it.

    Raises
    ------
    JobError
        If the folder of jobs cannot be read.
    """
    root = jobs_root()
    try:
        names = sorted(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise JobError(f"the folder of jobs {root} cannot be read ({error.strerror}); check that you may read it") from error
    found: dict[str, Path | JobError] = {}
    notes = []
    for name in names:
        path = root / name
        if name.startswith(".") or name == _LANES:  # a dot: being made, or removed
            continue
        if _is_job(path):
            found[name] = path
        elif path.suffix == ".json":
            notes.append(path)
    for note in notes:
        found.setdefault(note.stem, _noted(note))
    return found


def _is_job(path: Path) -> bool:
    """Whether a job lies in this folder; one that holds other files, or that nobody may look into, has lost its job.json."""
    if not path.is_dir():
        return False
    try:
        names = os.listdir(path)
    except OSError:
        return True
    return any(not name.startswith(".") for name in names)  # without any it is being made


def _noted(note: Path) -> Path | JobError:
    """Where a note says that its job lies."""
    try:
        folder = Path(read_json(note, _Note)["folder"])
        if not folder.is_absolute() or "\0" in str(folder):
            raise ValueError(f"{str(folder)!r} is no folder")
    except (OSError, ValueError) as error:
        return JobError(f"its note {note} is damaged ({error}); remove it from the list")
    return folder


def register(folder: Path) -> str:
    """Make a job that lies elsewhere known to every front end, and give its ID.

    Raises
    ------
    OutputError
        If the user's data folder cannot be written.
    """
    folder = real_path(folder)
    if folder.parent == real_path(jobs_root()):
        return folder.name
    job_id = f"{_slug(folder.name)}-{hashlib.blake2b(str(folder).encode(), digest_size=2).hexdigest()}"
    make_folder(jobs_root())
    write_json(note_of(job_id), {"folder": str(folder)})
    return job_id


def look(job_id: str, root: Path | JobError) -> JobView:
    """What a job is doing, from its files; a job whose files make no sense is ``damaged``."""
    if isinstance(root, JobError):
        return _damaged(job_id, note_of(job_id), str(root))
    folder = JobFolder(root)
    try:
        about = folder.job.stat()
    except (FileNotFoundError, NotADirectoryError):
        if _is_job(root):
            return _damaged(job_id, root, f"its job.json is gone from {root}; put it back, or remove the job")
        return judge(job_id, root, {}, {}, "free", time.time())
    except OSError as error:
        return _damaged(job_id, root, f"its folder {root} cannot be read ({error.strerror}); check that you may read it")
    try:
        asked = _asked(folder.job, about.st_mtime_ns, about.st_size)
    except JobError as error:
        return _damaged(job_id, root, f"{error}, and remove this one")
    status, problem, lock = _look_inside(folder)
    if problem and lock == "held":  # its process will write it anew
        status = {"state": "running", "message": problem}
    elif problem:
        return _damaged(job_id, root, f"{problem}; resume it to go on from its last checkpoint, or remove it", asked)
    if not status.get("device"):
        status["device"] = asked_device(asked)
    if not status.get("result") and status.get("state") == "done" and folder.backbone.is_dir():  # version 0.1
        status["result"] = str(folder.backbone)
    return judge(job_id, root, asked, status, lock, time.time(), lane=lane_of(asked))


def _look_inside(folder: JobFolder) -> tuple[dict[str, Any], str, Lock]:
    """Status of a job, what is wrong with its file, and its lock."""
    status: dict[str, Any] = {}
    problem = ""
    lock: Lock = "free"
    for _ in range(2):
        # a process that ends writes its last status before it lets go; one that begins takes the lock before it writes
        try:
            status, problem = folder.check_status(), ""
        except JobError as error:
            status, problem = {}, str(error)
        if status.get("state", "queued") not in LIVING or (lock := look_at_lock(folder.root, status)) != "free":
            break
    return status, problem, lock


def _damaged(job_id: str, root: Path, message: str, asked: Mapping[str, Any] | None = None) -> JobView:
    known = asked or {}
    return JobView(
        job_id,
        root,
        kind=str(known.get("kind", "")),
        name=str(known.get("name", job_id)),
        state="damaged",
        message=message,
        created=float(known.get("created", 0.0)),
    )


@functools.lru_cache(maxsize=1000)
def _asked(job: Path, mtime_ns: int, size: int) -> Mapping[str, Any]:
    """What views need of job.json: front ends look every second, and thousands of images may be named in it."""
    asked = JobFolder(job.parent).settings()
    config = asked.get("config")
    device = config.get("device") if isinstance(config, dict) else None
    common: dict[str, Any] = {"created": mtime_ns / 1e9, "device": device}  # version 0.1 did not say when
    return common | {key: asked[key] for key in ("kind", "name", "device", "created") if key in asked}


def look_at_all() -> tuple[JobView, ...]:
    """All jobs of the user, newest first.

    Raises
    ------
    JobError
        If the folder of jobs cannot be read.
    """
    views = [look(job_id, folder) for job_id, folder in known_jobs().items()]
    return tuple(sorted(views, key=lambda view: (view.created, view.id), reverse=True))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"
