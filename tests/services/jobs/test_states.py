"""What a job is doing, judged from its files."""

from pathlib import Path

import pytest

from mdm_studio.services.jobs.states import judge, judge_state

NOW = 1_000_000.0
FOLDER = Path("/jobs/a")
ASKED = {"kind": "pretrain", "name": "nuclei", "created": 5.0}


def _status(state, age=1.0, **more):
    return {"state": state, "heartbeat": NOW - age, "reported": NOW - age, "facts": {}, **more}


@pytest.mark.parametrize(
    ("status", "lock", "state"),
    [
        (_status("running"), "held", "running"),
        (_status("running", age=1), "free", "interrupted"),  # the lock says at once what a heartbeat says late
        (_status("running", age=9999), "held", "running"),  # suspended, or the disk is slow: the process is there
        (_status("queued"), "held", "queued"),
        (_status("queued", age=2), "free", "queued"),  # its process has been started a moment ago
        (_status("queued", age=99), "free", "interrupted"),
        (_status("running", age=2), "unknown", "running"),  # no locks on this file system: the heartbeat decides
        (_status("running", age=99), "unknown", "interrupted"),
        (_status("paused"), "free", "paused"),
        (_status("paused"), "held", "paused"),
        (_status("done", age=9999), "free", "done"),
        (_status("failed"), "free", "failed"),
        (_status("cancelled"), "free", "cancelled"),
        (_status("interrupted"), "free", "interrupted"),
        (_status("sleeping"), "free", "interrupted"),  # of a version to come
    ],
)
def test_state(status, lock, state):
    assert judge_state(status, lock, NOW) == state


def test_a_job_without_status_has_just_been_made():
    assert judge("a", FOLDER, ASKED | {"created": NOW - 1}, {}, "free", NOW).state == "queued"
    assert judge("a", FOLDER, ASKED, {}, "free", NOW).state == "interrupted"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (_status("running", message="tile 3"), "tile 3"),
        (_status("running", reported=NOW - 90), "this step has taken 90 s so far; the process is alive"),
        (_status("running", age=600, pid=12), "no sign of life for 10 min, though its process 12 is still there"),
        (_status("failed", message="the disk is full"), "the disk is full"),
        (_status("failed"), "jobs logs a"),
        (_status("queued", message="waits for 'b'"), "waits for 'b'"),
    ],
)
def test_message(status, words):
    assert words in judge("a", FOLDER, ASKED, status, "held", NOW).message


def test_an_interrupted_job_says_what_to_do():
    assert "resume it" in judge("a", FOLDER, ASKED, _status("running"), "free", NOW).message


def test_only_living_jobs_have_a_speed_and_time_left():
    status = _status("running", rate=2.0, eta_s=9.0, unit="images/s", step=3, steps=6, done=0.5, result="/r")
    view = judge("a", FOLDER, ASKED, status, "held", NOW)
    assert (view.rate, view.eta_s, view.step, view.steps, view.done, view.result) == (2.0, 9.0, 3, 6, 0.5, Path("/r"))
    over = judge("a", FOLDER, ASKED, status | {"state": "paused"}, "free", NOW)
    assert (over.rate, over.eta_s, over.step) == (None, None, 3)


def test_a_job_of_version_0_1():
    status = {
        "state": "paused", "step": 4, "steps": None, "minutes": 2.0, "done": 0.3, "loss": 0.5, "images_per_s": 7.0,
        "eta_s": 3.0, "device": "cpu", "precision": "fp32", "pid": 1, "heartbeat": NOW,
    }  # fmt: skip
    view = judge("a", FOLDER, ASKED, status, "free", NOW)
    assert (view.state, view.step, view.device, view.facts["loss"]) == ("paused", 4, "cpu", 0.5)


def test_a_folder_that_is_gone():
    view = judge("a", FOLDER, {}, {}, "free", NOW)
    assert (view.state, view.name) == ("failed", "a")
    assert "gone or damaged" in view.message
