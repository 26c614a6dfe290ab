"""A matrix of blocks x timesteps: pictures or scores in the cells, ticks for what the classifier reads at its edges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFrame,
    QHeaderView,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionButton,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
)

from mdm_studio.services.live_explore import place_words

CLUSTER_COLORS = (
    "#88ccee", "#cc6677", "#ddcc77", "#117733", "#332288", "#aa4499",
    "#44aa99", "#999933", "#882255", "#661100", "#6699cc", "#888888",
)  # fmt: skip
"""Clusters 1 to 12 (CARTO's "Safe", after Paul Tol): told apart by most of the colour-blind, and none is that of a class."""
READ = "#f0b429"
"""Frame of a cell that the classifier reads, or would read."""

_PICTURE, _TEXT, _FILL, _FRAMED, _BOLD, _WORDS = (int(Qt.ItemDataRole.UserRole) + offset for offset in range(1, 7))
_HEADER_WIDTH, _HEADER_HEIGHT = 82, 26
_SMALLEST, _LARGEST = 48, 132
_MARGIN = 3

Cell = tuple[int, int]
"""Block and timestep."""


def rgb_of(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours ``(h, w, 3)`` of clusters ``(h, w)``, 0 for none, or of components ``(h, w, 3)`` in 0..1."""
    if picture.ndim == 3:
        components: NDArray[np.uint8] = np.rint(255 * picture).astype(np.uint8)
        return components
    colors = [bytes(3), *(bytes.fromhex(color[1:]) for color in CLUSTER_COLORS)]
    clusters: NDArray[np.uint8] = np.array([list(color) for color in colors], np.uint8)[picture]
    return clusters


def pixmap_of(rgb: NDArray[np.uint8]) -> QPixmap:
    """A pixmap of ``(h, w, 3)`` uint8."""
    height, width, _ = rgb.shape
    pixels = np.ascontiguousarray(rgb)
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888))


def fitted_rect(size: QSize, room: QRect) -> QRect:
    """The largest rectangle of the proportions of `size` in the middle of `room`."""
    scaled = size.scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio)
    place = QRect(room.topLeft(), scaled)
    place.moveCenter(room.center())
    return place


class Matrix(QTableWidget):
    """Rows are blocks, the deepest first; columns are timesteps. Arrows move, Enter or a click opens a cell.

    Parameters
    ----------
    name : str
        For screen readers.
    ticks : bool
        Whether blocks and timesteps have ticks: what is read is always every ticked block at every ticked timestep.
    row_height : int, optional
        Of cells that hold a score; cells with pictures are square and share the width.
    """

    opened = Signal(int, int)
    block_ticked = Signal(int, bool)
    timestep_ticked = Signal(int, bool)

    def __init__(self, name: str, *, ticks: bool = False, row_height: int | None = None) -> None:
        super().__init__(1, 1)
        self.blocks: list[int] = []
        self.timesteps: list[int] = []
        self._name, self._ticks, self._row_height = name, ticks, row_height
        self._extra = False  # a last row of its own
        self._timed = True  # the network has timesteps
        self._values: dict[Cell, dict[int, Any]] = {}  # of the cells, by role
        self.setAccessibleName(name)
        self.horizontalHeader().hide()
        self.verticalHeader().hide()
        for header in (self.horizontalHeader(), self.verticalHeader()):
            header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
            header.setMinimumSectionSize(16)
        self.setShowGrid(False)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setStyleSheet("QTableView { background: transparent; }")
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setTabKeyNavigation(False)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setItemDelegate(_Painter(self))
        self.cellClicked.connect(self._open)
        self.itemChanged.connect(self._changed)
        self._lay_out()

    # ---- what is shown -----------------------------------------------------------------------------------------------

    def set_cells(
        self, blocks: Sequence[int], timesteps: Sequence[int], describe: Callable[[int], str], *, timed: bool = True
    ) -> None:
        """Show other blocks and timesteps; the pictures of those that stay are kept.

        A network that is not `timed` has one column, which nobody chooses.
        """
        if (list(blocks), list(timesteps), timed) == (self.blocks, self.timesteps, self._timed):
            return
        self.blocks, self.timesteps, self._timed, self._extra = list(blocks), list(timesteps), timed, False
        self.blockSignals(True)
        self.clearSpans()
        self.clear()
        self.setRowCount(len(blocks) + 1)
        self.setColumnCount(len(timesteps) + 1)
        self._item(0, 0, "", "").setFlags(Qt.ItemFlag.NoItemFlags)
        for row, block in enumerate(blocks, start=1):
            self._item(row, 0, f"block {block}", _lines(f"Block {block}", describe(block), self._tick_words()))
        for column, t in enumerate(timesteps, start=1):
            if timed:
                self._item(0, column, f"t {t}", _lines(f"Timestep {t}", self._tick_words()))
            else:
                nothing = self._item(0, column, "", "")
                nothing.setData(Qt.ItemDataRole.CheckStateRole, None)  # nor a tick
                nothing.setFlags(Qt.ItemFlag.NoItemFlags)
        for row, block in enumerate(blocks, start=1):
            for column, t in enumerate(timesteps, start=1):
                self._item(row, column, "", "")
                self._set(block, t, {})
        self.blockSignals(False)
        self._lay_out()

    def set_read(self, blocks: Collection[int], timesteps: Collection[int]) -> None:
        """Tick what is read, and frame the cells that this makes."""
        self.blockSignals(True)
        for row, block in enumerate(self.blocks, start=1):
            self._tick(row, 0, block in blocks)
        for column, t in enumerate(self.timesteps if self._timed else (), start=1):
            self._tick(0, column, t in timesteps)
        for block in self.blocks:
            for t in self.timesteps:
                self._set(block, t, {_FRAMED: block in blocks and t in timesteps})
        self.blockSignals(False)
        self.viewport().update()

    def set_picture(self, block: int, timestep: int, picture: QPixmap | None) -> None:
        """Show a picture in a cell, or the placeholder."""
        self._set(block, timestep, {_PICTURE: picture})

    def set_score(self, block: int, timestep: int, text: str, fill: QColor, words: str, *, best: bool = False) -> None:
        """Show a score in a cell; `words` say more."""
        self._set(block, timestep, {_TEXT: text, _FILL: fill, _BOLD: best, _WORDS: words})

    def set_last_row(self, title: str, text: str, fill: QColor, words: str, *, framed: bool) -> None:
        """A row below the blocks that is the same at every timestep."""
        row = len(self.blocks) + 1
        self.blockSignals(True)
        if not self._extra:
            self._extra = True
            self.setRowCount(row + 1)
            self._lay_out()
        self._item(row, 0, title, words)
        item = self._item(row, 1, "", words)
        for role, value in ((_TEXT, text), (_FILL, fill), (_FRAMED, framed)):
            item.setData(role, value)
        item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{title}: {words}")
        if len(self.timesteps) > 1:
            self.setSpan(row, 1, 1, len(self.timesteps))
        self.blockSignals(False)
        self.viewport().update()

    def clear_cells(self) -> None:
        """Back to placeholders."""
        for cell in list(self._values):
            self._set(*cell, dict.fromkeys((_PICTURE, _TEXT, _FILL, _BOLD, _WORDS)))

    def has_picture(self, block: int, timestep: int) -> bool:
        """Whether a cell shows a picture."""
        return self._values.get((block, timestep), {}).get(_PICTURE) is not None

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _item(self, row: int, column: int, text: str, tooltip: str) -> QTableWidgetItem:
        item = QTableWidgetItem(text)
        item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
        item.setToolTip(tooltip)
        if not column or not row:
            side = Qt.AlignmentFlag.AlignLeft if row else Qt.AlignmentFlag.AlignHCenter
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
            if self._ticks and (row or column):
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Unchecked)
        self.setItem(row, column, item)
        return item

    def _tick_words(self) -> str:
        every = " at every ticked timestep" if self._timed else ""
        return f"Ticked: the classifier reads every ticked block{every}." if self._ticks else ""

    def _at(self, block: int, timestep: int) -> QTableWidgetItem | None:
        if block not in self.blocks or timestep not in self.timesteps:
            return None
        found: QTableWidgetItem | None = self.item(self.blocks.index(block) + 1, self.timesteps.index(timestep) + 1)
        return found

    def _set(self, block: int, timestep: int, values: dict[int, Any]) -> None:
        """Change what a cell shows, and its words for the tooltip and for screen readers."""
        known = self._values.setdefault((block, timestep), {})
        known |= values
        item = self._at(block, timestep)
        if item is None:
            return
        blocked = self.blockSignals(True)
        for role, value in known.items():
            item.setData(role, value)
        read = "read by the classifier" if known.get(_FRAMED) and self._ticks else ""
        there = "Enter or a click shows it over the image" if known.get(_PICTURE) else "not computed yet"
        name = place_words(block, timestep, timed=self._timed).capitalize()
        words = (name, known.get(_WORDS) or "", read, there if self._ticks else "")
        item.setToolTip(_lines(*words))
        item.setData(Qt.ItemDataRole.AccessibleTextRole, ", ".join(filter(None, words)))
        self.blockSignals(blocked)
        self.viewport().update()

    def _tick(self, row: int, column: int, on: bool) -> None:
        item = self.item(row, column)
        if item is not None and self._ticks:
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    def _changed(self, item: QTableWidgetItem) -> None:
        on = item.checkState() == Qt.CheckState.Checked
        if item.column() == 0 and 0 < item.row() <= len(self.blocks):
            self.block_ticked.emit(self.blocks[item.row() - 1], on)
        elif item.row() == 0 and item.column() and self._timed:
            self.timestep_ticked.emit(self.timesteps[item.column() - 1], on)

    def _open(self, row: int, column: int) -> None:
        if 0 < row <= len(self.blocks) and 0 < column <= len(self.timesteps):
            self.opened.emit(self.blocks[row - 1], self.timesteps[column - 1])

    def keyPressEvent(self, event: Any) -> None:
        """Enter opens the cell that the arrows chose."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._open(self.currentRow(), self.currentColumn())
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: Any) -> None:
        """Cells share the width."""
        super().resizeEvent(event)
        self._lay_out()

    def wheelEvent(self, event: Any) -> None:
        """The dock scrolls, not the matrix, which is shown whole."""
        event.ignore()

    def _lay_out(self) -> None:
        columns = max(1, len(self.timesteps))
        width = (self.viewport().width() - _HEADER_WIDTH) // columns
        side = max(_SMALLEST, min(width, _LARGEST))
        height = self._row_height or side
        self.setColumnWidth(0, _HEADER_WIDTH)
        for column in range(1, self.columnCount()):
            self.setColumnWidth(column, max(_SMALLEST, width) if self._row_height else side)
        self.setRowHeight(0, _HEADER_HEIGHT)
        for row in range(1, self.rowCount()):
            self.setRowHeight(row, height)
        bar = self.horizontalScrollBar().sizeHint().height() if _HEADER_WIDTH + columns * side > self.viewport().width() else 0
        self.setFixedHeight(_HEADER_HEIGHT + (self.rowCount() - 1) * height + 2 + bar)


class _Painter(QStyledItemDelegate):
    """Paints the cells, and the ticks at the edges as those of a check box: tables have none that is seen on a dark theme."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__(matrix)
        self._box = QCheckBox(matrix)
        self._box.hide()

    def _paint_header(self, painter: QPainter, option: Any, index: Any) -> None:
        plain = QStyleOptionViewItem(option)
        self.initStyleOption(plain, index)
        style = plain.widget.style()
        side = Qt.AlignmentFlag.AlignLeft if index.row() else Qt.AlignmentFlag.AlignHCenter
        room = plain.rect.adjusted(_MARGIN, 0, 0, 0)
        if plain.features & QStyleOptionViewItem.ViewItemFeature.HasCheckIndicator:
            self._box.ensurePolished()
            tick = QStyleOptionButton()
            tick.initFrom(self._box)
            tick.rect = style.subElementRect(QStyle.SubElement.SE_ItemViewItemCheckIndicator, plain, plain.widget)
            checked = plain.checkState == Qt.CheckState.Checked
            tick.state = QStyle.StateFlag.State_Enabled | (QStyle.StateFlag.State_On if checked else QStyle.StateFlag.State_Off)
            self._box.style().drawPrimitive(QStyle.PrimitiveElement.PE_IndicatorCheckBox, tick, painter, self._box)
            room.setLeft(tick.rect.right() + 2 * _MARGIN)
            side = Qt.AlignmentFlag.AlignLeft
        painter.setPen(option.palette.text().color())
        painter.drawText(room, side | Qt.AlignmentFlag.AlignVCenter, plain.text)
        if option.state & QStyle.StateFlag.State_HasFocus:
            _frame(painter, option.rect, option.palette.text().color(), 1)

    def paint(self, painter: QPainter, option: Any, index: Any) -> None:
        """Qt's hook."""
        if not index.row() or not index.column():
            painter.save()
            self._paint_header(painter, option, index)
            painter.restore()
            return
        room = option.rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        picture, fill = index.data(_PICTURE), index.data(_FILL)
        quiet = QColor(option.palette.text().color())
        quiet.setAlpha(70)
        painter.save()
        place = room
        if picture is not None:
            place = fitted_rect(picture.size(), room)
            painter.drawPixmap(place, picture)  # without SmoothPixmapTransform: nearest
        elif fill is not None:
            painter.fillRect(room, fill)
            painter.setPen(readable_on(fill))
            font = QFont(option.font)
            font.setBold(bool(index.data(_BOLD)))
            painter.setFont(font)
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter, index.data(_TEXT) or "")
        else:
            painter.setPen(QPen(quiet, 1, Qt.PenStyle.DotLine))
            painter.drawRect(room.adjusted(0, 0, -1, -1))
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter, "\N{EN DASH}")
        if index.data(_FRAMED):
            _frame(painter, place, QColor(READ), 3)
            _frame(painter, place.adjusted(3, 3, -3, -3), QColor("black"), 1)  # seen on bright cells too
        if option.state & QStyle.StateFlag.State_HasFocus:
            _frame(painter, option.rect, option.palette.text().color(), 1)
        painter.restore()


def _lines(*words: str) -> str:
    return "\n".join(filter(None, words))


def _frame(painter: QPainter, room: QRect, color: QColor, width: int) -> None:
    pen = QPen(color, width)
    pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    inner = width // 2
    painter.drawRect(room.adjusted(inner, inner, -inner - 1, -inner - 1))


def readable_on(fill: QColor) -> QColor:
    """Black or white, whichever has more contrast (relative luminance of WCAG 2)."""
    channels = np.array([fill.redF(), fill.greenF(), fill.blueF()])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return QColor("black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white")
