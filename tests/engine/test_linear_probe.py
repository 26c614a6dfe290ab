"""The linear probe: what can be told apart is, what cannot is left to chance, groups stay together."""

import numpy as np
import pytest

from mdm_studio.engine.linear_probe import ProbeConfig, check_probe, cross_validate, predict_rest
from mdm_studio.errors import LabelsError


def _features(rng, labels, gap):
    names = np.unique(labels)
    return (rng.normal(size=(len(labels), 6)) + gap * np.eye(6)[np.searchsorted(names, labels)]).astype(np.float32)


def _scores(*args):
    return list(cross_validate(*args))[-1]


def test_classes_that_differ_are_told_apart():
    rng = np.random.default_rng(0)
    labels = ["a"] * 20 + ["b"] * 15 + ["c"] * 10
    scores = _scores(_features(rng, labels, 8), labels, [], ProbeConfig(repeats=3))
    assert scores.classes == ("a", "b", "c")
    assert scores.accuracy.mean > 0.95
    assert scores.macro_f1.mean > 0.95
    assert scores.chance == pytest.approx(20 / 45)
    assert scores.confusion.sum() == 3 * 45
    assert scores.confusion.sum(1).tolist() == [60, 45, 30]
    np.testing.assert_allclose(scores.held_out.sum(1), 1)


def test_scores_are_those_of_the_counts_and_repeat_with_the_seed():
    rng = np.random.default_rng(1)
    labels = ["a"] * 30 + ["b"] * 10
    features = _features(rng, labels, 1)
    scores, again, other = (_scores(features, labels, [], ProbeConfig(seed=seed)) for seed in (0, 0, 7))
    assert np.array_equal(scores.confusion, again.confusion)
    assert not np.array_equal(scores.held_out, other.held_out)
    table = scores.confusion
    assert scores.accuracy.mean == pytest.approx(np.trace(table) / table.sum())
    assert scores.balanced_accuracy.mean == pytest.approx((np.diag(table) / table.sum(1)).mean())
    assert scores.accuracy.std > 0


def test_a_group_is_never_split():
    rng = np.random.default_rng(2)
    groups = [str(i // 4) for i in range(40)]
    labels = ["ab"[i // 4 % 2] for i in range(40)]
    # tiles of a field look alike and classes do not differ: who has seen a field's other tiles knows, nobody else
    features = rng.normal(size=(10, 40)).repeat(4, axis=0).astype(np.float32)
    split = _scores(features, labels, [], ProbeConfig())
    together = _scores(features, labels, groups, ProbeConfig())
    assert split.accuracy.mean > 0.9
    assert together.accuracy.mean < 0.8


def test_images_without_a_label_are_predicted():
    rng = np.random.default_rng(3)
    labels = ["a"] * 10 + ["b"] * 10
    features = _features(rng, labels, 8)
    probabilities = predict_rest(features, labels, features[[0, 15]], ProbeConfig())
    assert probabilities.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "groups", "words"),
    [
        ("aaaaa", "", "all 5 labelled images are of the class 'a'"),
        ("aaaaabbb", "", "as many images of every class, and b has 3; choose --folds 3"),
        ("aaaaab", "", "b has 1; label more images, or leave that class out"),
        ("aaaaabbbbb", "1234511112", "as many groups of every class, and b has 2; choose --folds 2"),
    ],
)
def test_what_cannot_be_cross_validated(labels, groups, words):
    with pytest.raises(LabelsError, match=words):
        check_probe(labels, groups, ProbeConfig())
