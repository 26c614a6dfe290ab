"""Checkpoints judged by the strokes of a live session."""

import dataclasses
import shutil
import time

import numpy as np
import pytest

from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services import checkpoint_scores, pretraining
from mdm_studio.services.checkpoint_scores import JOB, CheckpointScore, CheckpointScorer, read_scores
from mdm_studio.services.session import LiveSettings, Session, View
from mdm_studio.testing import blobs

HEIGHT, WIDTH = 100, 230  # two rows of four tiles


def wait(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def session(tiny_backbone):
    made = Session(settings=LiveSettings(backbone=str(tiny_backbone), device="cpu", smooth=0, filters=False), live=False)
    failures = []
    made.failed.connect(failures.append)
    yield made
    assert made.close(timeout=30)
    assert not failures


@pytest.fixture
def strokes(session):
    """An image in view, with six strokes of each class."""
    image, mask = blobs(HEIGHT, WIDTH, seed=3)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    rng = np.random.default_rng(1)
    for value in (1, 2):
        inside = np.argwhere(mask[:-4, :-4] == value)
        for row, col in inside[rng.integers(len(inside), size=6)]:
            labels[row : row + 4, col : col + 4] = value
    session.open_image("field", ArrayImage(image, rgb=True, name="field"), labels)
    session.view_moved({("field", ()): View(slice(0, HEIGHT), slice(0, WIDTH), 0.5)})
    wait(lambda: session.bench is not None and session.bench.planes and session.strokes.counts())
    return labels


@pytest.fixture
def job(tmp_path, tiny_backbone, monkeypatch):
    """A job whose newest checkpoint is the tiny backbone itself."""
    folder = JobFolder(tmp_path / "job")
    folder.create({"kind": "pretrain"})
    shutil.copytree(tiny_backbone, folder.snapshots / "step-00000200")
    newest = lambda folder: next(iter(sorted(folder.snapshots.glob("step-*"))), None)  # noqa: E731
    monkeypatch.setattr(pretraining, "snapshot", newest, raising=False)
    return folder


class Heard:
    def __init__(self, scorer):
        self.scores, self.progress, self.failures = [], [], []
        scorer.scored.connect(lambda root, scores: self.scores.append(scores))
        scorer.progressed.connect(lambda words, share: self.progress.append((words, share)))
        scorer.failed.connect(self.failures.append)


def ask(scorer, session, job):
    scorer.score(job)
    assert JOB in session._jobs
    wait(lambda: JOB not in session._jobs)


def test_a_checkpoint_is_judged_beside_what_is_read_now_and_only_once(session, strokes, job, monkeypatch):
    scorer = CheckpointScorer(session)
    heard = Heard(scorer)
    ask(scorer, session, job)
    ((score,),) = heard.scores
    assert not heard.failures
    assert (score.step, score.backbone) == (200, session.settings.backbone)
    assert 2 < score.strokes <= 12 < score.pixels
    assert score.score == pytest.approx(score.reference)  # the same weights, read in the same way
    assert 0.5 < score.score <= 1
    assert read_scores(job) == (score,)
    assert [share for _, share in heard.progress] == sorted(share for _, share in heard.progress)
    monkeypatch.setattr(CheckpointScorer, "_compare", lambda *_: pytest.fail("it was judged before"))
    ask(scorer, session, job)
    assert heard.scores[-1] == (score,)


def test_a_new_stroke_and_a_new_checkpoint_are_judged_anew(session, strokes, job):
    scorer = CheckpointScorer(session)
    heard = Heard(scorer)
    ask(scorer, session, job)
    strokes[50:54, 4:8] = 1
    session.labels_changed("field", (), slice(50, 54), slice(4, 8))
    before = session.strokes.generation
    wait(lambda: session.strokes.generation > before)
    ask(scorer, session, job)
    (first,), (second,) = heard.scores
    assert second.pixels > first.pixels
    (job.snapshots / "step-00000200").rename(job.snapshots / "step-00000400")
    ask(scorer, session, job)
    assert [score.step for score in heard.scores[-1]] == [200, 400]


def test_what_is_missing_is_told_and_the_session_goes_on(session, strokes, job):
    scorer = CheckpointScorer(session)
    heard = Heard(scorer)
    shutil.rmtree(job.snapshots)
    ask(scorer, session, job)
    strokes[strokes == 2] = 0
    session.labels_changed("field", (), slice(0, HEIGHT), slice(0, WIDTH))
    wait(lambda: len(session.strokes.counts()) == 1)
    ask(scorer, session, job)
    strokes[:] = 0
    session.labels_changed("field", (), slice(0, HEIGHT), slice(0, WIDTH))
    wait(lambda: not session.strokes.counts())
    ask(scorer, session, job)
    wanted = ("no checkpoint yet", "one class", "nothing is painted")
    assert all(words in met for words, met in zip(wanted, heard.failures, strict=True)), heard.failures


def test_damaged_scores_are_no_scores(job):
    assert read_scores(job) == ()
    for text in ("{", "[]", '{"version": 2, "scores": []}', '{"version": 1, "scores": [{"step": 1}]}'):
        (job.root / checkpoint_scores._FILE).write_text(text)
        assert read_scores(job) == ()


def test_a_difference_is_called_one_only_where_it_is_larger_than_the_errors():
    score = CheckpointScore(200, 0.9, 0.01, 0.85, 0.02, "mdm-nuclei", 100, 12, "")
    assert score.better
    assert score.words() == (
        "Step 200: 90.0 ± 1.0, better than mdm-nuclei as it is read now (85.0 ± 2.0), on 12 strokes."
    )
    assert "about as good as" in dataclasses.replace(score, reference_error=0.06).words()
    assert "not as good as" in dataclasses.replace(score, score=0.7).words()
