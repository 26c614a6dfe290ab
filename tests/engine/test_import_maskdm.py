"""Checkpoints of MaskDM's training script become backbones."""

import json

import pytest
import torch

from mdm_studio.engine.backbones import BackboneCard, load_backbone
from mdm_studio.engine.checkpoint_import import import_checkpoint
from mdm_studio.errors import CheckpointError
from mdm_studio.io.backbone_files import CARD
from mdm_studio.nn.uvit import UViT, UViTConfig
from mdm_studio.testing import golden_fill

OPTIONS = {"image_size": 16, "dim": 32, "depth": 4, "heads": 4}
CONFIG = UViTConfig(**OPTIONS, patch=4)


@pytest.fixture(autouse=True)
def _data(tmp_path, monkeypatch):
    monkeypatch.setenv("MDM_STUDIO_DATA", str(tmp_path / "data"))


def _state(config=CONFIG):
    net = UViT(config)
    golden_fill(net)
    return net.state_dict()


def _wrapped(state):
    """As the training script saves it: the diffusion around the network, its tables, and the averages beside it."""
    tables = {name: torch.zeros(1000) for name in ("betas", "alphas_cumprod", "p2_loss_weight")}
    raw = {f"model.{name}": torch.zeros_like(value) for name, value in state.items()}
    averaged = {f"ema_model.model.{name}": value for name, value in state.items()}
    averaged |= {f"ema_model.{name}": value for name, value in tables.items()}
    online = {f"online_model.model.{name}": torch.zeros_like(value) for name, value in state.items()}
    ema = averaged | online | {"initted": torch.tensor([True]), "step": torch.tensor([5])}
    return {"step": 5, "model": tables | raw, "ema": ema, "opt": {"state": {}}, "scaler": None, "version": "1.0"}


@pytest.mark.parametrize("wrapper", ["averaged", "raw alone", "plain"])
def test_import(tmp_path, wrapper):
    state, path = _state(), tmp_path / "model.pt"
    saved = _wrapped(state)
    if wrapper == "raw alone":
        del saved["ema"]
        saved["model"] |= {f"model.{name}": value for name, value in state.items()}
    torch.save(state if wrapper == "plain" else saved, path)
    folder = import_checkpoint(path, name="mine", arch="uvit-tiny", options=OPTIONS)
    backbone = load_backbone(folder)
    assert all(torch.equal(value, state[name]) for name, value in backbone.net.state_dict().items())
    assert (backbone.recipe.patch, backbone.recipe.ratio) == (4, 0.0)
    assert backbone.features(torch.zeros(1, 3, 24, 16), 50, {2})[2].shape == (1, 32, 6, 4)
    assert BackboneCard.read(folder).timesteps == (50,)
    assert json.loads((folder / CARD).read_text())["arch"]["kind"] == "uvit"


def test_biases_of_attention_come_in_two_pieces(tmp_path):
    options = OPTIONS | {"wavelet": True, "qkv_bias": True, "patch": 2}
    state = _state(UViTConfig(**options))
    split = {}
    for name, value in state.items():
        if name.endswith("attn.qkv.bias"):
            value[32:64] = 0
            split |= {name.replace("qkv.bias", "q_bias"): value[:32], name.replace("qkv.bias", "v_bias"): value[64:]}
        else:
            split[name] = value
    torch.save(split, tmp_path / "model.pt")
    backbone = load_backbone(import_checkpoint(tmp_path / "model.pt", name="mine", arch="uvit-tiny", options=options))
    assert all(torch.equal(value, state[name]) for name, value in backbone.net.state_dict().items())
    assert backbone.recipe.wavelet


def test_another_network_is_refused_with_the_differing_keys(tmp_path):
    torch.save(_wrapped(_state()), tmp_path / "model.pt")
    options = OPTIONS | {"depth": 6, "image_size": 32}
    with pytest.raises(CheckpointError, match=r"missing: encoder.in_blocks.2.*shape: encoder.encoder_pos_embed is \(1, 17"):
        import_checkpoint(tmp_path / "model.pt", name="mine", arch="uvit-tiny", options=options)
