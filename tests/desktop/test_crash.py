"""What nobody expected: saved, written, shown once; and what the interpreter leaves when it dies."""

import json
import os
import subprocess
import sys

import pytest

from mdm_studio.desktop import crash
from mdm_studio.errors import ProjectError

PROGRAM = """
import json, os, sys, threading, time
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from pathlib import Path
from PySide6.QtCore import QCoreApplication, QTimer
from mdm_studio.desktop.crash import CrashHandler
from mdm_studio.errors import ProjectError

application = QCoreApplication([])
shown, told, saved, depth = [], [], [], []

def fail(words): raise RuntimeError(words)

def fail_otherwise(): raise LookupError("the second")

def show(report):
    shown.append([report.title, report.saved, len(depth)])
    depth.append(1)
    QTimer.singleShot(0, fail_otherwise)  # while the report is on the screen
    end = time.monotonic() + 0.1
    try:
        while time.monotonic() < end: application.processEvents()
    finally: depth.pop()

def expected():
    try: raise ProjectError("the project is open elsewhere")
    except ProjectError as error: raise ValueError("a signal's own") from error

def on_a_thread(): [][1]

handler = CrashHandler(Path(sys.argv[1]), lambda: saved.append(1) or "All is saved.", told.append, show)
handler.install()
for delay in (0, 50, 100): QTimer.singleShot(delay, lambda: fail("the first"))  # the same line three times
QTimer.singleShot(150, expected)
QTimer.singleShot(200, lambda: threading.Thread(target=on_a_thread).start())
QTimer.singleShot(600, application.quit)
application.exec()
handler.remove()
print(json.dumps({"shown": shown, "told": told, "saved": saved}))
"""


def in_a_program(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_errors_are_saved_written_and_shown_once(tmp_path):
    done = in_a_program(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    titles = [title for title, _, _ in said["shown"]]
    assert titles[0] == "RuntimeError: the first"
    assert "IndexError: list index out of range" in titles
    assert len(set(titles)) == len(titles)
    assert {(saved, depth) for _, saved, depth in said["shown"]} == {("All is saved.", 0)}  # one at a time
    assert said["told"] == ["the project is open elsewhere"]
    texts = [path.read_text() for path in crash.list_reports(tmp_path)]
    assert len(texts) == 3  # the one that came while another was shown is written, too
    assert sum("LookupError: the second" in text for text in texts) == 1
    assert sum("on_a_thread" in text for text in texts) == 1
    assert not list(tmp_path.glob("faults-*"))  # a good end leaves nothing


def test_a_dying_interpreter_leaves_a_report_for_the_next_start(tmp_path):
    code = "\n".join(
        [
            "import sys; from pathlib import Path; from mdm_studio.desktop.crash import CrashHandler",
            "CrashHandler(Path(sys.argv[1]), str, print, print).install()",
            "import faulthandler; faulthandler._sigsegv()",
        ]
    )
    assert in_a_program(code, tmp_path).returncode != 0
    crash.collect_faults(tmp_path)
    (report,) = crash.unseen_reports(tmp_path, "")
    assert "ended by the system" in report.read_text()
    assert "Segmentation fault" in report.read_text()
    assert crash.unseen_reports(tmp_path, report.name) == []
    crash.collect_faults(tmp_path)
    assert crash.list_reports(tmp_path) == [report]


def test_files_of_living_windows_are_left_and_empty_ones_of_dead_ones_removed(tmp_path):
    mine, dead = tmp_path / f"faults-{os.getpid()}.log", tmp_path / "faults-999999999.log"
    for path in (mine, dead):
        path.write_text("")
    crash.collect_faults(tmp_path)
    assert mine.exists()
    assert not dead.exists()
    assert crash.list_reports(tmp_path) == []


def test_a_report_names_versions_and_hides_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    text = crash.report_text("It failed.", 'File "/home/someone/science/a.py", line 3')
    assert "someone" not in text
    assert '"~/science/a.py"' in text
    assert "MDM Studio 0." in text
    assert "napari" in text
    paths = [crash.write_report(tmp_path, text) for _ in range(25)]
    assert len(crash.list_reports(tmp_path)) == 20
    assert paths[-1] in crash.list_reports(tmp_path)


def test_a_report_that_cannot_be_written_is_no_second_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert crash.write_report(tmp_path / "file", "text") is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_expected_errors_are_known_by_their_words(wrapped):
    error = ProjectError("open elsewhere")
    if wrapped:
        outer = RuntimeError("in a callback")
        outer.__cause__ = error
        error = outer
    assert crash.expected(error) == "open elsewhere"
    assert crash.expected(RuntimeError("other")) == ""
