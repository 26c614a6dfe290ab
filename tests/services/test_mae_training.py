"""A masked autoencoder trained for some hundred steps on real images, in a size for tests: what comes out is of use."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from mdm_studio.config import resource
from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, predict_points, sample_features, train_ensemble
from mdm_studio.io.checkpoints import read_checkpoint
from mdm_studio.io.images import find_images, open_image
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.labels import read_labels
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.services.pretraining import plan, recipe_config, run

SAMPLES = "samples/nuclei"
TINY = MAEConfig(image_size=32, patch=4, dim=64, depth=3, heads=2, decoder_dim=32, decoder_depth=1, decoder_heads=1)


@pytest.fixture(scope="module")
def images():
    return find_images([str(resource(f"{SAMPLES}/images"))])


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    config = recipe_config("mae", crop=32, batch=8, warmup=20, lr=2e-3, precision="fp32", device="cpu", ema=0.9)
    job, _ = plan(
        images, name="tiny", recipe="mae", recipe_settings={"patch": 4}, config=config, steps=250, checkpoint_every=250
    )
    assert (job.network.image_size, job.network.patch, job.config.betas, job.config.decay_steps) == (32, 4, (0.9, 0.95), 250)
    folder = JobFolder(tmp_path_factory.mktemp("mae") / "job")
    folder.create(dataclasses.replace(job, network=TINY).to_json())
    list(run(folder))
    return folder


def _pixels(backbone, path, seed):
    """Features and classes of some pixels of an image, as many of each class; no classical filters beside them."""
    settings = FeatureSettings.of(backbone, filters=False)
    with open_image(path) as image:
        plane = image.plane(0)
        truth = read_labels(resource(f"{SAMPLES}/masks") / f"{path.stem}.png", plane.shape[1:], 0) > 0
        rng = np.random.default_rng(seed)
        chosen = np.concatenate([rng.choice(np.flatnonzero(truth == value), 200) for value in (False, True)])
        rows, cols = np.unravel_index(chosen, truth.shape)
        source = PlaneFeatures(backbone, plane, settings)
        return sample_features(source.maps(0, 0), rows, cols), truth[rows, cols].astype(np.intp)


def test_the_loss_falls_and_pictures_are_drawn(folder):
    losses = [row["loss"] for row in folder.read_metrics()]
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:10])
    assert list(folder.samples.glob("*.png"))


def test_the_backbone_is_the_averaged_network(folder):
    backbone = load_backbone(folder.backbone)
    assert (backbone.card.recipe["name"], backbone.card.timesteps, backbone.card.blocks) == ("mae", (0,), (2,))
    assert backbone.net.config == TINY
    averaged, _ = read_checkpoint(folder.list_checkpoints()[0], prefix="ema/")
    for name, value in backbone.net.state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=1e-3, atol=1e-3)  # kept in half precision


def test_its_features_tell_classes_apart(folder, images):
    backbone = load_backbone(folder.backbone)
    (x, y), (unseen, truth) = (_pixels(backbone, path, seed) for seed, path in enumerate(images[:2]))
    for step in train_ensemble(x, y, 2, EnsembleConfig(members=2, max_epochs=20)):
        last = step
    assert balanced_accuracy_score(truth, predict_points(last.snapshot(), unseen).labels) > 0.7
