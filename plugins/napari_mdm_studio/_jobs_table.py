"""The jobs of a board as a table, and the verbs to steer them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QDialog,
    QFrame,
    QHeaderView,
    QPlainTextEdit,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionProgressBar,
    QTableWidget,
    QTableWidgetItem,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from mdm_studio.services.estimates import as_duration, as_rate
from mdm_studio.services.jobs.board import JobBoard
from mdm_studio.services.jobs.states import JobView
from napari_mdm_studio._widgets import Section, button, note, quietly, row

if TYPE_CHECKING:
    from napari_mdm_studio._session_home import SessionHome

_COLUMNS = ("Name", "State", "Done", "Speed", "Left")
_DONE = 2
_SHARE = int(Qt.ItemDataRole.UserRole) + 1
_PAGE = (760, 560)
_ROWS = 5  # that are seen without scrolling
_PAUSABLE = ("queued", "running")
_RESUMABLE = ("paused", "failed", "cancelled", "interrupted", "damaged")


class JobsTable(Section):
    """Jobs, newest first; `selected` carries the one that is chosen, or None.

    Parameters
    ----------
    board : JobBoard
        Whose jobs are shown; the owner of the table makes it watch, and closes it.
    kinds : tuple of str
        Of the jobs that are shown.
    """

    selected = Signal(object)

    def __init__(self, home: SessionHome, board: JobBoard, *, kinds: tuple[str, ...] = ("pretrain",)) -> None:
        super().__init__("Jobs")
        self._home, self._board, self._kinds = home, board, kinds
        self._ended = False
        self.views: tuple[JobView, ...] = ()
        self.table = _Table()
        self.table.currentCellChanged.connect(lambda *_: self._selected())
        self.message = note()
        self.message.setAccessibleName("What the job says")
        self.pause = button("P&ause", "Save and stop; Resume goes on.", lambda: self._ask(self._board.pause))
        self.resume = button("&Resume", "Go on from the last checkpoint.", lambda: self._ask(self._board.resume))
        self.cancel = button("Canc&el", "Give the job up; what it has made stays.", lambda: self._ask(self._board.cancel))
        self.remove = button("Remo&ve", "Delete the job with its checkpoints.", lambda: self._ask(self._board.remove))
        self.folder = button("&Open folder", "Show the job's folder in the file manager.", self._open_folder)
        self.log = button("Show &log", "What has happened, and why it failed.", self._show_log)
        self.body.addWidget(self.table)
        self.body.addWidget(self.message)
        self.body.addLayout(row(self.pause, self.resume, self.cancel, self.remove))
        self.body.addLayout(row(self.folder, self.log))
        home.relay(board.changed, self.show_jobs, key=lambda *_: None, owner=self)
        home.runner.start(board.jobs, done=self.show_jobs, failed=self._failed)
        self._show_buttons()

    def end(self) -> None:
        """Show nothing more."""
        self._ended = True

    @property
    def view(self) -> JobView | None:
        """The chosen job."""
        at = self.table.currentRow()
        return self.views[at] if 0 <= at < len(self.views) else None

    def show_jobs(self, views: Sequence[JobView]) -> None:
        """Show these; the same one stays chosen."""
        if self._ended:
            return
        old = self.view
        self.views = tuple(view for view in views if view.kind in self._kinds or not view.kind)
        self.table.blockSignals(True)
        self.table.setRowCount(len(self.views))
        for number, view in enumerate(self.views):
            self.table.show_view(number, view)
        ids = [view.id for view in self.views]
        at = ids.index(old.id) if old is not None and old.id in ids else 0
        if self.views:
            self.table.setCurrentCell(at, 0)
        self.table.blockSignals(False)
        self._selected()

    def choose(self, view: JobView) -> None:
        """Choose a job; one that is new comes into the list at once."""
        if all(each.id != view.id for each in self.views):
            quietly(self.table, "setCurrentCell", -1, -1)
            self.show_jobs((view, *self.views))
        self.table.setCurrentCell([each.id for each in self.views].index(view.id), 0)

    def _selected(self) -> None:
        view = self.view
        words = "" if view is None else view.message
        if not self.views:
            words = "No job yet."
        self.message.setText(f"{words[:1].upper()}{words[1:]}")
        self.message.setVisible(bool(words))
        self._show_buttons()
        self.selected.emit(view)

    def _show_buttons(self) -> None:
        view = self.view
        state = view.state if view else ""
        self.pause.setEnabled(state in _PAUSABLE)
        self.resume.setEnabled(state in _RESUMABLE and bool(view and view.kind))
        self.cancel.setEnabled(state in (*_PAUSABLE, "paused", "interrupted"))
        self.remove.setEnabled(view is not None and state not in _PAUSABLE)
        for each in (self.folder, self.log):
            each.setEnabled(view is not None)

    # ---- verbs -------------------------------------------------------------------------------------------------------

    def _ask(self, verb: Callable[[str], object]) -> None:
        view = self.view
        if view is not None:
            self._home.runner.start(lambda: (verb(view.id), self._board.jobs())[1], done=self.show_jobs, failed=self._failed)

    def _failed(self, why: str) -> None:
        if not self._ended:
            self.message.setText(f"{why[:1].upper()}{why[1:]}")
            self.message.show()

    def _open_folder(self) -> None:
        if self.view is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.view.folder)))

    def _show_log(self) -> None:
        view = self.view
        if view is not None:
            self._home.runner.start(
                lambda: self._board.log(view.id),
                done=lambda text: self._ended or show_text(self, f"Log of {view.name}", text or "Nothing was written yet."),
                failed=self._failed,
            )


class _Table(QTableWidget):
    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        self.setAccessibleName("Jobs")
        self.setHorizontalHeaderLabels(_COLUMNS)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_DONE, QHeaderView.ResizeMode.Fixed)
        header.setMinimumSectionSize(30)
        header.resizeSection(_DONE, 64)
        header.setHighlightSections(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setItemDelegateForColumn(_DONE, _Bar(self))
        self.setFixedHeight(_ROWS * self.fontMetrics().height() * 2)

    def show_view(self, number: int, view: JobView) -> None:
        """Show a job in a row."""
        rate = f"{as_rate(view.rate)}/s" if view.rate and view.state == "running" else ""
        left = as_duration(view.eta_s) if view.eta_s is not None and view.state == "running" else ""
        for column, text in enumerate((view.name, view.state, f"{view.done:.0%}", rate, left)):
            item = self.item(number, column)
            if item is None:
                item = QTableWidgetItem()
                self.setItem(number, column, item)
            if item.text() != text:
                item.setText(text)
            tooltip = f"{as_rate(view.rate)} {view.unit}" if column == 3 and rate and view.rate else _describe(view)
            if item.toolTip() != tooltip:
                item.setToolTip(tooltip)
            item.setData(_SHARE, view.done)


def _describe(view: JobView) -> str:
    step = f"step {view.step:,}" + (f" of {view.steps:,}" if view.steps else "") if view.step else ""
    device = f"on {view.device}" if view.device else ""
    return "\n".join(part for part in (view.name, step, device, view.message, str(view.folder)) if part)


class _Bar(QStyledItemDelegate):
    """A progress bar in a cell."""

    def paint(self, painter: Any, option: Any, index: Any) -> None:
        """Qt's hook."""
        bar = QStyleOptionProgressBar()
        bar.rect = option.rect.adjusted(3, 5, -3, -5)
        bar.palette, bar.state = option.palette, option.state | QStyle.StateFlag.State_Horizontal
        bar.minimum, bar.maximum, bar.progress = 0, 1000, round(1000 * float(index.data(_SHARE) or 0.0))
        bar.text, bar.textVisible, bar.textAlignment = str(index.data() or ""), True, Qt.AlignmentFlag.AlignCenter
        style = option.widget.style() if option.widget is not None else QApplication.style()
        style.drawControl(QStyle.ControlElement.CE_ProgressBar, bar, painter)


def show_text(parent: QWidget, title: str, text: str) -> QDialog:
    """Show lines of text in a window of their own, which ends with `parent`."""
    lines = QPlainTextEdit(text)
    lines.setReadOnly(True)
    lines.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
    lines.verticalScrollBar().setValue(lines.verticalScrollBar().maximum())
    return _show(parent, title, lines)


def show_page(parent: QWidget, title: str, markdown: str, folder: Path) -> QDialog:
    """Show Markdown in a window of its own, which ends with `parent`; its pictures lie in `folder`."""
    page = QTextBrowser()
    page.setSearchPaths([str(folder)])
    page.setMarkdown(markdown)
    return _show(parent, title, page)


def _show(parent: QWidget, title: str, page: QWidget) -> QDialog:
    dialog = QDialog(parent)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle(title)
    dialog.resize(*_PAGE)
    page.setAccessibleName(title)
    layout = QVBoxLayout(dialog)
    layout.addWidget(page)
    layout.addWidget(button("&Close", "Close this window.", dialog.close, small=True))
    dialog.show()
    return dialog
