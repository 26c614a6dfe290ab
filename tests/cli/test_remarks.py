"""What is left out of images is said by every command that opens them: in a line, as JSON, in export.json."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mdm_studio.services import cluster
from mdm_studio.services.export_request import FileResult
from mdm_studio.testing import blobs

WORDS = "scenes 2 and 3 of 3 (Pos_1, Pos_2)"


@pytest.fixture
def scenes(tmp_path):
    """A folder with an image of three scenes, and one whose pixel size is no number."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    with tifffile.TiffWriter(folder / "p.ome.tif", ome=True) as writer:
        for number in range(3):
            array = blobs(60 - number, 70, seed=number)[0]
            writer.write(array, photometric="rgb", metadata={"axes": "YXS", "Name": f"Pos_{number}"})
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(folder / "q.ome.tif", blobs(60, 70)[0], photometric="rgb", ome=True, metadata={"axes": "YXS", **sizes})
    content = (folder / "q.ome.tif").read_bytes()
    (folder / "q.ome.tif").write_bytes(content.replace(b'PhysicalSizeX="0.5"', b'PhysicalSizeX="a.b"'))
    return folder


def test_predict_says_what_it_left_out_again_and_again(run, fitted, scenes, tmp_path):
    out = tmp_path / "masks"
    for state, options in (("done", []), ("skipped", []), ("done", ["--overwrite"])):
        outcome = run("predict", fitted, scenes, "--out", out, "--json", "--no-cache", *options)
        assert outcome.code == 0
        report = json.loads((out / "export.json").read_text())["images"]
        for images in (report, json.loads(outcome.stdout)["images"]):
            assert [each["state"] for each in images] == [state] * 2
            assert [each["left_out"] for each in images] == [[WORDS], []]
            assert images[0]["notes"] == []
            assert "'a.b'" in images[1]["notes"][0]
        assert outcome.stderr.count(f"{scenes / 'p.ome.tif'}: left out: {WORDS}") == 1
        assert outcome.stderr.count(f"{scenes / 'q.ome.tif'}: the pixel size is dropped") == 1


def test_what_a_worker_left_out_comes_back():
    result = FileResult(Path("a.tif"), "done", {"mask": Path("a.png")}, pixels={1: 2}, left_out=(WORDS,), notes=("odd",))
    assert cluster._result(cluster._facts(result)) == result
    assert result.remarks == (f"left out: {WORDS}", "odd")


def test_fit_features_and_evaluate_say_it(run, tiny_backbone, scenes, tmp_path):
    labels = tmp_path / "strokes"
    labels.mkdir()
    mask = blobs(60, 70)[1]
    Image.fromarray(mask).save(labels / "p.png", save_all=True, append_images=[Image.fromarray(3 - mask)])
    shutil.copytree(labels, tmp_path / "predictions")
    out = tmp_path / "a.mdm"
    for command in (
        ("fit", scenes, labels, "--out", out, "--backbone", tiny_backbone, "--members", 1, "--no-cache"),
        ("features", scenes, "--backbone", tiny_backbone, "--cache", tmp_path / "cache"),
        ("evaluate", tmp_path / "predictions", labels),
    ):
        outcome = run(*command, "--json")
        assert outcome.code == 0, outcome.error
        path, words = (scenes / "p.ome.tif", WORDS) if command[0] != "evaluate" else (labels / "p.png", "frame 2 of 2")
        assert json.loads(outcome.stdout)["remarks"][str(path)] == [f"left out: {words}"]
        assert outcome.stderr.count(f"{path}: left out: {words}") == 1


def test_the_same_of_many_files_is_said_of_some(run, tiny_backbone, tmp_path):
    for number in range(13):
        frame = Image.fromarray(blobs(32, 32, seed=number)[0])
        frame.save(tmp_path / f"{number}.gif", save_all=True, append_images=[frame.rotate(90)])
    outcome = run("features", tmp_path, "--backbone", tiny_backbone, "--cache", tmp_path / "cache", "--json")
    assert outcome.stderr.count("left out: frame 2 of 2") == 11
    assert "of other files too: left out: frame 2 of 2" in outcome.stderr
    assert len(json.loads(outcome.stdout)["remarks"]) == 13


def test_evaluate_takes_no_other_file_for_truth(run, tmp_path):
    truth, masks = tmp_path / "truth", tmp_path / "masks"
    for folder in (truth, masks):
        folder.mkdir()
        Image.fromarray(np.array([[1, 2, 2, 1]], np.uint8)).save(folder / "a.png")
        for name in (".DS_Store", "export.json", "measurements.csv", "Thumbs.db", "._a.png"):
            (folder / name).write_text("nothing")
    if hasattr(os, "mkfifo"):
        os.mkfifo(truth / "pipe.png")
    outcome = run("evaluate", masks, truth, "--json")
    assert outcome.code == 0
    found = json.loads(outcome.stdout)
    assert (found["missing"], [each["image"] for each in found["images"]]) == ([], ["a"])
    (truth / "a.png").unlink()
    assert run("evaluate", masks, truth).error.startswith(f"no image in the folder {truth}")


def test_a_plate_is_predicted_field_by_field(run, fitted, tmp_path):
    import zarr

    plate = zarr.open_group(tmp_path / "data" / "plate.ome.zarr", mode="w")
    plate.attrs["ome"] = {"plate": {"wells": [{"path": "A/1"}]}}
    well = plate.require_group("A/1")
    well.attrs["ome"] = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
    for number in range(2):
        image = well.require_group(str(number))
        image.create_array("0", data=np.moveaxis(blobs(60, 70, seed=number)[0], -1, 0))
        axes = [{"name": axis} for axis in "cyx"]
        image.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    for place in (tmp_path / "data", tmp_path / "data" / "plate.ome.zarr"):
        outcome = run("predict", fitted, place, "--out", tmp_path / "masks", "--no-cache", "--overwrite")
        assert outcome.code == 0, outcome.error
        assert {path.name for path in (tmp_path / "masks").glob("*.png")} == {"plate_A1_f0.png", "plate_A1_f1.png"}
