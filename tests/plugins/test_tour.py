"""A scripted user does the whole job in a real window, is killed, and goes on: `tests.plugins.tour`, looked at from outside."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.gui, pytest.mark.slow, pytest.mark.timeout(900)]


def run(repository, folder, part):
    command = [sys.executable, "-m", "tests.plugins.tour", str(folder), part]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=600)
    return done.returncode, done.stdout + done.stderr


def test_from_the_sample_to_a_mask_through_a_crash(repository, tmp_path):
    code, said = run(repository, tmp_path, "begin")
    assert code == -9, said
    seen = json.loads((tmp_path / "begin.json").read_text())
    assert seen["failures"] == []
    assert seen["classes"] == ["ground", "nucleus"]
    assert seen["first_news"][0] == "preview"
    assert seen["first_dice"] > 0.6
    assert seen["dice"] > seen["first_dice"] - 0.05
    assert seen["changed"] > 0.005  # of the pixels, by the second lot of strokes
    assert seen["moved"]
    assert "disagree" in seen["why"]
    assert seen["cluster_class"] == ["ground", "nucleus", "class 3"]
    assert seen["cluster_pixels"] > 100
    assert seen["advice"].startswith("Read ")
    assert seen["saved"]

    code, said = run(repository, tmp_path, "go-on")
    assert code == 0, said
    after = json.loads((tmp_path / "go-on.json").read_text())
    assert after["failures"] == []
    assert after["classes"] == seen["classes"]
    assert after["painted"] == seen["last_painted"]  # the stroke of two seconds before the end, too
    assert after["read"] == seen["read"]
    assert after["dice"] > 0.6
    assert after["painted_on"] > after["painted"]
    assert after["unsaved"] is None

    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert [path.name[0] for path in pictures] == list("12345678")
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[0] >= 900
        assert len(np.unique(pixels[::4, ::4].reshape(-1, 3), axis=0)) > 500, f"{path.name} shows next to nothing"
