"""A masked autoencoder trained for some hundred steps on real images, in a size for tests: what comes out is of use."""

import numpy as np
import pytest

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.services.pretraining import plan, recipe_config
from tests.sample_training import assert_averaged, losses, sample_images, score_on_another_image, trained

TINY = MAEConfig(image_size=32, patch=4, dim=64, depth=3, heads=2, decoder_dim=32, decoder_depth=1, decoder_heads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = recipe_config("mae", crop=32, batch=8, warmup=20, lr=2e-3, precision="fp32", device="cpu", ema=0.9)
    budget = {"steps": 250, "checkpoint_every": 250}
    job, _ = plan(sample_images(), name="tiny", recipe="mae", recipe_settings={"patch": 4}, config=config, **budget)
    assert (job.network.image_size, job.network.patch, job.config.betas, job.config.decay_steps) == (32, 4, (0.9, 0.95), 250)
    return trained(tmp_path_factory.mktemp("mae") / "job", job, TINY)


def test_the_loss_falls_and_pictures_are_drawn(folder):
    assert np.mean(losses(folder)[-30:]) < 0.9 * np.mean(losses(folder)[:10])
    assert list(folder.samples.glob("*.png"))


def test_the_backbone_is_the_averaged_network(folder):
    backbone = load_backbone(folder.backbone)
    assert (backbone.card.recipe["name"], backbone.card.timesteps, backbone.card.blocks) == ("mae", (0,), (2,))
    assert backbone.net.config == TINY
    assert_averaged(folder)


def test_its_features_tell_classes_apart(folder):
    assert score_on_another_image(folder) > 0.7
