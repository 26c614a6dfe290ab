"""Ctrl-C, a plain kill and a closed terminal: one line, the right exit code, nothing half-written."""

import os
import signal
import subprocess
import sys

import pytest

BODY = """
import sys, time
from pathlib import Path
from mdm_studio.cli.interrupts import run_interruptible
from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import replacing

def command():
    {work}

run_interruptible(command)
"""
WRITES = """
    with replacing(Path(sys.argv[1])) as unfinished:
        unfinished.write_bytes(b"half")
        print("ready", flush=True)
        time.sleep(600)
"""
IMPORTS = """
    print("ready", flush=True)
    import torch, zarr, dask
    time.sleep(600)
"""
SWALLOWS = """
    print("ready", flush=True)
    try:
        time.sleep(600)
    except BaseException:
        raise ImportError("something else") from None
"""
EXECUTES = """
    exec('print("ready", flush=True); time.sleep(600)')
"""
LIBRARY = """
    from mdm_studio.cli.app import app, run
    import mdm_studio.services.jobs.board as board
    def jobs(self):
        print("ready", flush=True)
        time.sleep(600)
    board.JobBoard.jobs = jobs
    sys.argv = ["mdm-studio", "jobs", "list"]
    run()
"""


def _run(work, path, number, **more):
    command = [sys.executable, "-c", BODY.format(work=work.strip()), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.skipif(os.name != "posix", reason="Windows knows Ctrl-C alone")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_is_being_written_is_removed(tmp_path, name):
    number = getattr(signal, name)
    code, errors = _run(WRITES, tmp_path / "a.bin", number)
    assert code == 128 + number
    assert errors == "mdm-studio: stopped; what is done is kept. Go on with the same command\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("work", [IMPORTS, SWALLOWS, EXECUTES, LIBRARY], ids=["imports", "swallows", "executes", "command"])
def test_one_line_wherever_it_comes(tmp_path, work):
    code, errors = _run(work, tmp_path / "a", signal.SIGINT)
    assert code == 130
    assert errors.splitlines()[-1].startswith("mdm-studio: stopped; ")
    assert "Traceback" not in errors


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")
def test_what_was_switched_off_stays_so(tmp_path):
    """As ``nohup`` does with the signal of a closed terminal."""
    ignored = BODY.format(work=WRITES.strip()).replace(
        "import sys, time", "import signal, sys, time\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)"
    )
    command = [sys.executable, "-c", ignored, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 143
