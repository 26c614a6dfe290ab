"""A scripted user of the real program; ends by closing the window.

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.desktop.user FOLDER [PATH...]

FOLDER gets ``pictures/`` and ``seen.json`` with what the user saw. `test_program.py` runs it and looks at the outcome.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QMessageBox

from mdm_studio.desktop import main
from mdm_studio.desktop.studio import Studio
from mdm_studio.desktop.window import MainWindow

LONGEST = 300.0  # seconds that the user waits for anything


class User:
    """Does one thing after the other and waits for what comes of it; `script` yields what to wait for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen, self.timer = folder, {"warnings": []}, QTimer(interval=20)
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        self.steps, self.awaited, self.since = self.script(), lambda: True, time.monotonic()
        self.timer.timeout.connect(self.step)
        self.timer.start()

    def step(self) -> None:
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):  # any question is answered as its default button has it
            self.seen["warnings"].append(box.text())
            box.defaultButton().click() if box.defaultButton() else box.close()
        if self.awaited():
            self.awaited, self.since = next(self.steps, None), time.monotonic()
            if self.awaited is None:
                self.timer.stop()
                (self.folder / "seen.json").write_text(json.dumps(self.seen, indent=2))
        elif time.monotonic() - self.since > LONGEST:
            self.timer.stop()
            self.shoot("in-vain")
            sys.exit(f"waited in vain after {list(self.seen)}")

    def shoot(self, name: str) -> None:
        self.window.grab().save(str(self.folder / "pictures" / f"{name}.png"))

    @property
    def window(self) -> MainWindow:
        return next(each for each in QApplication.topLevelWidgets() if isinstance(each, MainWindow))

    def labels(self) -> np.ndarray:
        (bound,) = self.studio.desk.home.bridge.images.values()
        return np.asarray(bound.strokes.data)

    def shown(self) -> bool:
        studio = self.studio
        return studio.open == "project" and bool(studio.desk.home.bridge.images) and studio.window.is_shown(studio.desk.page)

    def script(self):
        yield lambda: any(isinstance(each, MainWindow) for each in QApplication.topLevelWidgets())
        self.studio = studio = self.window.findChild(Studio)
        first = self.window.start_page.ways["new_project"]
        yield first.isVisible
        self.shoot("1-start")
        QTest.mouseClick(self.window.start_page.ways["open_samples"], Qt.MouseButton.LeftButton)
        yield self.shown
        self.seen["title"] = self.window.windowTitle()
        desk = studio.desk
        self.seen["docks"] = [name for name in ("images", "segment", "pretrain", "export") if name in desk.docks]
        from napari_mdm_studio._session_home import canvas_widget

        canvas = canvas_widget(desk.viewer)
        self.window.activateWindow()
        canvas.setFocus()
        yield canvas.hasFocus
        QTest.keyClick(canvas, Qt.Key.Key_2)
        middle = QPoint(canvas.width() // 2, canvas.height() // 2)
        QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
        QTest.mouseMove(canvas, middle + QPoint(30, 0))
        QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(30, 0))
        yield lambda: self.labels().any()
        control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
        QTest.keyClick(canvas, Qt.Key.Key_Z, control)
        yield lambda: not self.labels().any()
        QTest.keyClick(canvas, Qt.Key.Key_Z, control | shift)
        yield lambda: self.labels().any()
        self.seen["painted"] = int(np.count_nonzero(self.labels()))
        QTest.keyClick(canvas, Qt.Key.Key_F6)
        yield lambda: desk.is_open("export") and not desk.is_open("segment")
        studio.set_theme("light")
        yield lambda: desk.viewer.theme == "light"
        self.shoot("2-project")
        self.drop(canvas, studio.project / "project.json")  # the project itself: it stays open
        yield lambda: self.window.is_shown(desk.page)
        studio.close_project()
        yield lambda: self.window.start_page.recent.count() == 1 and studio.desk is not None
        self.seen["closed"] = (studio.open, self.window.windowTitle())
        recent = self.window.start_page.recent
        recent.setFocus()
        QTest.keyClick(recent, Qt.Key.Key_Return)
        yield self.shown
        yield lambda: self.labels().any()
        self.seen["restored"] = int(np.count_nonzero(self.labels()))
        self.seen["arrangement"] = bool(studio.settings.value.docks)
        yield from self.with_what_cannot_be_opened()
        self.window.close()

    def with_what_cannot_be_opened(self):
        from mdm_studio.io.folder_lock import FolderLock

        taken = self.folder / "taken"
        lock = FolderLock(taken)
        (taken / "project.json").write_text("{}")
        before = len(self.seen["warnings"])
        QTimer.singleShot(0, lambda: self.studio.open_paths([taken]))
        yield lambda: len(self.seen["warnings"]) > before
        yield lambda: self.window.is_shown(self.window.start_page) and QApplication.activeModalWidget() is None
        lock.release()

    def drop(self, target, path: Path) -> None:
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        QApplication.sendEvent(target, QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, left, none))


if __name__ == "__main__":
    application = QApplication(["mdm-studio"])
    user = User(Path(sys.argv[1]))
    code = main.run([Path(path) for path in sys.argv[2:]])
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(("mdm", "live"))]
    sys.exit(code or (f"threads are left: {left}" if left else 0))
