"""A job is held from the moment it is started, by whoever drives it, whatever the clocks say."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mdm_studio.errors import JobError, OutputError
from mdm_studio.io import folder_lock
from mdm_studio.io.folder_lock import FolderLock, lock_state
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.processes import own_name, process_name
from mdm_studio.services.job_curves import look_into
from mdm_studio.services.jobs import holding, worker
from mdm_studio.services.jobs.board import JobBoard
from mdm_studio.services.jobs.lanes import jobs_ahead
from mdm_studio.services.jobs.places import jobs_root, look_at_all, register

ASKED = {"steps": 5, "minutes": None, "device": "cpu"}
SLOW = "import pathlib, sys, time; pathlib.Path(sys.argv[1], 'pid').write_text(str(__import__('os').getpid())); time.sleep(600)"
"""A worker on a machine so busy that it gets to nothing at all."""


@pytest.fixture
def slow_worker(counting, monkeypatch):
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", SLOW))
    monkeypatch.setattr(holding, "_TAKE_SECONDS", 0.1)
    yield
    for pid in jobs_root().glob("*/pid"):
        _end(pid)


def _pid(folder):
    deadline = time.monotonic() + 120
    while not (text := (folder / "pid").read_text() if (folder / "pid").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(text)


def _end(pid):
    try:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.mark.parametrize("inherited", [True, False], ids=["the lock is handed down", "the process is written down"])
def test_a_worker_that_has_not_begun_yet_is_alive(slow_worker, monkeypatch, inherited):
    """However long it takes, and whatever the times in the files are: not dead, not started twice, not removed."""
    monkeypatch.setattr(folder_lock, "_INHERITED", inherited)
    board = JobBoard()
    view = board.add("count", ASKED, "a")
    folder = JobFolder(view.folder)
    for heartbeat in (1.0, time.time() + 1e6):
        folder.write_status(**folder.read_status() | {"heartbeat": heartbeat})
        assert board.find(view.id).state == "queued"
        assert board.revive() == ()
        with pytest.raises(JobError, match="is queued; cancel it first"):
            board.remove(view.id)
        with pytest.raises(JobError, match="is running"):
            board.resume(view.id)
    pid = _pid(view.folder)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while board.find(view.id).state != "interrupted":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    board.remove(view.id)
    assert not view.folder.exists()


def test_removing_asks_the_lock_and_not_the_view(counting, no_workers, monkeypatch):
    """Between the look and the deletion somebody may have started it."""
    monkeypatch.setattr(holding, "_TAKE_SECONDS", 0.1)
    board = JobBoard()
    view = board.add("count", ASKED, "a")
    JobFolder(view.folder).write_status(state="paused")
    lock = FolderLock(view.folder)
    with pytest.raises(JobError, match="is running"):
        board.remove(view.id)
    lock.release()
    board.remove(view.id)
    assert board.jobs() == ()


def test_a_worker_starts_with_little():
    """It holds its folder before it loads anything that takes long, and beats before it loads PyTorch."""
    code = (
        "import sys; import mdm_studio.services.jobs.worker, mdm_studio.services.jobs.driver; "
        "print(sorted({'torch', 'numpy', 'psutil', 'PIL', 'zarr', 'dask'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == "[]\n"


def test_a_lock_goes_from_process_to_process(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mdm_studio.io.folder_lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]), inherited=int(sys.argv[2]))\n"
        "print((Path(sys.argv[1]) / '.lock').read_text().split()[0], flush=True); input(); lock.release()"
    )
    lock = FolderLock(tmp_path)
    file = lock.hand_down()
    command = [sys.executable, "-c", code, tmp_path, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[file]) as child:
        lock.forget()
        lock.release()  # does nothing any more
        assert child.stdout.readline() == f"{child.pid}\n"
        assert lock_state(tmp_path) == "held"
        child.communicate("\n", timeout=60)
    assert lock_state(tmp_path) == "free"
    stranger = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    for wrong in (stranger, 9999):
        FolderLock(tmp_path, inherited=wrong).release()  # taken as usual
    os.close(stranger)


def test_whose_process_lives_is_running(counting, no_workers):
    board = JobBoard()
    view = board.add("count", ASKED, "a")
    folder = JobFolder(view.folder)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        folder.write_status(state="running", heartbeat=1.0, process=process_name(child.pid))
        assert board.find(view.id).state == "running"
        child.communicate(b"\n")
    assert board.find(view.id).state == "interrupted"
    for process in (own_name(), "1-1-00000000", "nonsense"):  # this one would hold the lock; of others nothing is known
        folder.write_status(state="running", heartbeat=1.0, process=process)
        assert board.find(view.id).state == "interrupted"


FAR = [4e9, 253402300799.0, 9e17, -5.0]


@pytest.mark.parametrize("when", FAR)
def test_times_of_the_future_block_nobody(counting, no_workers, when):
    board = JobBoard()
    early = board.add("count", ASKED, "early")
    late = board.add("count", ASKED, "late")
    folder = JobFolder(early.folder)
    folder.write_status(state="running", heartbeat=when, reported=when, started=when)
    os.utime(folder.job, (max(when, 0) % 4e9, max(when, 0) % 4e9))
    folder.job.write_text(json.dumps(folder.settings() | {"created": when}))
    assert board.find(early.id).state == "interrupted"
    assert jobs_ahead(late.folder, look_at_all(), "cpu") == []
    assert board.cancel(early.id).state == "cancelled"
    board.remove(early.id)
    assert [view.id for view in board.jobs()] == [late.id]


ODD = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "nested": b"[" * 100_000,
    "a number": b'{"heartbeat": "now", "name": 5}',
    "NaN": b'{"heartbeat": NaN, "created": NaN}',
    "huge": b'{"step": 1e999, "version": 1e999}',
    "facts": b'{"facts": 3, "config": 3}',
    "empty": b"",
    "a folder": None,
    "a pipe": "pipe",
}


def _spoil(path, content):
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
@pytest.mark.parametrize("file", ["job.json", "status.json", "note"])
def test_one_damaged_entry_is_one_damaged_entry(counting, no_workers, file, content):
    board = JobBoard()
    good, bad = board.add("count", ASKED, "good"), board.add("count", ASKED, "bad")
    job_id = bad.id if file != "note" else "elsewhere"
    _spoil(jobs_root() / "elsewhere.json" if file == "note" else bad.folder / file, content)
    views = {view.id: view for view in board.jobs()}
    assert views[job_id].state == "damaged"
    assert "\n" not in views[job_id].message
    assert views[good.id].state == "queued"
    assert [view.id for view in jobs_ahead(good.folder, look_at_all(), "cpu")] == []
    assert job_id not in [view.id for view in board.revive()]
    if file == "status.json":  # the job itself is whole
        assert "resume it" in views[job_id].message
    else:
        with pytest.raises(JobError, match="damaged"):
            board.resume(job_id)
    board.remove(job_id)
    assert job_id not in {view.id for view in board.jobs()}


def test_a_damaged_status_of_a_living_job_is_no_reason_to_remove_it(counting, no_workers):
    board = JobBoard()
    view = board.add("count", ASKED, "a")
    lock = FolderLock(view.folder)
    JobFolder(view.folder).status.write_text("{")
    assert board.find(view.id).state == "running"
    with pytest.raises(JobError, match="cancel it first"):
        board.remove(view.id)
    lock.release()


def test_damaged_lines_of_metrics_are_passed_over(tmp_path):
    folder = JobFolder(tmp_path)
    lines = [
        b'{"step": 1, "loss": 0.5}',
        b"\xff\x00",
        b"[]",
        b'{"loss": 1}',
        b'{"step": 2, "loss": NaN}',
        b'{"step": -1}',
        b"[" * 99_999,
    ]
    folder.metrics.write_bytes(b"\n".join([*lines, b'{"step": 3, "loss": 0.25}', b'{"step": 4, "lo']))
    assert [row["step"] for row in folder.read_metrics()] == [1, 3]
    folder.rewind_metrics(1)
    assert folder.metrics.read_text() == '{"step": 1, "loss": 0.5}\n'


@pytest.mark.parametrize("content", [b'{"want": "explode"}', b"[]", b"\xff", None, "pipe"])
def test_requests_that_make_no_sense_are_none(tmp_path, content):
    _spoil(tmp_path / "request.json", content)
    assert JobFolder(tmp_path).read_request() == ""


@pytest.mark.parametrize("file", ["log.txt", "metrics.jsonl", "status.json", "request.json", ".lock", "checkpoints"])
def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(counting, tmp_path, file):
    folder = JobFolder(tmp_path / "job")
    folder.create({"kind": "count", "name": "job", "steps": 2, "created": 1.0, "device": "cpu"})
    os.mkfifo(folder.root / file)
    board = JobBoard()
    try:
        view = board.start(folder)
        states = [now.state for now in board.follow(view.id, every=0.02)]
        assert states[-1] in ("done", "failed")
    except OutputError as error:
        assert "no file stands there" in str(error)  # noqa: PT017
    assert isinstance(board.log(register(folder.root)), str)
    assert look_into(folder).losses.size == 0
    folder.write_log("something")
    board.remove(register(folder.root))


def test_something_in_the_place_of_the_lock(counting, no_workers):
    board = JobBoard()
    view = board.add("count", ASKED, "a")
    (view.folder / ".lock").mkdir()
    JobFolder(view.folder).write_status(state="running", heartbeat=1.0)
    assert board.find(view.id).state == "interrupted"
    board.remove(view.id)
    assert board.jobs() == ()
