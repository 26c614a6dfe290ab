"""The Pretrain dock: a backbone of one's own, trained in the background on a folder of unlabelled images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mdm_studio.errors import OutputError
from mdm_studio.io.paths import real_path
from mdm_studio.services.estimates import keep_speed
from mdm_studio.services.jobs.board import JobBoard
from mdm_studio.services.jobs.states import JobView
from mdm_studio.services.new_pretraining import Wanted, job_settings, keep_wanted, read_wanted
from napari_mdm_studio._jobs_table import JobsTable
from napari_mdm_studio._pretrain_folder import FolderBox, usual_folder
from napari_mdm_studio._pretrain_form import TrainingForm
from napari_mdm_studio._pretrain_progress import ProgressBox
from napari_mdm_studio._session_home import home_of
from napari_mdm_studio._widgets import Dock, button, note

if TYPE_CHECKING:
    import napari

    from mdm_studio.services.estimates import SpeedRequest
    from mdm_studio.services.folder_survey import FolderSurvey
    from napari_mdm_studio._session_home import SessionHome

PRETRAIN = "Pretrain"
"""Name of the dock."""
_WIDTH = 400
_TELLING = 50  # steps after which a job's own speed is better than a measured one


class Pretrain(Dock):
    """Folder, training, jobs, and how the chosen one goes.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose images and strokes are offered.
    board : JobBoard, optional
        In place of a new one.
    """

    def __init__(self, viewer: napari.viewer.Viewer, board: JobBoard | None = None) -> None:
        super().__init__()
        self.home: SessionHome = home_of(viewer)
        self.board = board or JobBoard()
        self.setMinimumWidth(_WIDTH)
        self.setAccessibleName(PRETRAIN)
        self._ended = self._starting = False
        self._finished: frozenset[str] | None = None  # jobs that were done when the list was looked at last
        self._timed: dict[str, SpeedRequest] = {}  # jobs begun here, whose speed is worth knowing
        self.folder = FolderBox(self.home)
        self.training = TrainingForm(self.home)
        tooltip = "Train in a process of its own: this window stays free, and may be closed."
        self.start_button = button("S&tart", tooltip, self.start)
        self.said = note()
        self.said.setAccessibleName("What became of the start")
        self.jobs = JobsTable(self.home, self.board)
        self.progress = ProgressBox(self.home)
        self.fill(self.folder, self.training, self.start_button, self.said, self.jobs, self.progress)
        self.said.hide()
        self.folder.changed.connect(self._surveyed)
        self.training.changed.connect(self._warn)
        self.jobs.selected.connect(self.progress.show_job)
        self.progress.published.connect(lambda _: self.home.backbones_changed.emit())
        self.home.backbones_changed.connect(self._list_again)
        self.home.relay(self.board.changed, self._jobs_changed, key=lambda *_: None, owner=self)
        self.home.closed.connect(self.end)
        self.home.has_dock(PRETRAIN, self)
        self.home.runner.start(self._begin, done=self._begun, failed=self.home.warn)
        self._show_start()

    def end(self) -> None:
        """Let go of everything; the jobs live on."""
        if self._ended:
            return
        self._ended = True
        self.home.closed.disconnect(self.end, missing_ok=True)
        self.home.backbones_changed.disconnect(self._list_again, missing_ok=True)
        self.home.lost_dock(self)
        for part in (self.folder, self.training, self.jobs, self.progress):
            part.end()
        self.board.close()

    def _begin(self) -> tuple[Wanted, tuple[JobView, ...]]:
        """Runs on the helper's thread."""
        return read_wanted(), self.board.revive()

    def _begun(self, found: tuple[Wanted, tuple[JobView, ...]]) -> None:
        if self._ended:
            return
        wanted, revived = found
        self.training.put(wanted)
        self.board.watch()
        if revived:
            names = ", ".join(view.name for view in revived)
            self._say(f"Interrupted jobs go on from their last checkpoint: {names}.")
        if not self.folder.place.text():
            place = usual_folder(self.home)
            if place:
                self.folder.open(place)

    # ---- a new job ---------------------------------------------------------------------------------------------------

    def _surveyed(self) -> None:
        survey = self.folder.survey
        self.training.show_survey(survey, real_path(survey.place).name if survey else "")
        self._warn()
        self._show_start()

    def _warn(self) -> None:
        survey, wanted = self.folder.survey, self.training.wanted()
        if survey is not None:
            self.folder.show_warnings(survey.warnings(wanted.crop, wanted.scale, reads=self.training.reads()))

    def _show_start(self) -> None:
        survey = self.folder.survey
        self.start_button.setEnabled(not self._starting and survey is not None and bool(survey.images))

    def start(self) -> None:
        """Begin the job that the form describes."""
        survey = self.folder.survey
        if survey is None or self._starting:
            return
        self.training.take_typed()
        wanted, name = self.training.wanted(), self.training.name.text()
        self._starting = True
        self._show_start()
        self._say("Preparing...")
        self.home.runner.start(lambda: self._add(wanted, survey, name), done=self._started, failed=self._not_started)

    def _add(self, wanted: Wanted, survey: FolderSurvey, name: str) -> tuple[JobView, str]:
        """Runs on the helper's thread."""
        view = self.board.add("pretrain", job_settings(wanted, survey, name), name.strip())
        try:
            keep_wanted(wanted)
        except OutputError as error:
            return view, str(error)
        self._timed[view.id] = wanted.speed_request(survey)
        return view, ""

    def _started(self, found: tuple[JobView, str]) -> None:
        if self._ended:
            return
        view, problem = found
        self._starting = False
        self._show_start()
        self._say(problem or f"{view.name} trains in the background from now on; this window may be closed.")
        self.jobs.choose(view)

    def _not_started(self, why: str) -> None:
        if not self._ended:
            self._starting = False
            self._show_start()
            self._say(f"{why[:1].upper()}{why[1:]}.")

    def _say(self, words: str) -> None:
        self.said.setText(words)
        self.said.show()

    # ---- what becomes of jobs ----------------------------------------------------------------------------------------

    def _jobs_changed(self, views: tuple[JobView, ...]) -> None:
        """A finished backbone is in the lists at once."""
        finished = frozenset(view.id for view in views if view.kind == "pretrain" and view.state == "done")
        if self._finished is not None and finished - self._finished:
            names = ", ".join(view.name for view in views if view.id in finished - self._finished)
            self._say(f"{names} is finished and among the backbones.")
            self.home.backbones_changed.emit()
        self._finished = finished
        for view in views:
            if view.id in self._timed and view.state == "running" and view.step >= _TELLING and view.rate:
                request, rate, device = self._timed.pop(view.id), view.rate, view.device
                self.home.runner.start(partial(keep_speed, request, rate, device), done=_nothing, failed=self.home.warn)

    def _list_again(self) -> None:
        """There is another backbone."""
        from mdm_studio.services.backbone_list import list_backbones

        self.home.runner.start(list_backbones, done=self.training.offer, failed=self.home.warn)


def _nothing(_: object) -> None:
    """Nobody waits for it."""
