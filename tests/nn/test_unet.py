"""The UNet against numbers of the papers' own implementation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mdm_studio.nn.layers import NormStatistics, convolve_doubled
from mdm_studio.nn.unet import SIZES, UNet, UNetConfig
from mdm_studio.testing import golden_fill, golden_input

GOLDEN = Path(__file__).parent.parent / "golden"
_ADM = UNetConfig(
    out_channels=6, model_channels=32, channel_mult=(1, 2, 4), attention_ds=(2, 4), num_head_channels=16
)  # the small network of the golden numbers
CASES = {
    "adm": _ADM,
    "ddpm": replace(_ADM, out_channels=3, num_heads=4, num_head_channels=-1, use_scale_shift_norm=False, resblock_updown=False),
    "neworder": replace(_ADM, out_channels=3, new_attention_order=True),
}


def _filled(config: UNetConfig) -> UNet:
    net = UNet(config).eval()
    golden_fill(net)
    return net


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_unet_agrees_with_guided_diffusion(name):
    arrays, facts = np.load(GOLDEN / "golden.npz"), json.loads((GOLDEN / "golden.json").read_text())[f"unet_{name}"]
    net = _filled(CASES[name])
    assert len(net.state_dict()) == facts["keys"]
    assert sum(p.numel() for p in net.parameters()) == facts["params"]
    x, t = golden_input((2, 3, 32, 32), 1), torch.tensor([50, 250])
    out = net(x, t)
    expected = arrays[f"unet_{name}_out"]
    assert np.linalg.norm(out.numpy() - expected) <= 1e-5 * np.linalg.norm(expected)
    maps = net.features(x, t, range(9))
    for block, (shape, mean, std) in facts["blocks"].items():
        values = maps[int(block)]
        assert list(values.shape) == shape
        channels, stride = CASES[name].block_shape(int(block))
        assert (channels, 32 // stride) == (shape[1], shape[2])
        expected = arrays[f"unet_{name}_b{block}"]
        error = np.linalg.norm(values[:, ::8, ::4, ::4].numpy() - expected) / np.linalg.norm(expected)
        assert error <= 1e-5
        assert values.mean().item() == pytest.approx(mean, abs=1e-4 * std)
        assert values.std().item() == pytest.approx(std, rel=1e-4)


@pytest.mark.parametrize(("size", "params"), [("mdm-192", 311_017_539), ("adm-256", 552_814_086)])
def test_paper_sizes_have_the_published_counts(size, params):
    with torch.device("meta"):
        net = UNet(SIZES[size])
    assert sum(p.numel() for p in net.parameters()) == params
    keys = list(net.state_dict())
    assert len(keys) == 566
    time_embed = ["time_embed.0.weight", "time_embed.0.bias", "time_embed.2.weight", "time_embed.2.bias"]
    assert keys[:5] == [*time_embed, "input_blocks.0.0.weight"]
    assert keys[-6:] == [
        "output_blocks.17.0.skip_connection.weight",
        "output_blocks.17.0.skip_connection.bias",
        "out.0.weight",
        "out.0.bias",
        "out.2.weight",
        "out.2.bias",
    ]


def test_block_shapes_of_the_papers():
    config = SIZES["adm-256"]
    assert [config.block_shape(b)[0] for b in (5, 6, 7, 8, 12)] == [1024, 512, 512, 512, 256]
    assert [256 // config.block_shape(b)[1] for b in (5, 6, 7, 8, 12)] == [32, 32, 32, 64, 128]
    assert sum(SIZES["mdm-192"].block_shape(b)[0] for b in range(8, 13)) == 1728


@torch.no_grad()
def test_class_conditioning_adds_an_embedding():
    net = _filled(replace(_ADM, num_classes=4))
    x, t = golden_input((2, 3, 32, 32), 1), torch.tensor([50, 250])
    assert "label_emb.weight" in net.state_dict()
    assert not torch.equal(net(x, t, torch.tensor([0, 1])), net(x, t, torch.tensor([2, 1])))


@torch.no_grad()
def test_decoder_stops_after_the_last_block_asked_for():
    net = _filled(_ADM)
    calls = []
    for index, block in enumerate(net.output_blocks):
        block.register_forward_hook(lambda *_, i=index: calls.append(i))
    net.features(golden_input((1, 3, 32, 32), 1), torch.tensor([50]), {2, 4})
    assert calls == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_stem_keeps_the_size_and_starts_at_zero():
    net = UNet(replace(SIZES["small"], model_channels=32)).eval()
    last = net.config.n_blocks - 1
    x = golden_input((1, 3, 48, 32), 1)
    assert torch.equal(net(x, torch.tensor([3])), torch.zeros(1, 3, 48, 32))
    assert net.features(x, torch.tensor([3]), {last})[last].shape == (1, 32, 24, 16)


@torch.no_grad()
def test_borrowed_statistics_of_one_image_change_nothing():
    net = _filled(replace(_ADM, attention_ds=(), middle_attention=False))
    x, t = golden_input((1, 3, 32, 32), 1), torch.tensor([50])
    statistics = NormStatistics().rewind(recording=True)
    plain = net.features(x, t, {8})[8]
    recorded = net.features(x, t, {8}, statistics=statistics)[8]
    applied = net.features(x, t, {8}, statistics=statistics.rewind(recording=False))[8]
    assert (plain - recorded).norm() <= 2e-4 * plain.norm()  # deep networks amplify the last bit
    assert torch.equal(recorded, applied)


def test_doubling_folded_into_the_convolution_is_exact():
    conv = torch.nn.Conv2d(3, 5, 3, padding=1).double()
    x = golden_input((2, 3, 5, 4), 1).double()
    found = []
    for call in (lambda x: convolve_doubled(x, conv), lambda x: conv(F.interpolate(x, scale_factor=2, mode="nearest"))):
        given = x.clone().requires_grad_()
        out = call(given)
        found.append((out, *torch.autograd.grad((out * out.sin()).sum(), [given, conv.weight, conv.bias])))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))


@torch.no_grad()
def test_training_takes_a_shorter_way_to_the_same_numbers():
    net = _filled(replace(_ADM, attention_ds=(), middle_attention=False, dropout=0.0))
    x, t = golden_input((2, 3, 32, 32), 1), torch.tensor([10, 900])
    trained, evaluated = net.train()(x, t), net.eval()(x, t)
    assert (trained - evaluated).norm() <= 1e-4 * evaluated.norm()
    assert not torch.equal(trained, evaluated)


def test_lean_is_as_deep_as_small_and_half_as_wide_at_its_finest():
    small, lean = SIZES["small"], SIZES["lean"]
    assert (lean.total_stride, lean.n_blocks) == (small.total_stride, small.n_blocks)
    assert lean.channels(0) * 2 == small.channels(0)
