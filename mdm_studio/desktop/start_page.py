"""The first page: begin, go on, what is new. It only signals; what is done about it is decided in `studio`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, Signal
from PySide6.QtGui import QAction, QPainter
from PySide6.QtWidgets import (
    QCommandLinkButton,
    QFrame,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from mdm_studio.desktop.icons import drawing, program_icon
from mdm_studio.desktop.recent import MOST, Recent
from mdm_studio.desktop.theme import Colors, sheet_of

_WIDTH = 1020
_ROLE = Qt.ItemDataRole.UserRole
_LEFT_TOP = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop
_TAGLINE = "From unlabelled images and a few brush strokes to segmentation masks"
_NO_PROJECTS = "Your projects will be listed here."
_WAYS: Final = (
    ("new_project", "&New project from a folder...", "Your images stay where they are.", True),
    ("open_project", "&Open project...", "Go on where you left off.", False),
    ("open_images", "Open &image files...", "Look at a few images without a project.", False),
    ("open_samples", "&Try the samples", "Bundled images of nuclei.", False),
)
"""The ways to begin: the name of a signal, title, words, and whether it is the chief one."""


class StartPage(QWidget):
    """The start page.

    Attributes
    ----------
    new_project, open_project, open_images, open_samples : Signal
        The user wants to begin in this way.
    recent_chosen, recent_removed : Signal
        Path of a recent project to open, or to take out of the list.
    """

    new_project = Signal()
    open_project = Signal()
    open_images = Signal()
    open_samples = Signal()
    recent_chosen = Signal(Path)
    recent_removed = Signal(Path)

    def __init__(self, version: str, news: str) -> None:
        super().__init__()
        self.setObjectName("startPage")
        self.setAccessibleName("Start page")
        self.ways = {name: self._way(name, title, words, chief) for name, title, words, chief in _WAYS}
        self.recent = RecentList()
        self.recent.chosen.connect(self.recent_chosen)
        self.recent.removed.connect(self.recent_removed)
        self.status = _label("", quiet=True)
        self.status.setAccessibleName("State of the program")
        self.drop_area = _drop_area()
        page = QWidget()
        page.setMaximumWidth(_WIDTH)
        column = QVBoxLayout(page)
        column.setContentsMargins(32, 36, 32, 20)
        column.setSpacing(24)
        column.addLayout(_header(version))
        column.addLayout(self._columns(news), 1)
        column.addWidget(self.drop_area)
        column.addWidget(self.status)
        self._arrange(page)
        self.begin()

    def _arrange(self, page: QWidget) -> None:
        inside = QWidget()
        middle = QHBoxLayout(inside)
        middle.setContentsMargins(0, 0, 0, 0)
        middle.addStretch(1)
        middle.addWidget(page, 100)
        middle.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)

    def _columns(self, news: str) -> QHBoxLayout:
        begin = QVBoxLayout()
        begin.setSpacing(10)
        begin.addWidget(_label("START", heading=True))
        for button in self.ways.values():
            begin.addWidget(button)
        begin.addStretch(1)
        middle = QVBoxLayout()
        middle.setSpacing(10)
        middle.addWidget(_label("RECENT PROJECTS", heading=True))
        middle.addWidget(self.recent, 100)
        middle.addStretch(1)
        right = QVBoxLayout()
        right.setSpacing(10)
        right.addWidget(_label("WHAT IS NEW", heading=True))
        words = _label(news)
        words.setTextFormat(Qt.TextFormat.MarkdownText)
        words.setWordWrap(True)
        words.setAlignment(_LEFT_TOP)
        words.setAccessibleName("What is new")
        right.addWidget(words)
        right.addStretch(1)
        columns = QHBoxLayout()
        columns.setSpacing(28)
        for part in (begin, middle, right):
            columns.addLayout(part, 1)
        return columns

    def _way(self, name: str, title: str, words: str, chief: bool) -> QCommandLinkButton:
        button = QCommandLinkButton(title, words)
        button.setProperty("card", True)
        button.setProperty("chief", chief)
        button.setAccessibleName(title.replace("&", "").rstrip("."))
        button.setAccessibleDescription(words)
        button.setToolTip(words)
        button.setIconSize(QSize(24, 24))
        button.clicked.connect(getattr(self, name))
        return button

    def wear(self, colors: Colors) -> None:
        """Take the colours of a theme."""
        self.setStyleSheet(sheet_of(colors))
        for name, button in self.ways.items():
            button.setIcon(drawing(name, colors.accent_text if button.property("chief") else colors.text))

    def show_recent(self, entries: Sequence[Recent]) -> None:
        """Show these projects."""
        self.recent.fill(entries)

    def begin(self) -> None:
        """Take the keyboard."""
        self.ways["new_project"].setFocus()

    def say(self, text: str) -> None:
        """Say what the program is doing; empty when there is nothing to say."""
        self.status.setText(text)

    def hover(self, over: bool) -> None:
        """Something is being dragged over the window, or no longer."""
        self.drop_area.setProperty("over", over)
        self.drop_area.style().unpolish(self.drop_area)
        self.drop_area.style().polish(self.drop_area)


class RecentList(QListWidget):
    """The recent projects; Enter or a click opens one, Delete takes it out of the list.

    Attributes
    ----------
    chosen, removed : Signal
        Path of a project.
    """

    chosen = Signal(Path)
    removed = Signal(Path)

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Recent projects")
        self.setToolTip("Enter or a click opens a project; Delete takes it out of this list and touches no file.")
        self.setItemDelegate(_TwoLines(self))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self.setMinimumHeight(180)
        self.setMaximumHeight(MOST * (2 * self.fontMetrics().height() + 16) + 16)
        self.itemClicked.connect(self._choose)
        for text, key, verb in (
            ("Open", "Return", lambda: self._choose(self.currentItem())),
            ("Remove from the list", "Delete", lambda: self._remove(self.currentItem())),
        ):
            action = QAction(text, self)
            action.setShortcut(key)
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.triggered.connect(verb)
            self.addAction(action)

    def fill(self, entries: Sequence[Recent]) -> None:
        """Show these projects; those that are not there are greyed."""
        self.clear()
        for entry in entries:
            item = QListWidgetItem(entry.name)
            item.setData(_ROLE, entry)
            missing = "" if entry.there else " (not found)"
            item.setToolTip(f"{entry.folder}{missing}")
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{entry.name}, {entry.place}{missing}")
            self.addItem(item)
        if entries:
            self.setCurrentRow(0)

    def _choose(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.chosen.emit(item.data(_ROLE).folder)

    def _remove(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.removed.emit(item.data(_ROLE).folder)

    def paintEvent(self, event: Any) -> None:
        """Qt's hook: says what belongs here while it is empty."""
        super().paintEvent(event)
        if not self.count():
            painter = QPainter(self.viewport())
            painter.setPen(self.palette().placeholderText().color())
            room = self.viewport().rect().adjusted(16, 16, -16, -16)
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, _NO_PROJECTS)


class _TwoLines(QStyledItemDelegate):
    """Paints name and place below each other."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(120, 2 * option.fontMetrics.height() + 16)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        entry: Recent = index.data(_ROLE)
        state: Any = option.state  # the stubs know nothing of what an option holds
        rect: QRect = option.rect.adjusted(2, 1, -2, -1)
        chosen = bool(state & QStyle.StateFlag.State_MouseOver) or (
            bool(state & QStyle.StateFlag.State_Selected) and bool(state & QStyle.StateFlag.State_HasFocus)
        )
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if chosen:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(option.palette.mid())
            painter.drawRoundedRect(rect, 5, 5)
        inside = rect.adjusted(10, 6, -10, -6)
        quiet = option.palette.placeholderText().color()
        font = painter.font()
        for text, bold, color, flag in (
            (entry.name, True, option.palette.text().color() if entry.there else quiet, Qt.AlignmentFlag.AlignTop),
            (entry.place if entry.there else f"not found: {entry.place}", False, quiet, Qt.AlignmentFlag.AlignBottom),
        ):
            font.setBold(bold)
            painter.setFont(font)
            painter.setPen(color)
            fitted = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, inside.width())
            painter.drawText(inside, flag | Qt.AlignmentFlag.AlignLeft, fitted)
        painter.restore()


def _header(version: str) -> QHBoxLayout:
    picture = QLabel()
    picture.setPixmap(program_icon().pixmap(QSize(72, 72)))
    picture.setFixedSize(72, 72)
    title = _label("MDM Studio")
    font = title.font()
    font.setPointSizeF(font.pointSizeF() * 2.4)
    font.setBold(True)
    title.setFont(font)
    words = QVBoxLayout()
    words.setSpacing(2)
    words.addStretch(1)
    words.addWidget(title)
    words.addWidget(_label(_TAGLINE, quiet=True))
    words.addStretch(1)
    row = QHBoxLayout()
    row.setSpacing(20)
    row.addWidget(picture)
    row.addLayout(words, 1)
    row.addWidget(_label(version, quiet=True), 0, Qt.AlignmentFlag.AlignBottom)
    return row


def _drop_area() -> QFrame:
    area = QFrame()
    area.setObjectName("dropArea")
    area.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    inside = QVBoxLayout(area)
    inside.setContentsMargins(16, 18, 16, 18)
    words = _label("Drop a folder of images, a project, image files or a classifier (.mdm) anywhere on this window", quiet=True)
    words.setAlignment(Qt.AlignmentFlag.AlignCenter)
    words.setWordWrap(True)
    inside.addWidget(words)
    return area


def _label(text: str, *, quiet: bool = False, heading: bool = False) -> QLabel:
    label = QLabel(text)
    label.setProperty("quiet", quiet)
    label.setProperty("heading", heading)
    if heading:
        font = label.font()
        font.setPointSizeF(font.pointSizeF() * 0.85)
        label.setFont(font)
    return label
