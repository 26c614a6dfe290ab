"""DeP and DDeP: the amount of noise, and a trained decoder over an encoder that stays as it is."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mdm_studio.engine.pretrain import PretrainConfig, Pretrainer
from mdm_studio.engine.recipes.dep import DDeP, DeP
from mdm_studio.errors import UsageError
from mdm_studio.nn.denoiser import SIZES
from mdm_studio.testing import blobs

CONFIG = PretrainConfig(crop=64, batch=4, warmup=5, lr=3e-3, precision="fp32", device="cpu", ema=0.9)
TINY = dataclasses.replace(
    SIZES["tiny"],
    model=SIZES["tiny"].model | {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32]},
    map_channels=(8, 8, 16, 16, 32),
    widths=(16, 16, 16, 8, 8),
)


@pytest.mark.parametrize("recipe", [DeP(), DDeP(gamma=0.5)])
def test_scaled_noise(recipe):
    x = torch.rand(8, 3, 64, 64) * 2 - 1
    example = recipe.corrupt(x, torch.zeros(8), torch.Generator().manual_seed(1))
    g = recipe.gamma
    torch.testing.assert_close(example.seen, math.sqrt(g) * x + math.sqrt(1 - g) * example.target)
    assert abs(float(example.target.std()) - 1) < 0.01
    assert recipe.loss(example.target, example).tolist() == [0.0] * 8
    assert recipe.loss(torch.zeros_like(x), example).mean() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(recipe.restored(example.target, example), x, atol=1e-5, rtol=0)
    again = recipe.corrupt(x, torch.zeros(8), torch.Generator().manual_seed(1))
    assert torch.equal(again.seen, example.seen)


@pytest.mark.parametrize("gamma", [0.0, 1.0, -1.0])
def test_gamma_that_leaves_nothing_to_do(gamma):
    with pytest.raises(UsageError, match="gamma"):
        DeP(gamma=gamma)


def _images(n, seed):
    pairs = [blobs(64, 64, seed=seed + i) for i in range(n)]
    images = np.stack([image for image, _ in pairs]).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    return images, np.stack([mask for _, mask in pairs]) - 1


@pytest.mark.parametrize("recipe", [DeP(), DDeP()])
def test_learns(recipe):
    """The loss falls, a run goes on from its state bit for bit, a frozen encoder is the same, and features tell discs apart."""
    images, masks = _images(16, 0)
    network = dataclasses.replace(TINY, frozen_encoder=recipe.freezes_encoder)
    trainer = Pretrainer(network, recipe, CONFIG)
    encoder = {name: value.clone() for name, value in trainer.net.encoder.state_dict().items()}
    batches = [images[4 * (i % 4) : 4 * (i % 4) + 4] for i in range(40)]
    losses = [step.loss for step in trainer.steps(batches[:-1])]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]

    resumed = Pretrainer(network, recipe, CONFIG)
    resumed.load_state(*trainer.state())
    assert [step.loss for step in resumed.steps(batches[-1:])] == [step.loss for step in trainer.steps(batches[-1:])]

    for net in (trainer.net, trainer.ema.module):
        same = [torch.equal(value, encoder[name]) for name, value in net.encoder.state_dict().items()]
        assert all(same) if recipe.freezes_encoder else not all(same)

    net, block = trainer.ema.module.eval(), 2  # at stride 4
    with torch.no_grad():
        maps = net.features(torch.from_numpy(images), torch.zeros(16), {block})[block]  # (16, C, 16, 16)
    x, y = maps.permute(0, 2, 3, 1).numpy(), masks[:, 2::4, 2::4]
    known = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    known.fit(x[:8].reshape(-1, x.shape[-1]), y[:8].ravel())
    assert balanced_accuracy_score(y[8:].ravel(), known.predict(x[8:].reshape(-1, x.shape[-1]))) > 0.6  # chance: 0.5
