"""What a job is doing, judged from its files alone: pure, so that every front end says the same.

The lock decides who lives: it is the operating system's own and ends with its process. The heartbeat, which a thread of its own
writes, tells a slow step (beats come, reports do not) from a process that is stuck or suspended (neither comes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

State = Literal["queued", "running", "paused", "done", "failed", "cancelled", "interrupted", "damaged"]
"""`interrupted`: the files say queued or running, but nobody holds the folder (power cut, killed process). `damaged`: they say
nothing that makes sense."""
Lock = Literal["free", "held", "unknown"]
"""Whether a process holds the folder or is known to live; `unknown` on the rare file systems that know no locks."""
LIVING: tuple[State, ...] = ("queued", "running")

BEAT_SECONDS = 2.0  # between two signs of life
STALE_SECONDS = 30.0  # without one a process is stuck; the longest wait seen for a beat of a starved process was 4 s
START_SECONDS = 30.0  # between the making of a job and its start, which is a matter of milliseconds
SLOW_SECONDS = 60.0  # a step longer than this is worth a word


@dataclass(frozen=True)
class JobReport:
    """What a job tells while it runs.

    Attributes
    ----------
    done : float
        Share of the work that is done, 0..1. A job whose last report says 1 is finished even if it was asked to stop.
    step, steps
        Where it is, and how many steps there will be (None while unknown).
    eta_s, rate, unit
        Seconds left, speed, and the unit of speed.
    note : str
        A few words on what it does just now.
    facts : mapping
        JSON values. ``result`` (path of what was made) and ``device`` have a place of their own in `JobView`.
    """

    done: float
    step: int = 0
    steps: int | None = None
    eta_s: float | None = None
    rate: float | None = None
    unit: str = ""
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobView:
    """What front ends show of a job.

    Attributes
    ----------
    message : str
        failed, damaged: the reason and what to do; queued: what it waits for; running: what it does, or that a step is slow;
        else what to do next.
    result : Path or None
        The finished backbone, or the folder of an export.
    lane : str
        Jobs of one lane run one after the other.
    """

    id: str
    folder: Path
    kind: str
    name: str
    state: State
    step: int = 0
    steps: int | None = None
    done: float = 0.0
    eta_s: float | None = None
    rate: float | None = None
    unit: str = ""
    message: str = ""
    device: str = ""
    created: float = 0.0
    result: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    lane: str = ""

    @property
    def living(self) -> bool:
        """Whether a process works on it or waits for its turn."""
        return self.state in LIVING


def judge_state(status: Mapping[str, Any], lock: Lock, now: float) -> State:
    """State of a job from its status.json and its lock; where the lock says nothing, from the time of its last sign of life.

    A sign of life of the future tells nothing: the clock has been set, on this machine or another one.
    """
    said = status.get("state", "interrupted")
    if said not in LIVING:
        return said if said in get_args(State) else "interrupted"
    if lock == "held":
        return said  # type: ignore[no-any-return]
    age = abs(now - float(status.get("heartbeat", 0.0)))
    if lock == "unknown":
        return said if age < STALE_SECONDS else "interrupted"
    # nobody holds it: either it has been made a moment ago, or its process is gone
    return "queued" if said == "queued" and age < START_SECONDS else "interrupted"


def judge(
    job_id: str, folder: Path, asked: Mapping[str, Any], status: Mapping[str, Any], lock: Lock, now: float, *, lane: str = ""
) -> JobView:
    """What a job is doing.

    Parameters
    ----------
    asked, status : mapping
        job.json and status.json; empty where there is none. Those of version 0.1 are understood too. Their entries have the
        types that `mdm_studio.io.job_folder` checks.
    lock : Lock
        Whether a process holds the folder.
    now : float
        Seconds since the epoch, the clock of the heartbeat.
    """
    if not asked:
        gone = f"its folder {folder} is gone or damaged; connect its drive again, or remove the job from the list"
        return JobView(job_id, folder, "", job_id, "failed", message=gone)
    if not status:  # it has just been made, or its first process never wrote a word
        status = {"state": "queued", "heartbeat": asked.get("created", 0.0)}
    state = judge_state(status, lock, now)
    facts = dict(status.get("facts", {}))
    if "facts" not in status:  # version 0.1
        facts |= {key: status[key] for key in ("loss", "precision", "minutes") if status.get(key) is not None}
    living = state in LIVING
    result = status.get("result")
    return JobView(
        job_id,
        folder,
        kind=str(asked.get("kind", "")),
        name=str(asked.get("name", job_id)),
        state=state,
        step=int(status.get("step") or 0),
        steps=status.get("steps"),
        done=float(status.get("done") or 0.0),
        eta_s=status.get("eta_s") if living else None,
        rate=status.get("rate", status.get("images_per_s")) if living else None,
        unit=str(status.get("unit", "images/s")),
        message=_message(job_id, state, status, now),
        device=str(status.get("device") or ""),
        created=float(asked.get("created", 0.0)),
        result=Path(result) if result else None,
        facts=facts,
        lane=lane,
    )


def _message(job_id: str, state: State, status: Mapping[str, Any], now: float) -> str:
    said = str(status.get("message", ""))
    if state == "interrupted":
        return "its process ended without a word (power cut, or it was killed); resume it to go on from its last checkpoint"
    if state == "failed":
        return said or f"it failed; `mdm-studio jobs logs {job_id}` says more"
    if state not in LIVING:
        return said
    silent, waited = now - float(status.get("heartbeat", now)), now - float(status.get("reported", now))
    if silent > STALE_SECONDS:
        return (
            f"no sign of life for {_words(silent)}, though its process {status.get('pid', '')} is still there: the computer is "
            "very busy, the process is suspended, or the disk takes nothing; wait, wake it, or end it and resume the job"
        )
    if state == "running" and waited > SLOW_SECONDS:
        return f"{said or 'working'}: this step has taken {_words(waited)} so far; the process is alive"
    return said


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
