"""Encoders of others in the services: fitted and applied like any backbone, tile by tile."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig
from mdm_studio.engine.hub_import import import_hub_model
from mdm_studio.engine.objects import finished
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.images import open_image
from mdm_studio.services.advising import AdviceRequest, advise_folder
from mdm_studio.services.batch import FileResult, PredictOptions, predict_file
from mdm_studio.services.classifier import load_classifier
from mdm_studio.services.clustering import ClusterOptions, cluster_files
from mdm_studio.services.extraction import load_for_features
from mdm_studio.services.fitting import FitRequest, fit_classifier
from mdm_studio.services.session import LiveSettings, Session, View
from mdm_studio.testing import blobs

FACTS = {
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"},
}


@pytest.fixture(params=FACTS)
def hub(request, tmp_path):
    """Folder of a backbone made from an encoder with random weights."""
    from transformers import AutoBackbone, AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    AutoBackbone.from_config(AutoConfig.for_model(request.param, **FACTS[request.param])).save_pretrained(tmp_path / "encoder")
    folder = import_hub_model(str(tmp_path / "encoder"), name="mine")
    card = json.loads((folder / "backbone.json").read_text())
    (folder / "backbone.json").write_text(json.dumps(card | {"tile": 56}))
    return folder


def _strokes(folder, n=2):
    """Images of several tiles and strokes over all of them; the true masks too."""
    masks = []
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(n):
        image, mask = blobs(100, 130, seed=number)
        masks.append(mask)
        Image.fromarray(image).save(folder / "images" / f"field{number}.png")
        strokes = np.where(np.arange(100)[:, None] % 6 == 0, mask, 0).astype(np.uint8)
        Image.fromarray(strokes).save(folder / "labels" / f"field{number}.png")
    return masks


def test_fit_and_predict(hub, tmp_path):
    masks = _strokes(tmp_path)
    request = FitRequest(
        (str(tmp_path / "images"),),
        tmp_path / "labels",
        "mine",
        filters=False,
        smooth=0,
        ensemble=EnsembleConfig(members=1, max_epochs=10),
    )
    finished(fit_classifier(request, None)).save(tmp_path / "a.mdm")
    classifier = load_classifier(tmp_path / "a.mdm")
    assert classifier.info.timesteps == (0,)
    path = tmp_path / "images" / "field0.png"
    (tmp_path / "out").mkdir()
    result = finished(predict_file(classifier, path, PredictOptions(tmp_path / "out"), None))
    assert result.state == "done", result.message
    found = np.asarray(Image.open(tmp_path / "out" / "field0.png"))
    assert balanced_accuracy_score(masks[0].ravel(), found.ravel()) > 0.65  # of random weights; chance is 0.5


def test_tiles_agree_with_the_whole(hub, tmp_path):
    image, _ = blobs(200, 330, seed=0, n=20)
    Image.fromarray(image).save(tmp_path / "field.png")
    backbone = load_backbone(hub)
    with open_image(tmp_path / "field.png") as image:
        tiled = PlaneFeatures(backbone, image.plane(), FeatureSettings.of(backbone))
        whole = PlaneFeatures(backbone, image.plane(), FeatureSettings.of(backbone, tile=512))
    assert len(whole.grid) == 1 < len(tiled.grid)
    for spec, expected in zip(whole.specs, whole.maps(0, 0), strict=True):
        close = []
        for place in tiled.grid:
            (part,) = tiled.maps(*place, [spec])
            (top, left), (height, width) = part.origin, part.values.shape[1:]
            same = expected.values[:, top : top + height, left : left + width]
            assert same.shape == part.values.shape
            close.append(float(torch.cosine_similarity(same, part.values, dim=0).mean()))
        assert min(close) > 0.99, (spec, close)


@pytest.mark.parametrize("hub", ["dinov2"], indirect=True)  # of a stride that is no power of 2
def test_clusters_and_advice(hub, tmp_path):
    _strokes(tmp_path, 1)
    source = load_for_features("mine", blocks="all", timesteps=(0,), filters=False)
    paths = [tmp_path / "images" / "field0.png"]
    steps = cluster_files(source, paths, ClusterOptions(tmp_path / "clusters", k=2), None)
    (done,) = [step for step in steps if isinstance(step, FileResult)]
    assert done.state == "done", done.message
    request = AdviceRequest((str(tmp_path / "images"),), tmp_path / "labels", "mine", timesteps=(0,), filters=False)
    advice = finished(advise_folder(request, None)).advice
    assert advice.blocks
    assert {timestep for _, timestep in advice.scores} == {0}


@pytest.mark.parametrize("hub", ["dinov2"], indirect=True)
def test_live_session(hub, tmp_path):
    """Strokes become the mask that the saved classifier predicts, tile by tile."""
    image, mask = blobs(100, 1000, seed=0, n=60)  # tiles of 448 pixels, for blocks of 64 and cells of 14
    labels = np.where(np.arange(100)[:, None] % 10 < 2, mask, 0).astype(np.uint8)
    session = Session(None, settings=LiveSettings(backbone="mine", filters=False, smooth=0))
    said: list[object] = []
    session.failed.connect(said.append)
    try:
        session.open_image("a", ArrayImage(image, rgb=True, name="a"), labels)
        session.picture("a", "prediction")
        session.view_moved({("a", ()): View(slice(0, 100), slice(0, 1000))})
        end = time.monotonic() + 60
        while session.up_to_date != "exact":
            assert time.monotonic() < end, (session.status, said)
            time.sleep(0.01)
        found = np.array(session.picture("a", "prediction")[0])
        assert balanced_accuracy_score(mask.ravel(), found.ravel()) > 0.65
        assert session.settings.timesteps == (0,)
        session.save_classifier(tmp_path / "live.mdm")
        plane = session.images["a"].source.plane(())
    finally:
        assert session.close(timeout=20)
    classifier = load_classifier(tmp_path / "live.mdm")
    source = PlaneFeatures(classifier.backbone, plane, classifier.settings, None)
    assert len(source.grid) > 1
    values = np.array([each.value for each in classifier.info.classes])
    for rows, cols, predicted in predict_plane(classifier.ensemble, source, smooth=0):
        np.testing.assert_array_equal(found[rows, cols], values[predicted.labels])
