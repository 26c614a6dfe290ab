"""A classifier on images as they are and spoilt."""

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.objects import finished
from mdm_studio.errors import InputError, UsageError
from mdm_studio.services.evaluation import EvaluationRequest, evaluate_folder
from mdm_studio.services.export_request import PredictOptions
from mdm_studio.services.robustness import RobustnessRequest, evaluate_classifier


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Classes of every pixel of two of the three images, and of one that is not there."""
    from mdm_studio.testing import blobs

    folder = tmp_path_factory.mktemp("truth")
    for number in (0, 1):
        Image.fromarray(blobs(100, 150, seed=number)[1].astype(np.uint8)).save(folder / f"field{number}.png")
    Image.fromarray(np.ones((5, 5), np.uint8)).save(folder / "gone.png")
    return folder


def asked(export_set, truth, *names, severities=(1, 5), **scoring):
    request = EvaluationRequest(export_set.classifier, truth, **{"metrics": ("dice",)} | scoring)
    return RobustnessRequest((str(export_set.images[0].parent),), request, names, severities, device="cpu")


def test_clean_scores_are_those_of_exported_masks(export_set, truth, tmp_path):
    from mdm_studio.services.batch import predict_files
    from mdm_studio.services.classifier import load_classifier

    found = finished(evaluate_classifier(asked(export_set, truth)))
    list(predict_files(load_classifier(export_set.classifier), export_set.images, PredictOptions(tmp_path), None))
    wanted = evaluate_folder(EvaluationRequest(tmp_path, truth, metrics=("dice",)))
    assert found.clean.scores == wanted.scores
    assert found.clean.missing == ["gone"]
    assert found.names == []


def test_a_table_with_progress_that_can_be_repeated(export_set, truth):
    steps = evaluate_classifier(asked(export_set, truth, "gaussian_noise", "jpeg_compression", severities=(5,)))
    notes = []
    while True:
        try:
            notes.append(next(steps))
        except StopIteration as end:
            found = end.value
            break
    assert [step.done for step in notes] == pytest.approx(np.arange(7) / 6)
    assert notes[1].note == "field0 gaussian_noise 5"
    assert [(each.corruption, each.severity) for each in found.conditions] == [
        ("", 0), ("gaussian_noise", 5), ("jpeg_compression", 5),
    ]  # fmt: skip
    assert found.value("dice") > found.value("dice", "gaussian_noise", 5)
    rows = found.rows()
    assert len(rows) == 3 * 2  # conditions, classes
    assert rows[0]["relative"] == 1
    again = finished(evaluate_classifier(asked(export_set, truth, "gaussian_noise", severities=(5,))))
    assert again.value("dice", "gaussian_noise", 5) == found.value("dice", "gaussian_noise", 5)
    with pytest.raises(UsageError, match="fog 1"):
        found.value("dice", "fog", 1)


def test_objects_are_the_larger_of_two_classes(export_set, truth):
    found = finished(evaluate_classifier(asked(export_set, truth, metrics=("dice", "aji"), objects=True)))
    assert [score.metric for score in found.clean.scores] == ["dice", "aji"]
    with pytest.raises(UsageError, match="it has"):
        finished(evaluate_classifier(asked(export_set, truth, objects=True, foreground=7)))


def test_it_can_be_stopped(export_set, truth):
    steps = evaluate_classifier(asked(export_set, truth, "fog"))
    next(steps)
    steps.close()


def test_what_cannot_be_evaluated(export_set, truth, tmp_path):
    with pytest.raises(UsageError, match="severity 9"):
        finished(evaluate_classifier(asked(export_set, truth, "fog", severities=(9,))))
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(tmp_path / "field0.png")
    Image.fromarray(np.ones((20, 40), np.uint8)).save(tmp_path / "small.png")
    request = asked(export_set, truth, "fog")
    small = RobustnessRequest((str(tmp_path),), request.scoring, ("fog",), (1,))
    with pytest.raises(InputError, match="20 x 40"):
        finished(evaluate_classifier(small))


def test_grey_images_have_no_colours_to_change(export_set, tmp_path):
    (tmp_path / "t").mkdir()
    for number in (0, 1):
        values = np.random.default_rng(number).integers(0, 255, (40, 48), np.uint8)
        Image.fromarray(values).save(tmp_path / f"a{number}.png")
        Image.fromarray((values > 128).astype(np.uint8) + 1).save(tmp_path / "t" / f"a{number}.png")
    scoring = EvaluationRequest(export_set.classifier, tmp_path / "t")
    one = (str(tmp_path / "a0.png"),)
    found = finished(evaluate_classifier(RobustnessRequest(one, scoring, ("saturate", "contrast"), (1,))))
    assert found.names == ["contrast"]
    assert found.clean.missing == ["a1"]
    assert "colours" in found.left_out["saturate"]
    with pytest.raises(InputError, match="other corruptions"):
        finished(evaluate_classifier(RobustnessRequest((str(tmp_path),), scoring, ("saturate",), (1,))))
