"""Metrics against the published numbers and against scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score

from mdm_studio.engine.metrics import aji, confusion, dice, instances, iou, miou, miou_published, object_dice
from mdm_studio.errors import InputError

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = np.load(FOLDER / "golden.npz")
FACTS = json.loads((FOLDER / "golden.json").read_text())["metrics"]


def _objects():
    return GOLDEN["inst_pr"].astype(int), GOLDEN["inst_gt"].astype(int)


@pytest.mark.parametrize("ignore", [255, 0])
def test_miou_as_published(ignore):
    prediction, truth = (GOLDEN[name].reshape(-1, 16) for name in ("iou_pred", "iou_gt"))
    assert miou_published(prediction, truth, range(4), ignore) == pytest.approx(float(GOLDEN[f"miou_ignore{ignore}"]), abs=1e-9)


def test_object_metrics_as_published():
    prediction, truth = _objects()
    binary = (prediction > 0).astype(int), (truth > 0).astype(int)
    assert aji(prediction, truth) == pytest.approx(FACTS["aji_instances"], abs=1e-9)
    assert aji(*binary) == pytest.approx(FACTS["aji_binary"], abs=1e-9)
    assert object_dice(prediction, truth) == pytest.approx(FACTS["objdice_instances"], abs=1e-6)
    assert object_dice(*binary) == pytest.approx(FACTS["objdice_binary"], abs=1e-6)
    table = confusion(*binary, [1])
    assert dice(table)[0] == pytest.approx(FACTS["dice_binary"], abs=1e-9)
    assert iou(table)[0] == pytest.approx(FACTS["jaccard_binary"], abs=1e-9)


@given(
    arrays(np.uint8, (6, 7), elements=st.integers(0, 3)),
    arrays(np.uint8, (6, 7), elements=st.integers(0, 3)),
)
@settings(max_examples=25, deadline=None)
def test_dice_and_iou_are_those_of_scikit_learn(prediction, truth):
    classes = [3, 0, 1, 2]
    table = confusion(prediction, truth, classes)
    assert table.sum() == truth.size
    options = {"labels": classes, "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(dice(table), f1_score(truth.ravel(), prediction.ravel(), **options))
    defined = np.isfinite(iou(table))
    jaccard = jaccard_score(truth.ravel(), prediction.ravel(), labels=classes, average=None, zero_division=0)
    np.testing.assert_allclose(iou(table)[defined], jaccard[defined])
    assert miou(table) == pytest.approx(np.nanmean(iou(table)))


def test_ignored_pixels_are_left_out():
    truth = np.array([[0, 1, 11]])
    assert confusion(np.array([[0, 0, 1]]), truth, [0, 1], ignore=11).sum() == 2


def test_a_class_in_neither_map_is_undefined():
    table = confusion(np.zeros((2, 2), int), np.zeros((2, 2), int), [0, 5])
    assert np.isnan(dice(table)[1])
    assert np.isnan(iou(table)[1])
    assert miou(table) == 1


def test_empty_maps():
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    for metric in (aji, object_dice):
        assert np.isnan(metric(empty, empty))
        assert metric(empty, full) == 0  # the published object Dice gives 1 here
        assert metric(full, empty) == 0
        assert metric(full, full) == 1


def test_numbers_of_objects_do_not_matter():
    prediction, truth = _objects()
    assert aji(prediction * 1000, truth * 7) == pytest.approx(aji(prediction, truth))


def test_components_of_different_classes_stay_apart():
    assert instances(np.array([[1, 1, 2, 0, 1]])).max() == 3


def test_maps_of_different_size_are_refused():
    with pytest.raises(InputError, match=r"\(2, 3\).*\(3, 2\)"):
        aji(np.zeros((2, 3), int), np.zeros((3, 2), int))
