"""Starts the program: checks, a window at once, everything else behind it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mdm_studio.config import user_data_dir
from mdm_studio.desktop.display import check_display, check_installed, prepare_environment
from mdm_studio.desktop.home import spare_places

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from mdm_studio.desktop.crash import CrashHandler
    from mdm_studio.desktop.studio import Studio

TIMES_VARIABLE: Final = "MDM_STUDIO_START_TIMES"
"""Names a file for the times of the start; the program ends as soon as it is usable. For tests and benchmarks."""


def run(paths: Sequence[Path] = ()) -> int:
    """Open the window and return when it has closed.

    Parameters
    ----------
    paths : sequence of Path
        What to open: a project, a folder of images, image files, a classifier.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    MDMStudioError
        If a package or the display is missing, or one of `paths` cannot be opened.
    """
    check_installed()
    check_display(os.environ)
    os.environ.update(prepare_environment())
    os.environ.update(spare_places(os.environ))
    # napari's own settings stay those of napari: this window has other docks and other colours
    os.environ.setdefault("NAPARI_CONFIG", str(user_data_dir() / "napari.yaml"))
    from mdm_studio.desktop.arguments import sort_out

    return _run(sort_out(paths))


def _run(wanted: object) -> int:
    from PySide6.QtCore import QTimer

    from mdm_studio.desktop import help_pages, theme
    from mdm_studio.desktop.arguments import Wanted
    from mdm_studio.desktop.menus import Menus
    from mdm_studio.desktop.settings import SettingsFile, settings_path
    from mdm_studio.desktop.start_page import StartPage
    from mdm_studio.desktop.studio import Studio
    from mdm_studio.desktop.window import MainWindow

    assert isinstance(wanted, Wanted)
    application = _application()
    settings = SettingsFile(settings_path())
    window = MainWindow(StartPage(f"Version {application.applicationVersion()}", help_pages.page("whats_new.md")))
    window.wear(theme.wear(application, settings.value.theme))
    window.restore(settings.value.geometry)
    studio = Studio(window, settings)
    Menus(window.menuBar(), studio)
    crashes = _watch(studio)
    times = StartTimes(studio)
    window.painted.connect(studio.load)
    if settings.problem:
        window.banner.say(settings.problem)
    if wanted != Wanted():
        window.painted.connect(lambda: studio.open_wanted(wanted))
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), lambda *_: QTimer.singleShot(0, window.close))
    pulse = QTimer(interval=500)  # Python sees a Ctrl-C only when Qt lets it run
    pulse.timeout.connect(lambda: None)
    pulse.start()
    window.show()
    code = application.exec()
    pulse.stop()
    studio.close()
    crashes.remove()
    del times
    return code


def _application() -> QApplication:
    from PySide6.QtGui import QGuiApplication
    from PySide6.QtWidgets import QApplication

    from mdm_studio import __version__
    from mdm_studio.desktop.icons import NAME, program_icon

    _name_for_windows()
    QGuiApplication.setDesktopFileName(NAME)  # how Wayland finds the icon
    application = QApplication.instance() or QApplication([NAME])
    assert isinstance(application, QApplication)
    application.setApplicationName(NAME)
    application.setApplicationDisplayName("")  # titles name the program themselves
    application.setApplicationVersion(__version__)
    application.setWindowIcon(program_icon())
    return application


def _name_for_windows() -> None:
    """Windows shows one icon for all programs that Python runs unless they say who they are."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.shell32.SetCurrentProcessExplicitAppUserModelID("mdm-studio")


def _watch(studio: Studio) -> CrashHandler:
    """Take errors from now on, and tell of those that the last run has left."""
    from mdm_studio.desktop.crash import CrashHandler, CrashReport, reports_folder, unseen_reports
    from mdm_studio.desktop.dialogs import crash_dialog
    from mdm_studio.desktop.help_pages import show_report

    folder = reports_folder()

    def show(report: CrashReport) -> None:
        if report.path is not None:
            studio.settings.change(reports_seen=report.path.name)
        crash_dialog(studio.window, report, folder).exec()

    handler = CrashHandler(folder, studio.save_work, studio.warn, show)
    handler.install()
    unseen = unseen_reports(folder, studio.settings.value.reports_seen)
    if unseen:
        studio.settings.change(reports_seen=unseen[-1].name)
        words = "MDM Studio met an error the last time it ran. What you had painted was saved as you went."
        studio.window.banner.say(words, ("&Show the report", lambda: show_report(studio)))
    return handler


class StartTimes:
    """Writes when the window was on the screen, when the viewer was there, and how long the window stood still in between.

    The program ends then. Nothing of this is done unless the environment asks for it.

    Parameters
    ----------
    studio : Studio
        The program.
    """

    def __init__(self, studio: Studio) -> None:
        self._path = os.environ.get(TIMES_VARIABLE, "")
        if self._path:
            self._studio = studio
            self._times: dict[str, float] = {}
            self._beats: list[float] = []
            studio.window.painted.connect(self._painted)
            studio.usable.connect(self._usable)

    def _painted(self) -> None:
        from PySide6.QtCore import QTimer

        self._times["painted"] = time.time()
        self._heart = QTimer(interval=20)
        self._heart.timeout.connect(lambda: self._beats.append(time.perf_counter()))
        self._heart.start()

    def _usable(self) -> None:
        from PySide6.QtCore import QTimer

        self._times["usable"] = time.time()
        QTimer.singleShot(300, self._end)  # whatever comes after the viewer stands still now, too

    def _end(self) -> None:
        self._times["longest_stall"] = max((b - a for a, b in itertools.pairwise(self._beats)), default=0.0)
        Path(self._path).write_text(json.dumps(self._times), "utf-8")
        self._studio.window.close()
