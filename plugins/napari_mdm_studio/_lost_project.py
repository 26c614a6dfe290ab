"""Asks what to do when the folder of the open project is the project no longer: moved, removed, replaced, or its drive gone.

Nothing is written meanwhile and every stroke is in memory, so that the window beside it goes on as before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from mdm_studio.services.keeper import Keeper
    from napari_mdm_studio._session_home import SessionHome


class LostProject(QDialog):
    """Stays in view, over the window that it leaves usable, until the project is saved again.

    Attributes
    ----------
    follow, choose, copy, again : QPushButton
        The ways out: go on where it was found, choose where it is, save a copy elsewhere, try again.
    """

    def __init__(self, home: SessionHome, keeper: Keeper, parent: QWidget) -> None:
        super().__init__(parent)
        self.home, self.keeper = home, keeper
        self._found: Path | None = None
        self.setWindowTitle("The project is not saved")
        self.setModal(False)
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setWordWrap(True)
        self.text.setMinimumWidth(420)
        buttons = QDialogButtonBox(Qt.Orientation.Vertical)
        self.follow = self._button(buttons, "&Go on in its new place", self._follow)
        self.choose = self._button(buttons, "Choose where it is &now...", self.choose_place)
        self.copy = self._button(buttons, "Save a &copy...", self.save_copy)
        self.again = self._button(buttons, "&Try again", self._retry)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addWidget(buttons)

    def show_problem(self, problem: str) -> None:
        """Say what happened, or close when there is nothing to say any more."""
        if not problem:
            self.hide()
            return
        self._found = self.keeper.found
        if self._found == self.keeper.folder:
            self._found = None
        where = f"\n\nIt is in {self._found} now." if self._found else ""
        self.text.setText(
            f"{problem[:1].upper()}{problem[1:]}.{where}\n\nYour strokes are kept in memory, and you can go on painting. "
            "They are saved when the folder is back, or in the place that you choose."
        )
        self.follow.setVisible(self._found is not None)
        self.show()
        self.raise_()

    def choose_place(self, folder: str = "") -> None:
        """Go on in a folder, which is asked for unless it is given."""
        folder = folder or QFileDialog.getExistingDirectory(self, "Where is the project now?", str(self.keeper.folder or ""))
        if folder:
            self._go_on(Path(folder))

    def save_copy(self, folder: str = "") -> None:
        """Save everything in a new folder, which is asked for unless it is given, and go on there."""
        folder = folder or QFileDialog.getSaveFileName(self, "Save project as", "project", "Folders (*)")[0]
        if folder:
            self.home.attempt(self.home.session.save_project_as, Path(folder))

    def _follow(self) -> None:
        if self._found is not None:
            self._go_on(self._found)

    def _go_on(self, folder: Path) -> None:
        self.home.runner.start(self.keeper.relocate, folder, done=lambda _: self._tell(folder), failed=self.home.warn)

    def _tell(self, folder: Path) -> None:
        self.home.tell(f"The project is saved in {folder} from now on")

    def _retry(self) -> None:
        self.home.runner.start(self.keeper.retry, done=lambda _: None, failed=self.home.warn)

    def _button(self, box: QDialogButtonBox, text: str, clicked: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: clicked())  # without Qt's own argument
        box.addButton(button, QDialogButtonBox.ButtonRole.ActionRole)
        return button


class LostProjectWatch:
    """Shows a `LostProject` when a session's project is lost.

    Attributes
    ----------
    dialog : LostProject or None
        Made when it is first needed.
    """

    def __init__(self, home: SessionHome, window: QWidget) -> None:
        self._home, self._window = home, window
        self.dialog: LostProject | None = None
        self._keeper: Keeper | None = getattr(home.session, "keeper", None)
        if self._keeper is not None:
            home.relay(self._keeper.lost_changed, self._changed)

    def close(self) -> None:
        """Ask nothing more."""
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None

    def _changed(self, problem: str) -> None:
        if self._keeper is None or (self.dialog is None and not problem):
            return
        if self.dialog is None:
            self.dialog = LostProject(self._home, self._keeper, self._window)
        self.dialog.show_problem(problem)
