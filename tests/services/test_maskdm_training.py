"""MaskDM trained for some hundred steps on real images, in a size for tests: both stages, and what comes out is of use."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.errors import UsageError
from mdm_studio.nn.uvit import UViTConfig
from mdm_studio.services.pretraining import plan, recipe_config
from tests.sample_training import assert_averaged, losses, sample_images, score_on_another_image, trained

TINY = UViTConfig(image_size=32, patch=4, dim=64, depth=4, heads=2)
CONFIG = recipe_config("maskdm", crop=32, batch=8, warmup=20, lr=2e-3, precision="fp32", device="cpu", ema=0.9)


def _plan(settings, steps, config=CONFIG, **more):
    more |= {"recipe": "maskdm", "recipe_settings": settings}
    return plan(sample_images(), name="tiny", config=config, steps=steps, checkpoint_every=steps, **more)[0]


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory):
    job = _plan({"ratio": 0.75}, 200)
    assert (job.network.image_size, job.config.betas, job.config.weight_decay) == (32, (0.99, 0.99), 0.03)
    return trained(tmp_path_factory.mktemp("maskdm") / "one", job, TINY)


def test_the_loss_falls_and_pictures_are_drawn(stage_one):
    assert np.mean(losses(stage_one)[-30:]) < 0.7 * np.mean(losses(stage_one)[:10])
    sheet = np.asarray(Image.open(sorted(stage_one.samples.glob("*.png"))[-1]))
    assert (sheet == 128).all(2).mean() > 0.5  # most of what is seen and made is hidden: mid-grey


def test_the_backbone_is_the_averaged_network(stage_one):
    backbone = load_backbone(stage_one.backbone)
    assert (backbone.net.config, backbone.recipe.ratio, backbone.card.timesteps) == (TINY, 0.75, (50,))
    assert_averaged(stage_one)


def test_features_tell_nuclei_from_ground(stage_one):
    assert score_on_another_image(stage_one) > 0.65


def test_stage_two_starts_where_stage_one_ended(stage_one, tmp_path):
    job = _plan({"ratio": 0.0}, 30, start_from=str(stage_one.backbone))
    assert job.network == TINY
    assert np.mean(losses(trained(tmp_path / "two", job))) < 0.7 * np.mean(losses(stage_one)[:10])
    with pytest.raises(UsageError, match="positions for crops of 32 pixels alone, not for 64"):
        _plan({}, 1, dataclasses.replace(CONFIG, crop=64), start_from=str(stage_one.backbone))


def test_coefficients_are_learned_too(tmp_path):
    job = _plan({"wavelet": True, "patch": 2, "ratio": 0.5, "masking": "block", "block": 2}, 60)
    assert (job.network.wavelet, job.network.patch, job.recipe_settings["patch"]) == (True, 2, 2)
    folder = trained(tmp_path / "job", job, dataclasses.replace(TINY, patch=2, wavelet=True))
    assert np.mean(losses(folder)[-10:]) < 0.9 * np.mean(losses(folder)[:10])  # of two errors: begins at 2
    assert losses(folder)[0] == pytest.approx(2, abs=0.3)
    assert load_backbone(folder.backbone).block_shape(0) == (128, 4)
