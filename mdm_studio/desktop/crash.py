"""What happens when something fails that nobody expected: the work is saved, a report is written, the user is told once.

Errors of `mdm_studio.errors` are no crashes: their words are shown and nothing is written. A crash of the interpreter itself
(in a driver, say) leaves the stacks that `faulthandler` writes; the next start makes a report of them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from PySide6.QtCore import QObject, Qt, Signal

from mdm_studio.config import user_data_dir
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.atomic import make_folder, write_text

_KEPT: Final = 20  # reports; older ones are removed
_PACKAGES: Final = ("PySide6-Essentials", "napari", "vispy", "numpy", "torch", "zarr")
_REPORT, _FAULTS = "crash-{}.txt", "faults-{}.log"


@dataclass(frozen=True)
class CrashReport:
    """A report.

    Attributes
    ----------
    path : Path or None
        Its file; None if it could not be written.
    text : str
        All of it.
    title : str
        The last line of the traceback.
    saved : str
        What became of the user's work, in words.
    """

    path: Path | None
    text: str
    title: str
    saved: str


def reports_folder() -> Path:
    """Where reports lie."""
    return user_data_dir() / "crash-reports"


def about_this_installation() -> str:
    """Versions and system, a line each; no name of the user, the machine or a file."""
    from mdm_studio import __version__

    lines = [f"MDM Studio {__version__}", f"Python {platform.python_version()}"]
    lines.append(f"{platform.system()} {platform.release()} ({platform.machine()})")
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines.append(f"{name} {metadata.version(name)}")
    return "\n".join(lines)


def report_text(what: str, details: str) -> str:
    """The whole report; the user's home folder is written as ~."""
    text = f"{what}\n{datetime.now():%Y-%m-%d %H:%M:%S}\n\n{about_this_installation()}\n\n{details.strip()}\n"
    return text.replace(os.path.expanduser("~"), "~")


def write_report(folder: Path, text: str) -> Path | None:
    """Write a report; None if that is impossible, which must not become the next error. Old ones are removed."""
    path = folder / _REPORT.format(f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}")
    try:
        make_folder(folder)
        write_text(path, text)
    except MDMStudioError:
        return None
    for old in list_reports(folder)[:-_KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def list_reports(folder: Path) -> list[Path]:
    """The reports, oldest first."""
    return sorted(folder.glob(_REPORT.format("*")))


def unseen_reports(folder: Path, seen: str) -> list[Path]:
    """Reports later than the one of the name `seen`."""
    return [path for path in list_reports(folder) if path.name > seen]


def collect_faults(folder: Path) -> None:
    """Make reports of the stacks that crashed interpreters have left, and remove the empty files of others."""
    for path in folder.glob(_FAULTS.format("*")):
        with contextlib.suppress(OSError):  # Windows removes no file that another window writes to
            if _is_alive(path.stem.rpartition("-")[2]):
                continue
            stacks = path.read_text("utf-8", errors="replace")
            if stacks.strip():
                write_report(folder, report_text("MDM Studio was ended by the system.", stacks))
            path.unlink()


def _is_alive(number: str) -> bool:
    if os.name != "posix" or not number.isdigit():
        return number == str(os.getpid())  # elsewhere the system keeps the files of living processes itself
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


class CrashHandler(QObject):
    """Takes the errors that nobody caught, on any thread, while `installed`.

    Parameters
    ----------
    folder : Path
        Gets the reports.
    save : callable
        Saves the user's work and says in words what became of it.
    tell : callable
        Shows the words of an expected error.
    show : callable
        Shows a report and returns when the user has seen it.

    Notes
    -----
    Reports are shown one at a time; what fails meanwhile is written. An error that comes from the same line again is neither.
    """

    _met = Signal(object)

    def __init__(
        self,
        folder: Path,
        save: Callable[[], str],
        tell: Callable[[str], object],
        show: Callable[[CrashReport], object],
    ) -> None:
        super().__init__()
        self._folder, self._save, self._tell, self._show = folder, save, tell, show
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._busy = False
        self._faults: IO[str] | None = None
        self._before = sys.excepthook, threading.excepthook
        # not from within the hook, whichever thread: PySide swallows what fails in an event loop that a hook runs
        self._met.connect(self._take, Qt.ConnectionType.QueuedConnection)

    def install(self) -> None:
        """Take errors from now on."""
        sys.excepthook, threading.excepthook = self._from_main, self._from_thread
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            collect_faults(self._folder)
            self._faults = (self._folder / _FAULTS.format(os.getpid())).open("w", encoding="utf-8")
            faulthandler.enable(self._faults)

    def remove(self) -> None:
        """Leave errors to others again."""
        sys.excepthook, threading.excepthook = self._before
        if self._faults is not None:
            faulthandler.disable()
            self._faults.close()
            with contextlib.suppress(OSError):
                Path(self._faults.name).unlink()
            self._faults = None

    def _from_main(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        if not isinstance(error, Exception):
            return
        try:
            words = expected(error)
            report = None if words else self._written(error.with_traceback(trace))
            if words or report:
                self._met.emit(words or report)
        except Exception:  # noqa: BLE001 - the last place that can say anything
            traceback.print_exc()

    def _from_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            self._from_main(args.exc_type, args.exc_value, args.exc_traceback)

    def _written(self, error: Exception) -> CrashReport | None:
        """The report of an error, on disk; None of one that was met before."""
        place = origin(error)
        with self._lock:
            if place in self._known:
                return None
            self._known.add(place)
        details = "".join(traceback.format_exception(error))
        text = report_text("Something in MDM Studio failed that should not.", details)
        return CrashReport(write_report(self._folder, text), text, traceback.format_exception_only(error)[-1].strip(), "")

    def _take(self, met: str | CrashReport) -> None:
        if isinstance(met, str):
            self._tell(met)
        elif not self._busy:
            self._busy = True
            try:
                self._show(replace(met, saved=self._save()))
            finally:
                self._busy = False


def expected(error: BaseException) -> str:
    """The words of an expected error, also where a signal's own error wraps it; empty for others."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MDMStudioError):
            return str(seen)
        seen = seen.__cause__
    return ""


def origin(error: BaseException) -> str:
    """Where an error comes from: its kind, and the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
