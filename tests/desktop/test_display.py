"""Where no window can be opened, that is said in words: Qt would abort."""

import socket
import sys

import pytest

from mdm_studio.desktop.display import check_display, check_installed, prepare_environment
from mdm_studio.errors import MDMStudioError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is a display")


def test_no_display_is_said():
    with pytest.raises(MDMStudioError, match="no display"):
        check_display({}, "linux")
    with pytest.raises(MDMStudioError, match=":4711 does not answer"):
        check_display({"DISPLAY": ":4711"}, "linux")


@pytest.mark.parametrize(
    ("environment", "platform"),
    [({}, "darwin"), ({}, "win32"), ({"QT_QPA_PLATFORM": "offscreen"}, "linux"), ({"WAYLAND_DISPLAY": "wayland-0"}, "linux")],
)
def test_where_there_is_one_or_none_is_needed_nothing_is_said(environment, platform):
    check_display(environment, platform)


def test_a_display_that_listens_is_enough(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind("\0/tmp/.X11-unix/X4712")
        server.listen()
        check_display({"DISPLAY": ":4712.0"}, "linux")
    check_display({"DISPLAY": "elsewhere:0"}, "linux")

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(MDMStudioError, match="apt install libxcb-cursor0"):
        check_display({"DISPLAY": "elsewhere:0"}, "linux")


def test_a_missing_package_is_said_with_what_installs_it():
    check_installed(("json", "pathlib"))
    with pytest.raises(MDMStudioError, match=r"no_such_package.*pip install mdm-studio\[napari\]"):
        check_installed(("json", "no_such_package"))


def test_the_platform_of_the_user_is_left_alone():
    assert prepare_environment({"QT_QPA_PLATFORM": "wayland", "WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}) == {}
    assert prepare_environment({"DISPLAY": ":0"}) == {}
