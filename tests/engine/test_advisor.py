"""The advisor: folds by stroke, scores of cells, a set of blocks and timesteps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.engine import advisor
from mdm_studio.engine.advisor import MAX_FOLDS, advise, find_strokes, score_sources, stroke_folds
from mdm_studio.errors import InputError, LabelsError, UsageError


def _labels(strokes_per_class=6, pixels=20, n_classes=2):
    """Classes and strokes of pixels: equal strokes."""
    strokes = np.repeat(np.arange(strokes_per_class * n_classes), pixels)
    return strokes % n_classes, strokes


def _features(classes, strokes, *, told=None, noise=0.3, wobble=1, channels=6, seed=0):
    """Noise with an offset for each stroke; the classes in `told` are told apart from the others."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, noise, (len(classes), channels)) + rng.normal(0, wobble, (strokes.max() + 1, channels))[strokes]
    if told is not None:
        values[:, 0] += 8 * np.isin(classes, told)
    return torch.from_numpy(values).float()


def _run(generator):
    steps = []
    try:
        while True:
            steps.append(next(generator))
    except StopIteration as finished:
        return steps, finished.value


# --- strokes and folds --------------------------------------------------------------------------------------------------


def test_strokes_are_connected_pixels_of_one_class():
    label_map = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [2, 0, 0, 0]], np.uint8)
    strokes, count = find_strokes(label_map, 0)
    assert count == 3
    assert strokes[0, 0] == strokes[0, 1] == strokes[1, 2]  # by the corner
    assert strokes[0, 3] == strokes[1, 3] != strokes[2, 0]
    assert (strokes[label_map == 0] == 0).all()
    assert sorted(np.unique(strokes)) == [0, 1, 2, 3]


def test_strokes_of_dense_masks():
    strokes, count = find_strokes(np.array([[0, 0, 1, 0]], np.uint8), None)
    assert strokes.tolist() == [[1, 1, 3, 2]]
    assert count == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=9), min_size=2, max_size=4), st.integers(0, 9))
def test_folds_keep_strokes_whole_and_hold_every_class(sizes, seed):
    """`sizes`: for each class the pixels of its strokes."""
    classes = np.concatenate([np.full(sum(each), name) for name, each in enumerate(sizes)])
    flat = [n for each in sizes for n in each]
    strokes = np.repeat(np.arange(len(flat)), flat)
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    classes, strokes = classes[shuffled], strokes[shuffled]
    folds = stroke_folds(classes, strokes, seed)
    assert folds.max() + 1 == min(MAX_FOLDS, min(len(each) for each in sizes))
    for stroke in np.unique(strokes):
        assert len(np.unique(folds[strokes == stroke])) == 1
    for fold in range(folds.max() + 1):
        assert set(classes[folds == fold]) == set(range(len(sizes)))
    np.testing.assert_array_equal(folds, stroke_folds(classes, strokes, seed))


@pytest.mark.parametrize(
    ("classes", "strokes", "words"),
    [
        ([], [], "no pixel is labelled"),
        ([1, 1, 1], [0, 1, 2], "one class and two"),
        ([1, 1, 2, 2], [0, 1, 2, 2], "class 2 has one stroke only"),
        ([1, 2, 3], [0, 1, 2], "class 1, 2, 3 has one stroke only"),
    ],
)
def test_labels_that_cannot_be_cross_validated(classes, strokes, words):
    with pytest.raises(LabelsError, match=words):
        stroke_folds(np.array(classes, int), np.array(strokes, int))


def test_a_stroke_of_two_classes_is_a_mistake():
    with pytest.raises(UsageError, match="two classes"):
        stroke_folds(np.array([1, 2, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 3, 4]))


# --- scores -------------------------------------------------------------------------------------------------------------


def test_good_features_score_high_and_noise_scores_chance():
    classes, strokes = _labels()
    cells = {(6, 50): _features(classes, strokes, told=[1]), (7, 50): _features(classes, strokes)}
    steps, advice = _run(advise(cells, classes, strokes))
    assert advice.scores[6, 50].mean > 0.95
    assert advice.scores[7, 50].mean < 0.75
    assert len(advice.scores[6, 50].folds) == MAX_FOLDS
    assert (advice.blocks, advice.timesteps, advice.with_filters) == ((6,), (50,), False)
    assert advice.options == "--blocks 6 --timesteps 50 --no-filters"
    assert advice.expected == advice.scores[6, 50]
    assert "Block 6 at t = 50 alone has" in advice.reason
    assert [step.cell for step in steps[:2]] == [(6, 50), (7, 50)]
    shares = [step.done for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] <= 1


def test_pixels_of_one_stroke_do_not_vouch_for_each_other():
    """Features that tell strokes apart, not classes: folds of pixels would give 1."""
    classes, strokes = _labels(strokes_per_class=10)
    features = torch.nn.functional.one_hot(torch.from_numpy(strokes)).float()
    _, advice = _run(advise({(0, 50): features}, classes, strokes))
    assert advice.scores[0, 50].mean < 0.7


def test_what_no_line_divides_is_told_apart():
    classes, strokes = _labels(strokes_per_class=20)
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], (strokes.max() + 1, 1))[strokes]
    values = np.hstack([signs, signs * (2 * classes[:, None] - 1)]) * 2 + rng.normal(0, 0.3, (len(classes), 2))
    _, advice = _run(advise({(0, 50): torch.from_numpy(values)}, classes, strokes))
    assert advice.scores[0, 50].mean > 0.95


def test_a_rare_class_counts_as_much():
    classes, strokes = np.repeat([0, 1], [400, 20]), np.concatenate([np.repeat(np.arange(4), 100), 4 + np.repeat([0, 1], 10)])
    _, advice = _run(advise({(0, 50): torch.zeros(420, 3)}, classes, strokes))
    assert advice.scores[0, 50].folds == (0.5, 0.5)


def test_sources_that_complete_each_other_are_chosen_together():
    classes, strokes = _labels(strokes_per_class=8, n_classes=4)
    cells = {
        (5, 10): _features(classes, strokes, told=[0, 1], wobble=0.1, seed=1),
        (5, 50): _features(classes, strokes, wobble=0.1, seed=2),
        (6, 10): _features(classes, strokes, wobble=0.1, seed=3),
        (6, 50): _features(classes, strokes, told=[1, 2], wobble=0.1, seed=4),
    }
    filters = _features(classes, strokes, wobble=0.1, seed=5)
    _, advice = _run(advise(cells, classes, strokes, filters=filters))
    assert advice.blocks == (5, 6)
    assert advice.timesteps == (10, 50)
    assert not advice.with_filters
    assert advice.expected.mean > 0.9 > max(score.mean for score in advice.scores.values())
    assert "the other combinations come with them" in advice.reason
    assert advice.options == "--blocks 5-6 --timesteps 10,50 --no-filters"


def test_the_best_cell_and_the_filters_are_both_read_where_nothing_tells_them_apart():
    classes, strokes = _labels()
    cells = {(6, 50): _features(classes, strokes, told=[1]), (7, 50): _features(classes, strokes, seed=1)}
    _, advice = _run(advise(cells, classes, strokes, filters=_features(classes, strokes, told=[1], seed=2)))
    assert advice.options == "--blocks 6 --timesteps 50 --filters"
    assert "too close to choose between them" in advice.reason


def test_filters_alone_may_be_best():
    classes, strokes = _labels()
    cells = {(6, 50): _features(classes, strokes)}
    _, advice = _run(advise(cells, classes, strokes, filters=_features(classes, strokes, told=[1])))
    assert advice.options == "--blocks none --filters"
    assert advice.filters is not None
    assert advice.filters.mean > 0.95


def test_the_same_call_gives_the_same_bits():
    classes, strokes = _labels()
    cells = {(b, 50): _features(classes, strokes, told=[1], noise=2, seed=b) for b in range(3)}
    assert _run(advise(cells, classes, strokes))[1] == _run(advise(cells, classes, strokes))[1]


def test_constant_features_are_chance():
    classes, strokes = _labels()
    _, advice = _run(advise({(0, 50): torch.full((len(classes), 4), 7.0)}, classes, strokes))
    assert advice.scores[0, 50].mean == pytest.approx(0.5)
    assert advice.scores[0, 50].spread == 0


@pytest.mark.parametrize(
    ("cells", "error", "words"),
    [
        ({}, UsageError, "no features"),
        ({(1, 50): torch.zeros(3, 4)}, UsageError, r"block 1 at t = 50 are \(3, 4\)"),
        ({(1, 50): torch.full((240, 2), torch.nan)}, InputError, "infinite values or NaN"),
    ],
)
def test_features_that_cannot_be_scored(cells, error, words):
    with pytest.raises(error, match=words):
        _run(advise(cells, *_labels()))


@pytest.mark.parametrize(("numbers", "text"), [([7], "7"), ([4, 5, 6], "4-6"), ([1, 3, 4, 9], "1,3-4,9")])
def test_lists_of_blocks_are_written_as_options(numbers, text):
    assert advisor._listed(numbers) == text


def test_sources_read_together_have_the_score_that_the_advice_expects():
    classes, strokes = _labels(n_classes=3)
    cells = {(1, 50): _features(classes, strokes, told=[0]), (2, 50): _features(classes, strokes, told=[1], seed=1)}
    _, advice = _run(advise(cells, classes, strokes))
    assert advice.blocks == (1, 2)
    assert score_sources(list(cells.values()), classes, strokes).mean == pytest.approx(advice.expected.mean)
    with pytest.raises(LabelsError, match="no pixel"):
        score_sources(list(cells.values()), [], [])
