"""The guided filter: against its own definition, at edges, and tile by tile."""

import tracemalloc

import numpy as np
import pytest
import torch

from mdm_studio.engine import smoothing
from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, fit_ensemble, predict_window, sample_features
from mdm_studio.engine.smoothing import guided_filter, predict_plane
from mdm_studio.io.images import ArrayPlane
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble
from mdm_studio.testing import blobs


def test_every_window_is_fitted_by_least_squares():
    """He et al. 2013, eqs. 5, 6 and 8, window by window, away from the border."""
    rng = np.random.default_rng(0)
    guide, given = rng.random((15, 15)).astype(np.float32), rng.random((1, 15, 15)).astype(np.float32)
    radius, epsilon = 2, 0.02
    slope, offset = np.full((15, 15), np.nan), np.full((15, 15), np.nan)
    for y in range(radius, 15 - radius):
        for x in range(radius, 15 - radius):
            window = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
            i, p = guide[window].astype(float), given[0][window].astype(float)
            slope[y, x] = ((i * p).mean() - i.mean() * p.mean()) / (i.var() + epsilon)
            offset[y, x] = p.mean() - slope[y, x] * i.mean()
    y = x = 7
    window = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
    expected = slope[window].mean() * guide[y, x] + offset[window].mean()
    assert guided_filter(given, guide, radius, epsilon)[0, y, x] == pytest.approx(expected, abs=1e-5)


def test_a_frayed_border_moves_to_the_edge_of_the_image():
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 60), np.float32)
    truth[:, 30:] = 1
    frayed = np.roll(truth, 3, axis=1)  # three pixels off
    noisy = np.clip(frayed + rng.normal(0, 0.3, truth.shape), 0, 1).astype(np.float32)
    guide = 0.2 + 0.6 * truth
    found = guided_filter(np.stack([1 - noisy, noisy]), guide, 8)
    wrong = [((p > 0.5) != (truth > 0.5))[:, 10:50].mean() for p in (noisy, found[1])]
    assert wrong[1] < 0.1 * wrong[0]
    np.testing.assert_allclose(found.sum(0), 1, atol=0.1)


def test_a_flat_guide_only_averages():
    given = np.zeros((1, 21, 21), np.float32)
    given[0, 10, 10] = 1
    found = guided_filter(given, np.full((21, 21), 0.5, np.float32), 1)
    np.testing.assert_allclose(found[0, 10, 8:13], np.array([1, 2, 3, 2, 1]) * 3 / 81, atol=1e-5)


def test_it_may_replace_what_it_smooths():
    rng = np.random.default_rng(0)
    given, guide = rng.random((3, 20, 31)).astype(np.float32), rng.random((20, 31)).astype(np.float32)
    wanted = guided_filter(given, guide, 4)
    assert guided_filter(given, guide, 4, out=given) is given
    np.testing.assert_array_equal(given, wanted)


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(tiny_backbone)


def test_smoothed_tiles_are_those_of_the_whole_plane(backbone):
    """Whatever the tiles, with filters (which do not depend on tiling) the smoothed masks are the same to the last bits."""
    picture, truth = blobs(200, 150)
    plane = ArrayPlane(np.ascontiguousarray(picture.transpose(2, 0, 1)), rgb=True)
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 200, 300), rng.integers(0, 150, 300)
    results = []
    for tile in (64, 256):
        source = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, blocks=(), filters=True, tile=tile))
        if not results:
            places = zip(rows, cols, strict=True)
            x = torch.cat([sample_features(source.maps(*source.grid.containing(r, c)), [r], [c]) for r, c in places])
            y = (truth[rows, cols] > 1).astype(int)
            ensemble = fit_ensemble(x, y, 2, EnsembleConfig(members=2))
        whole = np.zeros((2, 200, 150), np.float32)
        labels = np.full((200, 150), -1)
        for at_rows, at_cols, found in predict_plane(ensemble, source, smooth=16):
            whole[:, at_rows, at_cols] = found.probabilities
            assert (labels[at_rows, at_cols] == -1).all()
            labels[at_rows, at_cols] = found.labels
            assert found.uncertainty.shape == found.labels.shape
        assert set(np.unique(labels)) <= {0, 1}
        results.append((whole, labels))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=0.02)
    assert (results[0][1] == results[1][1]).mean() > 0.999


def test_without_smoothing_votes_are_left_alone(backbone):
    plane = ArrayPlane(np.ascontiguousarray(blobs(70, 60)[0].transpose(2, 0, 1)), rgb=True)
    source = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone))
    x = sample_features(source.maps(0, 0), np.arange(50), np.arange(50))
    ensemble = fit_ensemble(x, np.arange(50) % 2, 2, EnsembleConfig(members=2))
    for rows, cols, found in predict_plane(ensemble, source):
        direct = predict_window(ensemble, source.maps(*source.grid.containing(rows.start, cols.start)), rows, cols)
        assert (found.labels == direct.labels).all()


@pytest.mark.parametrize(("tile", "radius", "rows"), [(64, 3, 512), (64, 3, 20), (32, 20, 512), (32, 20, 7), (512, 8, 512)])
def test_pieces_of_many_classes_are_the_whole_smoothed_at_once(backbone, monkeypatch, tile, radius, rows):
    """Whatever the filter reaches, over several tiles too, and however few rows fit into memory; each pixel comes once."""
    n_classes, shape = 7, (130, 110)
    plane = ArrayPlane(np.ascontiguousarray(blobs(*shape)[0].transpose(2, 0, 1)), rgb=True)
    source = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, blocks=(), filters=True, tile=tile))
    ensemble = PixelMLPEnsemble(sum(s.channels for s in source.specs), n_classes, members=2, hidden=(8, 8))
    ensemble.reset([0, 1])
    with torch.no_grad():
        for layer in (ensemble.linear1, ensemble.linear2, ensemble.linear3):
            layer.weight *= 20
    ensemble.eval()
    raw, uncertainty = np.empty((n_classes, *shape), np.float32), np.empty(shape, np.float32)
    for at_rows, at_cols, found in predict_plane(ensemble, source):
        raw[:, at_rows, at_cols], uncertainty[at_rows, at_cols] = found.probabilities, found.uncertainty
    whole = guided_filter(raw, source.brightness(slice(0, 130), slice(0, 110)), radius)

    monkeypatch.setattr(smoothing, "_PIECE_BYTES", 4 * n_classes * min(tile, 110) * rows)
    times, made, doubt = np.zeros(shape, int), np.empty_like(raw), np.empty_like(uncertainty)
    for at_rows, at_cols, found in predict_plane(ensemble, source, smooth=radius):
        times[at_rows, at_cols] += 1
        made[:, at_rows, at_cols], doubt[at_rows, at_cols] = found.probabilities, found.uncertainty
        np.testing.assert_array_equal(found.labels, found.probabilities.argmax(0))
    assert (times == 1).all()
    np.testing.assert_allclose(made, whole, atol=1e-6)
    np.testing.assert_allclose(doubt, uncertainty, atol=1e-5)


def test_smoothing_holds_no_rows_of_tiles(backbone):
    """Of many classes the probabilities of a whole row of tiles would be most of the memory."""
    n_classes, shape = 255, (128, 512)
    plane = ArrayPlane(np.tile(blobs(64, 64)[0].transpose(2, 0, 1), (1, 2, 8)), rgb=True)
    source = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, blocks=(), filters=True, tile=64))
    ensemble = PixelMLPEnsemble(sum(s.channels for s in source.specs), n_classes, members=1, hidden=(4, 4)).eval()
    tracemalloc.start()
    try:
        done = sum(found.labels.size for _, _, found in predict_plane(ensemble, source, smooth=2))
        peak = tracemalloc.get_traced_memory()[1]  # of NumPy's arrays
    finally:
        tracemalloc.stop()
    assert done == shape[0] * shape[1]
    assert peak < 4 * n_classes * shape[0] * shape[1] / 2, peak
