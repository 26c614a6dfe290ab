"""DeP and DDeP trained on real images in a size for tests, as jobs: what comes out is of use."""

import dataclasses

import numpy as np
import pytest

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.nn.denoiser import SIZES
from mdm_studio.services.pretraining import plan, recipe_config
from tests.sample_training import assert_averaged, losses, sample_images, score_on_another_image, trained

TINY = dataclasses.replace(
    SIZES["tiny"],
    model=SIZES["tiny"].model | {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32]},
    map_channels=(8, 8, 16, 16, 32),
    widths=(16, 16, 16, 8, 8),
)


@pytest.mark.parametrize("recipe", ["dep", "ddep"])
def test_a_decoder_learns_and_its_features_tell_classes_apart(tmp_path, recipe):
    config = recipe_config(recipe, crop=64, batch=4, warmup=20, lr=3e-3, precision="fp32", device="cpu", ema=0.9)
    job, _ = plan(sample_images(), name="tiny", recipe=recipe, config=config, steps=200, checkpoint_every=200)
    frozen = recipe == "ddep"
    assert (job.network.frozen_encoder, job.config.decay_steps) == (frozen, 200)
    folder = trained(tmp_path / "job", job, dataclasses.replace(TINY, frozen_encoder=frozen))
    assert np.mean(losses(folder)[-30:]) < 0.5 * np.mean(losses(folder)[:5])
    assert list(folder.samples.glob("*.png"))
    assert_averaged(folder)
    assert load_backbone(folder.backbone).card.timesteps == (0,)
    assert score_on_another_image(folder) > 0.6  # of 400 pixels: four standard deviations above chance; little, see the guide
