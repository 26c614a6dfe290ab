"""The UNet's recipes, trained for a few hundred steps on real images in a size for tests: what comes out is of use."""

import dataclasses

import numpy as np
import pytest

from mdm_studio.engine.backbones import BackboneCard, load_backbone, with_noise
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.errors import UsageError
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.services.pretraining import make_recipe, plan, recipe_config
from tests.sample_training import assert_averaged, losses, sample_images, score_on_another_image, trained

TINY = UNetConfig(model_channels=32, channel_mult=(1, 2), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)
CONFIG = PretrainConfig(crop=32, batch=4, warmup=20, lr=2e-3, precision="fp32", device="cpu", ema=0.9)


def _trained(out, recipe, settings, steps=120):
    budget = {"steps": steps, "checkpoint_every": steps}
    job, _ = plan(sample_images(), name="tiny", recipe=recipe, recipe_settings=settings, config=CONFIG, **budget)
    return trained(out, job, dataclasses.replace(TINY, in_channels=3, out_channels=job.network.out_channels))


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("mdm", {"objective": "mse", "patch": 4}),
        ("ddpm", {"learn_sigma": True, "schedule": "cosine", "noise": "fresh"}),
        ("ddpm", {"predict": "image", "objective": "ssim", "fixed_t": 250}),
    ],
    ids=["mdm", "ddpm", "vanilla"],
)
def test_a_recipe_learns_and_its_features_tell_classes_apart(tmp_path, recipe, settings):
    folder = _trained(tmp_path / "job", recipe, settings)
    assert np.mean(losses(folder)[-30:]) < 0.9 * np.mean(losses(folder)[:10])
    assert list(folder.samples.glob("*.png"))
    assert BackboneCard.read(folder.backbone).recipe == {"name": recipe, **dataclasses.asdict(make_recipe(recipe, settings))}
    assert_averaged(folder)
    assert score_on_another_image(folder) > 0.65


def test_noise_of_features_is_chosen_where_there_is_some(tiny_backbone):
    card = BackboneCard.read(tiny_backbone)
    denoiser = dataclasses.replace(card, recipe={"name": "ddpm", **dataclasses.asdict(make_recipe("ddpm", {}))})
    assert with_noise(denoiser, "fresh").recipe["noise"] == "fresh"
    with pytest.raises(UsageError, match="one of fixed, per-timestep, fresh"):
        with_noise(denoiser, "pink")
    with pytest.raises(UsageError, match="no choice of noise"):
        load_backbone(tiny_backbone, noise="fresh")


def test_settings_of_a_recipe_are_checked():
    assert make_recipe("ddpm", {"schedule": "cosine"}).schedule == "cosine"
    with pytest.raises(UsageError, match=r"no setting 'colour'; it has .*patch"):
        make_recipe("mdm", {"colour": 1})
    with pytest.raises(UsageError, match=r"one of linear, cosine, not 'quadratic'"):
        make_recipe("ddpm", {"schedule": "quadratic"})
    with pytest.raises(UsageError, match="patch of the recipe mdm is int, not '8 px'"):
        make_recipe("mdm", {"patch": "8 px"})


def test_a_recipe_has_its_own_numbers_unless_others_are_given():
    assert recipe_config("mdm").betas == (0.9, 0.999)
    assert recipe_config("mdm", lr=1e-5).lr == 1e-5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"recipe": "ddpm", "size": "huge"}, "choose one of small, lean, base, mdm-192, adm-256"),
        ({"encoder": "microsoft/resnet-50"}, "--encoder goes with the recipes dep and ddep"),
        ({"recipe": "mbm"}, "no recipe called 'mbm'"),
        ({"recipe": "dep", "config": dataclasses.replace(CONFIG, batch=1)}, "two crops at least"),
    ],
)
def test_plans_that_cannot_work(wrong, message):
    with pytest.raises(UsageError, match=message):
        plan(sample_images()[:1], **({"name": "x", "config": CONFIG, "steps": 1} | wrong))
