"""From a form to a job: the classifier is kept where the job finds it, and the job is put on the board. Call it on a thread."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mdm_studio.errors import ClassifierError, JobError
from mdm_studio.io.atomic import make_folder, replacing
from mdm_studio.io.paths import real_path, user_path
from mdm_studio.services.export_form import ExportChoices, ExportFacts, request_of

if TYPE_CHECKING:
    from mdm_studio.services.jobs.board import JobBoard
    from mdm_studio.services.jobs.states import JobView

CLASSIFIER = "export.mdm"
"""The classifier that made the masks, beside them: the strokes may go on while the export runs."""
_PATIENCE = 120.0  # seconds that a classifier may take to learn the last stroke
_LOOK = 0.1


class Trains(Protocol):
    """The part of a session that is asked for its classifier."""

    status: Any

    def save_classifier(self, path: Path) -> None:
        """Write FILE.mdm; ClassifierError if nothing is trained to the end yet."""


def keep_classifier(
    session: Trains, path: Path, *, stop: Callable[[], bool] = lambda: False, patience: float = _PATIENCE
) -> Path:
    """Write the classifier that is being trained, once it has learnt the last stroke.

    Raises
    ------
    ClassifierError
        If there is none, or if it is not ready within `patience` seconds, or `stop` says that nobody waits any more.
    """
    end = time.monotonic() + patience
    while True:
        try:
            session.save_classifier(path)
        except ClassifierError:
            if stop() or not session.status.busy or time.monotonic() > end:
                raise
            time.sleep(_LOOK)
        else:
            return path


@dataclass(frozen=True)
class Start:
    """All that an export needs to begin.

    Attributes
    ----------
    trained : callable
        Writes the classifier that is being trained to a path, and gives the path.
    cache : Path or None
        Folder of the feature cache.
    """

    choices: ExportChoices
    facts: ExportFacts
    trained: Callable[[Path], Path]
    cache: Path | None

    @property
    def name(self) -> str:
        """Of the job: that of the folder which the masks lie beside, or in."""
        out = self.facts.out
        return f"Masks of {out.parent.name}" if out.name == "masks" and out.parent.name else f"Masks in {out.name or out}"

    def onto(self, board: JobBoard) -> JobView:
        """Keep the classifier and put the job on the board.

        Raises
        ------
        UsageError
            If something stands in the way, in words.
        ClassifierError
            If there is no classifier yet.
        OutputError
            If nothing can be written.
        """
        request_of(self.choices, self.facts, Path(CLASSIFIER), self.cache)  # before anything is written
        kept = self.facts.out / CLASSIFIER
        make_folder(self.facts.out)
        if self.choices.classifier == "file":
            _copy(user_path(self.choices.file), kept)
        else:
            self.trained(kept)
        request = request_of(self.choices, self.facts, kept, self.cache)
        return board.add("export", request.to_json(), self.name)


def _copy(source: Path, target: Path) -> None:
    if real_path(source) == real_path(target):
        return
    with replacing(target) as unfinished:
        shutil.copyfile(source, unfinished)


def writers(board: JobBoard, *, but: str = "") -> dict[Path, str]:
    """Folders that exports write to now, and the exports' names; `but` is a job to leave out."""
    from mdm_studio.io.job_folder import JobFolder

    found: dict[Path, str] = {}
    for view in board.jobs():
        if view.kind == "export" and view.living and view.id != but:
            try:
                found[Path(JobFolder(view.folder).settings()["options"]["out"])] = view.name
            except (JobError, KeyError, TypeError):
                continue  # a damaged one writes nowhere
    return found
