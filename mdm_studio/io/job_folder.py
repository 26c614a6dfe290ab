"""A job is a folder; the folder is the truth.

::

    OUT/
      job.json          what was asked for (never changes)
      status.json       what is going on: state, step, ETA, heartbeat, process
      metrics.jsonl     one JSON object a line, one line a step
      samples/          pictures on the way
      checkpoints/      state to go on from
      backbone/         the result, once there is one
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mdm_studio.errors import JobError
from mdm_studio.io.atomic import replacing, write_json

_KEPT = 2  # checkpoints: the last, and the one before it should the last be unreadable


class JobFolder:
    """Paths and files of one job; see the module's docstring for the layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.job, self.status, self.metrics = root / "job.json", root / "status.json", root / "metrics.jsonl"
        self.samples, self.checkpoints, self.backbone = root / "samples", root / "checkpoints", root / "backbone"

    def exists(self) -> bool:
        """Whether a job was started here."""
        return self.job.is_file()

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
        write_json(self.job, dict(settings))

    def settings(self) -> dict[str, Any]:
        """What the job was started with.

        Raises
        ------
        JobError
            If there is no job here or its file is damaged.
        """
        try:
            settings: dict[str, Any] = json.loads(self.job.read_text())
        except FileNotFoundError as error:
            raise JobError(f"{self.root} holds no job (no job.json); start one without --resume") from error
        except ValueError as error:
            raise JobError(f"{self.job} is damaged ({error}); start a new job in another folder") from error
        return settings

    def write_status(self, **facts: Any) -> None:
        """Replace status.json."""
        write_json(self.status, facts)

    def checkpoint_path(self, step: int) -> Path:
        """File of the checkpoint after `step`."""
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def list_checkpoints(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted(self.checkpoints.glob("step-*.safetensors"), reverse=True)

    def drop_old_checkpoints(self) -> None:
        """Keep the newest two."""
        for path in self.list_checkpoints()[_KEPT:]:
            path.unlink(missing_ok=True)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl; a line cut off by a crash is left out."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def rewind_metrics(self, step: int) -> None:
        """Forget lines after `step`: those steps will be done again."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        with replacing(self.metrics) as unfinished:
            unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows))


class MetricsLog:
    """Append-only metrics.jsonl, flushed line by line; use it in a ``with`` block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> MetricsLog:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a")
        return self

    def write(self, **facts: Any) -> None:
        """Append one line."""
        self._file.write(json.dumps(facts) + "\n")
        self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
