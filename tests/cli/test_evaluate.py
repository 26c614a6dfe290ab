"""``mdm-studio evaluate`` as a user calls it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mdm_studio.cli.app import app
from mdm_studio.testing import blobs


@pytest.fixture
def folders(tmp_path):
    for name, values in {"truth": [[0, 5, 5, 0]], "masks": [[1, 2, 2, 2]]}.items():
        (tmp_path / name).mkdir()
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / name / "a.png")
    return str(tmp_path / "masks"), str(tmp_path / "truth")


def test_json_on_stdout_alone(folders, tmp_path):
    options = ["--instances", "--foreground", "2", "--metrics", "dice,aji", "--json", "--csv", str(tmp_path / "rows.csv")]
    result = CliRunner().invoke(app, ["evaluate", *folders, *options])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["scores"][0] | {"mean": 0.8} == found["scores"][0]
    with (tmp_path / "rows.csv").open() as file:
        assert float(next(csv.DictReader(file))["dice"]) == pytest.approx(0.8)


def test_table(folders):
    result = CliRunner().invoke(app, ["evaluate", *folders, "--instances", "--foreground", "2"])
    assert result.exit_code == 0
    assert "0.8000" in result.stdout


def test_help_shows_an_example():
    result = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"})
    assert "mdm-studio evaluate masks/ truth/" in result.stdout


def test_a_classifier_on_images_as_they_are_and_spoilt(run, fitted, images_and_labels, tmp_path):
    truth = tmp_path / "dense"
    truth.mkdir()
    Image.fromarray(blobs(60, 70, seed=0)[1].astype(np.uint8)).save(truth / "field0.png")
    dense = [fitted, truth, "--images", images_and_labels[0]]
    spoilt = ["--corruptions", "gaussian_noise,fog", "--severities", "1,5", "--metrics", "miou"]
    shown = run("evaluate", *dense, *spoilt, "--out", tmp_path / "table.csv", "--csv", tmp_path / "rows.csv")
    assert shown.code == 0
    assert "gaussian_noise" in shown.stdout
    assert "miou, clean" in shown.stdout
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        ("clean", "0"), ("gaussian_noise", "1"), ("gaussian_noise", "5"), ("fog", "1"), ("fog", "5"),
    ]  # fmt: skip
    with (tmp_path / "rows.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    plain = json.loads(run("evaluate", *dense, "--json", "--metrics", "miou").stdout)
    assert plain["scores"][0]["mean"] == pytest.approx(float(rows[0]["mean"]))
    assert "choose from" in run("evaluate", *dense, "--corruptions", "smog").error


def test_options_that_do_not_go_together(run, folders, tmp_path):
    assert "--corruptions is for a classifier" in run("evaluate", *folders, "--corruptions", "fog").error
    assert "--images" in run("evaluate", tmp_path / "a.mdm", folders[1]).error
