"""The images of a project as a list of pictures: model, drawing, and thumbnails that are made where somebody looks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFontMetrics, QImage, QPainter, QPalette, QPen, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QListView, QStyle, QStyledItemDelegate, QStyleOptionViewItem

from napari_mdm_studio._worker import Runner

if TYPE_CHECKING:
    from mdm_studio.services.image_list import ImageEntry

ENTRY = Qt.ItemDataRole.UserRole
SIZES = (64, 96, 128, 192)
"""Thumbnails may be so large, in pixels along the longer side."""
_KEPT = 512  # pixmaps in memory; 192 x 192 of them are 75 MB
_MARGIN = 6
_WIDEST_WORDS = "\u25d4 uncertainty 0.00"  # have room under a small picture
_LINES = 3  # of words under a picture
_DARK, _FRAME = QColor("#101010"), QColor("#56b4e9")
_WARNING = QColor("#e69f00")
_Index = QModelIndex | QPersistentModelIndex


def badges(entry: ImageEntry) -> tuple[str, ...]:
    """The state of an image by symbol and words."""
    if entry.problem:
        return ("\u26a0 cannot be read",)
    words = []
    if entry.painted:
        words.append("\u270e labelled")
    if entry.reviewed:
        words.append("\u2714 reviewed")
    if entry.uncertainty is not None:
        words.append(f"\u25d4 uncertainty {entry.uncertainty:.2f}")
    return tuple(words)


def describe(entry: ImageEntry, names: Mapping[int, str]) -> str:
    """Everything that is known of an image, for tooltips and screen readers."""
    lines = [entry.name, str(entry.path)]
    if entry.problem:
        return "\n".join([*lines, entry.problem])
    lines.append(f"{entry.painted:,} labelled pixels" if entry.painted else "not labelled")
    if entry.uncertainty is None:
        lines.append("not predicted yet: Rank images does it")
    else:
        shares = ", ".join(f"{names.get(value, f'class {value}')} {share:.0%}" for value, share in sorted(entry.shares.items()))
        lines.append(f"predicted: uncertainty {entry.uncertainty:.3f}" + (f"; {shares}" if shares else ""))
    lines.append("reviewed" if entry.reviewed else "not reviewed")
    return "\n".join(lines)


class ImageListModel(QAbstractListModel):
    """Entries as a Qt model.

    Attributes
    ----------
    names : callable
        Names of the classes by value, for tooltips.
    """

    def __init__(self, parent: QObject, names: Callable[[], Mapping[int, str]]) -> None:
        super().__init__(parent)
        self._names = names
        self.entries: tuple[ImageEntry, ...] = ()
        self._rows: dict[str, int] = {}

    def set_entries(self, entries: Sequence[ImageEntry]) -> bool:
        """Show these; whether the list is another one (a reset), rather than the same with news of some."""
        old, new = self.entries, tuple(entries)
        if [entry.id for entry in old] != [entry.id for entry in new]:
            self.beginResetModel()
            self.entries, self._rows = new, {entry.id: row for row, entry in enumerate(new)}
            self.endResetModel()
            return True
        self.entries = new
        for row, (before, now) in enumerate(zip(old, new, strict=True)):
            if before is not now and before != now:
                self.dataChanged.emit(self.index(row), self.index(row))
        return False

    def row(self, image_id: str) -> int | None:
        """Where an image is in the list."""
        return self._rows.get(image_id)

    def redraw(self, image_id: str) -> None:
        """Something else about an image is to be drawn."""
        row = self.row(image_id)
        if row is not None:
            self.dataChanged.emit(self.index(row), self.index(row))

    def rowCount(self, parent: _Index | None = None) -> int:
        """Qt's hook."""
        return 0 if parent is not None and parent.isValid() else len(self.entries)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt's hook."""
        if not index.isValid() or index.row() >= len(self.entries):
            return None
        entry = self.entries[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return entry.name
        if role == ENTRY:
            return entry
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            return describe(entry, self._names())
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return ", ".join([entry.name, *badges(entry)])
        return None


class Thumbnails(QObject):
    """Makes thumbnails on a thread of its own: what was asked for last comes first, and what nobody sees is left out.

    Parameters
    ----------
    load : callable
        ``load(id, size)`` gives ``(h, w, 3)`` uint8.
    wanted : callable
        Whether somebody sees an image now.
    """

    came = Signal(str)

    def __init__(
        self, load: Callable[[str, int], NDArray[np.uint8]], wanted: Callable[[str], bool], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._load, self._wanted = load, wanted
        self._runner = Runner(self)
        self._made: OrderedDict[tuple[str, int], QPixmap | None] = OrderedDict()  # None: it cannot be made
        self._asked: dict[tuple[str, int], None] = {}  # an ordered set, the newest last
        self._busy = False

    def get(self, image_id: str, size: int) -> QPixmap | None:
        """A thumbnail if it is there; else it is asked for, and `came` tells of it."""
        key = image_id, size
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        self._asked.pop(key, None)
        self._asked[key] = None
        self._go_on()
        return None

    def forget(self) -> None:
        """Make all of them anew, also those that could not be made."""
        self._made.clear()

    def _go_on(self) -> None:
        while self._asked and not self._busy:
            key, _ = self._asked.popitem()
            if self._wanted(key[0]):
                self._busy = True
                self._runner.start(self._load, *key, done=partial(self._came, key), failed=partial(self._came, key))

    def _came(self, key: tuple[str, int], pixels: NDArray[np.uint8] | str) -> None:
        self._busy = False
        self._made[key] = None if isinstance(pixels, str) else pixmap(pixels)
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)
        self.came.emit(key[0])
        self._go_on()

    def close(self) -> None:
        """Make nothing more."""
        self._asked.clear()
        self._runner.close()


def pixmap(pixels: NDArray[np.uint8]) -> QPixmap:
    """``(h, w, 3)`` as Qt draws it."""
    kept = np.ascontiguousarray(pixels)
    height, width = kept.shape[:2]
    return QPixmap.fromImage(QImage(kept.data, width, height, 3 * width, QImage.Format.Format_RGB888))


class _Drawing(QStyledItemDelegate):
    """Draws an image of the list: its thumbnail, its name, its state."""

    def __init__(self, view: ImageList) -> None:
        super().__init__(view)
        self._view = view

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        """Qt's hook."""
        return self._view.item_size()

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        """Qt's hook."""
        entry: ImageEntry = index.data(ENTRY)
        state: Any = option  # its members are unknown to some of the bindings
        painter.save()
        selected = bool(state.state & QStyle.StateFlag.State_Selected)
        if selected:
            painter.fillRect(state.rect, state.palette.color(QPalette.ColorRole.Highlight))
        box = state.rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        size = self._view.thumbnail_size
        self._picture(painter, QRect(box.x() + (box.width() - size) // 2, box.y(), size, size), entry)
        role = QPalette.ColorRole.HighlightedText if selected else QPalette.ColorRole.Text
        self._words(painter, box.adjusted(0, size + 2, 0, 0), entry, state.palette.color(role))
        if state.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QPen(state.palette.color(role), 1, Qt.PenStyle.DotLine))
            painter.drawRect(state.rect.adjusted(1, 1, -2, -2))
        painter.restore()

    def _picture(self, painter: QPainter, place: QRect, entry: ImageEntry) -> None:
        painter.fillRect(place, _DARK)
        made = None if entry.problem else self._view.thumbnails.get(entry.id, self._view.asked_size())
        if made is not None:
            fitted = made.size().scaled(place.size(), Qt.AspectRatioMode.KeepAspectRatio)
            inside = QRect(0, 0, fitted.width(), fitted.height())
            inside.moveCenter(place.center())
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawPixmap(inside, made)
        elif entry.problem:
            painter.setPen(_WARNING)
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "\u26a0")
        if entry.id == self._view.shown:
            painter.setPen(QPen(_FRAME, 3))
            painter.drawRect(place.adjusted(1, 1, -2, -2))

    def _words(self, painter: QPainter, place: QRect, entry: ImageEntry, color: QColor) -> None:
        font = painter.font()
        font.setBold(entry.id == self._view.shown)
        painter.setFont(font)
        painter.setPen(color)
        metrics = QFontMetrics(font)
        lines = [(entry.name, Qt.TextElideMode.ElideMiddle)]
        lines += [(line, Qt.TextElideMode.ElideRight) for line in _two_lines(badges(entry), metrics, place.width())]
        for number, (text, elide) in enumerate(lines):
            line = QRect(place.x(), place.y() + number * metrics.height(), place.width(), metrics.height())
            painter.drawText(line, Qt.AlignmentFlag.AlignHCenter, metrics.elidedText(text, elide, line.width()))
            font.setBold(False)
            painter.setFont(font)


def _two_lines(words: Sequence[str], metrics: QFontMetrics, width: int) -> list[str]:
    """States on at most two lines: shortened to their symbols, but for the last, where there is too little room."""
    if len(words) == 3:
        both = "  ".join(words[:2])
        if metrics.horizontalAdvance(both) > width:
            both = f"{words[0]} {words[1].split()[0]}"
        return [both, words[2]]
    return list(words)


class ImageList(QListView):
    """Images of a project; Enter, a double click or `open_row` opens one.

    Parameters
    ----------
    model : ImageListModel
        Its entries.
    load : callable
        ``load(id, size)`` makes a thumbnail, on a thread.
    """

    opened = Signal(str)

    def __init__(self, model: ImageListModel, load: Callable[[str, int], NDArray[np.uint8]]) -> None:
        super().__init__()
        self.images = model
        self.shown = ""
        self.thumbnail_size = 96
        self.thumbnails = Thumbnails(load, self.is_seen, self)
        self.thumbnails.came.connect(model.redraw)
        self.setModel(model)
        self.setItemDelegate(_Drawing(self))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Images of the project")
        self.activated.connect(lambda index: self.opened.emit(index.data(ENTRY).id))
        self.set_thumbnail_size(self.thumbnail_size)

    def item_size(self) -> QSize:
        """Of a thumbnail and the words below it."""
        words = self.fontMetrics()
        width = max(self.thumbnail_size, words.horizontalAdvance(_WIDEST_WORDS) + 2) + 2 * _MARGIN
        return QSize(width, self.thumbnail_size + _LINES * words.height() + 2 * _MARGIN + 2)

    def set_thumbnail_size(self, size: int) -> None:
        """Draw thumbnails in another size; the image under the cursor stays in sight."""
        self.thumbnail_size = size
        self.setGridSize(self.item_size())
        self.verticalScrollBar().setSingleStep(self.item_size().height() // 3)
        if self.currentIndex().isValid():
            self.scrollTo(self.currentIndex())

    def asked_size(self) -> int:
        """The size in which thumbnails are made: few sizes, so that most are on disk already."""
        return 128 if self.thumbnail_size * self.devicePixelRatioF() <= 128 else 256

    def is_seen(self, image_id: str) -> bool:
        """Whether an image is in sight."""
        row = self.images.row(image_id)
        return row is not None and self.visualRect(self.images.index(row)).intersects(self.viewport().rect())

    def set_entries(self, entries: Sequence[ImageEntry]) -> None:
        """Show these; selection and place stay as they are."""
        current = self.currentIndex().data(ENTRY)
        chosen, place = self.chosen(), self.verticalScrollBar().value()
        if not self.images.set_entries(entries):
            return
        row = self.images.row(current.id) if current else None
        if row is not None:
            self.selectionModel().setCurrentIndex(self.images.index(row), self.selectionModel().SelectionFlag.NoUpdate)
        for image_id in chosen if len(chosen) <= 1000 else ():
            if (row := self.images.row(image_id)) is not None:
                self.selectionModel().select(self.images.index(row), self.selectionModel().SelectionFlag.Select)
        self.verticalScrollBar().setValue(place)

    def chosen(self) -> tuple[str, ...]:
        """Ids of the selected images."""
        return tuple(index.data(ENTRY).id for index in self.selectedIndexes())

    def mark_shown(self, image_id: str) -> None:
        """Frame the image that the viewer shows, and scroll to it."""
        before, self.shown = self.shown, image_id
        for each in (before, image_id):
            self.images.redraw(each)
        row = self.images.row(image_id)
        if row is not None:
            self.setCurrentIndex(self.images.index(row))

    def close_thumbnails(self) -> None:
        """End the thread."""
        self.thumbnails.close()
