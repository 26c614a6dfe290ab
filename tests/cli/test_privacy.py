"""``mdm-studio privacy`` as a user calls it."""

import json

import numpy as np
import pytest
from PIL import Image

from mdm_studio.testing import blobs


@pytest.fixture
def others(tmp_path):
    for number in range(3, 6):
        (tmp_path / "others").mkdir(exist_ok=True)
        Image.fromarray(blobs(60, 70, seed=number)[0]).save(tmp_path / "others" / f"field{number}.png")
    return tmp_path / "others"


def test_report_and_json(run, tiny_backbone, images_and_labels, others, tmp_path):
    options = ["--held-out", others, "--out", tmp_path / "o", "--crops", 1, "--json"]
    outcome = run("privacy", tiny_backbone, images_and_labels[0], *options)
    assert outcome.code == 0
    found = json.loads(outcome.stdout)
    assert found["images"] == [3, 3]
    assert 0 <= found["restoring"][0]["auc"] <= 1
    assert "AUC" in outcome.stderr
    assert "do not share it" in outcome.stderr
    assert (tmp_path / "o" / "privacy.md").exists()
    with Image.open(tmp_path / "o" / "restored.png") as picture:
        assert np.asarray(picture).std() > 0
    assert run("privacy", tiny_backbone, images_and_labels[0], *options).code == 1


def test_without_held_out_images_the_card_must_know(run, tiny_backbone, images_and_labels, tmp_path):
    outcome = run("privacy", tiny_backbone, images_and_labels[0], "--out", tmp_path / "o")
    assert outcome.code == 1
    assert "--held-out" in outcome.error
    assert not (tmp_path / "o").exists()
