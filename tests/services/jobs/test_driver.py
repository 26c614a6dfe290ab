"""The driver: every way a job can end, its signs of life, its turn."""

import errno
import json
import shutil
import time

import pytest

from mdm_studio.errors import InputError, JobError, OutputError
from mdm_studio.io import job_folder
from mdm_studio.io.folder_lock import FolderLock, lock_state
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs import pulse
from mdm_studio.services.jobs.driver import drive
from mdm_studio.services.jobs.lanes import wait_for_turn
from mdm_studio.services.jobs.places import lane_folder, look, register
from mdm_studio.services.jobs.states import JobReport


@pytest.fixture
def make(tmp_path, counting, monkeypatch):
    """Makes a counting job; looks are quick."""
    monkeypatch.setattr(pulse, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.02)

    def made(name="job", steps=5, created=1.0, **more):
        folder = JobFolder(tmp_path / name)
        asked = {"kind": "count", "version": 1, "name": name, "created": created, "device": "cpu", "steps": steps, **more}
        folder.create(asked)
        register(folder.root)
        return folder

    return made


def _state(folder):
    return folder.read_status()["state"]


def _steps(folder):
    return [row["step"] for row in folder.read_metrics()]


def test_to_the_end(make):
    folder = make()
    assert [report.step for report in drive(folder)] == [1, 2, 3, 4, 5]
    view = look("job", folder.root)
    assert (view.state, view.step, view.done, view.unit, view.device) == ("done", 5, 1, "steps/s", "cpu")
    assert view.result == folder.backbone
    assert "done" in folder.read_log()
    assert lock_state(folder.root) == "free"


def test_stopped_closed_and_asked(make):
    folder = make(steps=50, step_s=0.01)
    assert {look("job", folder.root).state for _ in drive(folder, stop=lambda: len(_steps(folder)) == 2)} == {"running"}
    assert _state(folder) == "paused"
    steps = drive(folder)
    next(steps)
    steps.close()
    assert _state(folder) == "paused"
    for want, state in (("pause", "paused"), ("cancel", "cancelled")):
        for report in drive(folder):
            if report.done:
                folder.write_request(want)
        assert _state(folder) == state
        assert not folder.request.exists()
    assert _steps(folder) == list(range(1, len(_steps(folder)) + 1))
    assert len(_steps(folder)) < 50


def test_a_shutdown_leaves_a_background_job_to_the_next_window(make):
    folder = make(steps=50)
    list(drive(folder, stop=lambda: bool(_steps(folder)), background=True))
    assert _state(folder) == "interrupted"


def test_asked_to_stop_when_all_is_done_it_is_done(make):
    folder = make(steps=1)
    steps = drive(folder, stop=lambda: bool(_steps(folder)))
    list(steps)
    assert _state(folder) == "done"


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("no readable images in x; choose another folder"), "no readable images in x"),
        (MemoryError(), r"out of memory .* smaller batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), r"out of memory .* smaller batch"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), r"out of memory .* smaller batch"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/mnt/share/a.png"), r"/mnt/share/a.png: .* drive is connected"),
        (ValueError("boom\nsecond line"), r"unexpectedly \(ValueError: boom\)"),
    ],
)
def test_failures_in_words(make, counting, monkeypatch, error, words):
    folder = make()
    monkeypatch.setattr(counting, "run", lambda folder, *, stop: (_raise(error) for _ in range(1)))
    with pytest.raises((JobError, InputError, OutputError), match=words):
        list(drive(folder))
    view = look("job", folder.root)
    assert view.state == "failed"
    assert "\n" not in view.message
    assert type(error).__name__ in folder.read_log()
    assert "Traceback" in folder.read_log()
    monkeypatch.setattr(counting, "run", lambda folder, *, stop: (JobReport(1.0, note="2 of 3 made") for _ in range(1)))
    list(drive(folder))
    view = look("job", folder.root)
    assert (view.state, view.message) == ("done", "2 of 3 made")  # a failed job can be driven again


def test_a_full_disk_can_still_be_told(make, monkeypatch):
    """Nothing new can be written: the status is written over in place, and says why."""
    folder = make(steps=50, step_s=0.01)
    steps = drive(folder)
    next(steps)

    def full(path, values):
        raise OutputError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(job_folder, "write_json", full)
    monkeypatch.setattr(job_folder.MetricsLog, "write", lambda self, **facts: _raise(OSError(errno.ENOSPC, "No space")))
    with pytest.raises(OutputError, match="disk is full"):
        list(steps)
    assert _state(folder) == "failed"
    assert "disk is full" in folder.read_status()["message"]


def test_beats_go_on_during_a_slow_step(make, counting, monkeypatch):
    folder = make()
    beats = {}  # by the time of the last report

    def run(folder, *, stop):
        yield JobReport(0.5)
        deadline = time.monotonic() + 60
        while not any(len(heard) > 2 for heard in beats.values()):
            assert time.monotonic() < deadline
            status = folder.read_status()
            beats.setdefault(status["reported"], set()).add(status["heartbeat"])
            time.sleep(0.01)
        yield JobReport(1.0)

    monkeypatch.setattr(counting, "run", run)
    list(drive(folder))
    assert _state(folder) == "done"


def test_one_process_at_a_time(make, monkeypatch):
    from mdm_studio.services.jobs import holding

    monkeypatch.setattr(holding, "_TAKE_SECONDS", 0.1)
    folder = make(steps=50)
    steps = drive(folder)
    next(steps)
    status = folder.read_status()
    with pytest.raises(JobError, match="run by another process"):
        list(drive(folder))
    assert folder.read_status()["started"] == status["started"]
    steps.close()


def test_a_removed_folder_is_not_made_again(make):
    folder = make(steps=10_000, step_s=0.005)
    steps = drive(folder)
    next(steps)
    shutil.rmtree(folder.root)
    with pytest.raises(JobError, match="is gone"):
        list(steps)
    assert not folder.root.exists()


def test_jobs_of_a_lane_run_one_after_the_other(make):
    """The second waits for the first, says so, and can be paused while it waits."""
    first, second = make("first", created=1.0, steps=50, step_s=0.01), make("second", created=2.0)
    running = drive(first)
    next(running)
    waiting = drive(second)
    assert next(waiting).note == "waits for 'first'"
    view = look("second", second.root)
    assert (view.state, view.message) == ("queued", "waits for 'first'")
    second.write_request("pause")
    list(waiting)
    assert (_state(second), _steps(second)) == ("paused", [])
    waiting = drive(second)
    next(waiting)
    running.close()
    assert [report.step for report in waiting if report.step] == [1, 2, 3, 4, 5]


def test_the_oldest_waiting_job_is_next(make):
    folders = [make(name, created=created) for name, created in (("old", 1.0), ("new", 2.0))]
    held = [FolderLock(folder.root) for folder in folders]  # both have processes that wait
    for folder in folders:
        folder.write_status(state="queued", heartbeat=time.time())
    assert next(wait_for_turn(folders[1].root, "cpu", lambda: False)) == "waits for 'old'"
    turn = wait_for_turn(folders[0].root, "cpu", lambda: False)
    with pytest.raises(StopIteration) as end:
        next(turn)
    assert lock_state(lane_folder("cpu")) == "held"
    for lock in (end.value.value, *held):
        lock.release()


def test_other_lanes_do_not_wait(make):
    running = drive(make("first", steps=50))
    next(running)
    reports = list(drive(make("second", created=2.0, device="cuda:1", steps=1)))
    assert [(report.step, report.note) for report in reports] == [(1, "")]
    running.close()


def test_without_a_home_jobs_run_all_the_same(make, tmp_path, monkeypatch):
    folder = make(steps=1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MDM_STUDIO_DATA", str(tmp_path / "file" / "data"))
    assert [report.step for report in drive(folder)] == [1]


def test_a_kind_of_a_version_to_come(make):
    folder = make()
    (folder.root / "job.json").write_text(json.dumps({"kind": "fold", "version": 1}))
    with pytest.raises(JobError, match="'fold' are unknown to this version"):
        list(drive(folder))
