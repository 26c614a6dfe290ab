"""The window: the start page, a page to wait on, and napari's window, one at a time below our menus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QByteArray, QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDragLeaveEvent, QDropEvent, QPaintEvent
from PySide6.QtOpenGLWidgets import QOpenGLWidget
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QProgressBar,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from mdm_studio.desktop.icons import program_icon
from mdm_studio.desktop.start_page import StartPage
from mdm_studio.desktop.theme import Colors, sheet_of

TITLE = "MDM Studio"
_SIZE = QSize(1440, 900)
_LEAST = QSize(720, 480)


class MainWindow(QMainWindow):
    """The window; it only shows and signals.

    Parameters
    ----------
    start_page : StartPage
        What is shown first.

    Attributes
    ----------
    painted : Signal
        The window is on the screen; emitted once.
    dropped : Signal
        A list of paths that were dropped on the window.
    may_close : callable
        Asked before the window closes; gives whether it may.
    """

    painted = Signal()
    dropped = Signal(list)

    def __init__(self, start_page: StartPage) -> None:
        super().__init__()
        self.may_close: Callable[[], bool] = lambda: True
        self._painted = False
        self.setWindowIcon(program_icon())
        self.setWindowTitle(TITLE)
        self.setMinimumSize(_LEAST)
        self.resize(_SIZE)
        self.setAcceptDrops(True)
        self.start_page, self.busy, self.banner = start_page, BusyPage(), Banner()
        self._stack = QStackedWidget()
        self._stack.addWidget(start_page)
        self._stack.addWidget(self.busy)
        centre = QWidget()
        column = QVBoxLayout(centre)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.banner)
        column.addWidget(self._stack, 1)
        self.setCentralWidget(centre)
        # a window that gets its first OpenGL child when it is open is made anew, and flickers
        self._opengl = QOpenGLWidget(centre)
        self._opengl.setFixedSize(0, 0)
        self._opengl.hide()
        self._watch = _DropWatch(self)

    # ---- pages -------------------------------------------------------------------------------------------------------

    def show_start(self) -> None:
        """Show the start page."""
        self._stack.setCurrentWidget(self.start_page)
        self.start_page.begin()
        self.set_name("")

    def show_busy(self, text: str) -> None:
        """Show the page to wait on."""
        self.busy.say(text)
        self._stack.setCurrentWidget(self.busy)

    def add_page(self, page: QWidget) -> None:
        """Take a page in; whatever is dropped on it comes to the window."""
        self._stack.addWidget(page)
        for child in (page, *page.findChildren(QWidget)):
            if child.acceptDrops():
                child.installEventFilter(self._watch)

    def show_page(self, page: QWidget) -> None:
        """Show a page that was taken in."""
        self._stack.setCurrentWidget(page)

    def drop_page(self, page: QWidget) -> None:
        """Let go of a page."""
        self._stack.removeWidget(page)

    def is_shown(self, page: QWidget) -> bool:
        """Whether a page is the one in front."""
        return self._stack.currentWidget() is page

    def set_name(self, name: str) -> None:
        """Name the window after what is open in it."""
        self.setWindowTitle(f"{name} - {TITLE}" if name else TITLE)

    # ---- looks -------------------------------------------------------------------------------------------------------

    def wear(self, colors: Colors) -> None:
        """Take the colours of a theme."""
        self.start_page.wear(colors)
        self.busy.setStyleSheet(sheet_of(colors))
        self.banner.setStyleSheet(sheet_of(colors))

    def toggle_full_screen(self) -> None:
        """Fill the screen, or no longer."""
        self.setWindowState(self.windowState() ^ Qt.WindowState.WindowFullScreen)

    def geometry_text(self) -> str:
        """Place and size, for the settings."""
        return bytes(self.saveGeometry().toBase64().data()).decode()

    def restore(self, geometry: str) -> None:
        """Go to the place of `geometry_text`; a text that Qt cannot use changes nothing."""
        if geometry:
            self.restoreGeometry(QByteArray.fromBase64(geometry.encode("ascii", errors="replace")))

    # ---- Qt's hooks --------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Qt's hook."""
        super().paintEvent(event)
        if not self._painted:
            self._painted = True
            QTimer.singleShot(0, self.painted.emit)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Qt's hook."""
        if self.may_close():
            event.accept()
        else:
            event.ignore()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Qt's hook."""
        if dropped_paths(event):
            event.acceptProposedAction()
            self.start_page.hover(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        """Qt's hook."""
        self.start_page.hover(False)

    def dropEvent(self, event: QDropEvent) -> None:
        """Qt's hook."""
        self.start_page.hover(False)
        paths = dropped_paths(event)
        if paths:
            event.acceptProposedAction()
            QTimer.singleShot(0, lambda: self.dropped.emit(paths))  # so that the other program need not wait for us


def dropped_paths(event: QDropEvent) -> list[Path]:
    """The files and folders that a drag carries."""
    return [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]


class _DropWatch(QObject):
    """Brings what is dropped on a page of another make to the window."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QDragEnterEvent) and dropped_paths(event):
            event.acceptProposedAction()
            return True
        if isinstance(event, QDropEvent) and event.type() == QEvent.Type.Drop and dropped_paths(event):
            self._window.dropEvent(event)
            return True
        return False


class BusyPage(QWidget):
    """What is shown while something is being opened."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("busyPage")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        picture, self._words, bar = QLabel(), QLabel(), QProgressBar()
        picture.setPixmap(program_icon().pixmap(QSize(96, 96)))
        self._words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._words.setAccessibleName("What is being done")
        bar.setRange(0, 0)
        bar.setTextVisible(False)
        bar.setFixedSize(260, 6)
        column = QVBoxLayout(self)
        column.setSpacing(18)
        column.addStretch(1)
        for part in (picture, self._words, bar):
            column.addWidget(part, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(1)

    def say(self, text: str) -> None:
        """Say what the user is waiting for."""
        self._words.setText(text)


class Banner(QFrame):
    """A line above the page that asks for nothing: a word, a button or two, and one to take it away."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("banner")
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(14, 6, 10, 6)
        self._row.setSpacing(8)
        self._words = QLabel()
        self._words.setWordWrap(True)
        self._words.setTextFormat(Qt.TextFormat.PlainText)
        self._words.setAccessibleName("Notice")
        self._row.addWidget(self._words, 1)
        self._buttons: list[QPushButton] = []
        self.hide()

    def say(self, text: str, *buttons: tuple[str, Callable[[], object]]) -> None:
        """Show a notice; each button does something and takes the notice away, as the last one, *Dismiss*, does."""
        for old in self._buttons:
            old.deleteLater()
        self._buttons = []
        self._words.setText(text)
        for title, verb in (*buttons, ("&Dismiss", _nothing)):
            button = QPushButton(title)
            button.setAccessibleName(title.replace("&", ""))
            button.clicked.connect(lambda *_, verb=verb: self._answer(verb))
            self._row.addWidget(button)
            self._buttons.append(button)
        self.show()

    @property
    def text(self) -> str:
        """What it says; empty while it is not shown."""
        return "" if self.isHidden() else self._words.text()

    def _answer(self, verb: Callable[[], object]) -> None:
        self.hide()
        verb()


def _nothing() -> Any:
    """What *Dismiss* does."""
