"""The benchmark of label efficiency on a small data set: fair splits, resumption, reports."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mdm_studio.errors import UsageError
from mdm_studio.testing import blobs


@pytest.fixture
def data(tmp_path):
    """A data set shaped like dsb2018: 20 images in 10 groups."""
    root = tmp_path / "data" / "dsb2018"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "mosaic"])
        for number in range(20):
            image, mask = blobs(48, 56, seed=number)
            Image.fromarray(image).save(root / "images" / f"n{number:02d}.png")
            Image.fromarray((mask == 2).astype(np.uint8)).save(root / "masks" / f"n{number:02d}.png")
            writer.writerow([f"n{number:02d}", number // 2])
    return root.parent


def _run(repository, data, out, *options):
    script = repository / "benchmarks" / "label_efficiency.py"
    command = [sys.executable, str(script), str(data), "--out", str(out), "--seeds", "0", "--tests", "4", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)


def test_every_method_once_and_a_second_run_computes_nothing(repository, data, tmp_path):
    out = tmp_path / "out"
    methods = ["forest:raw as forest", "mlp(members=2;invert=1;smooth=2):filters", "mlp(members=2):untrained#6-7+filters"]
    names = ["forest", *methods[1:]]
    found = _run(repository, data, out, "--labels", "2x1", "3xdense", "--base", "forest", "--methods", *methods)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert sorted((row["method"], row["labels"]) for row in rows) == sorted(
        (m, level) for m in names for level in ("2x1", "3xdense")
    )
    assert all(0.3 < row["score"] <= 1 for row in rows if row["labels"] == "3xdense")
    pixels = {row["labels"]: {r["pixels"] for r in rows if r["labels"] == row["labels"]} for row in rows}
    assert all(len(counts) == 1 for counts in pixels.values())  # the same labels for every method
    assert "### dsb2018" in found.stdout
    assert (out / "table.md").read_text().strip() == found.stdout.strip()
    with Image.open(out / "curves.png") as picture:
        assert picture.width > 300
    before = (out / "results.jsonl").stat().st_mtime_ns
    _run(repository, data, out, "--labels", "2x1", "3xdense", "--methods", *methods)
    assert (out / "results.jsonl").stat().st_mtime_ns == before
    report = _run(repository, data, out, "--report", "--base", "forest", "--seeds", "7")
    assert report.stdout == found.stdout
    assert (out / "results.jsonl").stat().st_mtime_ns == before


def test_groups_are_never_split(repository, data, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from data_sets import data_sets

    found = data_sets(data)["dsb2018"]
    for seed in range(5):
        labelled, tested = found.split(seed, 60)
        assert labelled
        assert tested
        assert not {found.groups[n] for n in labelled} & {found.groups[n] for n in tested}
    points = found.points("n03")
    assert set(points.truth[points.disc < 8]) == {0, 1}
    assert np.array_equal(points.rows, found.points("n03").rows)  # fixed for an image


@pytest.mark.parametrize("method", ["tree:filters", "mlp:", "mlp:filters#a"])
def test_methods_that_make_no_sense(repository, monkeypatch, method):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from label_efficiency import Method

    with pytest.raises((SystemExit, UsageError), match=r"SOURCE|filters#a"):
        Method.parse(method)
