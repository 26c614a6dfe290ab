"""The Images dock: the images of a project, what state they are in, and what to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QMenu, QVBoxLayout, QWidget

from mdm_studio.io.images import find_images
from mdm_studio.services.workspace import Workspace
from napari_mdm_studio._browser_page import WIDTH, ProjectPage
from napari_mdm_studio._project import is_project, open_project
from napari_mdm_studio._session_home import BROWSER, home_of
from napari_mdm_studio._widgets import Dock, button, note, row

if TYPE_CHECKING:
    import napari

    from napari_mdm_studio._session_home import SessionHome


class ImageBrowser(Dock):
    """Images of the project of a viewer; without one, ways to a project.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the images are shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.home: SessionHome = home_of(viewer)
        self.setMinimumWidth(WIDTH)
        self.setAccessibleName(BROWSER)
        self.setAcceptDrops(True)
        self.page: ProjectPage | None = None
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 6, 8, 8)
        if self.home.project is None:
            outer.addWidget(self._start())
            outer.addStretch(1)
        else:
            self.page = ProjectPage(self.home, self.home.project, self._organize)
            outer.addWidget(self.page)
        self.home.has_dock(BROWSER, self)
        self.home.closed.connect(self.end)

    def end(self) -> None:
        """Let go of the project."""
        self.home.closed.disconnect(self.end, missing_ok=True)
        self.home.lost_dock(self)
        if self.page is not None:
            self.page.end()

    def _start(self) -> QWidget:
        """What there is without a project."""
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        words = note(
            "No project is open. A project is a folder that keeps labels, classes and the classifier for any number of images; "
            "the images stay where they are."
        )
        self.new = button("&New project...", "Choose a folder of images, and where the project is kept.", self.new_project)
        self.open = button("Op&en project...", "Go on with a project.", self.open_project)
        column.addWidget(words)
        column.addLayout(row(self.new, self.open))
        return part

    def _organize(self) -> QMenu:
        """What can be done with projects and their images."""
        menu = QMenu(self)
        menu.addAction("Add images...", self.add_images)
        menu.addAction("Add a folder of images...", self.add_folder)
        menu.addSeparator()
        menu.addAction("New project...", self.new_project)
        menu.addAction("Open project...", self.open_project)
        return menu

    # ---- projects ----------------------------------------------------------------------------------------------------

    def new_project(self, images: str = "", folder: str = "") -> None:
        """Make a project of a folder of images; asks for both folders unless they are given."""
        images = images or QFileDialog.getExistingDirectory(self, "Folder of images")
        if not images:
            return
        proposed = str(Path(images).parent / f"{Path(images).name} project")
        folder = folder or QFileDialog.getSaveFileName(self, "New project: name of its folder", proposed, "Folders (*)")[0]
        if folder:
            home, made = self.home, Path(folder)
            home.runner.start(_create, made, images, done=lambda _: _open(home, made), failed=home.warn)

    def open_project(self, folder: str = "") -> None:
        """Open a project; asks which unless `folder` is given."""
        folder = folder or QFileDialog.getExistingDirectory(self, "Open project")
        if folder and not is_project(Path(folder)):
            self.home.warn(f"{folder} is no project: choose the folder that holds its project.json, or make a new project.")
        elif folder:
            home = self.home
            QTimer.singleShot(0, lambda: _open(home, Path(folder)))  # later, because this dock ends with what is open now

    def add_images(self, paths: Sequence[str] = ()) -> None:
        """Add images; asks for files unless `paths`, files or folders, are given."""
        chosen = list(paths) or QFileDialog.getOpenFileNames(self, "Add images")[0]
        if chosen and self.home.workspace is not None:
            home, workspace = self.home, self.home.workspace
            home.runner.start(_add, workspace, chosen, done=lambda count: home.tell(_added(count)), failed=home.warn)

    def add_folder(self) -> None:
        """Add all images of a folder."""
        folder = QFileDialog.getExistingDirectory(self, "Add a folder of images")
        if folder:
            self.add_images([folder])

    def dragEnterEvent(self, event: Any) -> None:
        """Qt's hook: files and folders may be dropped here."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Qt's hook."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        event.acceptProposedAction()
        if len(paths) == 1 and is_project(Path(paths[0])):
            self.open_project(paths[0])
        elif paths and self.home.project is not None:
            self.add_images(paths)
        elif len(paths) == 1 and Path(paths[0]).is_dir():
            self.new_project(paths[0])
        elif paths:
            self.home.tell("Make or open a project first; then drop images here.")


def _create(folder: Path, images: str) -> None:
    Workspace.create(folder, find_images([images]))


def _open(home: SessionHome, folder: Path) -> None:
    """Open a project in place of what is open, or leave it to the program around the viewer."""
    if len(home.project_asked):
        home.project_asked.emit(folder)
    else:
        home.attempt(open_project, home.viewer, folder)


def _add(workspace: Workspace, chosen: Sequence[str]) -> int:
    return len(workspace.add_images(find_images(chosen)))


def _added(count: int) -> str:
    return f"{count:,} images were added." if count else "All of them are in the project already."
