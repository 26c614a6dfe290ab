"""The papers' tables on a small data set: plans, folds, cells that are measured once, and the Markdown."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.metrics import aji
from mdm_studio.testing import blobs


@pytest.fixture(autouse=True)
def _benchmarks(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))


@pytest.fixture
def data(tmp_path):
    """Ten images of five patients, shaped like glas, and one more for pretraining."""
    root = tmp_path / "data" / "glas"
    for folder in ("images", "masks", "unlabelled"):
        (root / folder).mkdir(parents=True)
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "patient"])
        for number in range(10):
            image, mask = blobs(64, 64, seed=number)
            Image.fromarray(image).save(root / "images" / f"train_{number}.png")
            Image.fromarray((mask == 2).astype(np.uint8)).save(root / "masks" / f"train_{number}.png")
            writer.writerow([f"train_{number}", number // 2])
    Image.fromarray(blobs(64, 64, seed=99)[0]).save(root / "unlabelled" / "test_1.png")
    return root.parent


@pytest.fixture
def backbones(tmp_path, tiny_backbone):
    """The same tiny backbone in the place of two methods."""
    import shutil

    for method in ("mdm", "mae"):
        shutil.copytree(tiny_backbone, tmp_path / "backbones" / f"glas-{method}")
    return tmp_path / "backbones"


def run(table, data, out, *options):
    from papers import main

    main([table, str(data), "--out", str(out), *map(str, options)])
    path = out / f"{table}.md"
    return path.read_text() if path.exists() else ""


def test_a_plan_names_the_jobs_and_their_commands(data, tmp_path, capsys):
    run("mdm-3", data, tmp_path / "out", "--plan", "--steps", 500, "--sets", "glas")
    shown = capsys.readouterr().out
    assert "# glas-mdm-fixed: not there yet" in shown
    command = next(line for line in shown.splitlines() if "glas-ddpm-fixed " in line and line.startswith("mdm-studio"))
    assert "--recipe ddpm --set fixed_t=50 --scales 4 --crop 128 --batch 16 --steps 500" in command
    assert str(data / "glas" / "unlabelled") in command
    assert not (tmp_path / "out").exists()


def test_a_table_is_measured_once(data, backbones, tmp_path):
    options = ["--backbones", backbones, "--no-pretrain", "--quick", "--seeds", 0, 1, "--scale", 1, "--methods", "mdm", "mae"]
    options += ["--tests", 1, "--limit", 200]
    out = tmp_path / "out"
    text = run("mdm-1", data, out, *options)
    assert "| UNet++ | 10 % | 77.1 |" in text  # quoted only
    assert "| MDM | 10 % | 91.6 |" in text
    assert "192-channel ADM UNet" in text
    assert "official halves" in text
    assert "MDM above MAE (10 %): not told apart" in text  # the same weights
    cells = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/*.json")}
    assert len(cells) == 2 * 2 * 2  # methods, levels, seeds
    scores = json.loads(next(iter(cells)).read_text())["scores"]
    assert set(scores) == {"dice", "iou", "aji", "object_dice"}
    assert run("mdm-1", data, out, *options) == text
    assert {path: path.stat().st_mtime_ns for path in cells} == cells


def test_a_cell_of_other_weights_or_rules_is_out_of_date(tmp_path):
    from paper_tables.cells import Cells

    cells = Cells(tmp_path)
    cells.write(("glas", "mdm", "10 %", 0), {"digest": "a", "blocks": (1, 2)}, {"scores": {"dice": [0.5, float("nan")]}})
    found = cells.read(("glas", "mdm", "10 %", 0), {"digest": "a", "blocks": (1, 2)})
    assert found["scores"]["dice"] == [0.5, None]
    assert cells.read(("glas", "mdm", "10 %", 0), {"digest": "b", "blocks": (1, 2)}) is None
    assert cells.read(("glas", "mdm", "100 %", 0), {"digest": "a", "blocks": (1, 2)}) is None


def test_corrupted_images(data, backbones, tmp_path):
    options = ["--backbones", backbones, "--no-pretrain", "--quick", "--seeds", 0, "--scale", 1, "--methods", "mdm"]
    spoilt = ["--corruptions", "fog,gaussian_noise", "--severities", 5, "--sets", "glas", "--tests", 1, "--limit", 200]
    text = run("robustness", data, tmp_path / "out", *options, *spoilt)
    assert "| gaussian_noise |" in text
    assert "% of clean" in text
    assert "not quoted" in text
    assert len(list((tmp_path / "out" / "cells" / "robustness").rglob("*.json"))) == 3


def test_patients_are_never_split_and_the_official_half_is_taken_if_there(data):
    from data_sets import data_sets
    from paper_tables.protocol import fold

    glas = data_sets(data)["glas"]
    for seed in range(4):
        split = fold(glas, seed, 100)
        assert len(split.test) == 4  # two of five patients
        assert not {glas.groups[name] for name in split.train} & {glas.groups[name] for name in split.test}
    official = glas.root / "official"
    for folder in ("images", "masks"):
        (official / folder).mkdir(parents=True)
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(official / folder / "testA_1.png")
    split = fold(glas, 3, 100)
    assert split.test == ["testA_1"]
    assert split.train[:3] == ["train_0", "train_1", "train_2"]  # as released: the first of the sorted files
    assert split.tested_in.truth("testA_1").sum() == 64


def test_what_cannot_be_run(data, tmp_path):
    with pytest.raises(SystemExit, match=r"--steps N[\s\S]*--recipe mae"):
        run("mdm-1", data, tmp_path / "out", "--sets", "glas")
    with pytest.raises(SystemExit, match="monuseg"):
        run("mdm-2", data, tmp_path / "out", "--steps", 3)


def test_the_two_readings_of_aji_agree_on_binary_maps():
    from paper_tables.protocol import overlap

    rng = np.random.default_rng(0)
    found, truth = rng.integers(0, 2, (2, 20, 20))
    assert overlap(found, truth)["iou"] == pytest.approx(aji(found, truth))
    assert np.isnan(overlap(np.zeros((2, 2), int), np.zeros((2, 2), int))["dice"])


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ({0: 80, 1: 81, 2: 82}, {0: 70, 1: 72, 2: 71}, "holds"),
        ({0: 70, 1: 72, 2: 71}, {0: 80, 1: 81, 2: 82}, "the other way about"),
        ({0: 80, 1: 70, 2: 75}, {0: 70, 1: 80, 2: 75}, "not told apart"),
        ({0: 80, 5: 1}, {0: 70}, "one seed: no spread"),
    ],
)
def test_verdicts(first, second, verdict):
    from paper_tables.report import difference

    assert difference(first, second).verdict == verdict
    assert difference(first, {}) is None


def test_a_network_is_pretrained_here_and_fine_tuned(data, tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_studio.engine.finetune._PROBE_STEPS", 2)
    options = ["--methods", "no-decoder", "--seeds", 0, "--sets", "glas", "--scale", 1, "--device", "cpu", "--quick"]
    options += ["--levels", "1 image"]
    text = run("ddep", data, tmp_path / "out", *options, "--crop", 32, "--batch", 2, "--finetune", 1, "--tests", 1)
    assert "| decoder not pretrained | 1 image | not quoted |" in text
    assert "fine-tuned for 1 steps" in text
    assert (tmp_path / "out" / "jobs" / "glas-no-decoder" / "backbone").is_dir()
    assert len(list((tmp_path / "out" / "cells" / "finetuned").rglob("*.json"))) == 1


def test_photographs_with_a_released_checkpoint(data, backbones, tmp_path, monkeypatch):
    from paper_tables import methods, scenes

    monkeypatch.setitem(methods.METHODS, "ddpm-seg", methods.Method("DDPM", blocks=(2, 3)))
    monkeypatch.setattr(scenes, "SIDE", 64)
    with pytest.raises(SystemExit, match="ddpm-seg of --backbones"):
        run("ddpm-seg", data, tmp_path / "out")
    (backbones / "glas-mdm").rename(backbones / "ffhq_34-ddpm-seg")
    for half in ("train", "test"):
        folder = tmp_path / "data" / "ffhq_34" / half
        folder.mkdir(parents=True)
        image, mask = blobs(80, 80, seed=len(half))
        mask[0, 0] = 7  # one pixel: ignored
        Image.fromarray(image).save(folder / "face.png")
        np.save(folder / "face.npy", mask)
    text = run("ddpm-seg", data, tmp_path / "out", "--backbones", backbones, "--quick", "--seeds", 0, "--limit", 500)
    assert "| ffhq_34 | 59.1 |" in text
    assert "classes that occur" in text
