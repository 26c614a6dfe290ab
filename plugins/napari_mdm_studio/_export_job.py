"""An export that runs, or is over: how far it is, what failed, and what can be done about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QProgressBar

from mdm_studio.services.export_words import Summary, read_summary, show_job
from napari_mdm_studio._widgets import Section, button, note, row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mdm_studio.services.jobs.board import JobBoard
    from mdm_studio.services.jobs.states import JobView
    from napari_mdm_studio._session_home import SessionHome
    from napari_mdm_studio._worker import Runner

_ROWS = 5  # failures shown without scrolling


class JobBox(Section):
    """The export of this window; jobs that others have started are shown elsewhere.

    Parameters
    ----------
    board : JobBoard
        All jobs.
    """

    changed = Signal()
    """Another job is shown, or it has another state."""

    def __init__(self, home: SessionHome, runner: Runner, board: JobBoard) -> None:
        super().__init__("Export")
        self._runner, self._board, self._warn = runner, board, home.warn
        self.view: JobView | None = None
        self._folder: Path | None = None
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.setAccessibleName("Share of the images that is done")
        self.text = note()
        self.text.setAccessibleName("How far the export is")
        self.summary = note()
        self.summary.setForegroundRole(self.summary.palette().ColorRole.WindowText)
        self.summary.setAccessibleName("What was written")
        self.failures = QListWidget()
        self.failures.setAccessibleName("Images that failed, and why")
        self.failures.setToolTip("Images without masks, and why. The other images have theirs.")
        self.failures.setWordWrap(True)
        self.cancel = button("&Cancel", "Stop; masks that are done stay, and Resume goes on from there.", self._cancel)
        self.resume = button("&Resume", "Go on where it stopped; what is done and whole is not done again.", self._resume)
        self.open = button("Ope&n folder", "Show the folder with what was written.", self.open_folder)
        self.dismiss = button("&Dismiss", "Show this export no longer; its files stay.", self.forget)
        for part in (self.bar, self.text, self.summary, self.failures):
            self.body.addWidget(part)
        self.body.addLayout(row(self.cancel, self.resume, self.open, self.dismiss))
        self.hide()
        home.relay(board.changed, self._jobs_changed, key=lambda *_: None, owner=self)

    def show_view(self, view: JobView) -> None:
        """Show a job."""
        before, self.view = self.view, view
        shown = show_job(view)
        self.heading.setText(f"<b>{shown.title}</b>")
        self.bar.setRange(0, 0 if shown.permille < 0 else 1000)
        self.bar.setValue(max(0, shown.permille))
        self.bar.setVisible(view.state != "done")
        self.text.setText(shown.text)
        self.text.setVisible(bool(shown.text))
        for which, on in ((self.cancel, shown.cancel), (self.resume, shown.resume), (self.dismiss, shown.dismiss)):
            which.setVisible(on)
        new = before is None or before.id != view.id
        if new:
            self._show_summary(view.id, Summary())
        if new or (before and before.state != view.state):
            self._runner.start(read_summary, view, done=partial(self._show_summary, view.id), failed=self._warn)
        self.show()
        if new or (before and before.state != view.state):
            self.changed.emit()

    def forget(self) -> None:
        """Show no job."""
        self.view = None
        self.hide()
        self.changed.emit()

    def _jobs_changed(self, views: Sequence[JobView]) -> None:
        if self.view is None:
            return
        found = next((view for view in views if view.id == self.view.id), None)
        if found is None:
            self.forget()  # removed elsewhere
        elif found != self.view:
            self.show_view(found)

    def _show_summary(self, job_id: str, summary: Summary) -> None:
        if self.view is None or self.view.id != job_id:
            return
        self._folder = summary.folder
        self.open.setEnabled(summary.folder is not None)
        self.summary.setText(summary.text)
        self.summary.setVisible(bool(summary.text))
        if [self.failures.item(number).text() for number in range(self.failures.count())] != list(summary.failures):
            self.failures.clear()
            for line in summary.failures:
                item = QListWidgetItem(line)
                item.setToolTip(line)
                self.failures.addItem(item)
        self.failures.setVisible(bool(summary.failures))
        height = self.failures.fontMetrics().lineSpacing() * 3 + 6
        self.failures.setFixedHeight(min(len(summary.failures), _ROWS) * height + 6)

    def _verb(self, verb: Any) -> None:
        """Ask the board for something; it may wait for the job's process for a moment."""
        if self.view is not None:
            self._runner.start(verb, self.view.id, done=self._answered, failed=self._warn)

    def _answered(self, view: JobView) -> None:
        if self.view is not None and self.view.id == view.id:
            self.show_view(view)

    def _cancel(self) -> None:
        self._verb(self._board.cancel)

    def _resume(self) -> None:
        self._verb(self._board.resume)

    def open_folder(self) -> None:
        """Show the folder in the system's file manager."""
        if self._folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder)))
