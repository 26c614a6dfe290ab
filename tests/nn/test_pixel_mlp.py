"""The stacked MLPs: each member as the published one, and prediction before upsampling as after it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.errors import UsageError
from mdm_studio.nn import pixel_mlp
from mdm_studio.nn.pixel_mlp import FeatureMap, PixelMLPEnsemble, cells_read, hidden_sizes, predict_pixels, predict_rows
from mdm_studio.testing import golden_fill, golden_input
from tests.peer_ensemble import PeerMLP, peer_features, stacked

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def golden_members(n_classes, n=5):
    members = []
    for j in range(n):
        member = PeerMLP(12, n_classes).eval()
        golden_fill(member)
        for name, value in member.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(value.abs() + 0.5)
            if value.is_floating_point():
                value.mul_(1 + 0.3 * j)
        members.append(member)
    return members


def random_ensemble(dims, n_classes, *, members=3, hidden=(16, 8), seed=0):
    """Nothing is zero, one or identity, so that a forgotten term shows."""
    generator = torch.Generator().manual_seed(seed)
    ensemble = PixelMLPEnsemble(dims, n_classes, members=members, hidden=hidden).reset(range(seed, seed + members)).eval()
    for name, value in ensemble.state_dict().items():
        drawn = torch.randn(value.shape, generator=generator)
        value.copy_(drawn.abs() + 0.5 if name in ("scale", "norm1.running_var", "norm2.running_var") else drawn * 0.3)
    return ensemble


def random_maps(height, width, strides, *, channels=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for i, s in enumerate(strides):
        full = (-(-height // s), -(-width // s))
        values = torch.randn(channels + i, *full, generator=generator).to(dtype)
        maps.append(FeatureMap(values, s, (0, 0), full))
    return maps


def upsampled(maps, height, width):
    """``(D, H, W)`` by PyTorch's own interpolation of the whole maps."""
    parts = []
    for m in maps:
        size = (m.values.shape[1] * m.stride, m.values.shape[2] * m.stride)
        parts.append(F.interpolate(m.values[None].float(), size=size, mode="bilinear")[0, :, :height, :width])
    return torch.cat(parts)


def cropped(maps, rows, cols, margin=0):
    """Only the cells that a window reads (and `margin` more)."""
    crops = []
    for m in maps:
        top, bottom = cells_read(rows.start, rows.stop, m.stride, m.full[0])
        left, right = cells_read(cols.start, cols.stop, m.stride, m.full[1])
        top, left = max(top - margin, 0), max(left - margin, 0)
        values = m.values[:, top : bottom + margin, left : right + margin]
        crops.append(FeatureMap(values, m.stride, (top, left), m.full))
    return crops


def predicted(ensemble, maps, rows, cols, members=None):
    """``(E, K, h, w)``; every pixel of every member exactly once."""
    members = members or ensemble.members
    logits = torch.full((members, ensemble.n_classes, rows.stop - rows.start, cols.stop - cols.start), torch.nan)
    for chunk in predict_pixels(ensemble, maps, rows, cols, members=members):
        part = logits[
            chunk.member,
            :,
            chunk.rows.start - rows.start : chunk.rows.stop - rows.start,
            chunk.cols.start - cols.start : chunk.cols.stop - cols.start,
        ]
        assert part.isnan().all()
        part.copy_(chunk.logits)
    assert not logits.isnan().any()
    return logits


@pytest.mark.parametrize("n_classes", [7, 34])
def test_logits_are_the_published_ones(n_classes):
    maps = [golden_input((1, c, s, s), k)[0] for c, s, k in ((6, 8, 8), (4, 16, 9), (2, 32, 10))]
    features = peer_features(maps, (32, 32))
    np.testing.assert_allclose(features, GOLDEN["feat"], atol=1e-6)
    ensemble = stacked(golden_members(n_classes))
    with torch.no_grad():
        logits = ensemble(features.flatten(1).t())
    assert logits.shape == (5, 1024, n_classes)
    np.testing.assert_allclose(logits[0], GOLDEN[f"logits0_{n_classes}"], atol=1e-5)
    ours = [FeatureMap(m, 32 // m.shape[1], (0, 0), tuple(m.shape[1:])) for m in maps]
    before_upsampling = predicted(ensemble, ours, slice(0, 32), slice(0, 32)).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(before_upsampling[0], GOLDEN[f"logits0_{n_classes}"], atol=1e-5)
    assert (before_upsampling - logits).norm() <= 1e-5 * logits.norm()


def test_hidden_sizes_as_published():
    assert hidden_sizes(2) == hidden_sizes(29) == (128, 32)
    assert hidden_sizes(30) == (256, 128)


def test_training_mode_is_that_of_separate_mlps():
    members = [PeerMLP(5, 3).train() for _ in range(3)]
    ensemble = stacked(members).train()
    x = torch.randn(3, 20, 5)
    logits = ensemble(x)
    expected = torch.stack([member(x[i]) for i, member in enumerate(members)])
    torch.testing.assert_close(logits, expected)
    (logits**2).sum().backward()
    (expected**2).sum().backward()
    for i, member in enumerate(members):
        torch.testing.assert_close(ensemble.linear1.weight.grad[i], member.layers[0].weight.grad)
        torch.testing.assert_close(ensemble.norm2.bias.grad[i], member.layers[5].bias.grad)
        torch.testing.assert_close(ensemble.norm1.running_var[i], member.layers[2].running_var)
        torch.testing.assert_close(ensemble.norm2.running_mean[i], member.layers[5].running_mean)


def test_pixels_shared_by_all_members():
    ensemble, x = random_ensemble(5, 3), torch.randn(7, 5)
    torch.testing.assert_close(ensemble(x), ensemble(x.expand(3, -1, -1)))


def test_reset_draws_each_member_from_its_own_seed():
    state = torch.get_rng_state()
    both = PixelMLPEnsemble(300, 4, members=2, hidden=(128, 32)).reset([5, 6])
    alone = PixelMLPEnsemble(300, 4, members=1, hidden=(128, 32)).reset([6])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(both.linear3.weight[1], alone.linear3.weight[0])
    assert not torch.equal(both.linear1.weight[0], both.linear1.weight[1])
    assert both.linear1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert both.linear2.bias.abs().max() == 0


def test_folding_is_exact():
    ensemble, x = random_ensemble(6, 4), torch.randn(50, 6)
    for member in range(3):
        m = ensemble.folded(member)
        second = F.linear(F.linear(x, m.weight1, m.bias1).relu(), m.weight2, m.bias2).relu()
        torch.testing.assert_close(F.linear(second, m.weight3, m.bias3), ensemble(x)[member], atol=1e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(1, 40), st.sampled_from([1, 2, 3, 4, 5, 8, 16]), st.integers(1, 9))
def test_cells_read_are_those_with_weight(start, length, stride, size):
    place = np.clip((np.arange(start, start + length) + 0.5) / stride - 0.5, 0, size - 1)
    assert cells_read(start, start + length, stride, size) == (np.floor(place).min(), np.ceil(place).max() + 1)


@pytest.mark.parametrize(
    ("size", "strides"),
    [((48, 32), (1, 2, 4, 8, 16)), ((37, 53), (4, 8, 4, 2)), ((19, 7), (3, 5)), ((1, 1), (8, 2)), ((2, 40), (16,))],
)
def test_prediction_before_upsampling_equals_after(size, strides):
    maps = random_maps(*size, strides)
    ensemble = random_ensemble(sum(len(m.values) for m in maps), 4)
    with torch.no_grad():
        expected = ensemble(upsampled(maps, *size).flatten(1).t())  # (E, N, K)
    logits = predicted(ensemble, maps, slice(0, size[0]), slice(0, size[1]))
    torch.testing.assert_close(logits.flatten(2).transpose(1, 2), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [(0, 37, 0, 53), (5, 6, 52, 53), (16, 32, 8, 24), (3, 37, 11, 50), (36, 37, 0, 1)])
@pytest.mark.parametrize("margin", [0, 2])
def test_windows_of_crops_equal_the_whole(window, margin):
    maps = random_maps(37, 53, (8, 1, 4, 2, 16, 3))
    ensemble = random_ensemble(sum(len(m.values) for m in maps), 3)
    whole = predicted(ensemble, maps, slice(0, 37), slice(0, 53))
    rows, cols = slice(*window[:2]), slice(*window[2:])
    part = predicted(ensemble, cropped(maps, rows, cols, margin), rows, cols)
    torch.testing.assert_close(part, whole[:, :, rows, cols], atol=1e-5, rtol=1e-5)


def test_small_blocks_and_chunks_change_nothing(monkeypatch):
    maps = random_maps(40, 50, (8, 4, 2))
    ensemble = random_ensemble(sum(len(m.values) for m in maps), 3)
    whole = predicted(ensemble, maps, slice(1, 40), slice(2, 50))
    monkeypatch.setattr(pixel_mlp, "_BLOCK_BYTES", 20_000)
    monkeypatch.setattr(pixel_mlp, "_BLOCK_WIDTH", 17)
    monkeypatch.setattr(pixel_mlp, "_CHUNK_BYTES", 2_000)
    torch.testing.assert_close(predicted(ensemble, maps, slice(1, 40), slice(2, 50)), whole, atol=1e-5, rtol=1e-5)


def test_without_onednn_the_same(monkeypatch):
    maps = random_maps(20, 20, (4, 2))
    ensemble = random_ensemble(7, 3)
    fused = predicted(ensemble, maps, slice(0, 20), slice(0, 20))
    monkeypatch.setattr(pixel_mlp, "_FUSED_LINEAR", None)
    torch.testing.assert_close(predicted(ensemble, maps, slice(0, 20), slice(0, 20)), fused, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_of_features_are_the_plain_forward(dtype, monkeypatch):
    ensemble, rows = random_ensemble(7, 4), torch.randn(50, 7).to(dtype)
    with torch.no_grad():
        ensemble.linear1.weight[0, :, :3] = 0
        ensemble.linear1.weight[1, :, 3:] = 0
        expected = ensemble(rows.float())
    monkeypatch.setattr(pixel_mlp, "_CHUNK_BYTES", 4 * 16 * 20)
    found = torch.full((3, 4, 50), torch.nan)
    for chunk in predict_rows(ensemble, rows, members=3):
        found[chunk.member, :, chunk.cols] = chunk.logits[:, 0]
    torch.testing.assert_close(found.transpose(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_half_precision_maps_and_fewer_members():
    maps = random_maps(20, 20, (4, 2), dtype=torch.float16)
    ensemble = random_ensemble(7, 3)
    floats = [FeatureMap(m.values.float(), m.stride, m.origin, m.full) for m in maps]
    two = predicted(ensemble, maps, slice(0, 20), slice(0, 20), members=2)
    assert torch.equal(two, predicted(ensemble, floats, slice(0, 20), slice(0, 20))[:2])


def test_maps_that_do_not_fit_are_refused():
    maps = random_maps(32, 32, (4, 8))
    with pytest.raises(UsageError, match="7 channels together and the classifier reads 9"):
        list(predict_pixels(random_ensemble(9, 3), maps, slice(0, 32), slice(0, 32), members=1))
    crops = cropped(maps, slice(0, 16), slice(0, 16))
    with pytest.raises(UsageError, match=r"stride 8 holds cells 0\.\.2 x 0\.\.2 and the window reads 0\.\.2 x 0\.\.3"):
        list(predict_pixels(random_ensemble(7, 3), crops, slice(0, 16), slice(0, 21), members=1))
