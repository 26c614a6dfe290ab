"""The list of a project's images with everything around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, Qt, QUrl
from qtpy.QtGui import QDesktopServices, QGuiApplication
from qtpy.QtWidgets import (
    QBoxLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QMessageBox,
    QProgressBar,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from mdm_studio.errors import InputError
from mdm_studio.services.browser_choices import BrowserChoices
from mdm_studio.services.image_list import Order, State, select
from napari_mdm_studio._actions import with_key
from napari_mdm_studio._browser_list import SIZES, ImageList, ImageListModel
from napari_mdm_studio._browser_missing import MissingBanner
from napari_mdm_studio._widgets import button, combo, menu_button, note, quietly, row

if TYPE_CHECKING:
    from mdm_studio.services.image_list import ImageEntry
    from mdm_studio.services.workspace import Workspace
    from napari_mdm_studio._project import ProjectView
    from napari_mdm_studio._session_home import SessionHome

WIDTH = 300
"""Least width of the dock in pixels."""
_WIDE = 1.5  # times as wide as high
_ANY = (1 << 24) - 1  # Qt's own word for "no limit"
_EVERY = 0.4  # seconds between two looks at the list, which changes with every image that is ranked
_JOB = "ranking"
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


class ProjectPage(QWidget):
    """The list of a project's images with everything around it."""

    def __init__(self, home: SessionHome, project: ProjectView, organize: Callable[[], QMenu]) -> None:
        super().__init__()
        self._home, self._project, self._workspace = home, project, project.workspace
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)  # else napari pushes it up
        self._ranking = self._ended = False
        self.model = ImageListModel(self, lambda: {each.value: each.name for each in home.session.classes})
        self.list = ImageList(self.model, partial(_thumbnail, self._workspace))
        self._build(organize)
        self._connect()
        self.refresh()
        self._loaded_choices(BrowserChoices())
        home.runner.start(BrowserChoices.load, done=self._loaded_choices, failed=home.warn)
        self.missing.look()

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
        self.missing = MissingBanner(self._home, self._workspace, self._found)
        column.addWidget(self.missing)
        self.text = QLineEdit()
        self.text.setPlaceholderText("Filter by name")
        self.text.setClearButtonEnabled(True)
        self.text.setAccessibleName("Filter by name")
        self.text.setToolTip("Show images whose path has all of these words.")
        self.state = combo("State of the images that are shown", "State of the images that are shown", _STATES, letters=10)
        self.sort = combo("Order of the images", "Order of the images", _SORTS, letters=10)
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
                part.setMinimumWidth(WIDTH if wide else 0)
                part.setMaximumWidth(WIDTH if wide else _ANY)

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
        self.missing.end()
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

    def _found(self) -> None:
        """Images that were missing are there again."""
        self.list.thumbnails.forget()
        self.list.viewport().update()
        self._project.begin()

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
            menu.addAction(f"Remove from the project{many}...", lambda: self.remove(ids))
        return menu

    def _review(self, ids: Sequence[str], reviewed: bool) -> None:
        for image_id in ids:
            self._workspace.set_reviewed(image_id, reviewed)

    def remove(self, ids: Sequence[str]) -> None:
        """Take images out of the project, if the user means it."""
        if ask_remove(self, [self._workspace.entry(image_id) for image_id in ids]):
            self._project.remove(ids)

    def keyPressEvent(self, event: Any) -> None:
        """Qt's hook: Delete takes the chosen images out of the project."""
        ids = self.list.chosen()
        if ids and self.list.hasFocus() and event.key() == Qt.Key.Key_Delete and not event.modifiers():
            self.remove(ids)
        else:
            super().keyPressEvent(event)


def ask_remove(parent: QWidget, entries: Sequence[ImageEntry]) -> bool:
    """Ask whether images are to leave the project, and say what becomes of their strokes."""
    what = entries[0].name if len(entries) == 1 else f"{len(entries):,} images"
    box = QMessageBox(QMessageBox.Icon.Question, "MDM Studio", f"Remove {what} from the project?", parent=parent)
    painted = sum(entry.painted for entry in entries)
    strokes = f" {painted:,} painted pixels are learnt from no longer, until it is added again." if painted else ""
    box.setInformativeText(f"No file is deleted.{strokes}")
    remove = box.addButton("&Remove", QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.exec()
    return box.clickedButton() is remove


def _thumbnail(workspace: Workspace, image_id: str, size: int) -> NDArray[np.uint8]:
    try:
        return workspace.thumbnail(image_id, size)
    except KeyError as error:
        raise InputError("the image was removed from the project meanwhile") from error
