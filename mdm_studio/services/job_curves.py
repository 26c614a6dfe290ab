"""What the files of a pretraining job show: its losses, its pictures, its newest checkpoint, the scores of its checkpoints.

No torch, and what was read before is not read again: a front end looks every second or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdm_studio.io.job_folder import JobFolder, MetricsRow, is_ordinary
from mdm_studio.io.json_files import parse_json

_POINTS = 2000  # of a curve: more than a window has pixels
_SHARE = 50  # a running mean is over a fiftieth of the steps, as in the report of a run,
_SMOOTH, _YOUNG = 10, 4  # and of a young run over ten steps, or a quarter of them


@dataclass(frozen=True)
class JobLook:
    """What was found in the folder of a job.

    Attributes
    ----------
    steps, losses : (N,)
        One value a step.
    samples : tuple of (int, Path)
        Step and sheet of reconstructions, by step.
    checkpoint : int or None
        Step of the newest checkpoint.
    read_to : int
        Bytes of metrics.jsonl that were read.
    """

    root: Path
    steps: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)
    samples: tuple[tuple[int, Path], ...] = ()
    checkpoint: int | None = None
    read_to: int = 0

    def curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses and their running mean as points ``(n, 2)`` (step, value); of long runs as many as can be seen."""
        count = len(self.losses)
        width = max(1, count // _SHARE, min(_SMOOTH, count // _YOUNG))
        every = max(1, -(-len(self.losses) // _POINTS))
        raw = np.column_stack([self.steps, self.losses])[::every]
        sums = np.cumsum(np.insert(self.losses, 0, 0.0))
        means = (sums[width:] - sums[:-width]) / width
        mean = np.column_stack([self.steps[width - 1 :], means])[::every]
        return raw, mean


def look_into(folder: JobFolder, before: JobLook | None = None) -> JobLook:
    """Look into a job's folder; only what came since `before` is read."""
    old = before if before is not None and before.root == folder.root else JobLook(folder.root)
    samples = tuple((_step(path), path) for path in sorted(folder.samples.glob("step-*.png")))
    checkpoints = folder.list_checkpoints()
    steps, losses, read_to = _read(folder.metrics, old)
    return JobLook(folder.root, steps, losses, samples, _step(checkpoints[0]) if checkpoints else None, read_to)


def _step(path: Path) -> int:
    number = path.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def _read(path: Path, old: JobLook) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Losses so far; from the beginning where the file is another one, because a resumed job takes steps back."""
    try:
        if not is_ordinary(path):
            return old.steps, old.losses, old.read_to
        with path.open("rb") as file:
            size = file.seek(0, 2)
            begin = old.read_to if old.read_to <= size else 0
            file.seek(begin)
            text = file.read()
    except OSError:
        return old.steps, old.losses, old.read_to
    whole = text[: text.rfind(b"\n") + 1]  # the last line may be in the making
    found = [_values(line) for line in whole.splitlines()]
    new = np.array([each for each in found if each is not None], np.float64).reshape(-1, 2)
    steps = new[:, 0].astype(np.int64)
    if begin and len(steps) and len(old.steps) and steps[0] != old.steps[-1] + 1:  # it was rewound, and has grown again
        return _read(path, JobLook(old.root))
    if not begin:
        return steps, new[:, 1], len(whole)
    return np.concatenate([old.steps, steps]), np.concatenate([old.losses, new[:, 1]]), begin + len(whole)


def _values(line: bytes) -> tuple[int, float] | None:
    try:
        row = parse_json(line, MetricsRow)
    except ValueError:
        return None
    loss = row.get("loss")
    return None if loss is None else (row["step"], loss)
