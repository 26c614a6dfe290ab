"""The MDM and DDPM recipes: what is seen, what is wanted, one loss a sample, what features are taken of."""

from itertools import pairwise

import pytest
import torch

from mdm_studio.engine.recipes import Example, Place, Recipe, seeded
from mdm_studio.engine.recipes.ddpm import DDPM
from mdm_studio.engine.recipes.mdm import MDM
from mdm_studio.errors import UsageError
from mdm_studio.testing import golden_input


@pytest.mark.parametrize(("rounding", "hidden"), [("paper", 15), ("released", 16)])
def test_share_of_hidden_patches(rounding, hidden):
    x = golden_input((2, 3, 64, 64), 6) + 2  # nowhere zero
    example = MDM(rounding=rounding).corrupt(x, torch.tensor([250, 0]), torch.Generator().manual_seed(0))
    assert example.target is x
    assert (example.seen[0] == 0).sum().item() == hidden * 8 * 8 * 3
    assert torch.equal(example.seen[1], x[1])


def test_masks_depend_on_the_generator_alone():
    x, t = golden_input((2, 3, 64, 64), 6), torch.tensor([500, 900])
    first, second, other = (MDM().corrupt(x, t, torch.Generator().manual_seed(seed)).seen for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "recipe", [MDM(), MDM(objective="mse"), DDPM(predict="image"), DDPM(predict="image", objective="ssim")]
)
def test_a_right_image_costs_nothing_and_is_the_picture(recipe):
    x = golden_input((2, 3, 32, 32), 6).clamp(-1, 1)
    example = recipe.corrupt(x, torch.tensor([10, 600]), torch.Generator().manual_seed(0))
    losses = recipe.loss(x, example)
    assert losses.shape == (2,)
    assert losses.max() < 1e-6
    assert recipe.out_channels(5) == 5
    assert torch.equal(recipe.restored(x, example), x)


def test_right_noise_costs_nothing_and_gives_the_image_back():
    recipe = DDPM(schedule="cosine")
    x = golden_input((2, 3, 32, 32), 6).clamp(-1, 1)
    example = recipe.corrupt(x, torch.tensor([10, 600]), torch.Generator().manual_seed(0))
    assert recipe.loss(example.noise, example).max() == 0
    assert torch.allclose(recipe.restored(example.noise, example), x, atol=1e-4)


def test_a_learned_variance_doubles_the_channels_and_costs_more():
    recipe, plain = DDPM(learn_sigma=True), DDPM()
    x = golden_input((2, 3, 16, 16), 6).clamp(-1, 1)
    example = recipe.corrupt(x, torch.tensor([0, 600]), torch.Generator().manual_seed(0))
    prediction = torch.cat([0.5 * example.noise, torch.zeros_like(x)], dim=1)
    assert recipe.out_channels(3) == 6
    assert (recipe.loss(prediction, example) > plain.loss(prediction[:, :3], example)).all()


@pytest.mark.parametrize("recipe", [MDM(fixed_t=50), DDPM(fixed_t=50)])
def test_a_fixed_timestep_is_the_only_one(recipe):
    assert recipe.draw_timesteps(5, torch.Generator()).unique().tolist() == [50]


def test_timesteps_are_uniform_and_zero_where_there_are_none():
    drawn = MDM().draw_timesteps(4000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0 < drawn.max() < 1000
    assert abs(drawn.float().mean() - 499.5) < 20
    assert Recipe().draw_timesteps(3, torch.Generator()).tolist() == [0, 0, 0]


def test_features_of_mdm_are_those_of_the_whole_image():
    x = golden_input((1, 3, 32, 32), 6)
    assert torch.equal(MDM().feature_input(x, 500, [Place()]), x)


def test_published_noise_of_features():
    """One square of 256 x 256 by a generator with seed 0, for all images and timesteps (Baranchuk et al. 2022, code)."""
    x, recipe = golden_input((1, 3, 256, 256), 6), DDPM()
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    abar = recipe.abar[150]
    wanted = abar.sqrt().float() * x + (1 - abar).sqrt().float() * noise
    assert torch.allclose(recipe.feature_input(x, 150, [Place()]), wanted, atol=1e-6)


@pytest.mark.parametrize("noise", ["fixed", "per-timestep", "fresh"])
def test_noise_of_features_agrees_where_windows_overlap(noise):
    x, recipe = torch.zeros(1, 3, 300, 300), DDPM(noise=noise)
    whole = recipe.feature_input(x, 250, [Place(-32, -32, 7)])
    part = recipe.feature_input(x[..., :64, :96], 250, [Place(168, 68, 7)])
    assert torch.equal(whole[..., 200:264, 100:196], part)


def test_what_noise_of_features_depends_on():
    x = torch.zeros(1, 3, 32, 32)

    def of(noise, t, image):
        recipe = DDPM(noise=noise)
        return recipe.feature_input(x, t, [Place(0, 0, image)]) / (1 - recipe.abar[t]).sqrt().float()

    assert torch.allclose(of("fixed", 50, 1), of("fixed", 250, 2), atol=1e-6)
    assert torch.allclose(of("per-timestep", 50, 1), of("per-timestep", 50, 2), atol=1e-6)
    assert not torch.allclose(of("per-timestep", 50, 1), of("per-timestep", 250, 1), atol=0.1)
    assert not torch.allclose(of("fresh", 50, 1), of("fresh", 50, 2), atol=0.1)
    assert torch.equal(of("fresh", 50, 1), of("fresh", 50, 1))
    assert DDPM(noise="fresh").per_image
    assert not DDPM().per_image


@pytest.mark.parametrize("settings", [{"objective": "ssim"}, {"learn_sigma": True, "predict": "image"}])
def test_settings_that_contradict_each_other(settings):
    with pytest.raises(UsageError, match="choose predict="):
        DDPM(**settings)


def test_seeds_of_several_numbers():
    drawn = [torch.rand(1, generator=seeded(*numbers)).item() for numbers in ((1, 2), (2, 1), (1,), (1, 2))]
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]


def test_an_example_needs_no_noise():
    x = torch.zeros(1, 1, 2, 2)
    assert Example(x, x, x, torch.zeros(1)).hidden is None


def test_another_noise_is_another_key_of_cached_features():
    keys = [DDPM(noise=noise).feature_key for noise in ("fixed", "per-timestep", "fresh")]
    assert all(one != other for one, other in pairwise(keys))
    assert MDM().feature_key == {}
