"""The folder that is trained on: chosen, dropped or that of the open images; what is in it, and what is odd about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QListView, QListWidget, QListWidgetItem, QProgressBar

from mdm_studio.io.paths import user_path
from mdm_studio.services.folder_survey import FolderSurvey, SurveyStep, survey_folder
from napari_mdm_studio._explorer_matrix import pixmap_of
from napari_mdm_studio._widgets import Section, button, note, row
from napari_mdm_studio._worker import Runner

if TYPE_CHECKING:
    from napari_mdm_studio._session_home import SessionHome

BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"
_ICON = 72
_NAMED = 5  # unreadable files that are named
_EVERY = 0.1
_WARNING = "color: #e69f00;"


class FolderBox(Section):
    """Chooses a folder and shows the survey of it; `surveyed` is None while there is none."""

    changed = Signal()

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Images")
        self._home, self._runner = home, Runner()
        self._stop, self._number = threading.Event(), 0
        self._steps = _Steps()
        home.relay(self._steps.done, self._step, every=_EVERY, key=lambda *_: None, owner=self)
        self.survey: FolderSurvey | None = None
        self.setAcceptDrops(True)
        self.place = QLineEdit()
        self.place.setAccessibleName("Folder of images")
        self.place.setPlaceholderText("choose a folder, or drop one here")
        self.place.setToolTip("Images without labels, the more the better. A folder may be dropped here, too.")
        self.place.editingFinished.connect(self._typed)
        self.choose = button("C&hoose...", "Choose the folder to train on.", self.ask, small=True)
        self.subfolders = QCheckBox("with su&b-folders")
        self.subfolders.setToolTip("Images in folders below it count, too.")
        self.subfolders.clicked.connect(lambda _: self.look())
        self.summary = note()
        self.summary.setAccessibleName("What is in the folder")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(BAR)
        self.bar.setAccessibleName("Share of the images that was looked at")
        self.bar.hide()
        self.strip = _Strip()
        self.warnings = note()
        self.warnings.setForegroundRole(self.palette().ColorRole.WindowText)  # not as quiet as other notes
        self.warnings.setStyleSheet(_WARNING)
        self.warnings.setAccessibleName("What should be known before training on it")
        self.unreadable = note()
        self.unreadable.setAccessibleName("Files that cannot be read")
        self.body.addLayout(row(self.place, self.choose))
        for part in (self.subfolders, self.summary, self.bar, self.strip, self.warnings, self.unreadable):
            self.body.addWidget(part)
        self._show_nothing()

    def end(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._number = -1
        self._runner.close()

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for a folder."""
        chosen = QFileDialog.getExistingDirectory(self, "Images to train on", self.place.text())
        if chosen:
            self.open(chosen)

    def open(self, place: str) -> None:
        """Look at a folder."""
        self.place.setText(place)
        self.look()

    def _typed(self) -> None:
        if self.place.isModified():
            self.place.setModified(False)
            self.look()

    def dragEnterEvent(self, event: Any) -> None:
        """Qt's hook."""
        if _dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Qt's hook."""
        place = _dropped(event)
        if place:
            event.acceptProposedAction()
            self.open(place)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look through the folder (again)."""
        place = self.place.text().strip()
        self._stop.set()
        self._number += 1
        self._show_nothing()
        if not place:
            self.changed.emit()
            return
        number, stop, subfolders = self._number, threading.Event(), self.subfolders.isChecked()
        self._stop = stop
        self.summary.setText("Looking...")
        self.bar.setRange(0, 0)
        self.bar.show()
        self.changed.emit()
        self._runner.start(
            lambda: _drive(user_path(place), subfolders, stop, lambda step: self._steps.done.emit(number, step)),
            done=lambda survey: self._found(number, survey),
            failed=lambda why: self._not_found(number, why),
        )

    def _step(self, number: int, step: SurveyStep) -> None:
        if number == self._number and not self.bar.isHidden():
            self.bar.setRange(0, step.total)
            self.bar.setValue(step.done)
            self.summary.setText(f"Looking at {step.done:,} of {step.total:,}: {step.name}")

    def _found(self, number: int, survey: FolderSurvey | None) -> None:
        if number != self._number or survey is None:
            return
        self.bar.hide()
        self.survey = survey
        self.summary.setText(f"{survey.summary()}.")
        self.strip.show_pictures([(each.name, each.rgb) for each in survey.thumbnails])
        lines = [each.why for each in survey.unreadable]
        more = f"\nand {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else ""
        names = ", ".join(each.path.name for each in survey.unreadable[:_NAMED])
        self.unreadable.setText(f"Unreadable: {names}{more}" if lines else "")
        self.unreadable.setToolTip("\n".join(lines[:50]))
        self.unreadable.setVisible(bool(lines))
        self.changed.emit()

    def _not_found(self, number: int, why: str) -> None:
        if number == self._number:
            self.bar.hide()
            self.summary.setText(f"{why[:1].upper()}{why[1:]}.")
            self.changed.emit()

    def show_warnings(self, warnings: tuple[str, ...]) -> None:
        """Say what should be known; it depends on the form, too."""
        self.warnings.setText("\n".join(f"\N{WARNING SIGN} {words}" for words in warnings))
        self.warnings.setVisible(bool(warnings))

    def _show_nothing(self) -> None:
        self.survey = None
        self.bar.hide()
        self.summary.setText("" if self.place.text() else "Some dozens of images of the kind that you want masks of.")
        self.strip.show_pictures([])
        self.show_warnings(())
        self.unreadable.hide()


class _Steps:
    """What comes from the thread that looks."""

    done = Signal(int, object)


class _Strip(QListWidget):
    """Thumbnails side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Some of the images")
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListView.Movement.Static)
        self.setIconSize(QSize(_ICON, _ICON))
        self.setSpacing(2)
        self.setUniformItemSizes(True)
        self.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setStyleSheet("QListWidget { background: transparent; border: 0; } QListWidget::item { padding: 0; margin: 0; }")
        self.setFixedHeight(_ICON + 20)

    def show_pictures(self, pictures: list[tuple[str, Any]]) -> None:
        """Show pictures ``(h, w, 3)`` by name."""
        self.clear()
        for name, rgb in pictures:
            item = QListWidgetItem(QIcon(pixmap_of(rgb)), "")
            item.setToolTip(name)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, name)
            item.setSizeHint(QSize(_ICON + 4, _ICON + 4))
            self.addItem(item)
        self.setVisible(bool(pictures))


def _drive(place: Path, subfolders: bool, stop: threading.Event, tell: Callable[[SurveyStep], None]) -> FolderSurvey | None:
    """Run the survey to its end; None if it was stopped. Runs on the helper's thread."""
    steps = survey_folder(place, subfolders=subfolders)
    while not stop.is_set():
        try:
            tell(next(steps))
        except StopIteration as finished:
            found: FolderSurvey = finished.value
            return found
    steps.close()
    return None


def _dropped(event: Any) -> str:
    """The folder (or the one of a file) that is dropped; empty if nothing of that kind is."""
    paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
    if not paths:
        return ""
    return str(paths[0] if paths[0].is_dir() else paths[0].parent)


def usual_folder(home: SessionHome) -> str:
    """The folder of the open project's or window's images; empty if they lie in none."""
    workspace = getattr(home, "workspace", None)
    paths = [entry.path for entry in workspace.entries] if workspace is not None else []
    paths += [Path(layer.source.path) for layer in home.viewer.layers if getattr(layer.source, "path", None)]
    folders = [path if path.is_dir() and path.suffix.lower() != ".zarr" else path.parent for path in paths]
    return str(folders[0]) if folders else ""
