"""The demo on the bundled images."""

import json

import numpy as np
import pytest
from PIL import Image

from mdm_studio.config import resource
from mdm_studio.errors import InputError, OutputError
from mdm_studio.services.demo import run_demo


def _finished(steps):
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def test_demo_with_the_bundled_backbone(tmp_path):
    out = tmp_path / "demo"
    result = _finished(run_demo(out, device="cpu"))
    assert len(result.dice) == 10
    assert len(result.painted) == 5
    # a broken pipeline falls far below; the figures themselves are in the README
    assert result.mean_dice(painted=True)[0] > 0.75
    assert result.mean_dice(painted=False)[0] > 0.7
    assert {path.name for path in out.iterdir()} >= {
        "contact-sheet.png", "index.html", "masks", "overlays", "nuclei.mdm", "demo.json", "features",
    }  # fmt: skip
    with Image.open(result.sheet) as sheet:
        assert np.asarray(sheet.convert("L")).std() > 20
    assert len(list((out / "overlays").iterdir())) == 10
    assert json.loads((out / "demo.json").read_text())["labelled_pixels"] == result.labelled_pixels
    for name in result.dice:
        assert f"overlays/{name}.png" in result.page.read_text()


def test_strokes_are_a_small_part_of_the_pixels():
    painted = resource("samples/nuclei/strokes")
    share = [np.count_nonzero(np.asarray(Image.open(path))) / np.asarray(Image.open(path)).size for path in painted.iterdir()]
    assert len(share) == 5
    assert max(share) < 0.02


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="other files"):
        next(run_demo(tmp_path))


def test_missing_samples_are_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_studio.config.resource_roots", lambda: (tmp_path,))
    with pytest.raises(InputError, match="samples/nuclei"):
        next(run_demo(tmp_path / "demo"))


def test_command_line_prints_json(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from mdm_studio.cli.app import app

    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "d"), "--json", "--headless"])
    facts = json.loads(result.stdout)
    assert facts["mean_dice_painted"] > 0.75
    assert set(facts["seconds"]) == {"features", "fit", "predict", "report"}
