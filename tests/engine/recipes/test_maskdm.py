"""MaskDM against its authors' numbers; its stages, masks and coefficients."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.diffusion.corruptions import add_noise
from mdm_studio.diffusion.samplers import ddim, last_image, spaced_times
from mdm_studio.diffusion.wavelet import haar
from mdm_studio.engine.recipes import Example, Place
from mdm_studio.engine.recipes.maskdm import MaskDM
from mdm_studio.errors import UsageError
from mdm_studio.nn.uvit import UViT, UViTConfig
from mdm_studio.testing import golden_fill, golden_input

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "golden.npz")
T = torch.tensor([10, 700])
NETWORK = UViTConfig(image_size=16, patch=4, dim=32, depth=4, heads=4)


def _filled():
    net = UViT(NETWORK).eval()
    golden_fill(net)
    return net


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
@pytest.mark.parametrize(("name", "masked"), [("maskdm_loss", True), ("maskdm_loss_nomask", False)])
def test_loss_agrees_with_maskdm(name, masked):
    recipe, net = MaskDM(), _filled()
    x, noise = golden_input((2, 3, 16, 16), 13), golden_input((2, 3, 16, 16), 12)
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, [0, 2, 4, 7, 8, 11, 13, 15]] = True
    hidden[1] = ~hidden[0]
    seen = add_noise(x, T, noise, recipe.abar)
    example = Example(x, seen, noise, T, hidden if masked else None, noise)
    losses = recipe.loss(net(seen, T, hidden=example.hidden), example)
    assert losses.shape == (2,)
    assert losses.mean().item() == pytest.approx(GOLDEN[name], rel=1e-5)


@torch.no_grad()
def test_sampler_agrees_with_maskdm_as_far_as_chaos_allows():
    """Ten calls of a network with random weights: a change of the noise by a millionth moves single pixels by a quarter."""
    net, start, times = _filled(), golden_input((2, 3, 16, 16), 12), spaced_times(1000, 10)

    def made(start, rederive=False):
        x = last_image(ddim(net, start, MaskDM().abar, times, rederive=rederive, generator=_generator()))
        return (x.numpy() + 1) / 2

    ours = np.abs(made(start) - GOLDEN["maskdm_ddim10"])
    assert np.median(ours) < 0.005
    assert ours.mean() < 0.03
    assert np.abs(made(start, rederive=True) - GOLDEN["maskdm_ddim10"]).mean() > 0.2
    assert np.abs(made(start) - made(start * (1 + 1e-6))).mean() > 0.001


@pytest.mark.parametrize("wavelet", [False, True])
def test_right_noise_costs_nothing_and_gives_the_visible_patches_back(wavelet):
    recipe = MaskDM(ratio=0.5, patch=2 if wavelet else 4, wavelet=wavelet)
    x = golden_input((2, 3, 32, 32), 6).clamp(-1, 1)
    example = recipe.corrupt(x, torch.tensor([10, 600]), _generator())
    assert example.hidden.shape == (2, 128 if wavelet else 64)
    assert example.hidden.sum(1).tolist() == [64, 64] if wavelet else [32, 32]
    assert recipe.loss(example.noise, example).max() == 0
    restored = recipe.restored(example.noise, example)
    squares = restored.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # (B, 64, C, 4, 4)
    truth = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    seen = ~example.hidden.view(2, -1, 64)
    whole, none = seen.all(1), ~seen.any(1)
    assert torch.allclose(squares[whole], truth[whole], atol=1e-3)
    assert squares[none].abs().max() < 1e-6  # mid-grey
    assert recipe.restored(example.noise, replace_hidden(recipe, example, x)).shape == x.shape


def replace_hidden(recipe, example, x):
    """The same noise with nothing hidden."""
    clean = haar(x) if recipe.wavelet else x
    return replace(example, seen=add_noise(clean, example.t, example.noise, recipe.abar), hidden=None)


@pytest.mark.parametrize("wavelet", [False, True])
def test_errors_in_hidden_patches_do_not_count(wavelet):
    recipe = MaskDM(ratio=0.5, patch=2 if wavelet else 4, wavelet=wavelet)
    example = recipe.corrupt(golden_input((2, 3, 16, 16), 6), T, _generator())
    shown = recipe._shown(example.hidden, example.seen)
    assert recipe.loss(example.noise + 5 * (1 - shown), example).max() == 0
    once = recipe.loss(example.noise + shown, example)
    assert torch.allclose(once, torch.full((2,), 2.0 if wavelet else 1.0))  # approximation and details count alike


def test_stage_two_hides_nothing():
    x = golden_input((2, 3, 16, 16), 6)
    example = MaskDM(ratio=0.0).corrupt(x, T, _generator())
    assert example.hidden is None
    assert torch.equal(example.seen, add_noise(x, T, example.noise, MaskDM().abar))


def test_the_network_says_how_large_patches_are():
    recipe = MaskDM(ratio=0.5).for_network(UViTConfig(patch=8, wavelet=True))
    assert (recipe.patch, recipe.wavelet, recipe.ratio) == (8, True, 0.5)
    assert MaskDM(**json.loads(json.dumps(asdict(recipe)))) == recipe


def test_features_see_the_same_noise_wherever_tiles_begin():
    for recipe in (MaskDM(), MaskDM(wavelet=True)):
        x = golden_input((1, 3, 32, 32), 6).clamp(-1, 1)
        whole = recipe.feature_input(x, 50, [Place()])
        tile = recipe.feature_input(x[:, :, 8:24, 4:], 50, [Place(8, 4)])
        assert torch.equal(tile, whole[:, :, 8:24, 4:])
        assert torch.allclose(recipe.to_pixels(recipe.feature_input(x, 0, [Place()])), x, atol=0.2)


def test_impossible_shares_are_refused():
    for ratio in (1.0, -0.1):
        with pytest.raises(UsageError, match="share of hidden patches"):
            MaskDM(ratio=ratio)
