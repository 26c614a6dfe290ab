"""From a form to a job: the classifier is waited for and kept, the form is remembered, and a job is told in words."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from mdm_studio.config import user_data_dir
from mdm_studio.errors import ClassifierError, UsageError
from mdm_studio.io.atomic import write_json
from mdm_studio.services.export_form import ExportChoices, ExportFacts, judge
from mdm_studio.services.export_memory import Memory, read_memory, write_memory
from mdm_studio.services.export_request import ExportRequest
from mdm_studio.services.export_start import Start, keep_classifier, writers
from mdm_studio.services.export_words import describe, show_job
from mdm_studio.services.jobs.states import JobView


class Learner:
    """Is ready after so many questions; `busy` for so many."""

    def __init__(self, ready, busy=9):
        self.ready, self.busy, self.asked = ready, busy, 0

    @property
    def status(self):
        return SimpleNamespace(busy=self.asked < self.busy)

    def save_classifier(self, path):
        self.asked += 1
        if self.asked < self.ready:
            raise ClassifierError("there is no classifier to save yet")
        path.write_bytes(b"classifier")


def test_the_classifier_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_studio.services.export_start._LOOK", 0.0)
    path = tmp_path / "c.mdm"
    assert keep_classifier(Learner(3), path) == path
    assert path.read_bytes() == b"classifier"
    for learner, options in (
        (Learner(9, busy=2), {}),
        (Learner(9), {"stop": lambda: True}),
        (Learner(9), {"patience": 0.0}),
    ):
        with pytest.raises(ClassifierError, match="no classifier to save yet"):
            keep_classifier(learner, path, **options)
        assert learner.asked < 9


class Board:
    """Writes down what is added."""

    def __init__(self, *views):
        self.views, self.added = views, []

    def add(self, kind, settings, name):
        self.added.append((kind, settings, name))
        return "view"

    def jobs(self):
        return self.views


@pytest.fixture
def facts(tmp_path):
    return ExportFacts((tmp_path / "a.png",), out=tmp_path / "cells" / "masks", free=10**9)


def test_a_job_has_a_classifier_that_nobody_changes(facts, tmp_path):
    board = Board()
    start = Start(ExportChoices(), facts, lambda path: path.touch(), tmp_path / "cache")
    assert start.onto(board) == "view"
    ((kind, settings, name),) = board.added
    assert (kind, name) == ("export", "Masks of cells")
    request = ExportRequest.from_json(settings)
    assert request.classifier == facts.out / "export.mdm"
    assert request.classifier.exists()
    assert (request.images, request.cache) == (facts.images, tmp_path / "cache")

    file = tmp_path / "mine.mdm"
    file.write_bytes(b"mine")
    dataclasses.replace(start, choices=ExportChoices(classifier="file", file=str(file))).onto(board)
    assert request.classifier.read_bytes() == b"mine"
    dataclasses.replace(start, choices=ExportChoices(classifier="file", file=str(request.classifier))).onto(board)
    assert request.classifier.read_bytes() == b"mine"
    assert dataclasses.replace(start, facts=dataclasses.replace(facts, out=Path("/x/all"))).name == "Masks in all"


def test_nothing_is_written_where_something_is_in_the_way(facts):
    start = Start(ExportChoices(), dataclasses.replace(facts, images=(), no_images="no images"), lambda _: None, None)
    with pytest.raises(UsageError, match="no images"):
        start.onto(Board())
    assert not facts.out.exists()


HALF = "Masks of cells  ·  3 of 10 images  ·  3 min left"


def view(**changes):
    return dataclasses.replace(JobView("a-1", Path("/jobs/a-1"), "export", "Masks of cells", "running"), **changes)


def test_who_writes_where(facts, tmp_path):
    board = Board()
    Start(ExportChoices(), facts, lambda path: path, None).onto(board)
    folder = tmp_path / "job"
    folder.mkdir()
    write_json(folder / "job.json", board.added[0][1])
    (tmp_path / "other").mkdir()
    board.views = (
        view(folder=tmp_path / "other"),
        view(folder=folder),
        view(folder=folder, state="done", name="another"),
        view(kind="pretrain", name="another"),
    )
    assert writers(board) == {facts.out: "Masks of cells"}
    assert writers(board, but="a-1") == {}


def test_the_form_is_remembered():
    assert read_memory() == Memory()
    choices = ExportChoices(source="folder", folder="/cells", out="/there", csv=True)
    write_memory(Memory(choices, "/project", "job-1"))
    kept = read_memory()
    assert kept == Memory(choices, "/project", "job-1")
    assert kept.choices_for(Path("/project")) == choices
    assert kept.choices_for(None) == choices
    other = kept.choices_for(Path("/other"))
    assert (other.source, other.folder, other.out, other.csv) == ("project", "", "", True)
    for damaged in ("[]", "{", '{"version": 99}', '{"version": 1, "choices": 3, "root": 4}'):
        (user_data_dir() / "export-form.json").write_text(damaged)
        assert read_memory() == Memory()


@pytest.mark.parametrize(
    ("job", "words", "can"),
    [
        (view(state="queued", message="waits for another export"), "Waits for another export.", "cancel"),
        (view(step=3, steps=10, done=0.35, rate=2.0, unit="images/s", eta_s=200), HALF, "cancel"),
        (view(message="slide-7"), "Now: slide-7", "cancel"),
        (view(state="paused", step=3, steps=10), "3 of 10 images", "cancel resume dismiss"),
        (view(state="interrupted", message="power cut"), "Power cut.", "cancel resume dismiss"),
        (view(state="failed", message="the disk is full"), "The disk is full.", "resume dismiss"),
        (view(state="cancelled", step=3, steps=10), "3 of 10 images", "resume dismiss"),
        (view(state="done", step=10, steps=10, done=1.0), "10 of 10 images", "dismiss"),
    ],
)
def test_a_job_in_words(job, words, can):
    shown = show_job(job)
    assert shown.text.splitlines()[0].startswith("Masks of cells")
    assert words in shown.text
    assert ("may be closed" in shown.text) == job.living
    assert {name for name in ("cancel", "resume", "dismiss") if getattr(shown, name)} == set(can.split())
    assert shown.permille == (-1 if job.state == "queued" else round(1000 * job.done))


def test_what_will_be_written_in_words(facts):
    judged = judge(ExportChoices(), dataclasses.replace(facts, pixels=10**8))
    assert describe(judged, facts) == f"1 image, about 6.0 MB, to {facts.out}."
    assert describe(judged, ExportFacts()) == ""
