"""Classes of whole images on the command line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ArrayPlane
from mdm_studio.services.probe import pool_features
from mdm_studio.testing import blobs


@pytest.fixture
def classes(tmp_path):
    """Ten images of few or many discs, one of which has no label, and the table of their classes."""
    folder, rows = tmp_path / "many", ["image,label,group"]
    folder.mkdir()
    for number in range(10):
        crowded = number % 2
        image, _ = blobs(40, 48, seed=number, n=40 if crowded else 2)
        Image.fromarray(image).save(folder / f"f{number}.png")
        if number < 9:
            rows.append(f"f{number}{'.png' * crowded},{'crowded' if crowded else 'empty'},{number // 2}")
    (tmp_path / "classes.csv").write_text("\n".join(rows))
    return folder, tmp_path / "classes.csv"


@pytest.fixture
def probe(run, tiny_backbone, classes, tmp_path):
    def call(*options, table=classes[1]):
        return run("probe", classes[0], table, "--backbone", tiny_backbone, "--cache", tmp_path / "c", *options)

    return call


def test_classes_are_told_apart_and_the_rest_predicted(probe, tmp_path):
    outcome = probe("--folds", 4, "--repeats", 2, "--out", tmp_path / "p.csv", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.stdout)
    assert found["accuracy"]["mean"] > 0.8
    assert found["classes"] == {"crowded": 4, "empty": 5}
    assert found["groups"] == 5
    assert np.sum(found["confusion"]) == 18
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [f"f{i}" for i in range(10)]
    assert (rows[9]["label"], rows[9]["predicted"]) == ("", "crowded")
    assert float(rows[9]["p crowded"]) + float(rows[9]["p empty"]) == pytest.approx(1)


def test_table_for_people(probe):
    outcome = probe("--folds", 3, "--repeats", 1, "--spread")
    assert "balanced accuracy" in outcome.stdout
    assert "crowded" in outcome.stdout
    assert "9 labelled images in 5 groups, 192 features each" in outcome.stderr


def test_an_unreadable_image_is_left_out_and_named(probe, classes):
    (classes[0] / "f8.png").write_bytes(b"no image")
    outcome = probe("--folds", 2, "--repeats", 1, "--json")
    assert outcome.code == 1
    assert "1 of 9 images failed, the first: " in outcome.error
    assert json.loads(outcome.stdout)["classes"] == {"crowded": 4, "empty": 4}


def test_when_too_few_images_are_left_the_unreadable_ones_are_named(probe, classes):
    for number in (6, 8):
        (classes[0] / f"f{number}.png").write_bytes(b"no image")
    outcome = probe("--folds", 4, "--repeats", 1)
    assert outcome.code == 1
    assert "empty has 3" in outcome.error
    assert "2 images could not be used, the first: " in outcome.error
    assert "not one labelled image is left" in probe("--folds", 4, "--channels", 9).error


@pytest.mark.parametrize(
    ("table", "options", "code", "words"),
    [
        ("image,label\nf0,a\nf1,a\n", [], 1, "of the class 'a'"),
        ("image,label\nf0,a\nf1,b\n", [], 1, "as many images of every class"),
        ("image,label\nf0,a\nnobody,b\n", [], 1, "nobody"),
        ("image,label\n", [], 1, "labels none"),
        ("image,label,group\nf0,a,\nf1,b,2\n", [], 1, "without a group"),
        ("image,label\nf0,a\n", ["--label-column", "type"], 1, "no column 'type'"),
        ("image,label\nf0,a\nf1,b\n", ["--folds", "1"], 2, ""),
    ],
)
def test_tables_and_options_that_cannot_be(probe, tmp_path, table, options, code, words):
    path = tmp_path / "other.csv"
    path.write_text(table)
    outcome = probe(*options, table=path)
    assert outcome.code == code
    assert words in outcome.error
    assert not (tmp_path / "c").exists()  # said before anything is computed


def test_pooled_features_are_those_of_all_cells_and_computed_once(tiny_backbone, tmp_path):
    backbone = load_backbone(tiny_backbone)
    plane = ArrayPlane(blobs(150, 120, seed=1)[0].transpose(2, 0, 1), rgb=True)
    settings = FeatureSettings.of(backbone, filters=True)  # tiles of 64
    features = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path, max_bytes=10**8))
    assert len(features.grid) > 1
    found = pool_features([features], "mean-std")
    assert not features.missing()
    parts = []
    for index, spec in enumerate(features.specs):
        whole = np.zeros((spec.channels, -(-150 // spec.stride), -(-120 // spec.stride)))
        for tile in features.grid:
            part = features.maps(*tile)[index]
            y, x = part.origin
            whole[:, y : y + part.values.shape[1], x : x + part.values.shape[2]] = part.values
        parts.append((whole.mean((1, 2)), whole.std((1, 2))))
    expected = np.concatenate([np.concatenate(each) for each in zip(*parts, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)
