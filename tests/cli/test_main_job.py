"""Features, fit, predict, evaluate: the main job through the command line."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mdm_studio.io.images import open_image
from mdm_studio.services.classifier import load_classifier
from tests.peer_ensemble import peer_features, peer_predict


def _mask(path):
    return np.asarray(Image.open(path))


def test_main_job(run, fitted, images_and_labels, tmp_path):
    images, _ = images_and_labels
    out = tmp_path / "masks"
    outcome = run("predict", fitted, images, "--out", out, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["done"] == 3
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "field0.png", "field1.png", "field2.png"]
    mask = _mask(out / "field2.png")
    assert mask.shape == (60, 70)
    assert set(np.unique(mask)) == {1, 2}
    with Image.open(out / "field2.png") as picture:
        assert picture.mode == "P"  # a viewer shows the class colours


def test_a_fit_is_reproducible(run, fitted, tiny_backbone, images_and_labels, tmp_path):
    images, labels = images_and_labels
    for name, seed in (("b", 0), ("c", 1)):
        run(
            "fit",
            images,
            labels,
            "--out",
            tmp_path / f"{name}.mdm",
            "--backbone",
            tiny_backbone,
            "--members",
            3,
            "--seed",
            seed,
        )
    first, same, other = (
        load_classifier(path).ensemble.state_dict() for path in (fitted, tmp_path / "b.mdm", tmp_path / "c.mdm")
    )
    assert all((first[key] == same[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


def test_every_output_in_one_run(run, fitted, images_and_labels, tmp_path):
    images, _ = images_and_labels
    options = ["--probabilities", "--uncertainty", "--objects", "--table", "--format", "tiff"]
    assert run("predict", fitted, images, "--out", tmp_path / "o", *options).code == 0
    probabilities = tifffile.imread(tmp_path / "o" / "probabilities" / "field0.tif")
    assert probabilities.shape == (2, 60, 70)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert tifffile.imread(tmp_path / "o" / "uncertainty" / "field0.tif").min() >= 0
    objects = tifffile.imread(tmp_path / "o" / "objects" / "field0.tif")
    assert ((objects > 0) == (tifffile.imread(tmp_path / "o" / "field0.tif") == 2)).all()
    rows = (tmp_path / "o" / "tables" / "field0.csv").read_text().splitlines()
    assert len(rows) == objects.max() + 1
    assert "class name" in rows[0]


def test_objects_and_tables_as_asked(run, fitted, images_and_labels, tmp_path):
    images, _ = images_and_labels
    (images / "notes.czi").write_bytes(b"")
    options = ["--watershed", "--distance", 6, "--fill-holes", "--min-size", 4, "--table-format", "parquet,csv"]
    outcome = run("predict", fitted, images, "--out", tmp_path / "o", *options)
    assert outcome.code == 0
    assert "notes.czi" in outcome.stderr
    assert not (tmp_path / "o" / "objects").exists()  # their tables alone were asked for
    assert sorted(path.name for path in (tmp_path / "o").glob("meas*")) == ["measurements.csv", "measurements.parquet"]
    settings = json.loads((tmp_path / "o" / "export.json").read_text())["settings"]["objects"]
    assert settings == {"method": "watershed", "distance": 6, "fill_holes": True, "min_size": 4, "background": None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--watershed"], "--watershed is about objects"),
        (["--fill-holes"], "--fill-holes is about objects"),
        (["--table-format", "xlsx"], "'xlsx' is not known"),
        (["--workers", 2, "--scheduler", "tcp://127.0.0.1:1"], "contradict"),
        (["--scheduler", "tcp://127.0.0.1:1", "--tls-cert", "c.pem"], "--tls-cert"),
        (["--cache", "c", "--no-cache"], "contradict"),
    ],
)
def test_options_that_make_no_sense(run, images_and_labels, tmp_path, options, words):
    outcome = run("predict", tmp_path / "a.mdm", images_and_labels[0], "--out", tmp_path / "o", *options)
    assert outcome.code == 2
    assert words in outcome.error
    assert not (tmp_path / "o").exists()


def test_an_open_scheduler_is_said_to_be_open(run, fitted, images_and_labels, tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_studio.services.cluster._PATIENCE", "1s")
    outcome = run("predict", fitted, images_and_labels[0], "--out", tmp_path / "o", "--scheduler", "tcp://127.0.0.1:1")
    assert outcome.code == 2
    assert outcome.stderr.count("not encrypted") == 1


@pytest.mark.parametrize(("format_", "name"), [("tiff", "field0.tif"), ("npy", "field0.npy"), ("ome-zarr", "field0.ome.zarr")])
def test_formats_hold_the_same_mask(run, fitted, images_and_labels, tmp_path, format_, name):
    image = images_and_labels[0] / "field0.png"
    run("predict", fitted, image, "--out", tmp_path / "png")
    assert run("predict", fitted, image, "--out", tmp_path / "other", "--format", format_).code == 0
    with open_image(tmp_path / "other" / name, values=True) as file:
        assert np.array_equal(file.plane().read(slice(None), slice(None))[0], _mask(tmp_path / "png" / "field0.png"))


def test_masks_agree_with_the_papers_way(fitted, images_and_labels):
    """Upsample everything, loop over the members, vote: the same labels on 99.9 % of the pixels."""
    from mdm_studio.engine.features import PlaneFeatures
    from mdm_studio.engine.heads import predict_window

    classifier = load_classifier(fitted)
    with open_image(images_and_labels[0] / "field2.png") as image:
        maps = PlaneFeatures(classifier.backbone, image.plane(), classifier.settings).maps(0, 0)
    ours = predict_window(classifier.ensemble, maps, slice(0, 60), slice(0, 70)).labels
    sizes = [(m.full[0] * m.stride, m.full[1] * m.stride) for m in maps]
    upsampled = [peer_features([m.values], size)[:, :60, :70] for m, size in zip(maps, sizes, strict=True)]
    members = [lambda pixels, e=e: classifier.ensemble(pixels)[e] for e in range(classifier.ensemble.members)]
    theirs = peer_predict(members, torch.cat(upsampled).contiguous()).labels
    assert (ours == theirs.numpy()).mean() >= 0.999


@pytest.mark.parametrize(
    "options",
    [
        ("--filters",),
        ("--blocks", "none", "--filters"),
        ("--scales", "1,2"),
        ("--invert",),
        ("--scales", "4", "--filters", "--invert"),
    ],
    ids=" ".join,
)
def test_what_a_classifier_reads_travels_with_it(run, tiny_backbone, images_and_labels, tmp_path, options):
    """Scales and filters are read again at prediction, with the same features for the same pixels."""
    images, labels = images_and_labels
    file = tmp_path / "o.mdm"
    outcome = run("fit", images, labels, "--out", file, "--backbone", tiny_backbone, "--members", 2, "--json", *options)
    facts = json.loads(outcome.stdout)
    assert facts["filters"] == ("--filters" in options)
    assert facts["blocks"] == ([] if "none" in options else [1, 2, 3])
    assert facts["invert"] == ("--invert" in options)
    outcome = run("predict", file, images, "--out", tmp_path / "o", "--json")
    assert outcome.code == 0
    strokes = _mask(labels / "field0.png")
    found = _mask(tmp_path / "o" / "field0.png")
    assert (found[strokes > 0] == strokes[strokes > 0]).mean() > 0.9


def test_negatives_are_learned_from_where_the_folder_has_both_polarities(run, tiny_backbone, images_and_labels, tmp_path):
    """Labels on bright objects, and an unlabelled image of dark ones; an unreadable unlabelled file does no harm."""
    images, labels = images_and_labels
    options = ("--backbone", tiny_backbone, "--members", 2, "--json")
    ground = np.full((60, 70), 20, np.uint8)
    ground[10:16, 10:16] = 200
    for path in images.iterdir():
        Image.fromarray(ground).save(path)
    (images / "broken.png").write_bytes(b"no picture")
    outcome = run("fit", images, labels, "--out", tmp_path / "one.mdm", *options)
    assert not json.loads(outcome.stdout)["invert"]
    Image.fromarray(255 - ground).save(images / "other.png")
    outcome = run("fit", images, labels, "--out", tmp_path / "two.mdm", *options)
    assert json.loads(outcome.stdout)["invert"]
    assert "dark on bright" in outcome.stderr
    outcome = run("fit", images, labels, "--out", tmp_path / "three.mdm", "--no-invert", *options)
    assert not json.loads(outcome.stdout)["invert"]


def test_values_are_kept_and_zero_may_be_a_class(run, tiny_backbone, images_and_labels, tmp_path):
    images, labels = images_and_labels
    for path in labels.iterdir():
        values = _mask(path)
        Image.fromarray(np.select([values == 1, values == 2], [3, 7]).astype(np.uint8)).save(path)
    run("fit", images, labels, "--out", tmp_path / "v.mdm", "--backbone", tiny_backbone, "--members", 2, "--classes", "a,b")
    run("predict", tmp_path / "v.mdm", images, "--out", tmp_path / "v")
    assert set(np.unique(_mask(tmp_path / "v" / "field0.png"))) <= {3, 7}
    dense = run(
        "fit",
        images,
        labels,
        "--out",
        tmp_path / "d.mdm",
        "--backbone",
        tiny_backbone,
        "--members",
        2,
        "--unlabelled",
        "none",
        "--json",
    )
    assert [each["value"] for each in json.loads(dense.stdout)["classes"]] == [0, 3, 7]
    heads = {name: load_classifier(tmp_path / f"{name}.mdm").info.ensemble for name in ("v", "d")}
    assert (heads["v"]["class_weight"], heads["v"]["noise"]) == ("balanced", 1.0)
    assert (heads["d"]["class_weight"], heads["d"]["noise"]) == ("none", 0.0)


def test_numbered_objects_become_two_classes(run, tiny_backbone, images_and_labels, tmp_path):
    images, labels = images_and_labels
    outcome = run(
        "fit", images, labels, "--out", tmp_path / "i.mdm", "--backbone", tiny_backbone, "--members", 2, "--instances", "--json"
    )
    facts = json.loads(outcome.stdout)
    assert [(each["value"], each["name"]) for each in facts["classes"]] == [(0, "background"), (1, "object")]
    assert facts["pixels"] == 2 * 60 * 70


def test_a_stack_is_predicted_plane_by_plane(run, fitted, images_and_labels, tmp_path):
    planes = np.stack([np.asarray(Image.open(images_and_labels[0] / f"field{n}.png")) for n in range(3)])
    tifffile.imwrite(tmp_path / "stack.tif", planes, photometric="rgb", metadata={"axes": "ZYXS"})
    assert run("predict", fitted, tmp_path / "stack.tif", "--out", tmp_path / "s", "--format", "tiff").code == 0
    run("predict", fitted, images_and_labels[0], "--out", tmp_path / "m")
    found = tifffile.imread(tmp_path / "s" / "stack.tif")
    assert found.shape == (3, 60, 70)
    assert np.array_equal(found[1], _mask(tmp_path / "m" / "field1.png"))


def test_what_is_there_and_whole_is_skipped(run, fitted, images_and_labels, tmp_path):
    images, _ = images_and_labels
    run("predict", fitted, images, "--out", tmp_path / "m")
    (tmp_path / "m" / "field0.png").unlink()
    whole = (tmp_path / "m" / "field1.png").read_bytes()
    (tmp_path / "m" / "field1.png").write_bytes(whole[:50])
    facts = json.loads(run("predict", fitted, images, "--out", tmp_path / "m", "--json").stdout)
    assert (facts["done"], facts["skipped"]) == (2, 1)
    assert (tmp_path / "m" / "field1.png").read_bytes() == whole
    assert json.loads(run("predict", fitted, images, "--out", tmp_path / "m", "--overwrite", "--json").stdout)["done"] == 3


def test_a_large_image_does_without_the_cache(run, fitted, images_and_labels, tmp_path, monkeypatch):
    images, _ = images_and_labels
    run("predict", fitted, images, "--out", tmp_path / "m", "--cache", tmp_path / "c")
    monkeypatch.setattr("mdm_studio.services.batch.LARGE", 100)
    run("predict", fitted, images, "--out", tmp_path / "l", "--cache", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "l" / "field2.png").read_bytes() == (tmp_path / "m" / "field2.png").read_bytes()


def test_features_are_computed_once(run, tiny_backbone, images_and_labels, tmp_path):
    command = ["features", images_and_labels[0], "--backbone", tiny_backbone, "--cache", tmp_path / "c", "--json"]
    first, second = (json.loads(run(*command).stdout) for _ in range(2))
    assert (first["tiles"], first["computed"], second["computed"]) == (3, 3, 0)
    info = json.loads(run("cache", "info", "--cache", tmp_path / "c", "--json").stdout)
    assert sorted(entry["image"] for entry in info["entries"]) == ["field0", "field1", "field2"]
    assert json.loads(run("cache", "verify", "--cache", tmp_path / "c", "--json").stdout)["checked"] == 9
    assert json.loads(run("cache", "prune", "--cache", tmp_path / "c", "--max-size", "0MB", "--json").stdout)["entries"] == 3
    assert run("cache", "clear", "--cache", tmp_path / "c").code == 0


def test_features_larger_than_the_cache_are_refused_before_they_fill_the_disk(
    run, tiny_backbone, images_and_labels, tmp_path, monkeypatch
):
    monkeypatch.setattr("mdm_studio.cli.common.CACHE_BYTES", 1000)
    outcome = run("features", images_and_labels[0], "--backbone", tiny_backbone, "--cache", tmp_path / "c")
    assert outcome.code == 1
    assert "fewer --blocks" in outcome.error
    assert not list((tmp_path / "c").rglob("zarr.json"))


def test_the_backbone_may_move(run, fitted, tiny_backbone, images_and_labels, tmp_path):
    import shutil

    moved = shutil.copytree(tiny_backbone, tmp_path / "elsewhere")
    hidden = tiny_backbone.rename(tiny_backbone.with_name("hidden"))
    try:
        lost = run("predict", fitted, images_and_labels[0], "--out", tmp_path / "m")
        assert (lost.code, "--backbone" in lost.error) == (1, True)
        assert run("predict", fitted, images_and_labels[0], "--out", tmp_path / "m", "--backbone", moved).code == 0
    finally:
        hidden.rename(tiny_backbone)


def test_the_whole_network_is_fine_tuned(run, tiny_backbone, images_and_labels, tmp_path):
    images, labels = images_and_labels
    file = tmp_path / "b.mdm"
    head = ["--head", "finetune", "--steps", 2]
    outcome = run("fit", images, labels, "--out", file, "--backbone", tiny_backbone, *head, "--json")
    assert outcome.code == 0
    facts = json.loads(outcome.stdout)
    assert (facts["head"], facts["iterations"], facts["images"]) == ("finetune", 2, 2)
    outcome = run("predict", file, images, "--out", tmp_path / "masks", "--no-cache", "--uncertainty")
    assert outcome.code == 0
    assert set(np.unique(_mask(tmp_path / "masks" / "field2.png"))) <= {1, 2}
    uncertainty = tifffile.imread(tmp_path / "masks" / "uncertainty" / "field2.tif")
    assert 0 < uncertainty.max() <= np.log(2) + 1e-6
    assert run("evaluate", tmp_path / "masks", labels).code == 0
    assert "brings its own" in run("predict", file, images, "--out", tmp_path / "o", "--backbone", tiny_backbone).error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--head", "finetune", "--members", 3], "--members is about --head ensemble"),
        (["--steps", 3], "--steps is about --head finetune"),
        (["--minutes", 3, "--head", "forest"], "--minutes is about --head finetune"),
        (["--head", "forest"], "choose one of: ensemble, finetune"),
        (["--head", "finetune", "--filters"], "filter bank"),
    ],
)
def test_options_of_another_head(run, tiny_backbone, images_and_labels, tmp_path, options, words):
    outcome = run("fit", *images_and_labels, "--out", tmp_path / "b.mdm", "--backbone", tiny_backbone, *options)
    assert outcome.code == 2
    assert words in outcome.error
