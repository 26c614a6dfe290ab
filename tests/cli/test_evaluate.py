"""``mdm-studio evaluate`` as a user calls it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mdm_studio.cli.app import app


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
