"""The U-ViT against numbers of MaskDM's own implementation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.errors import UsageError
from mdm_studio.nn.patches import to_patches
from mdm_studio.nn.uvit import SIZES, UViT, UViTConfig, coefficients, interleaved
from mdm_studio.testing import golden_fill, golden_input

GOLDEN = Path(__file__).parent.parent / "golden"
ARRAYS, FACTS = np.load(GOLDEN / "golden.npz"), json.loads((GOLDEN / "golden.json").read_text())
TINY = UViTConfig(image_size=16, patch=4, dim=32, depth=4, heads=4)
X, T = golden_input((2, 3, 16, 16), 11), torch.tensor([10, 700])


def hidden_patches():
    """Those of the golden numbers: what the one image hides, the other shows."""
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, [0, 2, 4, 7, 8, 11, 13, 15]] = True
    hidden[1] = ~hidden[0]
    return hidden


def filled(config=TINY):
    """Weights of the golden numbers."""
    net = UViT(config).eval()
    golden_fill(net)
    return net


def _agrees(found, expected):
    return np.linalg.norm(found.numpy() - expected) <= 1e-5 * np.linalg.norm(expected)


def test_keys_are_those_of_the_checkpoints():
    net = UViT(TINY)
    assert list(net.state_dict())[:6] == FACTS["uvit"]["keys"]
    assert len(net.state_dict()) == FACTS["uvit"]["n"]
    assert sum(p.numel() for p in net.parameters()) == FACTS["uvit"]["params"]


@torch.no_grad()
def test_predictions_agree_with_maskdm():
    net, hidden = filled(), hidden_patches()
    assert _agrees(net(X, T), ARRAYS["uvit_full"])
    made = to_patches(net(X, T, hidden=hidden), 4)
    assert _agrees(made[~hidden].view(2, 8, 48), ARRAYS["uvit_masked"])
    assert not made[hidden].any()


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [("S64", "maskdm-s", 64), ("S256", "maskdm-s", 256), ("B256", "maskdm-b", 256), ("L256", "maskdm-l", 256)],
)
def test_paper_sizes_have_the_published_counts(name, size, side):
    config = SIZES[size].for_crop(side)
    with torch.device("meta"):
        net = UViT(config)
    assert [sum(p.numel() for p in net.parameters()), config.n_blocks] == FACTS[f"maskdm_params_{name}"]


@torch.no_grad()
def test_hidden_patches_are_not_computed_and_not_looked_at():
    net, hidden = filled(), hidden_patches()
    rows = []
    net.encoder.mid_block.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    made = net(X, T, hidden=hidden)
    other = X.clone()
    other[0, :, :4, :4] += 1  # patch 0, hidden in the first image
    assert torch.equal(net(other, T, hidden=hidden), made)
    assert rows == [9, 9]  # the time and 8 of 16 patches
    assert torch.allclose(net(X, T, hidden=torch.zeros(2, 16, dtype=torch.bool)), net(X, T), atol=1e-5)


@torch.no_grad()
def test_features_are_the_blocks_outputs_as_maps():
    net = filled()
    given = []
    net.encoder.out_blocks[0].register_forward_hook(lambda _, __, out: given.append(out))
    net.encoder.out_blocks[1].register_forward_hook(lambda *_: pytest.fail("a block after the last one was computed"))
    maps = net.features(X, T, {0, 3})
    assert {block: tuple(values.shape) for block, values in maps.items()} == {0: (2, 32, 4, 4), 3: (2, 32, 4, 4)}
    assert TINY.block_shape(3) == (32, 4)
    assert torch.equal(maps[3][1, :, 2, 3], given[0][1, 1 + 2 * 4 + 3])


@torch.no_grad()
def test_features_of_any_size():
    net = filled()
    maps = net.features(golden_input((2, 3, 20, 36), 1), T, {1})
    assert maps[1].shape == (2, 32, 5, 9)
    assert net.features(X[:, :, :8, :12], T, {1})[1].shape == (2, 32, 2, 3)


@torch.no_grad()
def test_wavelet_tokens():
    config = replace(TINY, patch=2, wavelet=True, qkv_bias=True)
    net = filled(config)
    assert (config.patches, config.total_stride, config.block_shape(0)) == (32, 4, (64, 4))
    assert net(X, T).shape == X.shape
    assert net.features(X, T, {4})[4].shape == (2, 64, 4, 4)
    hidden = torch.zeros(2, 32, dtype=torch.bool)
    hidden[:, [0, 17, 18]] = True  # the first patch of the approximation, the second and third of the details
    approximation, details = coefficients(net(X, T, hidden=hidden), 3)
    assert not approximation[:, :, :2, :2].any()
    assert not details[:, :, :2, 2:6].any()
    assert (approximation.count_nonzero(), details.count_nonzero()) == (2 * 3 * 60, 2 * 9 * 56)


def test_coefficients_and_their_places():
    x = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    approximation, details = coefficients(x, 2)
    assert approximation[0, :, 0, 0].tolist() == [0, 16]
    assert details[0, :, 0, 0].tolist() == [1, 17, 4, 20, 5, 21]  # horizontal of all channels, vertical, diagonal
    assert torch.equal(interleaved(approximation, details), x)


def test_unequal_rows_and_other_sizes_are_refused():
    net, hidden = UViT(TINY), torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 0] = True
    with pytest.raises(ValueError, match=r"\[15, 16\]"):
        net(X, T, hidden=hidden)
    with pytest.raises(ValueError, match="a mask of 15 patches: images of this network have 16"):
        net(X, T, hidden=hidden[:, 1:])
    with pytest.raises(ValueError, match="20 x 16: this network was made for 16 x 16"):
        net(golden_input((1, 3, 20, 16), 1), T)


@pytest.mark.parametrize("wrong", [{"image_size": 18}, {"heads": 5}, {"depth": 1}, {"out_channels": 6}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(UsageError):
        replace(TINY, **wrong)
