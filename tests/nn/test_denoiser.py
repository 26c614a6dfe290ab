"""Denoisers: a decoder over any encoder, and encoders that stay as they are."""

import dataclasses
import json

import pytest
import torch

from mdm_studio.nn.denoiser import SIZES, Denoiser, DenoiserConfig
from mdm_studio.nn.hub import build_model, probed

TINY = dataclasses.replace(
    SIZES["tiny"],
    model=SIZES["tiny"].model | {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16]},
    map_channels=(8, 8, 8, 16, 16),
    widths=(16, 8, 8, 8, 8),
)
T = torch.zeros(2, dtype=torch.long)


def test_sizes_describe_their_encoders():
    config = SIZES["tiny"]
    assert probed(build_model(config.model), config) == config
    with torch.device("meta"):
        net = Denoiser(SIZES["3x"])
    assert [SIZES["1x"].block_shape(b) for b in range(5)] == [(1024, 16), (512, 8), (256, 4), (128, 2), (64, 1)]
    assert net.decoder[0].conv1.weight.shape == (3072, 2048 + 1024, 3, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_prediction_and_features(channels):
    config = dataclasses.replace(TINY, in_channels=channels, out_channels=channels)
    config = DenoiserConfig.from_json(json.loads(json.dumps(dataclasses.asdict(config))))
    net = Denoiser(config).eval()
    x = torch.rand(2, channels, 64, 96) * 2 - 1
    assert net(x, T).shape == x.shape
    assert not net(x, T).any()  # before the first step
    maps = net.features(x, T, range(config.n_blocks))
    for block, values in maps.items():
        width, stride = config.block_shape(block)
        assert values.shape == (2, width, 64 // stride, 96 // stride)
    few = net.features(x, T, {1})
    assert few.keys() == {1}
    assert torch.equal(few[1], maps[1])


@pytest.mark.parametrize(
    ("strides", "chain"), [((14,) * 5, (14, 7, 2, 1)), ((16,) * 5, (16, 8, 4, 2, 1)), ((4, 8, 16, 32, 64), (16, 8, 4, 2, 1))]
)
def test_strides(strides, chain):
    config = dataclasses.replace(TINY, map_strides=strides)
    assert config.strides == chain
    assert config.block_shape(config.n_blocks - 1) == (8, 1)
    assert config.default_blocks == tuple(range(len(chain) - 1))


def test_over_a_transformer():
    """Of one stride, an odd one: four of its maps are where the decoder begins."""
    from transformers import AutoConfig

    facts = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    encoder = AutoConfig.for_model("dinov2", **facts, out_features=["stem", *(f"stage{i}" for i in range(1, 5))])
    values = json.loads(encoder.to_json_string(use_diff=False))
    config = probed(build_model(values), dataclasses.replace(TINY, model=values, maps=tuple(encoder.out_features)))
    net = Denoiser(config).eval()
    assert net.decoder[0].conv1.weight.shape[1] == 4 * 8
    assert net(torch.rand(2, 3, 28, 42), T).shape == (2, 3, 28, 42)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_encoder(frozen):
    """Bit for bit, the statistics of its batch norms too."""
    net = Denoiser(dataclasses.replace(TINY, frozen_encoder=frozen)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        x = torch.rand(2, 3, 32, 32)
        (net(x, T) - x).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("decoder.") for name in changed)
    assert any(name.startswith("encoder.") for name in changed) is not frozen
    assert any("running_mean" in name and name.startswith("encoder.") for name in changed) is not frozen


def test_an_encoder_of_one_size():
    """Where positions are learned for one size, larger images are seen in windows."""
    net = Denoiser(dataclasses.replace(TINY, side=64)).eval()
    assert net(torch.rand(2, 3, 96, 128), T).shape == (2, 3, 96, 128)
