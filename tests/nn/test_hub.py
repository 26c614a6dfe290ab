"""Encoders of transformers: rebuilt from JSON values, any size, in evaluation mode; tiny ones with random weights."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from mdm_studio.errors import BackboneError
from mdm_studio.nn.hub import HubConfig, HubEncoder, build_model, probed

FOUR = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}
VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
FAMILIES = {
    "resnet": FOUR | {"embedding_size": 8, "layer_type": "basic"},
    "convnext": FOUR,
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 7},
    "pvt_v2": FOUR | {"num_attention_heads": [1, 1, 2, 2]},
    "dinov2": VIT | {"image_size": 56, "patch_size": 14},
    "dinov2_with_registers": VIT | {"image_size": 56, "patch_size": 14},
    "dinov3_vit": VIT | {"image_size": 64, "patch_size": 16, "num_register_tokens": 2},
    "beit": VIT | {"image_size": 64, "patch_size": 16, "use_relative_position_bias": True},
    "focalnet": {"embed_dim": 8, "depths": [1, 1, 1, 1], "focal_levels": [1, 1, 1, 1]},
    "hiera": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": [64, 64]},
}
STRIDES = {"dinov2": 14, "dinov2_with_registers": 14, "dinov3_vit": 16, "beit": 16}


def described(family: str) -> HubConfig:
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **FAMILIES[family])
    config.out_features = list(config.stage_names)
    values = json.loads(config.to_json_string(use_diff=False))
    return probed(build_model(values), HubConfig(model=values, maps=tuple(config.out_features)))


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family):
    config = described(family)
    config = HubConfig.from_json(json.loads(json.dumps(dataclasses.asdict(config))))  # what a card keeps
    net = HubEncoder(config)
    with torch.device("meta"):
        again = HubEncoder(config)
    again.load_state_dict(net.state_dict(), assign=True)
    again.to("cpu")  # nothing is left without values
    align = STRIDES.get(family, 32)
    assert (config.total_stride, config.side) == (align, 64 if family == "hiera" else 0)
    x = torch.rand(1, 3, 2 * align, 3 * align) * 2 - 1
    t = torch.zeros(1, dtype=torch.long)
    maps = net.features(x, t, range(config.n_blocks))
    for block, values in again.features(x, t, range(config.n_blocks)).items():
        channels, stride = config.block_shape(block)
        assert values.shape == (1, channels, 2 * align // stride, 3 * align // stride)
        torch.testing.assert_close(values, maps[block])
        assert values.std() > 0
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_maps_worth_reading():
    strides = HubConfig(maps=("stem", *(f"stage{i}" for i in range(1, 5))), map_strides=(4, 4, 8, 16, 32))
    assert strides.default_blocks == (1, 2, 3, 4)
    assert dataclasses.replace(strides, map_strides=(1, 4, 8, 16, 32)).default_blocks == (1, 2, 3, 4)
    deep = HubConfig(maps=("stem", *(f"stage{i}" for i in range(1, 13))), map_strides=(14,) * 13)
    assert deep.default_blocks == (3, 6, 9, 12)
    assert dataclasses.replace(deep, maps=("stage1",), map_strides=(16,)).default_blocks == (0,)


def test_sees_normalised_images():
    """What the encoder sees of [-1, 1] is ``(image in [0, 1] - mean) / std``."""
    config = described("resnet")
    net = HubEncoder(config)
    x = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    with torch.no_grad():
        expected = net.encoder.model(pixel_values=(x - mean) / std).feature_maps[2]
    torch.testing.assert_close(net.features(x * 2 - 1, torch.zeros(1), {2})[2], expected)


def test_stays_in_evaluation_mode_and_predicts_nothing():
    net = HubEncoder(described("resnet"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train().features(torch.rand(2, 3, 32, 32), torch.zeros(2), {1})
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(BackboneError, match="predicts nothing"):
        net(torch.rand(1, 3, 32, 32), torch.zeros(1))


@pytest.mark.parametrize(("family", "facts"), [("nosuch", {}), ("resnet", {"layer_type": "odd"}), ("bert", {})])
def test_unknown_model(family, facts):
    with pytest.raises(BackboneError, match="cannot build the encoder"):
        build_model({"model_type": family, **facts})


def test_maps_that_are_no_squares(monkeypatch):
    model = torch.nn.Identity()
    for maps, words in ((lambda x: [x[..., ::2, :]], "in squares"), (lambda x: [x.flatten(2)], "gives no maps")):
        monkeypatch.setattr(model, "forward", lambda pixel_values, m=maps: SimpleNamespace(feature_maps=m(pixel_values)))
        with pytest.raises(BackboneError, match=words):
            probed(model, HubConfig(model={"model_type": "odd"}, maps=("only",)))


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"pip install mdm-studio\[hub\]"):
        build_model({"model_type": "resnet"})
