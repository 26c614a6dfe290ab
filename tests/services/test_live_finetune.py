"""Fine-tuning in a live session: shown while it learns, and the ensemble is never more than a moment away; no Qt."""

import threading

import numpy as np
import pytest

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import JobError, UsageError
from mdm_studio.services import live_finetune, live_work
from mdm_studio.services.classifier import load_classifier
from mdm_studio.services.session import LiveSettings, Session
from tests.services.test_session import H, User, W, accuracy


class Patient(User):
    """Waits for trainings too."""

    def until(self, condition, seconds=300):
        super().until(condition, seconds)


@pytest.fixture(autouse=True)
def _small_ensembles(monkeypatch):
    """Of these sessions the ensemble is the lesser part."""
    monkeypatch.setattr(live_work, "MEMBERS", 2)
    monkeypatch.setattr(live_work, "HIDDEN", (16, 8))


@pytest.fixture
def user(tiny_backbone, monkeypatch):
    monkeypatch.setattr(live_finetune, "SHOW_SECONDS", 0.0)
    monkeypatch.setattr(live_finetune, "_QUICK", {"batch": 2, "crop": 32, "warmup": 1, "lr": 1e-3})
    session = Session(settings=LiveSettings(backbone=str(tiny_backbone), filters=True, smooth=4))
    yield Patient(session)
    assert session.close(timeout=20)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("mdm-studio")]


def _begin(user, steps=1):
    """Paint, wait for the ensemble, and fine-tune."""
    user.open()
    user.paint(40)
    user.wait()
    states = []
    user.session.finetune_changed.connect(states.append)
    user.session.finetune(steps=steps)
    return states


def _end(user):
    user.until(lambda: user.session.finetuning.phase == "ready")
    user.until(lambda: user.session.up_to_date == "exact")


def test_the_network_learns_is_shown_and_saved(user, tmp_path):
    states = _begin(user, steps=3)
    _end(user)
    assert [state.done for state in states] == sorted(state.done for state in states)
    assert any(state.phase == "running" and state.shown for state in states)  # snapshots came before the end
    assert any("about" in state.note and "left" in state.note for state in states)
    state = user.session.finetuning
    assert (state.phase, state.shown, state.outdated) == ("ready", True, False)
    assert accuracy(user) > 0.9
    assert user.said == ["the network is fine-tuned, and shown"]
    user.session.rename_class(2, "disc")
    user.session.save_classifier(tmp_path / "a.mdm")
    classifier = load_classifier(tmp_path / "a.mdm")
    assert classifier.info.head == "finetune"
    assert [each.name for each in classifier.info.classes] == ["class 1", "disc"]
    source = PlaneFeatures(classifier.backbone, user.session.images["a"].source.plane(()), classifier.settings)
    exported = np.zeros((H, W), np.uint8)
    for rows, cols, found in predict_plane(classifier.ensemble, source, smooth=classifier.info.smooth):
        exported[rows, cols] = np.array([1, 2])[found.labels]
    np.testing.assert_array_equal(user.session.picture("a", "prediction")[0], exported)  # what is seen is what is exported
    user.until(lambda: user.session.status.text == "showing the fine-tuned network")


def test_back_and_forth(user):
    _begin(user)
    ensemble = user.session.picture("a", "prediction")[0].copy()
    head = user.session.reading.head
    _end(user)
    tuned = user.session.picture("a", "prediction")[0].copy()
    for shown, picture in ((False, ensemble), (True, tuned)):
        user.session.show_finetuned(shown)
        user.until(lambda: user.session.up_to_date == "exact")
        np.testing.assert_array_equal(user.session.picture("a", "prediction")[0], picture)
        assert user.session.finetuning.shown is shown
    assert user.session.reading.head is head  # nothing was learnt anew
    user.session.choose(smooth=0)  # the network is still shown, its masks as they are
    user.until(lambda: user.session.up_to_date == "exact" and user.session.bench.smooth == 0)
    assert user.session.finetuning.shown
    user.session.choose(filters=False)  # the ensemble is to read something else: it is shown
    user.until(lambda: not user.session.finetuning.shown)
    user.wait()


def test_painting_on_goes_back_to_the_ensemble(user):
    _begin(user)
    _end(user)
    user.paint(100)
    user.until(lambda: user.session.finetuning.outdated)
    user.wait()
    state = user.session.finetuning
    assert (state.phase, state.shown) == ("ready", False)
    assert "fine-tune again" in user.said[-1]
    assert user.session.bench.head.facts.labels == user.session.strokes.generation  # the stroke is learnt
    user.open("b", seed=1)  # an image that is opened is no stroke
    user.session.show_finetuned(True)
    user.until(lambda: user.session.up_to_date == "exact")
    assert accuracy(user, "b") > 0.8  # it has learnt a single step, on another image
    user.session.close_image("b")
    user.session.finetune(steps=100_000)
    user.session.cancel_finetune()
    assert user.session.finetuning.outdated  # the network that is left still lacks the stroke
    user.session.finetune(steps=1)
    assert not user.session.finetuning.outdated
    user.until(lambda: user.session.finetuning.phase == "ready")
    assert user.session.finetuning.shown


def test_cancel_goes_back_to_the_ensemble(user):
    _begin(user, steps=100_000)
    user.until(lambda: user.session.finetuning.shown)
    user.session.cancel_finetune()
    assert (user.session.finetuning.phase, user.session.finetuning.shown) == ("none", False)
    user.wait()
    assert user.session.bench.fixed is None
    user.session.finetune(steps=100_000)
    user.until(lambda: user.session.finetuning.shown)
    user.session.cancel()
    assert user.session.finetuning.phase == "none"
    user.session.retry()
    user.wait()
    user.session.finetune(steps=100_000)  # which the closing of the session ends
    user.until(lambda: user.session.finetuning.shown)


def test_a_failure_goes_back_too(user, monkeypatch):
    def fails(*_):
        raise JobError("no number")
        yield

    with pytest.raises(UsageError, match=r"backbone is not loaded|two classes"):
        user.session.finetune()
    monkeypatch.setattr("mdm_studio.engine.finetune.finetune", fails)
    _begin(user)
    user.until(lambda: user.said == ["no number"])
    user.until(lambda: user.session.finetuning.phase == "none")
    user.session.retry()
    user.wait()


def test_a_file_is_shown_until_the_next_stroke(user, tmp_path):
    _begin(user)
    _end(user)
    tuned = user.session.picture("a", "prediction")[0].copy()
    user.session.save_classifier(tmp_path / "a.mdm")
    user.session.show_finetuned(False)
    read = user.session.settings
    user.session.load_classifier(tmp_path / "a.mdm")
    user.until(lambda: user.session.finetuning.shown and user.session.up_to_date == "exact")
    np.testing.assert_array_equal(user.session.picture("a", "prediction")[0], tuned)
    assert user.session.settings == read  # the ensemble goes on reading what it read
    user.paint(100)
    user.until(lambda: not user.session.finetuning.shown)


def test_a_project_brings_it_back(tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(live_finetune, "_QUICK", {"batch": 2, "crop": 32})
    settings = LiveSettings(backbone=str(tiny_backbone), filters=False, smooth=0)
    first = Patient(Session(settings=settings, keep=tmp_path / "project"))
    _begin(first, steps=1)
    _end(first)
    tuned = first.session.picture("a", "prediction")[0].copy()
    first.until((tmp_path / "project" / "finetuned.mdm").exists)
    assert first.session.close(timeout=20)
    again = Patient(Session(settings=settings, keep=tmp_path / "project"))
    again.open()
    again.until(lambda: again.session.finetuning.phase == "ready")
    again.wait()
    assert again.session.bench.fixed is None  # the strokes are learnt anew, and the network waits
    again.session.show_finetuned(True)
    again.until(lambda: again.session.finetuning.shown and again.session.up_to_date == "exact")
    np.testing.assert_array_equal(again.session.picture("a", "prediction")[0], tuned)
    assert again.session.close(timeout=20)
