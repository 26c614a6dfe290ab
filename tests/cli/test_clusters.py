"""``mdm-studio clusters`` as a user calls it."""

import json

import numpy as np
import pytest
from PIL import Image


def test_panels_label_maps_and_json(run, tiny_backbone, images_and_labels, tmp_path):
    out = tmp_path / "o"
    common = ["--backbone", tiny_backbone, "--timesteps", "50", "-k", 3, "--no-cache"]
    outcome = run("clusters", images_and_labels[0], "--out", out, *common, "--pca", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.stdout)
    assert (found["done"], found["failed"]) == (3, 0)
    names = sorted(path.name for path in (out / "field0").iterdir())
    assert names == [f"b0{block}-t0050.png" for block in range(4)]  # every block by default
    image = Image.open(out / "field0" / "b01-t0050.png")
    assert image.mode == "P"  # the colours are stored too
    assert set(np.unique(np.asarray(image))) == {1, 2, 3}
    assert (out / "field0-pca.png").exists()
    assert "3 there already" in run("clusters", images_and_labels[0], "--out", out, *common).stderr


def test_working_scales_are_cells_of_their_own(run, tiny_backbone, images_and_labels, tmp_path):
    options = ["--backbone", tiny_backbone, "--timesteps", "50", "--blocks", "1", "--scales", "1,2", "--cache", tmp_path / "c"]
    assert run("clusters", images_and_labels[0] / "field0.png", "--out", tmp_path / "o", *options).code == 0
    assert sorted(path.name for path in (tmp_path / "o" / "field0").iterdir()) == ["b01-t0050-s2.png", "b01-t0050.png"]


def test_one_unreadable_image_among_many(run, tiny_backbone, images_and_labels, tmp_path):
    (images_and_labels[0] / "broken.png").write_bytes(b"no image")
    options = ["--backbone", tiny_backbone, "--timesteps", "50", "--blocks", "3"]
    outcome = run("clusters", images_and_labels[0], "--out", tmp_path / "o", *options)
    assert outcome.code == 1
    assert "1 of 4 images failed" in outcome.error
    assert "broken.png" in outcome.stderr
    assert (tmp_path / "o" / "field2.png").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["-k", "0"], 2, ""),
        (["-k", "300"], 2, "1 to 255"),
        (["--blocks", "99"], 2, "blocks 0"),
        (["--blocks", "none"], 2, "--blocks"),
        (["--timesteps", "5000"], 2, "takes timesteps"),
        (["--scales", "3"], 2, "--scales"),
        (["--channels", "9"], 1, "channel"),
    ],
)
def test_wrong_options(run, tiny_backbone, images_and_labels, tmp_path, options, code, words):
    outcome = run("clusters", images_and_labels[0], "--out", tmp_path / "o", "--backbone", tiny_backbone, *options)
    assert outcome.code == code
    assert words in outcome.error
    assert not (tmp_path / "o").exists()


def test_output_folder_that_is_a_file(run, tiny_backbone, images_and_labels, tmp_path):
    (tmp_path / "o").write_text("")
    options = ["--backbone", tiny_backbone, "--timesteps", "50", "--blocks", "3"]
    outcome = run("clusters", images_and_labels[0], "--out", tmp_path / "o", *options)
    assert outcome.code == 1
    assert (tmp_path / "o").read_text() == ""
