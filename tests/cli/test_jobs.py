"""mdm-studio jobs, and pretraining in the background."""

import json
import sys
from pathlib import Path

import pytest

from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs import board, kinds, worker
from mdm_studio.services.jobs.board import JobBoard

COUNTING = Path(__file__).parents[1] / "services" / "jobs" / "counting.py"


@pytest.fixture
def job(monkeypatch):
    """A job in a folder of the board that nobody drives yet."""
    monkeypatch.setattr(kinds, "KINDS", kinds.KINDS | {"count": "counting:run"})
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, str(COUNTING)))
    monkeypatch.setenv(worker.NICE_VARIABLE, "0")
    with monkeypatch.context() as patch:
        patch.setattr(board, "start_worker", lambda folder, hold: None)
        view = JobBoard().add("count", {"steps": 400, "step_s": 0.01, "minutes": None, "device": "cpu"}, "my cells")
    return view


@pytest.fixture
def images(images_and_labels):
    return images_and_labels[0]


def test_a_job_from_its_start_to_its_removal(run, job):
    outcome = run("jobs", "resume", "my-c", "--steps", "300")
    assert (outcome.code, outcome.stdout.strip()) == (0, job.id)
    for view in JobBoard().follow(job.id, every=0.02):
        if view.state == "running":
            break
    assert json.loads(run("jobs", "show", job.id, "--json").stdout)["state"] == "running"
    outcome = run("jobs", "pause", job.id)
    assert "is paused" in outcome.stderr
    done = len(JobFolder(job.folder).read_metrics())
    outcome = run("jobs", "resume", job.id, "--steps", done + 2, "--wait", "--json")
    values = json.loads(outcome.stdout)
    assert (values["state"], values["step"], values["result"]) == ("done", done + 2, str(job.folder / "backbone"))
    log = run("jobs", "logs", job.id).stdout
    assert log.count("started by process") == 2
    assert "paused" in log
    assert run("jobs", "remove", job.id).code == 0
    assert json.loads(run("jobs", "list", "--json").stdout) == []


def test_lists_for_people(run, job):
    for arguments in (["jobs"], ["jobs", "list"]):
        outcome = run(*arguments)
        assert job.id in outcome.stdout
        assert "queued" in outcome.stdout
    shown = run("jobs", "show", job.id).stdout
    assert "my cells" in shown
    assert str(job.folder) in shown.replace("\n", "")


def test_no_jobs(run):
    outcome = run("jobs")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "--background" in outcome.stderr


def test_an_id_that_is_not_there(run, job):
    outcome = run("jobs", "pause", "x")
    assert (outcome.code, job.id in outcome.error) == (1, True)


def test_waiting_for_a_job_that_fails(run, job):
    (job.folder / "metrics.jsonl").mkdir()
    outcome = run("jobs", "resume", job.id, "--wait")
    assert outcome.code == 1
    assert outcome.error.startswith(f"job {job.id} failed: ")


def test_a_pretraining_in_the_background(run, images, monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(board, "start_worker", lambda folder, hold: started.append(folder.root))
    options = ["--steps", "4", "--crop", "32", "--batch", "1", "--device", "cpu"]
    outcome = run("pretrain", images, "--background", "--name", "discs", *options)
    assert outcome.code == 0, outcome.error
    view = JobBoard().find(outcome.stdout.strip())
    assert (view.name, view.folder) == ("discs", started[0])
    asked = JobFolder(view.folder).settings()
    assert (asked["steps"], asked["publish"], len(asked["images"])) == (4, True, 3)
    outcome = run("pretrain", images, "--background", "--out", tmp_path / "there", *options, "--json")
    assert json.loads(outcome.stdout)["folder"] == str((tmp_path / "there").resolve())
    assert JobFolder(started[1]).settings()["publish"] is False
    again = run("pretrain", images, "--background", "--out", tmp_path / "there", "--resume", "--steps", "9")
    assert again.code == 0, again.error
    assert JobFolder(started[2]).settings()["steps"] == 9
    assert "Give --out DIR" in run("pretrain", images, "--steps", "1").error


def test_a_pretraining_in_the_terminal_is_seen_by_all(run, images, tmp_path):
    options = ["--steps", "1", "--crop", "32", "--batch", "1", "--device", "cpu", "--precision", "fp32"]
    outcome = run("pretrain", images, "--out", tmp_path / "there", *options, "--json")
    assert outcome.code == 0, outcome.error
    assert json.loads(outcome.stdout)["state"] == "done"
    (view,) = JobBoard().jobs()
    assert (view.state, view.step, view.result) == ("done", 1, tmp_path / "there" / "backbone")
    outcome = run("pretrain", images, "--out", tmp_path / "there", "--resume")
    assert (outcome.code, "the backbone is in" in outcome.stderr) == (0, True)


def test_a_rate_that_decays_is_written_into_the_job(run, images_and_labels, tmp_path):
    images, _ = images_and_labels
    out = tmp_path / "job"
    options = ["--size", "lean", "--steps", 2, "--decay-steps", 4, "--crop", 32, "--batch", 1, "--precision", "fp32"]
    assert run("pretrain", images, "--out", out, *options).code == 0
    job = json.loads((out / "job.json").read_text())
    assert job["config"]["decay_steps"] == 4
    assert job["network"]["model_channels"] == 32
