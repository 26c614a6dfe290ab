"""One process at a time, and a killed one leaves the folder free."""

import os
import signal
import subprocess
import sys

import pytest

from mdm_studio.errors import OutputError, ProjectError
from mdm_studio.io import folder_lock
from mdm_studio.io.folder_lock import LOCK_FILE, FolderLock

HOLD = """
import sys, time
from pathlib import Path
from mdm_studio.io.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def hold(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_has_it_and_a_killed_one_lets_go(tmp_path):
    with hold(tmp_path / "a") as process:
        try:
            with pytest.raises(ProjectError, match=f"process {process.pid}\\b"):
                FolderLock(tmp_path / "a")
        finally:
            process.kill()
    assert (tmp_path / "a" / LOCK_FILE).exists()  # what the killed one left
    FolderLock(tmp_path / "a").release()
    assert list((tmp_path / "a").iterdir()) == []


def test_the_same_process_is_kept_out_too(tmp_path):
    lock = FolderLock(tmp_path)
    for _ in range(2):
        with pytest.raises(ProjectError, match=str(os.getpid())):
            FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OutputError):
        FolderLock(tmp_path / "a")


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_lock, "_lock", fail)
    lock = FolderLock(tmp_path)
    assert not lock.supported
    lock.release()


def test_a_lock_file_removed_while_we_waited_for_it_is_made_anew(tmp_path, monkeypatch):
    take = folder_lock._lock

    def removed_just_before(file):
        monkeypatch.setattr(folder_lock, "_lock", take)
        (tmp_path / LOCK_FILE).unlink()
        take(file)

    monkeypatch.setattr(folder_lock, "_lock", removed_just_before)
    lock = FolderLock(tmp_path)
    with pytest.raises(ProjectError):
        FolderLock(tmp_path)
    lock.release()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has one way to end a process")
def test_the_name_of_a_process_on_another_machine(tmp_path):
    lock = FolderLock(tmp_path)
    (tmp_path / LOCK_FILE).write_text("12 elsewhere\n")
    with pytest.raises(ProjectError, match="process 12 on elsewhere"):
        FolderLock(tmp_path)
    (tmp_path / LOCK_FILE).write_text("")
    with pytest.raises(ProjectError, match="process unknown"):
        FolderLock(tmp_path)
    lock.release()
