"""Every command: help with an example, one line for an error, a traceback only when asked for."""

import os
import subprocess
import sys

import pytest
from typer.main import get_command

from mdm_studio.cli.app import app


def _commands():
    found = []
    for name, command in get_command(app).commands.items():
        found.append((name,))
        found += [(name, sub) for sub in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_help_shows_an_example(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert f"mdm-studio {command[0]}" in outcome.stdout


def test_every_command_of_the_guide_exists_and_is_in_the_guide(repository):
    readme = (repository / "README.md").read_text()
    for command in _commands():
        assert f"mdm-studio {command[0]}" in readme


def _program(*args, **options):
    return subprocess.run([sys.executable, "-m", "mdm_studio", *args], capture_output=True, text=True, check=False, **options)


def test_an_error_is_one_line_on_stderr(tmp_path):
    done = _program("predict", "no.mdm", str(tmp_path), "--out", str(tmp_path / "m"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("mdm-studio: ")


def test_debug_shows_the_traceback(tmp_path):
    done = _program("--debug", "predict", "no.mdm", str(tmp_path), "--out", str(tmp_path / "m"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_wrong_usage_exits_with_2():
    assert _program("fit", "--no-such-option").returncode == 2
    assert _program("nonsense").returncode == 2


def test_version():
    assert _program("--version").stdout.startswith("mdm-studio 0.")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is a display")
def test_no_arguments_open_the_window_which_needs_a_display():
    bare = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    done = _program(env=bare)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no display" in done.stderr


def test_help_is_quick_because_it_loads_no_torch():
    heavy = ("torch", "zarr", "PySide6", "qtpy", "napari")
    code = f"import sys; from mdm_studio.cli.app import app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
