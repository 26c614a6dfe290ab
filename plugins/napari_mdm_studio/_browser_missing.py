"""Images that are not where they were: said, and looked for where the user says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QFrame, QVBoxLayout

from napari_mdm_studio._widgets import button, note, row

if TYPE_CHECKING:
    from mdm_studio.services.image_list import ImageEntry
    from mdm_studio.services.workspace import Workspace
    from napari_mdm_studio._session_home import SessionHome

_FRAME = "QFrame#banner { border: 1px solid #e69f00; border-radius: 4px; background: rgba(230, 159, 0, 40); }"


class MissingBanner(QFrame):
    """Hidden as long as all images are there.

    Parameters
    ----------
    found : callable
        Called when images were found again.
    """

    def __init__(self, home: SessionHome, workspace: Workspace, found: Callable[[], object]) -> None:
        super().__init__()
        self._home, self._workspace, self._found = home, workspace, found
        self._missing: tuple[ImageEntry, ...] = ()
        self._ended = False
        self.setObjectName("banner")
        self.setStyleSheet(_FRAME)
        self.words = note()
        self.words.setForegroundRole(self.words.palette().ColorRole.WindowText)  # it is no quiet word
        self.words.setAccessibleName("Missing images")
        tooltip = "Say where the images are now; asked once for all that were moved together."
        self.find_them = button("Find them...", tooltip, self.relocate)
        inside = QVBoxLayout(self)
        inside.addWidget(self.words)
        inside.addLayout(row(None, self.find_them))
        self.hide()

    def look(self) -> None:
        """Look whether all images are where they were, on a thread."""
        self._home.runner.start(self._workspace.missing, done=self._show, failed=self._home.warn)

    def _show(self, missing: tuple[ImageEntry, ...]) -> None:
        if self._ended:
            return
        self._missing = missing
        self.setVisible(bool(missing))
        if missing:
            some = "1 image is not where it was" if len(missing) == 1 else f"{len(missing):,} images are not where they were"
            self.words.setText(f"{some}, for example {missing[0].path}. The labels are safe.")

    def relocate(self, folder: str = "") -> None:
        """Look for the images that were moved in another folder; asks which unless it is given."""
        if not self._missing:
            return
        old = self._missing[0].path.parent
        folder = folder or QFileDialog.getExistingDirectory(self, f"Where are the images of {old} now?")
        if folder:
            home = self._home
            home.runner.start(self._workspace.relocate, old, Path(folder), done=self._relocated, failed=home.warn)

    def _relocated(self, count: int) -> None:
        self._home.tell(f"{count:,} images were found again." if count else "None of the missing images is there.")
        if not self._ended:
            self._found()
            self.look()

    def end(self) -> None:
        """Show nothing more."""
        self._ended = True
