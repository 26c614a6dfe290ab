"""Advice for a folder: strokes over images, a bounded number of pixels, only the tiles with labels."""

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.errors import LabelsError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.services import advising
from mdm_studio.services.advising import AdviceRequest, advise_folder, write_heat_map


@pytest.fixture
def request_(tiny_backbone, images_and_labels):
    images, labels = images_and_labels
    return AdviceRequest((str(images),), labels, str(tiny_backbone), blocks=(1, 3), timesteps=(50, 250))


def _run(request, cache=None):
    steps = []
    generator = advise_folder(request, cache)
    try:
        while True:
            steps.append(next(generator))
    except StopIteration as finished:
        return steps, finished.value


def _save(folder, **maps):
    for old in folder.iterdir():
        old.unlink()
    for name, values in maps.items():
        Image.fromarray(np.asarray(values, np.uint8)).save(folder / f"{name}.png")


def test_scores_of_every_cell_and_what_they_rest_on(request_, tmp_path):
    steps, found = _run(request_)
    assert list(found.advice.scores) == [(1, 50), (3, 50), (1, 250), (3, 250)]
    assert found.advice.filters is not None
    assert found.images == 2
    assert found.pixels <= advising.PIXELS
    assert set(found.strokes) == {1, 2}
    assert {step.what for step in steps} == {"features", "scores"}
    write_heat_map(found.advice, tmp_path / "heat.png")
    assert np.asarray(Image.open(tmp_path / "heat.png")).shape[1] > 300


def test_the_same_call_gives_the_same_advice_with_and_without_a_cache(request_, tmp_path):
    first = _run(request_)[1]
    assert _run(request_, FeatureCache(tmp_path / "c"))[1] == first
    assert _run(request_, FeatureCache(tmp_path / "c"))[1] == first


def test_pixels_are_shared_out_among_strokes(request_, monkeypatch):
    monkeypatch.setattr(advising, "PIXELS", 120)
    _, found = _run(request_)
    assert found.pixels <= 120
    assert min(found.strokes.values()) >= 2


def test_only_tiles_with_labels_are_computed(request_, images_and_labels, monkeypatch):
    images, labels = images_and_labels
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(images / "field0.png")
    label_map = np.zeros((200, 200), np.uint8)
    label_map[70:73:2, 70:90], label_map[80:83:2, 70:90] = 1, 2
    _save(labels, field0=label_map)
    asked, maps = [], PlaneFeatures.maps

    def noted(self, *args, **options):
        asked.append(args[:2])
        return maps(self, *args, **options)

    monkeypatch.setattr(PlaneFeatures, "maps", noted)
    _, found = _run(request_)
    assert asked == [(1, 1)]
    assert found.strokes == {1: 2, 2: 2}


def test_dense_masks(request_, images_and_labels):
    from dataclasses import replace

    dense = np.zeros((60, 70), np.uint8)
    dense[:, 20:25] = dense[:, 40:45] = 1
    _save(images_and_labels[1], field0=dense)
    _, found = _run(replace(request_, unlabelled=None, filters=False))
    assert found.strokes == {0: 3, 1: 2}
    assert found.advice.filters is None


@pytest.mark.parametrize(
    ("rows", "words"),
    [({}, "no labelled pixel"), ({5: 1, 9: 1}, "two classes at least"), ({5: 1, 9: 1, 20: 2}, "class 2 has one stroke only")],
    ids=["no labels", "one class", "one stroke of a class"],
)
def test_labels_that_do_not_do(request_, images_and_labels, monkeypatch, rows, words):
    label_map = np.zeros((60, 70), np.uint8)
    for row, value in rows.items():
        label_map[row] = value
    _save(images_and_labels[1], field0=label_map)
    monkeypatch.setattr(PlaneFeatures, "maps", lambda *_: pytest.fail("features were computed"))
    with pytest.raises(LabelsError, match=words):
        _run(request_)
