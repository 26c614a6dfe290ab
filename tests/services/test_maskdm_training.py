"""MaskDM trained for some hundred steps on real images, in a size for tests: both stages, and what comes out is of use."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from mdm_studio.config import resource
from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.heads import EnsembleConfig, predict_points, train_ensemble
from mdm_studio.errors import UsageError
from mdm_studio.io.checkpoints import read_checkpoint
from mdm_studio.io.images import find_images
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.nn.uvit import UViTConfig
from mdm_studio.services.pretraining import plan, recipe_config, run
from tests.services.test_recipe_training import SAMPLES, pixels

TINY = UViTConfig(image_size=32, patch=4, dim=64, depth=4, heads=2)
CONFIG = recipe_config("maskdm", crop=32, batch=8, warmup=20, lr=2e-3, precision="fp32", device="cpu", ema=0.9)


def _plan(images, settings, steps, config=CONFIG, **more):
    more |= {"recipe": "maskdm", "recipe_settings": settings}
    return plan(images, name="tiny", config=config, steps=steps, checkpoint_every=steps, **more)[0]


def _trained(out, job, network=None):
    folder = JobFolder(out)
    folder.create(dataclasses.replace(job, network=network or job.network).to_json())
    list(run(folder))
    return folder


def _losses(folder):
    return [row["loss"] for row in folder.read_metrics()]


@pytest.fixture(scope="module")
def images():
    return find_images([str(resource(f"{SAMPLES}/images"))])


@pytest.fixture(scope="module")
def stage_one(images, tmp_path_factory):
    job = _plan(images, {"ratio": 0.75}, 200)
    assert (job.network.image_size, job.config.betas, job.config.weight_decay) == (32, (0.99, 0.99), 0.03)
    return _trained(tmp_path_factory.mktemp("maskdm") / "one", job, TINY)


def test_the_loss_falls_and_pictures_are_drawn(stage_one):
    losses = _losses(stage_one)
    assert np.mean(losses[-30:]) < 0.7 * np.mean(losses[:10])
    sheet = np.asarray(Image.open(sorted(stage_one.samples.glob("*.png"))[-1]))
    assert (sheet == 128).all(2).mean() > 0.5  # most of what is seen and made is hidden: mid-grey


def test_the_backbone_is_the_averaged_network(stage_one):
    backbone = load_backbone(stage_one.backbone)
    assert (backbone.net.config, backbone.recipe.ratio, backbone.card.timesteps) == (TINY, 0.75, (50,))
    averaged, _ = read_checkpoint(stage_one.list_checkpoints()[0], prefix="ema/")
    for name, value in backbone.net.state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=1e-3, atol=1e-3)  # kept in half precision


def test_features_tell_nuclei_from_ground(stage_one, images):
    backbone = load_backbone(stage_one.backbone)
    (x, y), (unseen, truth) = (pixels(backbone, path, seed) for seed, path in enumerate(images[:2]))
    for step in train_ensemble(x, y, 2, EnsembleConfig(members=2, max_epochs=20)):
        last = step
    assert balanced_accuracy_score(truth, predict_points(last.snapshot(), unseen).labels) > 0.65


def test_stage_two_starts_where_stage_one_ended(stage_one, images, tmp_path):
    job = _plan(images, {"ratio": 0.0}, 30, start_from=str(stage_one.backbone))
    assert job.network == TINY
    losses = _losses(_trained(tmp_path / "two", job))
    assert np.mean(losses) < 0.7 * np.mean(_losses(stage_one)[:10])
    with pytest.raises(UsageError, match="positions for crops of 32 pixels alone, not for 64"):
        _plan(images, {}, 1, dataclasses.replace(CONFIG, crop=64), start_from=str(stage_one.backbone))


def test_coefficients_are_learned_too(images, tmp_path):
    job = _plan(images, {"wavelet": True, "patch": 2, "ratio": 0.5, "masking": "block", "block": 2}, 60)
    assert (job.network.wavelet, job.network.patch, job.recipe_settings["patch"]) == (True, 2, 2)
    folder = _trained(tmp_path / "job", job, dataclasses.replace(TINY, patch=2, wavelet=True))
    losses = _losses(folder)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])  # of two errors: begins at 2
    assert losses[0] == pytest.approx(2, abs=0.3)
    assert load_backbone(folder.backbone).block_shape(0) == (128, 4)
