"""Folders of masks against folders of truth."""

import numpy as np
import pytest
from PIL import Image

from mdm_studio.errors import InputError, LabelsError, UsageError
from mdm_studio.services.evaluation import EvaluationRequest, evaluate_folder


def _save(folder, **maps):
    folder.mkdir(exist_ok=True)
    for name, values in maps.items():
        Image.fromarray(np.asarray(values, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def folders(tmp_path):
    truth = _save(tmp_path / "truth", a=[[1, 1, 2, 0]], b=[[2, 2, 1, 1]])
    masks = _save(tmp_path / "masks", a=[[1, 1, 2, 2]], b=[[2, 1, 1, 1]])
    return masks, truth


def _scores(evaluation):
    return {(score.metric, score.class_value): score for score in evaluation.scores}


def test_per_class_mean_spread_and_pooled(folders):
    scores = _scores(evaluate_folder(EvaluationRequest(*folders, metrics=("dice", "miou"))))
    assert scores["dice", 1].mean == pytest.approx((1 + 0.8) / 2)
    assert scores["dice", 2].mean == pytest.approx((1 + 2 / 3) / 2)
    assert scores["dice", 2].std == pytest.approx(np.std([1, 2 / 3], ddof=1))
    assert scores["dice", 2].pooled == pytest.approx(4 / 5)
    assert scores["dice", 2].images == 2
    assert scores["miou", None].mean == pytest.approx((1 + (2 / 3 + 1 / 2) / 2) / 2)


def test_zero_counts_when_nothing_is_unlabelled(folders):
    scores = _scores(evaluate_folder(EvaluationRequest(*folders, unlabelled=None)))
    assert scores["dice", 0].mean == 0
    assert scores["dice", 0].images == 1  # undefined where no map has it


def test_ignored_value(tmp_path):
    truth, masks = _save(tmp_path / "t", a=[[0, 1, 11]]), _save(tmp_path / "m", a=[[0, 1, 1]])
    scores = _scores(evaluate_folder(EvaluationRequest(masks, truth, unlabelled=None, ignore=11)))
    assert scores["dice", 1].mean == 1
    assert ("dice", 11) not in scores


def test_objects_of_a_class_against_numbered_objects(tmp_path):
    truth = _save(tmp_path / "t", a=[[0, 3, 3, 0, 8]])
    masks = _save(tmp_path / "m", a=[[1, 2, 2, 1, 1]])
    request = EvaluationRequest(masks, truth, metrics=("dice", "aji", "object_dice"), objects=True, foreground=2)
    scores = _scores(evaluate_folder(request))
    assert scores["dice", 1].mean == pytest.approx(0.8)
    assert scores["aji", None].mean == pytest.approx(2 / 3)


def test_classes_without_background_ask_for_the_foreground(tmp_path):
    truth, masks = _save(tmp_path / "t", a=[[0, 3]]), _save(tmp_path / "m", a=[[1, 2]])
    with pytest.raises(InputError, match="--foreground 2"):
        evaluate_folder(EvaluationRequest(masks, truth, objects=True))


def test_truth_without_prediction_is_named(folders):
    masks, truth = folders
    (masks / "b.png").unlink()
    assert evaluate_folder(EvaluationRequest(masks, truth)).missing == ["b"]


def test_nothing_matches(tmp_path, folders):
    with pytest.raises(LabelsError, match="none of the 2"):
        evaluate_folder(EvaluationRequest(_save(tmp_path / "other", c=[[1]]), folders[1]))


def test_other_size(tmp_path, folders):
    with pytest.raises(LabelsError, match="1 x 2"):
        evaluate_folder(EvaluationRequest(_save(tmp_path / "small", a=[[1, 2]]), folders[1]))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"metrics": ("dise",)}, "dise"),
        ({"metrics": ()}, "none"),
        ({"metrics": ("aji",)}, "--instances"),
        ({"foreground": 2}, "--instances"),
    ],
)
def test_wrong_requests(folders, change, word):
    with pytest.raises(UsageError, match=word):
        evaluate_folder(EvaluationRequest(*folders, **change))


def test_missing_folder(tmp_path, folders):
    with pytest.raises(InputError, match="no folder"):
        evaluate_folder(EvaluationRequest(tmp_path / "nowhere", folders[1]))


def test_one_folder_as_truth_and_prediction_is_said(folders):
    with pytest.raises(InputError, match="is the truth and the prediction at once"):
        evaluate_folder(EvaluationRequest(folders[1], folders[1]))
