"""What is hidden from a backbone in its own way, and where its answer is judged."""

import dataclasses

import pytest
import torch

from mdm_studio.engine.backbones import BackboneCard, load_recipe, untrained_backbone
from mdm_studio.engine.hiding import hidings, restore
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.nn.uvit import UViTConfig
from mdm_studio.testing import golden_input

NETWORKS = {
    "unet": UNetConfig(model_channels=32, channel_mult=(1,), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8),
    "uvit": UViTConfig(image_size=32, dim=32, depth=2, heads=2),
    "wavelet": UViTConfig(image_size=32, dim=32, depth=2, heads=2, wavelet=True),
}


def _way(recipe, levels=(0.9,)):
    return hidings(load_recipe(recipe), recipe["name"], levels)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"name": "mdm"}, ["90% of the patches hidden", "50% of the patches hidden"]),
        ({"name": "mdm", "fixed_t": 250}, ["25% of the patches hidden"]),
        ({"name": "mae"}, ["90% of the patches hidden", "50% of the patches hidden"]),
        ({"name": "ddep"}, ["noise, 5% of the variance"]),
        ({"name": "ddpm", "schedule": "linear"}, ["noise, 90% of the variance", "noise, 50% of the variance"]),
        ({"name": "ddpm", "schedule": "cosine", "fixed_t": 500}, ["noise, 51% of the variance"]),
        ({"name": "maskdm", "ratio": 0.5}, [f"noise, {n}% of the variance, 50% of the patches left out" for n in (90, 50)]),
        ({"name": "maskdm", "ratio": 0}, ["noise, 90% of the variance", "noise, 50% of the variance"]),
    ],
)
def test_each_recipe_hides_in_its_own_way(recipe, words):
    assert [way.words for way in _way(recipe, (0.9, 0.5))] == words


@pytest.mark.parametrize(
    ("kind", "recipe", "judged"),
    [
        ("unet", {"name": "mdm", "patch": 4}, 0.89),  # 57 of 64 patches
        ("unet", {"name": "ddpm"}, 1),
        ("uvit", {"name": "maskdm", "ratio": 0.5}, 0.5),
        ("uvit", {"name": "maskdm", "ratio": 0.0}, 1),
        ("wavelet", {"name": "maskdm", "ratio": 0.0, "wavelet": True}, 1),
    ],
)
def test_the_answer_is_judged_where_the_network_had_to_find_it_out(kind, recipe, judged):
    card = BackboneCard("tiny", "", {"kind": "unet" if kind == "unet" else "uvit"}, recipe)
    backbone = untrained_backbone(NETWORKS[kind], card)
    x = golden_input((2, 3, 32, 32), 1).clamp(-0.9, 0.9)
    found = restore(backbone, _way(recipe)[0], x, torch.Generator().manual_seed(0))
    assert found.image.shape == found.seen.shape == x.shape
    assert found.judged.float().mean().item() == pytest.approx(judged, abs=0.01)
    shown = (found.image - x).square().mean(dim=1, keepdim=True)[found.judged]
    assert found.error.mean().item() == pytest.approx(shown.mean().item(), rel=1e-4)
    assert found.variance.mean().item() == pytest.approx(x.var(dim=(2, 3)).mean().item(), rel=0.2)
    assert found.relative > 0.3
    again = restore(backbone, _way(recipe)[0], x, torch.Generator().manual_seed(0))
    assert torch.equal(again.error, found.error)


def test_masked_autoencoders_are_judged_at_hidden_patches():
    recipe = {"name": "mae", "patch": 8}
    config = dataclasses.replace(MAEConfig(), image_size=32, patch=8)
    backbone = untrained_backbone(config, BackboneCard("tiny", "", {"kind": "mae"}, recipe))
    found = restore(backbone, _way(recipe, (0.75,))[0], golden_input((2, 3, 32, 32), 1), torch.Generator().manual_seed(0))
    assert found.judged.float().mean().item() == 0.75
