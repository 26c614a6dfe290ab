"""Scripted users in the real program: `tests.desktop.tour`, looked at from outside."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.gui, pytest.mark.slow, pytest.mark.timeout(900)]


def run(repository, folder, *command):
    places = {"MDM_STUDIO_DATA": str(folder / "data"), "MDM_STUDIO_CACHE": str(folder / "cache"), "MDM_STUDIO_NICE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=repository,
        env=os.environ | places,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout, done.stdout + done.stderr


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_newcomer_from_the_start_page_to_masks(repository, tmp_path):
    code, _, said = run(repository, tmp_path, "tests.desktop.tour", str(tmp_path), "newcomer")
    assert code == 0, said
    seen = json.loads((tmp_path / "newcomer.json").read_text())
    assert seen["images"] == 10
    assert seen["docks"][:2] == ["images", "segment"]
    assert seen["dice"] > 0.7
    assert seen["unseen_dice"] > 0.6
    assert seen["counts"] == "2 labelled, 10 predicted, 1 reviewed of 10"
    assert seen["export"] == "done"
    assert "10 written" in seen["summary"]

    names = sorted(path.stem for path in (repository / "resources" / "samples" / "nuclei" / "images").glob("*.png"))
    assert sorted(path.stem for path in (tmp_path / "masks").glob("*.png")) == names
    for name in names:
        image = repository / "resources" / "samples" / "nuclei" / "images" / f"{name}.png"
        assert picture(tmp_path / "masks" / f"{name}.png").shape == picture(image).shape[:2]
    rows = list(csv.DictReader((tmp_path / "masks" / "measurements.csv").read_text().splitlines()))
    assert {row["image"] for row in rows} <= set(names)
    assert len(rows) > 50
    report = json.loads((tmp_path / "masks" / "export.json").read_text())
    assert len(report["images"]) == 10

    for path in sorted((tmp_path / "pictures").glob("*.png")):
        pixels = picture(path)[..., :3]
        assert len(np.unique(pixels[::4, ::4].reshape(-1, 3), axis=0)) > 100, f"{path.name} shows next to nothing"


def test_a_job_outlives_its_window_and_is_finished_from_the_command_line(repository, tmp_path):
    code, _, said = run(repository, tmp_path, "tests.desktop.tour", str(tmp_path), "job")
    assert code == -9, said
    job = json.loads((tmp_path / "job.json").read_text())["id"]

    def tell(*command):
        code, told, said = run(repository, tmp_path, "mdm_studio", "jobs", *command, "--json")
        assert code == 0, said
        return json.loads(told)

    (found,) = tell("list")
    assert (found["id"], found["state"]) == (job, "running")
    paused = tell("pause", job)
    assert paused["state"] == "paused"
    done = tell("resume", job, "--steps", str(paused["step"] + 1), "--wait")
    assert (done["state"], done["step"]) == ("done", paused["step"] + 1)
    lines = (tmp_path / "data" / "jobs" / job / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, done["step"] + 1))
    code, told, said = run(repository, tmp_path, "mdm_studio", "backbones", "list", "--json")
    assert code == 0, said
    assert len(json.loads(told)) == 2
