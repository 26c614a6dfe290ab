"""Small parts that the docks are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QMenu,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

SPACING = 6


class Dock(QWidget):
    """What napari shows in a dock.

    napari takes it out of a dock that is closed for good and deletes nothing; it then ends and deletes itself.
    """

    def event(self, event: Any) -> bool:
        """Qt's hook."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.end()
            self.deleteLater()
        return bool(super().event(event))

    def end(self) -> None:
        """Listen no longer."""

    def fill(self, *parts: QWidget | QLayout) -> None:
        """Put parts one below the other, behind a scroll bar where they do not fit."""
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(8, 6, 8, 8)
        column.setSpacing(8)
        for part in parts:
            if isinstance(part, QWidget):
                column.addWidget(part)
            else:
                column.addLayout(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)


class Section(QFrame):
    """A titled part of a dock; its `body` takes the widgets."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setAccessibleName(title)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 4)
        outer.setSpacing(4)
        self.heading = QLabel(f"<b>{title}</b>")
        self.head = QHBoxLayout()
        self.head.addWidget(self.heading)
        self.head.addStretch(1)
        outer.addLayout(self.head)
        self.body = QVBoxLayout()
        self.body.setSpacing(SPACING)
        outer.addLayout(self.body)

    def end(self) -> None:
        """Listen no longer: the dock was closed, or the session."""


def row(*widgets: QWidget | None) -> QHBoxLayout:
    """Widgets side by side; None is a stretch."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    for widget in widgets:
        if widget is None:
            layout.addStretch(1)
        else:
            layout.addWidget(widget)
    return layout


def button(text: str, tooltip: str, clicked: Callable[[], object], *, small: bool = False) -> QPushButton:
    """A push button; `text` names its mnemonic with &."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.setAccessibleName(text.replace("&", "").rstrip("."))
    made.setAccessibleDescription(tooltip)
    made.clicked.connect(lambda *_: clicked())
    if small:
        made.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    return made


def menu_button(text: str, tooltip: str) -> tuple[QPushButton, QMenu]:
    """A button that opens a menu, and the menu."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.setAccessibleName(text.replace("&", ""))
    made.setAccessibleDescription(tooltip)
    made.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    menu = QMenu(made)
    made.setMenu(menu)
    return made, menu


def combo(name: str, tooltip: str, items: Mapping[Any, str], *, letters: int = 8) -> QComboBox:
    """A list to choose from; its data are the keys of `items`. It is as narrow as so many letters where room is scarce."""
    made = QComboBox()
    made.setAccessibleName(name)
    made.setToolTip(tooltip)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(letters)
    for data, words in items.items():
        made.addItem(words, data)
    return made


def note(text: str = "") -> QLabel:
    """Quieter words that wrap."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setTextFormat(Qt.TextFormat.PlainText)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)  # else nobody asks how many lines it needs
    made.setSizePolicy(policy)
    palette = made.palette()
    made.setForegroundRole(palette.ColorRole.PlaceholderText)
    return made


def form() -> QFormLayout:
    """Fields with their names beside them, which share the width."""
    made = QFormLayout()
    made.setContentsMargins(0, 0, 0, 0)
    made.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return made


def label(text: str, buddy: QWidget) -> QLabel:
    """A label that leads to a widget; `text` names its mnemonic with &."""
    made = QLabel(text)
    made.setBuddy(buddy)
    made.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)
    return made


def show_row(rows: QFormLayout, part: QWidget, shown: bool) -> None:
    """Show or hide a field with its name."""
    name = rows.labelForField(part)
    for each in (part, name):
        if each is not None:
            each.setVisible(shown)


def folded(title: str, tooltip: str, inside: QWidget) -> QCollapsible:
    """A part that is folded away until its title is clicked."""
    made = QCollapsible(title)
    made.toggleButton().setToolTip(tooltip)
    made.setDuration(0)
    made.setCollapsedIcon("▸")
    made.setExpandedIcon("▾")
    for layout in (made.layout(), made.content().layout()):
        if layout is not None:
            layout.setContentsMargins(0, 0, 0, 0)
    made.addWidget(inside)
    return made


def swatch(color: str, size: int = 18) -> QIcon:
    """A square of a colour."""
    picture = QPixmap(size, size)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(color))
    painter.setPen(QColor(0, 0, 0, 96))
    painter.drawRoundedRect(1, 1, size - 3, size - 3, 3, 3)
    painter.end()
    return QIcon(picture)


def quietly(widget: Any, method: str, *values: Any) -> None:
    """Set a value of a widget without its signals, for what the session says and not the user."""
    blocked = widget.blockSignals(True)
    try:
        getattr(widget, method)(*values)
    finally:
        widget.blockSignals(blocked)


def save_suffix(path: str, suffix: str) -> Path:
    """`path` with `suffix` unless it has one: what a file dialog leaves to the program."""
    chosen = Path(path)
    return chosen if chosen.suffix else chosen.with_suffix(suffix)
