"""The masked autoencoder against numbers of the published implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.errors import UsageError
from mdm_studio.nn.mae import SIZES, MAEConfig, MaskedAutoencoder
from mdm_studio.nn.patches import from_patches, to_patches
from mdm_studio.testing import golden_fill, golden_input

GOLDEN = Path(__file__).parent.parent / "golden"
TINY = MAEConfig(image_size=32, dim=32, depth=3, heads=4, decoder_dim=16, decoder_depth=2, decoder_heads=4, eps=1e-5)
"""The golden network; its eps is PyTorch's own, that of the published models is 1e-6."""


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "golden.npz")


@pytest.fixture(scope="module")
def net():
    """The golden network: closed-form weights, its positions as they are."""
    net = MaskedAutoencoder(TINY).eval().requires_grad_(False)
    positions = net.pos_embed.clone(), net.decoder_pos_embed.clone()
    golden_fill(net)
    net.pos_embed.copy_(positions[0])
    net.decoder_pos_embed.copy_(positions[1])
    return net


def _close(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) <= 1e-5 * np.linalg.norm(expected)


def test_keys_are_the_published_ones_in_their_order(net):
    assert list(net.state_dict()) == json.loads((GOLDEN / "golden.json").read_text())["mae_keys"]


def test_positions_agree(net, golden):
    assert np.abs(net.pos_embed.numpy() - golden["mae_pos"]).max() < 1e-6
    assert not MaskedAutoencoder(TINY).pos_embed.requires_grad


def test_predictions_agree_and_only_visible_patches_are_encoded(net, golden):
    hidden = torch.from_numpy(golden["mae_mask"]).bool()
    lengths = []
    hook = net.blocks[0].register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    found = net(golden_input((2, 3, 32, 32), 15), torch.zeros(2), hidden=hidden)
    hook.remove()
    assert _close(found, golden["mae_pred"])
    assert lengths == [1 + 4]


def test_features_are_the_blocks_outputs_before_the_norm(net, golden):
    maps = net.features(golden_input((2, 3, 32, 32), 15), torch.zeros(2), {0, 2})
    assert {block: tuple(values.shape) for block, values in maps.items()} == {0: (2, 32, 4, 4), 2: (2, 32, 4, 4)}
    tokens = net.norm(maps[2].flatten(2).transpose(1, 2))
    # the published code shuffles even where it hides nothing
    shuffled = golden_input((2, 16), 14).argsort(1)[:, :, None].expand(-1, -1, 32)
    assert _close(tokens.gather(1, shuffled), golden["mae_latent_full"][:, 1:])
    blocks = []
    hooks = [block.register_forward_hook(lambda *_, i=i: blocks.append(i)) for i, block in enumerate(net.blocks)]
    net.features(golden_input((1, 3, 32, 32), 15), torch.zeros(1), {0})
    for hook in hooks:
        hook.remove()
    assert blocks == [0]


def test_larger_and_smaller_images_are_read_by_windows(net):
    x = golden_input((2, 3, 40, 96), 3)
    assert net.features(x, torch.zeros(2), {1})[1].shape == (2, 32, 5, 12)
    assert net.features(x[:, :, :8, :16], torch.zeros(2), {1})[1].shape == (2, 32, 1, 2)
    with pytest.raises(ValueError, match="40 x 96"):
        net(x, torch.zeros(2))


def test_rows_that_hide_different_numbers_are_refused(net):
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 3] = True
    with pytest.raises(ValueError, match=r"\[15, 16\]"):
        net(golden_input((2, 3, 32, 32), 15), torch.zeros(2), hidden=hidden)


def test_patches_and_back():
    x = golden_input((2, 3, 24, 16), 1)
    patches = to_patches(x, 8)
    assert patches.shape == (2, 6, 192)
    assert torch.equal(patches[0, 1, :3], x[0, :, 0, 8])  # channels are innermost
    assert torch.equal(from_patches(patches, 8, 24, 16), x)


@pytest.mark.parametrize(("size", "params", "blocks"), [("mae-base", 112_229_824, 6), ("mae-large", 329_928_384, 12)])
def test_paper_sizes(size, params, blocks):
    config = SIZES[size]
    with torch.device("meta"):
        net = MaskedAutoencoder(config)
    assert sum(p.numel() for p in net.parameters()) == params
    assert len(config.default_blocks) == blocks
    assert config.default_blocks[-1] == config.n_blocks - 1


def test_shapes_that_cannot_be():
    assert TINY.for_crop(64).patches == 64
    with pytest.raises(UsageError, match="100 pixels"):
        TINY.for_crop(100)
    with pytest.raises(UsageError, match="heads"):
        MAEConfig(heads=5)
