"""``mdm-studio advise`` as a user calls it."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def options(tiny_backbone):
    return ["--backbone", tiny_backbone, "--timesteps", "50", "--blocks", "1,3", "--no-cache"]


def test_table_plot_and_the_options_of_fit(run, images_and_labels, options, tmp_path):
    outcome = run("advise", *images_and_labels, *options, "--plot", tmp_path / "heat.png")
    assert outcome.code == 0
    assert "block 3" in outcome.stdout
    assert "filters" in outcome.stdout
    assert "mdm-studio fit IMAGES LABELS --out FILE.mdm --blocks" in outcome.stdout
    assert "of class 1" in outcome.stderr
    assert np.asarray(Image.open(tmp_path / "heat.png")).ndim == 3


def test_fit_takes_what_is_recommended(run, images_and_labels, options, tiny_backbone, tmp_path):
    outcome = run("advise", *images_and_labels, *options, "--json")
    assert outcome.code == 0
    found = json.loads(outcome.stdout)
    assert [(row["block"], row["timestep"]) for row in found["scores"]] == [(1, 50), (3, 50)]
    assert len(found["scores"][0]["folds"]) >= 2
    recommended = found["recommended"]["options"].split()
    fit = ["--backbone", tiny_backbone, "--out", tmp_path / "a.mdm", "--members", 2, *recommended]
    assert run("fit", *images_and_labels, *fit).code == 0


def _only(labels, values):
    for path in labels.iterdir():
        path.unlink()
    Image.fromarray(values).save(labels / "field0.png")


@pytest.mark.parametrize(
    ("rows", "words"),
    [({}, "no labelled pixel"), ({5: 1, 9: 1}, "two classes"), ({5: 1, 9: 1, 20: 2}, "class 2 has one stroke only")],
    ids=["no labels", "one class", "one stroke of a class"],
)
def test_labels_that_do_not_do(run, images_and_labels, options, tmp_path, rows, words):
    values = np.zeros((60, 70), np.uint8)
    for row, value in rows.items():
        values[row] = value
    _only(images_and_labels[1], values)
    outcome = run("advise", *images_and_labels, *options, "--plot", tmp_path / "heat.png")
    assert outcome.code == 1
    assert words in outcome.error
    assert not (tmp_path / "heat.png").exists()


def test_unreadable_image(run, images_and_labels, options):
    (images_and_labels[0] / "field0.png").write_bytes(b"no image")
    outcome = run("advise", *images_and_labels, *options)
    assert outcome.code == 1
    assert "field0.png" in outcome.error


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(["--blocks", "99"], "blocks 0"), (["--timesteps", "x"], "--timesteps"), (["--unlabelled", "maybe"], "--unlabelled")],
)
def test_wrong_options(run, images_and_labels, options, wrong, words):
    outcome = run("advise", *images_and_labels, *options, *wrong)
    assert outcome.code == 2
    assert words in outcome.error
