"""How a pretraining goes: loss, reconstructions, and what it does to the strokes painted so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtWidgets import QCheckBox, QLabel

from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.checkpoint_scores import JOB, CheckpointScore, CheckpointScorer, read_scores
from mdm_studio.services.job_curves import JobLook, look_into
from mdm_studio.services.new_pretraining import read_card, usable_backbone
from napari_mdm_studio._jobs_table import show_page
from napari_mdm_studio._pretrain_plots import LossPlot, ScorePlot
from napari_mdm_studio._pretrain_sheet import SheetBox
from napari_mdm_studio._widgets import Section, button, note, row

if TYPE_CHECKING:
    from mdm_studio.services.jobs.states import JobView
    from napari_mdm_studio._session_home import SessionHome

_Found = tuple[JobLook, tuple[CheckpointScore, ...]]
_FEWEST_CLASSES = 2


class ProgressBox(Section):
    """Curves and pictures of one job; `published` after a backbone was made of it."""

    published = Signal(str)

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Progress")
        self._home = home
        self._scorer = CheckpointScorer(home.session)
        self._view: JobView | None = None
        self._look: JobLook | None = None
        self._scores: tuple[CheckpointScore, ...] = ()
        self._looking = self._again = self._ended = False
        self._judged: tuple[Path, int] | None = None  # the checkpoint that was judged last, or could not be
        self._jobs: frozenset[str] = frozenset()
        self._build()
        home.relay(self._scorer.scored, self._scored, owner=self)
        home.relay(self._scorer.progressed, self._progressed, every=0.2, key=lambda *_: None, owner=self)
        home.relay(self._scorer.failed, self._not_scored, owner=self)
        home.relay(home.session.jobs_changed, self._jobs_changed, owner=self)
        self.show_job(None)

    def _build(self) -> None:
        self.log = QCheckBox("lo&garithmic")
        self.log.setToolTip("Show the loss on a logarithmic axis.")
        self.loss = LossPlot()
        self.log.toggled.connect(self.loss.set_log)
        self.sheet = SheetBox(self._home)
        self.judge = QCheckBox("&judge checkpoints by my strokes")
        self.judge.setChecked(True)
        self.judge.setToolTip("Compare each checkpoint with the backbone in use on what is painted, while nothing else waits.")
        self.judge.toggled.connect(lambda _: self._judge_newest())
        tooltip = "Judge the newest checkpoint by the strokes there are now."
        self.judge_now = button("Judge no&w", tooltip, self._judge, small=True)
        self.scores = ScorePlot()
        self.words = note()
        self.words.setAccessibleName("What the newest checkpoint does to your strokes")
        self.key = QLabel(
            '<span style="color:#e69f00">\N{BLACK CIRCLE}</span> checkpoint &nbsp; '
            '<span style="color:#9a9a9a">\N{BLACK SQUARE}</span> backbone in use'
        )
        self.use = button("&Use now", "Read this backbone from now on; the old one stays in the list.", self.use_now)
        self.card = button("Model car&d", "What the finished backbone was trained on, and how.", self.show_card)
        self.outcome = note()
        self.outcome.setAccessibleName("What became of it")
        self._loss_head = row(QLabel("Loss"), None, self.log)
        self.body.addLayout(self._loss_head)
        self.body.addWidget(self.loss)
        self.body.addWidget(self.sheet)
        self.body.addLayout(row(self.judge, None, self.judge_now))
        for part in (self.scores, self.key, self.words):
            self.body.addWidget(part)
        self.body.addLayout(row(self.use, self.card))
        self.body.addWidget(self.outcome)

    def end(self) -> None:
        """Show nothing more."""
        self._ended = True
        self._view = None
        self.sheet.end()

    # ---- which job ---------------------------------------------------------------------------------------------------

    def show_job(self, view: JobView | None) -> None:
        """Show a job as it is now."""
        other = self._view is None or view is None or view.id != self._view.id
        self._view = view
        self.setVisible(view is not None)
        if other:
            self.heading.setText(f"<b>{view.name}</b>" if view else "")
            self.outcome.hide()
            self._show((JobLook(view.folder if view else Path()), ()))
        if view is not None:
            self.use.setEnabled(view.state == "done" or bool(self._look and self._look.checkpoint))
            self.card.setEnabled(view.state == "done")
            self._look_again()

    def _look_again(self) -> None:
        """Look into the job's folder, once more afterwards if it was asked meanwhile."""
        view, before = self._view, self._look
        if self._looking or view is None:
            self._again = self._looking
            return
        self._looking = True
        folder = JobFolder(view.folder)
        self._home.runner.start(
            lambda: (look_into(folder, before), read_scores(folder)), done=self._looked, failed=lambda why: self._looked(None)
        )

    def _looked(self, found: _Found | None) -> None:
        self._looking = False
        view = self._view
        if self._ended or view is None:
            return
        if found is not None and found[0].root == view.folder:
            self._show(found)
            self._judge_newest()
        elif found is not None:
            self._again = True  # another job was chosen meanwhile
        if self._again:
            self._again = False
            self._look_again()

    def _show(self, found: _Found) -> None:
        self._look, scores = found
        self.loss.show_look(self._look)
        self.sheet.show_samples(self._look.samples)
        self._show_scores(scores)
        if self._view is not None:
            self.use.setEnabled(self._view.state == "done" or self._look.checkpoint is not None)
            self.judge_now.setEnabled(self._look.checkpoint is not None and JOB not in self._jobs)

    # ---- what it does to the labels ----------------------------------------------------------------------------------

    def _show_scores(self, scores: tuple[CheckpointScore, ...]) -> None:
        self._scores = scores
        self.scores.show_scores(scores)
        for part in (self.scores, self.key):
            part.setVisible(bool(scores))
        if JOB not in self._jobs:
            self.words.setText(scores[-1].words() if scores else self._why_not())

    def _why_not(self) -> str:
        if not self.judge.isChecked():
            return ""
        if len(self._home.session.painted) < _FEWEST_CLASSES:
            return "Paint two strokes at least of each of two classes, and each checkpoint is judged by them."
        if self._look is None or self._look.checkpoint is None:
            return "The first checkpoint will be judged by your strokes."
        return ""

    def _judge_newest(self) -> None:
        look = self._look
        if not self.judge.isChecked() or look is None or look.checkpoint is None or JOB in self._jobs:
            return
        newest = (look.root, look.checkpoint)
        known = any(score.step == look.checkpoint for score in self._scores)
        if newest != self._judged and not known and len(self._home.session.painted) >= _FEWEST_CLASSES:
            self._judge()

    def _judge(self) -> None:
        if self._look is not None and self._look.checkpoint is not None:
            self._judged = (self._look.root, self._look.checkpoint)
            self.judge_now.setEnabled(False)
            self._scorer.score(JobFolder(self._look.root))

    def _progressed(self, words: str, share: float) -> None:
        if JOB in self._jobs:
            self.words.setText(f"{words[:1].upper()}{words[1:]} ({share:.0%})")

    def _scored(self, root: Path, scores: tuple[CheckpointScore, ...]) -> None:
        if self._look is not None and root == self._look.root:
            self._show_scores(scores)
            self.words.setText(scores[-1].words())

    def _not_scored(self, why: str) -> None:
        self.words.setText(f"{why[:1].upper()}{why[1:]}.")

    def _jobs_changed(self, jobs: frozenset[str]) -> None:
        ended = JOB in self._jobs and JOB not in jobs
        self._jobs = jobs
        if ended:
            self.judge_now.setEnabled(self._look is not None and self._look.checkpoint is not None)
            self._judge_newest()  # one that came meanwhile

    # ---- using it ----------------------------------------------------------------------------------------------------

    def use_now(self) -> None:
        """Make a backbone of what there is, and have the session read it."""
        view = self._view
        if view is not None:
            self.use.setEnabled(False)
            self._tell(f"Making a backbone of {view.name}...")
            self._home.runner.start(lambda: usable_backbone(view), done=self._use, failed=self._not_used)

    def _use(self, name: str) -> None:
        if self._ended:
            return
        self.use.setEnabled(True)
        if self._home.attempt(self._home.session.choose, backbone=name):
            self._tell(f"{name} is read from now on.")
        self.published.emit(name)

    def _not_used(self, why: str) -> None:
        if not self._ended:
            self.use.setEnabled(True)
            self._tell(f"{why[:1].upper()}{why[1:]}.")

    def show_card(self) -> None:
        """Show the model card of the finished backbone."""
        view = self._view
        if view is not None:
            folder = view.result or view.folder / "backbone"
            self._home.runner.start(
                lambda: read_card(view),
                done=lambda text: self._ended or show_page(self, f"Model card of {view.name}", text, folder),
                failed=self._not_used,
            )

    def _tell(self, words: str) -> None:
        self.outcome.setText(words)
        self.outcome.show()
