"""The UNet's recipes, trained for a few hundred steps on real images in a size for tests: what comes out is of use."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from mdm_studio.config import resource
from mdm_studio.engine.backbones import BackboneCard, load_backbone, with_noise
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, predict_points, sample_features, train_ensemble
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.errors import UsageError
from mdm_studio.io.images import find_images, open_image
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.labels import read_labels
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.services.pretraining import make_recipe, plan, recipe_config, run

TINY = UNetConfig(model_channels=32, channel_mult=(1, 2), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)
CONFIG = PretrainConfig(crop=32, batch=4, warmup=20, lr=2e-3, precision="fp32", device="cpu", ema=0.9)
SAMPLES = "samples/nuclei"


def trained(out, recipe, settings, steps=120):
    paths = find_images([str(resource(f"{SAMPLES}/images"))])
    budget = {"steps": steps, "checkpoint_every": steps}
    job, _ = plan(paths, name="tiny", recipe=recipe, recipe_settings=settings, config=CONFIG, **budget)
    folder = JobFolder(out)
    network = dataclasses.replace(TINY, in_channels=3, out_channels=job.network.out_channels)
    folder.create(dataclasses.replace(job, network=network).to_json())
    list(run(folder))
    return folder


def pixels(backbone, path, seed):
    """Features and classes of some pixels of an image, as many of each class; no classical filters beside them."""
    settings = FeatureSettings.of(backbone, filters=False)
    with open_image(path) as image:
        plane = image.plane(0)
        truth = read_labels(resource(f"{SAMPLES}/masks") / f"{path.stem}.png", plane.shape[1:], 0) > 0
        rng = np.random.default_rng(seed)
        chosen = np.concatenate([rng.choice(np.flatnonzero(truth == value), 200) for value in (False, True)])
        rows, cols = np.unravel_index(chosen, truth.shape)
        source = PlaneFeatures(backbone, plane, settings)
        assert len(source.grid) == 1
        return sample_features(source.maps(0, 0), rows, cols), truth[rows, cols].astype(np.intp)


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
    folder = trained(tmp_path / "job", recipe, settings)
    losses = [row["loss"] for row in folder.read_metrics()]
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:10])
    assert list(folder.samples.glob("*.png"))
    backbone = load_backbone(folder.backbone)
    assert backbone.card.recipe == {"name": recipe, **dataclasses.asdict(make_recipe(recipe, settings))}
    paths = find_images([str(resource(f"{SAMPLES}/images"))])[:2]
    (x, y), (unseen, truth) = (pixels(backbone, path, seed) for seed, path in enumerate(paths))
    for step in train_ensemble(x, y, 2, EnsembleConfig(members=2, max_epochs=20)):
        last = step
    assert balanced_accuracy_score(truth, predict_points(last.snapshot(), unseen).labels) > 0.65


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
        ({"recipe": "ddpm", "size": "huge"}, "choose one of small, base, mdm-192, adm-256"),
        ({"encoder": "microsoft/resnet-50"}, "--encoder goes with the recipes dep and ddep"),
        ({"recipe": "mbm"}, "no recipe called 'mbm'"),
        ({"recipe": "dep", "config": dataclasses.replace(CONFIG, batch=1)}, "two crops at least"),
    ],
)
def test_plans_that_cannot_work(wrong, message):
    paths = find_images([str(resource(f"{SAMPLES}/images"))])[:1]
    with pytest.raises(UsageError, match=message):
        plan(paths, **({"name": "x", "config": CONFIG, "steps": 1} | wrong))
