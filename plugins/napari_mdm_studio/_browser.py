"""The Images dock: the images of a project, what state they are in, and what to label next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QGuiApplication
from qtpy.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QProgressBar,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from mdm_studio.errors import InputError
from mdm_studio.io.images import find_images
from mdm_studio.services.browser_choices import BrowserChoices
from mdm_studio.services.image_list import Order, State, select
from mdm_studio.services.workspace import Workspace
from napari_mdm_studio._actions import with_key
from napari_mdm_studio._browser_list import SIZES, ImageList, ImageListModel
from napari_mdm_studio._project import is_project, open_project
from napari_mdm_studio._session_home import BROWSER, home_of
from napari_mdm_studio._widgets import Dock, button, menu_button, note, quietly, row

if TYPE_CHECKING:
    import napari

    from mdm_studio.services.image_list import ImageEntry
    from napari_mdm_studio._project import ProjectView
    from napari_mdm_studio._session_home import SessionHome

_WIDTH = 300
_WIDE = 1.5  # times as wide as high
_ANY = (1 << 24) - 1  # Qt's own word for "no limit"
_EVERY = 0.4  # seconds between two looks at the list, which changes with every image that is ranked
_JOB = "ranking"
_BANNER = "QFrame#banner { border: 1px solid #e69f00; border-radius: 4px; background: rgba(230, 159, 0, 40); }"
_BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"
_SORTS: dict[Order, str] = {
    "name": "By name",
    "uncertainty": "Most uncertain first: what to label next",
    "labelled": "Most labelled first",
}
_STATES: dict[State, str] = {
    "all": "All images",
    "labelled": "\u270e Labelled",
    "unlabelled": "Not labelled",
    "predicted": "\u25d4 Predicted",
    "reviewed": "\u2714 Reviewed",
    "not reviewed": "Not reviewed",
    "problem": "\u26a0 With a problem",
}


def count_words(entries: Sequence[ImageEntry]) -> str:
    """How far the project is."""
    labelled = sum(entry.painted > 0 for entry in entries)
    predicted = sum(entry.uncertainty is not None for entry in entries)
    reviewed = sum(entry.reviewed for entry in entries)
    problems = sum(bool(entry.problem) for entry in entries)
    words = f"{labelled:,} labelled, {predicted:,} predicted, {reviewed:,} reviewed of {len(entries):,}"
    return words + (f"; {problems:,} with a problem" if problems else "")


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
        self.setMinimumWidth(_WIDTH)
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


class ProjectPage(QWidget):
    """The list of a project's images with everything around it."""

    def __init__(self, home: SessionHome, project: ProjectView, organize: Callable[[], QMenu]) -> None:
        super().__init__()
        self._home, self._project, self._workspace = home, project, project.workspace
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)  # else napari pushes it up
        self._ranking = self._ended = False
        self._missing: tuple[ImageEntry, ...] = ()
        self.model = ImageListModel(self, lambda: {each.value: each.name for each in home.session.classes})
        self.list = ImageList(self.model, partial(_thumbnail, self._workspace))
        self._build(organize)
        self._connect()
        self.refresh()
        self._loaded_choices(BrowserChoices())
        home.runner.start(BrowserChoices.load, done=self._loaded_choices, failed=home.warn)
        self.look_for_missing()

    # ---- made of -----------------------------------------------------------------------------------------------------

    def _build(self, organize: Callable[[], QMenu]) -> None:
        self._parts = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._parts.setContentsMargins(0, 0, 0, 0)
        head, foot = QWidget(), QWidget()
        for part in (head, foot):
            QVBoxLayout(part).setContentsMargins(0, 0, 0, 0)
        self._fill_head(head.layout(), organize)
        self._fill_foot(foot.layout())
        self._parts.addWidget(head)
        self._parts.addWidget(self.list, 1)
        self._parts.addWidget(foot)
        self._ends = (head, foot)

    def _fill_head(self, column: Any, organize: Callable[[], QMenu]) -> None:
        self.title = QLabel()
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.title.setStyleSheet("font-weight: bold;")
        self.organize, _ = menu_button("Organi&ze", "Add images, open or make a project.")
        self.organize.setMenu(organize())
        self.counts = note()
        self.counts.setAccessibleName("How far the project is")
        column.addLayout(row(self.title, None, self.organize))
        column.addWidget(self.counts)
        column.addWidget(self._banner())
        self.text = QLineEdit()
        self.text.setPlaceholderText("Filter by name")
        self.text.setClearButtonEnabled(True)
        self.text.setAccessibleName("Filter by name")
        self.text.setToolTip("Show images whose path has all of these words.")
        self.state = _combo("State of the images that are shown", _STATES)
        self.sort = _combo("Order of the images", _SORTS)
        filters = QHBoxLayout()
        filters.addWidget(self.text, 1)
        filters.addWidget(self.state, 1)
        column.addLayout(filters)
        column.addWidget(self.sort)
        column.addStretch(1)

    def _fill_foot(self, column: Any) -> None:
        self.reading = note()
        self.reading.setAccessibleName("What is being read or ranked")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(_BAR)
        self.bar.setAccessibleName("Share of the images that is ranked")
        self.bar.hide()
        column.addWidget(self.reading)
        column.addWidget(self.bar)
        for line in self._buttons():
            column.addLayout(line)
        column.addStretch(1)

    def resizeEvent(self, event: Any) -> None:
        """Qt's hook: what is wide and low, at the bottom of a window, has everything side by side."""
        super().resizeEvent(event)
        wide = event.size().width() > _WIDE * event.size().height()
        way = QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom
        if way != self._parts.direction():
            self._parts.setDirection(way)
            for part in self._ends:
                part.setMinimumWidth(_WIDTH if wide else 0)
                part.setMaximumWidth(_WIDTH if wide else _ANY)

    def _banner(self) -> QFrame:
        self.banner = QFrame()
        self.banner.setObjectName("banner")
        self.banner.setStyleSheet(_BANNER)
        self.missing_words = note()
        tooltip = "Say where the images are now; asked once for all that were moved together."
        self.find_them = button("Find them...", tooltip, self.relocate)
        inside = QVBoxLayout(self.banner)
        inside.addWidget(self.missing_words)
        inside.addLayout(row(None, self.find_them))
        self.banner.hide()
        return self.banner

    def _buttons(self) -> tuple[QHBoxLayout, ...]:
        home, project = self._home, self._project
        self.previous = button("Previou&s", with_key("Show the image before.", "previous_image"), lambda: home.next_image(-1))
        self.next = button("Ne&xt", with_key("Show the next image.", "next_image"), lambda: home.next_image(1))
        tooltip = with_key("Mark the image that is shown as looked at and found well.", "toggle_reviewed")
        self.reviewed = button("Reviewed", tooltip, project.toggle_reviewed)
        self.reviewed.setCheckable(True)
        self.rank = button(
            "Ran&k images",
            "Predict all images with the present classifier, to see which are the most uncertain; it goes on while you work.",
            self.toggle_ranking,
        )
        self.suggest = button("Sugges&t next image", "Show the image whose labels would help most.", project.suggest)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(SIZES) - 1)
        self.slider.setPageStep(1)
        self.slider.setMaximumWidth(90)
        self.slider.setAccessibleName("Size of the thumbnails")
        self.slider.setToolTip("Size of the thumbnails")
        return row(self.previous, self.next, self.reviewed, None, self.slider), row(self.rank, self.suggest)

    def _connect(self) -> None:
        home, project, workspace = self._home, self._project, self._workspace
        relay = partial(home.relay, owner=self)
        relay(workspace.entries_changed, self.refresh, every=_EVERY, key=lambda *_: None)
        relay(workspace.ranked, self._ranked, every=0.1, key=lambda *_: None)
        relay(home.session.jobs_changed, self._jobs_changed)
        relay(home.session.noticed, self.refresh)  # perhaps the project is kept elsewhere from now on
        project.shown_changed.connect(self._shown)
        project.wanted_changed.connect(self._wanted)
        project.order = self.order
        self.list.opened.connect(project.show)
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.customContextMenuRequested.connect(self._open_menu)
        self.text.textChanged.connect(self.refresh)
        self.state.currentIndexChanged.connect(self.refresh)
        self.sort.currentIndexChanged.connect(self._choose)
        self.slider.valueChanged.connect(self._choose)

    def end(self) -> None:
        """Listen no longer; the thread of the thumbnails ends."""
        if self._ended:
            return
        self._ended = True
        self._project.shown_changed.disconnect(self._shown, missing_ok=True)
        self._project.wanted_changed.disconnect(self._wanted, missing_ok=True)
        if self._project.order == self.order:
            self._project.order = self._project.usual_order
        self.list.close_thumbnails()

    # ---- what is shown -----------------------------------------------------------------------------------------------

    def refresh(self, *_: object) -> None:
        """Show the list as it is now."""
        if self._ended:
            return
        entries = self._workspace.entries
        self.list.set_entries(
            select(entries, text=self.text.text(), state=self.state.currentData(), sort=self.sort.currentData())
        )
        self.counts.setText(count_words(entries))
        self.title.setText(self._workspace.folder.name)
        self.title.setToolTip(str(self._workspace.folder))
        self._shown(self._project.shown, scroll=False)
        self.suggest.setEnabled(bool(entries))

    def order(self) -> tuple[str, ...]:
        """Ids as they are listed: filtered, sorted."""
        return tuple(entry.id for entry in self.model.entries)

    def _shown(self, image_id: str, *, scroll: bool = True) -> None:
        if scroll or image_id != self.list.shown:
            self.list.mark_shown(image_id)
        entry = self._workspace.entry(image_id) if image_id else None
        self.reviewed.setEnabled(entry is not None)
        quietly(self.reviewed, "setChecked", bool(entry and entry.reviewed))

    def _wanted(self, image_id: str) -> None:
        self._say(f"Reading {self._workspace.entry(image_id).name}..." if image_id else "")

    def _say(self, words: str) -> None:
        self.reading.setText(words)

    def _choose(self, *_: object) -> None:
        """Sort or draw in another way, and remember it."""
        self.list.set_thumbnail_size(SIZES[self.slider.value()])
        self.refresh()
        choices = BrowserChoices(SIZES[self.slider.value()], self.sort.currentData())
        self._home.runner.start(choices.save, done=lambda _: None, failed=self._home.warn)

    def _loaded_choices(self, choices: BrowserChoices) -> None:
        if self._ended:
            return
        nearest = min(range(len(SIZES)), key=lambda number: abs(SIZES[number] - choices.thumbnail))
        quietly(self.slider, "setValue", nearest)
        quietly(self.sort, "setCurrentIndex", get_args(Order).index(choices.sort))
        self.list.set_thumbnail_size(SIZES[nearest])
        self.refresh()

    # ---- ranking -----------------------------------------------------------------------------------------------------

    def toggle_ranking(self) -> None:
        """Predict all images, or stop that."""
        if self._ranking:
            self._workspace.stop_ranking()
        else:
            self._home.attempt(self._workspace.rank)

    def _jobs_changed(self, names: frozenset[str]) -> None:
        self._ranking = _JOB in names
        self.rank.setText("Stop ran&king" if self._ranking else "Ran&k images")
        self.rank.setAccessibleName(self.rank.text().replace("&", ""))
        self.bar.setVisible(self._ranking)
        self._say("")

    def _ranked(self, done: int, total: int) -> None:
        self.bar.setRange(0, max(total, 1))
        self.bar.setValue(done)
        if self._ranking:
            self._say(f"Ranking: {done:,} of {total:,} images")

    # ---- missing images ----------------------------------------------------------------------------------------------

    def look_for_missing(self) -> None:
        """Look whether all images are where they were, on a thread."""
        self._home.runner.start(self._workspace.missing, done=self._found_missing, failed=self._home.warn)

    def _found_missing(self, missing: tuple[ImageEntry, ...]) -> None:
        if self._ended:
            return
        self._missing = missing
        self.banner.setVisible(bool(missing))
        if missing:
            some = "1 image is not where it was" if len(missing) == 1 else f"{len(missing):,} images are not where they were"
            self.missing_words.setText(f"{some}, for example {missing[0].path}. The labels are safe.")

    def relocate(self, folder: str = "") -> None:
        """Look for the images that were moved in another folder; asks which unless it is given."""
        if not self._missing:
            return
        old = self._missing[0].path.parent
        folder = folder or QFileDialog.getExistingDirectory(self, f"Where are the images of {old} now?")
        if folder:
            home = self._home
            home.runner.start(self._workspace.relocate, old, Path(folder), done=self._relocated, failed=home.warn)

    def _relocated(self, found: int) -> None:
        self._home.tell(f"{found:,} images were found again." if found else "None of the missing images is there.")
        if not self._ended:
            self.list.thumbnails.forget()
            self.look_for_missing()

    # ---- single images -----------------------------------------------------------------------------------------------

    def _open_menu(self, place: QPoint) -> None:
        menu = self.menu_of(self.list.chosen())
        menu.popup(self.list.viewport().mapToGlobal(place))

    def menu_of(self, ids: Sequence[str]) -> QMenu:
        """What can be done with the chosen images."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if ids:
            first = self._workspace.entry(ids[0])
            menu.addAction("Show", lambda: self._project.show(first.id)).setEnabled(not first.problem)
            menu.addAction("Mark as reviewed", lambda: self._review(ids, True))
            menu.addAction("Mark as not reviewed", lambda: self._review(ids, False))
            menu.addSeparator()
            menu.addAction("Copy path", lambda: QGuiApplication.clipboard().setText(str(first.path)))
            where = QUrl.fromLocalFile(str(first.path.parent))
            menu.addAction("Open its folder", lambda: QDesktopServices.openUrl(where))
            menu.addSeparator()
            many = "" if len(ids) == 1 else f" ({len(ids)} images)"
            menu.addAction(f"Remove from the project{many}", lambda: self._project.remove(ids))
        return menu

    def _review(self, ids: Sequence[str], reviewed: bool) -> None:
        for image_id in ids:
            self._workspace.set_reviewed(image_id, reviewed)

    def keyPressEvent(self, event: Any) -> None:
        """Qt's hook: Delete takes the chosen images out of the project."""
        ids = self.list.chosen()
        if ids and self.list.hasFocus() and event.key() == Qt.Key.Key_Delete:
            self._project.remove(ids)
        else:
            super().keyPressEvent(event)


def _combo(name: str, words: dict[Any, str]) -> QComboBox:
    made = QComboBox()
    made.setAccessibleName(name)
    made.setToolTip(name)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(10)
    for value, text in words.items():
        made.addItem(text, value)
    return made


def _thumbnail(workspace: Workspace, image_id: str, size: int) -> NDArray[np.uint8]:
    try:
        return workspace.thumbnail(image_id, size)
    except KeyError as error:
        raise InputError("the image was removed from the project meanwhile") from error


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
