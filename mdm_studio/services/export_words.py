"""An export that is running, or over, in words: pure, for any front end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mdm_studio.errors import MDMStudioError
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.json_files import read_json
from mdm_studio.services.estimates import as_duration
from mdm_studio.services.export_form import ExportFacts, Judgement, counted, in_bytes
from mdm_studio.services.jobs.states import JobView

_PERMILLE = 1000
_REPORT = "export.json"
_OUTCOMES = {
    "done": "written",
    "skipped": "kept",
    "failed": "failed",
    "stopped": "stopped on the way",
    "not reached": "not reached",
}
_STATES = {
    "queued": "Waiting for its turn",
    "running": "Writing",
    "paused": "Paused",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "interrupted": "Interrupted",
}


@dataclass(frozen=True)
class JobShown:
    """What a window shows of an export.

    Attributes
    ----------
    title, text : str
        Its state; what it is called, how far it is, or what became of it.
    permille : int
        For a bar; -1 for one that moves to and fro.
    cancel, resume, dismiss : bool
        What can be done about it.
    """

    title: str
    text: str
    permille: int
    cancel: bool
    resume: bool
    dismiss: bool


def describe(judgement: Judgement, facts: ExportFacts) -> str:
    """What an export that is about to start will write."""
    if not facts.images or facts.not_writable:
        return ""
    return f"{counted(len(facts.images), 'image')}, about {in_bytes(judgement.size)}, to {facts.out}."


def show_job(view: JobView) -> JobShown:
    """An export in words."""
    living = view.living
    return JobShown(
        title=_STATES[view.state],
        text=_text(view),
        permille=-1 if view.state == "queued" else round(_PERMILLE * min(max(view.done, 0.0), 1.0)),
        cancel=living or view.state in ("paused", "interrupted"),
        resume=view.state in ("paused", "interrupted", "failed", "cancelled"),
        dismiss=not living,
    )


def _text(view: JobView) -> str:
    parts = [view.name]
    if view.steps and view.state != "queued":
        parts.append(f"{view.step:,} of {view.steps:,} images")
    if view.facts.get("failed"):
        parts.append(f"{view.facts['failed']:,} failed")
    if view.living and view.eta_s is not None and view.steps:
        parts.append(f"{as_duration(view.eta_s)} left")
    lines = ["  ·  ".join(parts)]
    if view.message and view.state != "done":  # the summary says it then
        lines.append(f"Now: {view.message}" if view.state == "running" else _sentence(view.message))
    if view.living:
        lines.append("It goes on by itself: this window may be closed.")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


@dataclass(frozen=True)
class Summary:
    """What became of an export so far.

    Attributes
    ----------
    text : str
        Counts and times.
    failures : tuple of str
        Each image that failed, and why.
    folder : Path or None
        Where it writes.
    """

    text: str = ""
    failures: tuple[str, ...] = ()
    folder: Path | None = None


def read_summary(view: JobView) -> Summary:
    """What the job's settings and the report beside the masks say; it reads files.

    While it runs there is no report yet; one of an earlier export into the same folder is not taken for it.
    """
    try:
        folder = Path(JobFolder(view.folder).settings()["options"]["out"])
    except (MDMStudioError, KeyError, TypeError):
        return Summary(folder=view.result)
    try:
        report = read_json(folder / _REPORT, dict[str, Any])
        if view.living or datetime.fromisoformat(report["ended"]).timestamp() < int(view.created):
            return Summary(folder=folder)
        return summarise(report, folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # there is none, or it is somebody else's
        return Summary(folder=folder)


def summarise(report: Mapping[str, Any], folder: Path) -> Summary:
    """The report of an export in words."""
    counts, images = report["counts"], report["images"]
    parts = [f"{counts[state]:,} {words}" for state, words in _OUTCOMES.items() if counts.get(state)]
    objects = sum(each.get("objects", 0) for each in images)
    measured = [f"measurements.{kind}" for kind in report["settings"]["tables"]]
    lines = [f"{', '.join(parts)}, in {as_duration(report['seconds'])}."] if parts else []
    if objects:
        what = counted(objects, "object") + (" in the images written" if counts.get("skipped") else "")
        lines.append(what + (f", measured in {' and '.join(measured)}." if measured else "."))
    lines.append(f"Written to {folder}; {_REPORT} has the settings and versions.")
    failures = (f"{Path(path).name}: {_without(why, path)}" for path, why in report["failures"].items())
    return Summary("\n".join(lines), tuple(failures), folder)


def _without(why: str, path: str) -> str:
    """A reason that need not name the file again."""
    return why.replace(f"cannot read {path}: ", "").replace(path, Path(path).name)
