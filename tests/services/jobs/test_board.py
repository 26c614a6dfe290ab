"""The board: verbs, IDs, several front ends, real workers."""

import os
import shutil
import signal
import threading
import time

import psutil
import pytest

from mdm_studio.config import user_data_dir
from mdm_studio.errors import JobError, OutputError, UsageError
from mdm_studio.io.folder_lock import FolderLock
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs import board as board_module
from mdm_studio.services.jobs import holding
from mdm_studio.services.jobs.board import JobBoard, requeue
from mdm_studio.services.jobs.driver import drive
from mdm_studio.services.jobs.places import register

ASKED = {"steps": 5, "minutes": None, "device": "cpu"}


def _steps(view):
    return [row["step"] for row in JobFolder(view.folder).read_metrics()]


def _until(board, view, *states, seconds=30):
    deadline = time.monotonic() + seconds
    while (now := board.find(view.id)).state not in states:
        assert time.monotonic() < deadline, (now, board.log(view.id))
        time.sleep(0.02)
    return now


def test_a_worker_lives_on_is_paused_and_resumed_and_leaves_no_zombie(counting):
    """One board starts, another one pauses, a third resumes with more steps; all see the same."""
    view = JobBoard().add("count", ASKED | {"steps": 1000, "step_s": 0.01}, "My Cells!")
    assert (view.state, view.name) == ("queued", "My Cells!")
    assert view.id.startswith("my-cells-")
    here, there = JobBoard(), JobBoard()
    _until(here, view, "running")
    pid = JobFolder(view.folder).read_status()["pid"]
    there.pause("my-c")
    paused = _until(here, view, "paused")
    assert here.jobs() == there.jobs() == (paused,)
    done = paused.step
    assert 0 < done < 1000
    assert pid not in {child.pid for child in psutil.Process().children(recursive=True)}  # nor was it ever ours to wait for
    with pytest.raises(JobError, match="is paused: there is nothing to pause"):
        here.pause(view.id)
    JobBoard().resume(view.id, steps=done + 3)
    assert [now.state for now in here.follow(view.id, every=0.02)][-1] == "done"
    assert _steps(view) == list(range(1, done + 4))


def test_a_killed_worker_is_revived_and_a_second_job_waits_for_it(counting):
    board = JobBoard()
    first = board.add("count", ASKED | {"steps": 60, "step_s": 0.02}, "first")
    _until(board, first, "running")
    second = board.add("count", ASKED, "second")
    os.kill(JobFolder(first.folder).read_status()["pid"], signal.SIGKILL)
    assert "power cut" in _until(board, first, "interrupted").message
    assert {view.state for view in board.jobs()} <= {"interrupted", "queued", "running", "done"}
    assert [view.id for view in board.revive()] == [first.id]
    assert board.revive() == ()
    assert _until(board, first, "done").done == 1
    assert _until(board, second, "done").done == 1
    assert _steps(first) == list(range(1, 61))


@pytest.fixture
def board(counting, no_workers):
    board = JobBoard()
    yield board
    board.close()


def test_jobs_are_listed_newest_first_and_found_by_what_is_unique(board):
    views = [board.add("count", ASKED, name) for name in ("cells", "cell walls", "nuclei")]
    assert [view.id for view in board.jobs()] == [view.id for view in reversed(views)]
    assert board.find("nuc").name == board.find(str(views[2].folder)).name == "nuclei"
    with pytest.raises(JobError, match=r"several jobs begin with 'cell'; give one of: cell-walls-\w+, cells-\w+$"):
        board.find("cell")
    with pytest.raises(JobError, match=r"there is no job 'x'; give one of: cell-walls"):
        board.find("x")


def test_no_jobs_at_all(board):
    assert board.jobs() == ()
    with pytest.raises(JobError, match=r"\(none\)"):
        board.find("x")


def test_a_backbone_of_the_board_is_published(board):
    view = board.add("pretrain", {"publish": False, "images": []}, "nuclei")
    assert JobFolder(view.folder).settings()["publish"] is True


def test_an_unknown_kind_leaves_nothing_behind(board):
    with pytest.raises(JobError, match="unknown"):
        board.add("fold", {}, "a")
    assert board.jobs() == ()


def _job(board, state, **more):
    view = board.add("count", ASKED, "a")
    JobFolder(view.folder).write_status(state=state, heartbeat=1.0, **more)
    return board.find(view.id)


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("cancel", "paused", "cancelled"),
        ("cancel", "failed", "cancelled"),
        ("cancel", "running", "cancelled"),  # interrupted
        ("cancel", "done", None),
        ("cancel", "cancelled", None),
        ("pause", "running", "paused"),  # interrupted: it will not be revived
        ("pause", "failed", None),
        ("resume", "paused", "queued"),
        ("resume", "failed", "queued"),
        ("resume", "cancelled", "queued"),
        ("resume", "running", "queued"),
        ("resume", "done", None),
    ],
)
def test_verbs_for_jobs_that_nobody_drives(board, no_workers, verb, before, after):
    view = _job(board, before)
    no_workers.clear()
    if after is None:
        with pytest.raises(JobError, match=r"nothing to|is done; give it more --steps"):
            getattr(board, verb)(view.id)
    else:
        assert getattr(board, verb)(view.id).state == after
        assert no_workers == ([view.folder] if verb == "resume" else [])


def test_a_new_budget_replaces_the_old_one_as_a_whole(board):
    view = _job(board, "done")
    board.resume(view.id, minutes=7)
    settings = JobFolder(view.folder).settings()
    assert (settings["steps"], settings["minutes"]) == (None, 7)
    export = board.add("export", {"device": "cpu"}, "masks")
    JobFolder(export.folder).write_status(state="paused")
    with pytest.raises(UsageError, match="has no budget"):
        board.resume(export.id, minutes=7)


def test_a_running_job_is_neither_resumed_nor_removed(board, monkeypatch):
    monkeypatch.setattr(holding, "_TAKE_SECONDS", 0.2)
    view = _job(board, "running")
    lock = FolderLock(view.folder)
    for verb, words in ((board.resume, "is running; pause or cancel it first"), (board.remove, "cancel it first")):
        with pytest.raises(JobError, match=words):
            verb(view.id)
    assert board.cancel(view.id).state == "running"
    assert JobFolder(view.folder).read_request() == "cancel"
    lock.release()


def test_removing(board, tmp_path):
    own = _job(board, "done")
    board.remove(own.id)
    assert not own.folder.exists()
    elsewhere = JobFolder(tmp_path / "there")
    elsewhere.create({"kind": "count", "name": "there", "steps": 1})
    job_id = register(elsewhere.root)
    assert register(elsewhere.root) == job_id
    list(drive(elsewhere))
    board.remove(job_id)
    assert elsewhere.exists()
    assert board.jobs() == ()


def test_a_job_whose_folder_is_gone_can_only_be_removed(board, tmp_path):
    folder = JobFolder(tmp_path / "usb" / "job")
    folder.create({"kind": "count", "name": "job", "steps": 1})
    view = board.start(folder)
    shutil.rmtree(folder.root)
    assert board.find(view.id).state == "failed"
    assert "connect its drive" in board.find(view.id).message
    with pytest.raises(JobError, match="gone or damaged"):
        board.resume(view.id)
    assert not folder.root.exists()
    board.remove(view.id)
    assert board.jobs() == ()


def test_what_ran_in_a_terminal_is_not_revived(board, no_workers, tmp_path):
    folder = JobFolder(tmp_path / "job")
    folder.create({"kind": "count", "name": "job", "steps": 1})
    register(folder.root)
    folder.write_status(state="running", heartbeat=1.0, background=False)
    assert board.revive() == ()
    assert board.jobs()[0].state == "interrupted"
    assert no_workers == []


def test_a_job_that_dies_at_once_is_not_revived_for_ever(board, no_workers):
    view = _job(board, "running", background=True)
    for _ in range(3):
        assert len(board.revive()) == 1
        folder = JobFolder(view.folder)
        folder.write_status(**folder.read_status() | {"state": "running", "heartbeat": 1.0})
    assert board.revive() == ()
    assert board.find(view.id).state == "failed"
    assert "3 times without a word" in board.find(view.id).message
    assert board.resume(view.id).state == "queued"  # by hand it is tried again


def test_a_worker_that_cannot_be_started(counting, monkeypatch):
    board = JobBoard()

    def fails(folder, hold):
        raise OutputError("no")

    monkeypatch.setattr(board_module, "start_worker", fails)
    with pytest.raises(OutputError):
        board.add("count", ASKED, "a")
    assert [(view.state, view.message) for view in board.jobs()] == [("failed", "no")]


def test_the_board_tells_of_changes_and_its_thread_ends(board):
    heard = threading.Event()
    told = []

    @board.changed.connect
    def _hear(views):
        told.append(views)
        heard.set()

    board.watch(every=60)
    assert heard.wait(5)
    heard.clear()
    view = board.add("count", ASKED, "a")  # its own verbs are told at once
    assert heard.wait(5)
    assert told[-1][0].id == view.id
    board.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "mdm-studio jobs"]


def test_damaged_files_stop_nobody(board):
    view = board.add("count", ASKED, "a")
    (user_data_dir() / "jobs" / "note.json").write_text("{")
    JobFolder(view.folder).status.write_text("{")
    assert [(job.id, job.state) for job in board.jobs()] == [(view.id, "damaged"), ("note", "damaged")]
    assert board.resume(view.id).state == "queued"  # its checkpoints are good
    JobFolder(view.folder).job.write_text("[]")
    assert board.find(view.id).state == "damaged"
    with pytest.raises(JobError, match=r"job.json is damaged \(Expected `object`, got `array`\)"):
        board.resume(view.id)
    for job_id in (view.id, "note"):
        board.remove(job_id)
    assert board.jobs() == ()


def test_requeue_forgets_what_was_asked_of_the_last_process(board):
    view = _job(board, "paused")
    folder = JobFolder(view.folder)
    folder.write_request("cancel")
    requeue(folder)
    assert folder.read_request() == ""
