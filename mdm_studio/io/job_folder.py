"""A job is a folder; the folder is the truth.

::

    OUT/
      job.json          what was asked for: kind, version, name, created, settings; only its budget may be extended
      status.json       what is going on: state, step, ETA, heartbeat, process
      request.json      what a front end asks of the process: {"want": "pause"} or "cancel"
      metrics.jsonl     one JSON object a line, one line a step
      log.txt           what happened, with the traceback of a failure
      samples/          pictures on the way
      checkpoints/      state to go on from
      snapshots/        backbones made of checkpoints, to try on the way
      backbone/         the result, once there is one
      .lock             held by the process that drives the job (io/folder_lock.py)
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta

from mdm_studio.errors import JobError, OutputError
from mdm_studio.io.atomic import make_folder, output_error, replacing, write_json
from mdm_studio.io.json_files import check_value, parse_json, read_json
from mdm_studio.io.leftovers import remove_leftovers

_LOG_TAIL = 200_000  # bytes of log.txt that are shown
_KEPT = 2  # checkpoints: the last, and the one before it should the last be unreadable
_CHECKPOINT = re.compile(r"step-\d{8,12}\.safetensors")
_LONGEST_LINE = 1 << 20  # bytes of metrics.jsonl; ours have some hundred

_Number = Annotated[float, Meta(ge=-1e18, le=1e18)]  # neither NaN nor infinite
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Text = Annotated[str, Meta(max_length=100_000)]


class JobFile(TypedDict, total=False):
    """What job.json of every kind must look like, as far as lists and the driver need it; each kind checks its own entries."""

    kind: _Text
    version: _Count
    name: _Text
    created: _Number
    device: _Text | None
    config: dict[str, Any]
    steps: _Count | None
    minutes: _Number | None
    publish: bool


class StatusFile(TypedDict, total=False):
    """What status.json must look like; every entry may be missing, as some are in those of version 0.1."""

    version: _Count
    state: _Text
    message: _Text
    heartbeat: _Number
    started: _Number
    reported: _Number
    step: _Count | None
    steps: _Count | None
    done: _Number | None
    eta_s: _Number | None
    rate: _Number | None
    images_per_s: _Number | None
    unit: _Text
    facts: dict[str, Any]
    result: _Text | None
    device: _Text | None
    background: bool
    restarts: _Count
    process: _Text | None


class RequestFile(TypedDict):
    """What request.json must look like."""

    want: Literal["pause", "cancel"]


class MetricsRow(TypedDict, total=False):
    """What a line of metrics.jsonl must look like."""

    step: Required[_Count]
    loss: _Number | None
    elapsed_s: _Number | None


class JobFolder:
    """Paths and files of one job; see the module's docstring for the layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.job, self.status, self.metrics = root / "job.json", root / "status.json", root / "metrics.jsonl"
        self.samples, self.checkpoints, self.backbone = root / "samples", root / "checkpoints", root / "backbone"
        self.request, self.log, self.snapshots = root / "request.json", root / "log.txt", root / "snapshots"

    def exists(self) -> bool:
        """Whether a job was started here."""
        try:
            return self.job.is_file()
        except OSError:  # a folder that nobody may look into
            return False

    def create(self, settings: Mapping[str, Any]) -> None:
        """Start a new job.

        Raises
        ------
        JobError
            If the folder already holds one, or other files.
        """
        if self.exists():
            raise JobError(f"{self.root} already holds a job; add --resume to go on with it, or choose another --out")
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise JobError(f"{self.root} is not an empty folder; choose another --out")
        make_folder(self.root)
        write_json(self.job, dict(settings))

    def settings(self) -> dict[str, Any]:
        """What the job was started with.

        Raises
        ------
        JobError
            If there is no job here or its file is damaged.
        """
        try:
            return _read_object(self.job, JobFile)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise JobError(f"{self.root} holds no job (no job.json); start one without --resume") from error
        except OSError as error:
            raise JobError(f"{self.job} cannot be read ({error.strerror}); check that you may read it") from error
        except ValueError as error:
            raise JobError(f"{self.job} is damaged ({error}); start a new job in another folder") from error

    def read_job(self) -> dict[str, Any]:
        """Content of job.json; empty if there is none or it is damaged."""
        try:
            return self.settings()
        except JobError:
            return {}

    def write_status(self, **facts: Any) -> None:
        """Replace status.json; on a full disk it is written over in place, so that the job can still say why it failed.

        Raises
        ------
        OutputError
            If the folder is gone (it is not made again), or nothing can be written there.
        """
        if not self.exists():
            raise OutputError(f"cannot write {self.status}: the job's folder is gone; start a new job")
        try:
            write_json(self.status, facts)
        except OutputError:
            text = json.dumps(facts)
            try:
                with self.status.open("r+b") as file:  # the file's own blocks are there even when no others are
                    file.write(text.encode())
                    file.truncate()
            except OSError as error:
                raise output_error(self.status, error) from error

    def read_status(self) -> dict[str, Any]:
        """Content of status.json; empty if there is none or it is damaged."""
        try:
            return self.check_status()
        except JobError:
            return {}

    def check_status(self) -> dict[str, Any]:
        """Content of status.json; empty if there is none.

        Raises
        ------
        JobError
            If it is damaged.
        """
        try:
            return _read_object(self.status, StatusFile)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise JobError(f"its status.json is damaged ({error})") from error

    def write_request(self, want: str) -> None:
        """Ask the process that drives the job for something: ``pause`` or ``cancel``."""
        write_json(self.request, {"want": want})

    def read_request(self) -> str:
        """What a front end has asked for, else an empty text."""
        try:
            return read_json(self.request, RequestFile)["want"]
        except (OSError, ValueError):
            return ""

    def clear_request(self) -> None:
        """Nothing is asked for any more."""
        with contextlib.suppress(OSError):
            self.request.unlink(missing_ok=True)

    def write_log(self, text: str) -> None:
        """Append to log.txt with the time; what cannot be written is left out, because a log must not end a job."""
        if self.exists() and is_ordinary(self.log):
            with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")

    def read_log(self) -> str:
        """The end of log.txt."""
        if not is_ordinary(self.log):
            return ""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOG_TAIL))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def checkpoint_path(self, step: int) -> Path:
        """File of the checkpoint after `step`."""
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def list_checkpoints(self) -> list[Path]:
        """Checkpoints, newest first."""
        found = (path for path in self.checkpoints.glob("step-*") if _CHECKPOINT.fullmatch(path.name) and path.is_file())
        return sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)

    def remove_leftovers(self) -> None:
        """Remove what killed processes of the job have left; call it while holding the folder."""
        for folder in (self.root, self.checkpoints, self.samples, self.snapshots):
            remove_leftovers(folder)

    def drop_old_checkpoints(self) -> None:
        """Keep the newest two."""
        for path in self.list_checkpoints()[_KEPT:]:
            path.unlink(missing_ok=True)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every good line of metrics.jsonl; one that was cut off by a crash, or damaged, is left out."""
        rows: list[dict[str, Any]] = []
        if not is_ordinary(self.metrics):
            return rows
        try:
            with self.metrics.open("rb") as file:
                while line := file.readline(_LONGEST_LINE):
                    with contextlib.suppress(ValueError):
                        row = parse_json(line, dict[str, Any])
                        check_value(row, MetricsRow)
                        rows.append(row)
        except OSError:
            pass
        return rows

    def rewind_metrics(self, step: int) -> None:
        """Forget lines after `step`: those steps will be done again."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        with replacing(self.metrics) as unfinished:
            unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows))


def is_ordinary(path: Path) -> bool:
    """Whether this is a file, or nothing yet; a named pipe in its place would be waited for for ever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _read_object(path: Path, model: Any) -> dict[str, Any]:
    """A JSON object that fits `model`, with the entries that `model` does not know."""
    value = read_json(path, dict[str, Any])
    check_value(value, model)
    return value


class MetricsLog:
    """Append-only metrics.jsonl, flushed line by line; use it in a ``with`` block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> MetricsLog:
        if not is_ordinary(self._path):
            raise OutputError(f"cannot write {self._path}: something that is no file stands there; remove it")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a")
        return self

    def write(self, **facts: Any) -> None:
        """Append one line."""
        self._file.write(json.dumps(facts) + "\n")
        self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
