"""Whether a window can be opened here. Qt itself would abort the process where it cannot."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from mdm_studio.errors import MDMStudioError

_NEEDED: Final = ("PySide6", "napari", "qtpy", "superqt", "pyqtgraph")
_NO_DISPLAY: Final = ("offscreen", "minimal", "vnc", "eglfs", "linuxfb")  # Qt draws there without a display server
_HINT: Final = "start it on a desktop, or use the commands of `mdm-studio --help`"


def check_installed(names: tuple[str, ...] = _NEEDED) -> None:
    """Raise an error in words if a package of the window is missing; imports none of them."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MDMStudioError(
            f"the desktop program needs {', '.join(missing)}, which this installation does not have: "
            "run `pip install mdm-studio[napari]`"
        )


def check_display(environment: Mapping[str, str], platform: str = sys.platform) -> None:
    """Raise an error in words if there is no display; elsewhere than on Linux there is one."""
    chosen = environment.get("QT_QPA_PLATFORM", "").partition(":")[0]
    if not platform.startswith("linux") or chosen in _NO_DISPLAY or environment.get("WAYLAND_DISPLAY"):
        return
    display = environment.get("DISPLAY", "")
    if not display:
        raise MDMStudioError(f"there is no display to open a window on; {_HINT}")
    if not _answers(display):
        raise MDMStudioError(f"the display {display} does not answer; {_HINT}")
    try:
        ctypes.CDLL("libxcb-cursor.so.0")
    except OSError as error:
        raise MDMStudioError(
            "Qt needs the system library libxcb-cursor, which is not there; install it "
            "(Debian, Ubuntu: `sudo apt install libxcb-cursor0`) and start again"
        ) from error


def prepare_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables to set before Qt starts: NVIDIA's driver draws no OpenGL in Wayland windows of other programs than EGL's."""
    wayland = environment.get("WAYLAND_DISPLAY") and environment.get("DISPLAY")
    if wayland and "QT_QPA_PLATFORM" not in environment and os.path.exists("/proc/driver/nvidia/version"):
        return {"QT_QPA_PLATFORM": "xcb"}
    return {}


def _answers(display: str) -> bool:
    """Whether a local X server listens; one on another machine is believed."""
    host, _, rest = display.rpartition(":")
    number = rest.partition(".")[0]
    if host not in ("", "unix") or not number.isdigit():
        return True
    for name in (f"\0/tmp/.X11-unix/X{number}", f"/tmp/.X11-unix/X{number}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.settimeout(5)
            try:
                trial.connect(name)
            except OSError:
                continue
            return True
    return False
