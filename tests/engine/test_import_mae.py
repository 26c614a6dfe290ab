"""Published masked autoencoders as backbones."""

import argparse

import pytest
import torch

from mdm_studio.engine.backbones import describe, load_backbone
from mdm_studio.engine.checkpoint_import import import_checkpoint
from mdm_studio.errors import CheckpointError, UsageError
from mdm_studio.nn.mae import MAEConfig, MaskedAutoencoder
from mdm_studio.testing import golden_fill, golden_input

CONFIG = MAEConfig(image_size=48, patch=16, dim=32, depth=2, heads=2, decoder_dim=32, decoder_depth=1, decoder_heads=2)
OPTIONS = {"dim": 32, "depth": 2, "heads": 2, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}  # not sizes


@pytest.fixture(scope="module")
def net():
    net = MaskedAutoencoder(CONFIG).eval().requires_grad_(False)
    golden_fill(net)
    return net


def _imported(net, tmp_path, *, drop=(), **options):
    path = tmp_path / "checkpoint-1999.pth"
    state = {name: value for name, value in net.state_dict().items() if not name.startswith(drop)}
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 1999, "args": argparse.Namespace(lr=1e-4)}, path)
    return import_checkpoint(path, name="mine", arch="mae-tiny", options=OPTIONS | options)


def _wanted(net, x, *, imagenet):
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return net.features(((x + 1) / 2 - mean) / std if imagenet else x, torch.zeros(1), {1})[1]


@pytest.mark.parametrize("pixels", ["", "range"])
def test_features_are_those_of_the_checkpoint_on_its_own_pixels(net, tmp_path, pixels):
    backbone = load_backbone(_imported(net, tmp_path, **({"pixels": pixels} if pixels else {})))
    assert (backbone.net.config.image_size, backbone.net.config.patch) == (48, 16)
    assert (backbone.card.timesteps, backbone.card.blocks) == ((0,), (1,))
    assert (backbone.card.recipe["name"], backbone.card.recipe["patch"]) == ("mae", 16)
    x = golden_input((1, 3, 48, 48), 3).clamp(-1, 1)
    found, wanted = backbone.features(x, 0, {1})[1], _wanted(net, x, imagenet=pixels == "")
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_an_encoder_alone_gives_features_and_says_what_it_lacks(net, tmp_path):
    folder = _imported(net, tmp_path, drop=("mask_token", "decoder_"))
    assert "restores nothing" in describe(folder)["summary"]
    x = golden_input((1, 3, 48, 48), 3).clamp(-1, 1)
    wanted = _wanted(net, x, imagenet=True)
    assert (load_backbone(folder).features(x, 0, {1})[1] - wanted).norm() <= 1e-5 * wanted.norm()


def test_what_does_not_fit_is_refused(net, tmp_path):
    with pytest.raises(CheckpointError, match=r"missing: blocks\.1\.attn"):
        _imported(net, tmp_path, drop=("blocks.1",))
    with pytest.raises(CheckpointError, match=r"pos_embed is \(1, 10, 32\), wanted \(1, 37, 32\)"):
        _imported(net, tmp_path, image_size=96)
    with pytest.raises(CheckpointError, match=r"missing.*patch_embed\.proj\.weight"):
        _imported(net, tmp_path, drop=("patch_embed",))
    with pytest.raises(UsageError, match="imagenet or range"):
        _imported(net, tmp_path, pixels="bgr")
    grey = MaskedAutoencoder(MAEConfig(**{**vars(CONFIG), "in_channels": 1, "out_channels": 1}))
    with pytest.raises(UsageError, match="pixels=range"):
        _imported(grey, tmp_path)
