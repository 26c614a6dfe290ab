"""K-means and principal components without upsampling, against the naive way: upsample everything, then compute."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.engine import clusters
from mdm_studio.engine.clusters import (
    Window,
    assign,
    cluster_maps,
    fit_components,
    match_labels,
    matched_colours,
    principal_components,
    project,
)
from mdm_studio.errors import InputError, UsageError
from mdm_studio.nn.pixel_mlp import FeatureMap


def _map(rng, channels, height, width, stride):
    full = (-(-height // stride), -(-width // stride))
    # blocks of cells that differ in the mean, so that there is something to find
    rows, cols = np.indices(full) // max(full[0] // 3, 1)
    means = rng.normal(0, 3, (channels, rows.max() + 1, cols.max() + 1))[:, rows, cols]
    values = rng.normal(5, 1, (channels, *full)) + means
    return FeatureMap(torch.from_numpy(values.astype(np.float32)), stride, (0, 0), full)


def _upsampled(window):
    """(pixels, D) float64 as torch interpolates the whole maps."""
    parts = []
    for m in window.maps:
        assert tuple(m.values.shape[1:]) == m.full
        whole = F.interpolate(m.values.double()[None], scale_factor=m.stride, mode="bilinear", align_corners=False)[0]
        rows = slice(window.rows.start, window.rows.stop, window.step)
        cols = slice(window.cols.start, window.cols.stop, window.step)
        parts.append(whole[:, rows, cols].flatten(1).T.numpy())
    return np.concatenate(parts, 1)


def _naive_step(points, centroids):
    distances = ((points[:, None] - centroids) ** 2).sum(2)
    labels = distances.argmin(1)
    means = [points[labels == j].mean(0) if (labels == j).any() else c for j, c in enumerate(centroids)]
    return labels, np.stack(means), distances.min(1).mean()


def _standardised(points):
    deviation = points.std(0)
    floor = np.median(deviation) * 1e-2
    return (points - points.mean(0)) / np.where(deviation > floor, deviation, floor or 1.0)


CASES = {
    "one map": [(8, 40, 56, 4)],
    "stride 1": [(5, 31, 17, 1)],
    "two strides": [(8, 45, 37, 4), (6, 45, 37, 2)],
    "three maps, one coarse": [(8, 50, 50, 16), (3, 50, 50, 2), (4, 50, 50, 2)],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [1, 3])
def test_the_whole_of_lloyd_is_that_of_the_upsampled_features(case, step):
    rng = np.random.default_rng(0)
    maps = [_map(rng, *each) for each in CASES[case]]
    _, height, width, _ = CASES[case][0]
    windows = [Window(maps, slice(0, height), slice(0, width), step), Window(maps[:], slice(3, 20), slice(5, 11), 1)]
    pixels = clusters._read(windows)
    standard = clusters._standard(pixels, standardise=True)
    points = _standardised(np.concatenate([_upsampled(window) for window in windows]))
    start = centroids = points[rng.choice(len(points), 4, replace=False)]
    found, steps = clusters._lloyd(pixels, standard, start, 100)
    assert steps > 1
    for _ in range(steps):
        _, centroids, _ = _naive_step(points, centroids)
    labels, _, inertia = _naive_step(points, centroids)
    ours, our_inertia = clusters._nearest(pixels, standard, found)
    np.testing.assert_array_equal(np.concatenate(ours), labels)
    np.testing.assert_allclose(found, centroids, atol=1e-9)
    assert our_inertia == pytest.approx(inertia, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_step_of_any_window(data):
    height, width = (data.draw(st.integers(1, 40)) for _ in "yx")
    strides = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 5, 8, 16]), min_size=1, max_size=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    maps = [_map(rng, data.draw(st.integers(1, 4)), height, width, stride) for stride in strides]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows = slice(top, data.draw(st.integers(top + 1, height)))
    cols = slice(left, data.draw(st.integers(left + 1, width)))
    window = Window(maps, rows, cols, data.draw(st.integers(1, 5)))
    points = _upsampled(window)
    assert len(points) == np.prod(window.shape)
    pixels = clusters._read([window])
    standard = clusters._standard(pixels, standardise=False)
    np.testing.assert_allclose(standard.shift, points.mean(0), atol=1e-9)
    assert standard.spread == pytest.approx(points.var(0).sum(), abs=1e-8)
    centred = points - standard.shift
    centroids = rng.normal(0, 2, (data.draw(st.integers(1, 6)), points.shape[1]))
    labels, inertia = clusters._nearest(pixels, standard, centroids)
    wanted, means, naive_inertia = _naive_step(centred, centroids)
    np.testing.assert_array_equal(labels[0], wanted)
    np.testing.assert_allclose(clusters._means(pixels, standard, labels, centroids), means, atol=1e-9)
    assert inertia == pytest.approx(naive_inertia, abs=1e-8)
    np.testing.assert_allclose(clusters._second_moments(pixels, standard.shift), centred.T @ centred / len(points), atol=1e-8)


def _window(seed=0, height=60, width=44, **changes):
    rng = np.random.default_rng(seed)
    window = Window([_map(rng, 6, height, width, 4), _map(rng, 4, height, width, 2)], slice(0, height), slice(0, width))
    return dataclasses.replace(window, **changes)


def test_the_same_seed_gives_the_same_bits_and_the_largest_cluster_comes_first():
    first, labels = cluster_maps([_window(), _window(1)], 4, seed=3)
    second, again = cluster_maps([_window(), _window(1)], 4, seed=3)
    np.testing.assert_array_equal(first.centroids, second.centroids)
    assert [each.shape for each in labels] == [(60, 44), (60, 44)]
    for one, other in zip(labels, again, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.counts, np.bincount(np.concatenate([each.ravel() for each in labels])))
    assert list(first.counts) == sorted(first.counts, reverse=True)


def test_as_good_as_scikit_learn():
    from sklearn.cluster import KMeans

    found, _ = cluster_maps([_window()], 5)
    points = _standardised(_upsampled(_window()))
    theirs = KMeans(5, n_init=4, random_state=0).fit(points)
    assert found.inertia <= 1.05 * theirs.inertia_ / len(points)


def test_parts_of_a_window_are_assigned_as_the_whole():
    """Tiles with crops of the maps get the labels of the whole image."""
    found, (labels,) = cluster_maps([_window()], 4)
    np.testing.assert_array_equal(assign(found, _window()), labels)
    crops = []
    for m in _window().maps:
        top, left = 20 // m.stride, 12 // m.stride
        crops.append(dataclasses.replace(m, values=m.values[:, top:, left:], origin=(top, left)))
    part = assign(found, Window(crops, slice(24, 60), slice(16, 44), 3))
    np.testing.assert_array_equal(part, labels[24::3, 16::3])


def test_a_window_beyond_its_maps_is_refused():
    crop = _window().maps[0]
    crop = dataclasses.replace(crop, values=crop.values[:, 4:], origin=(4, 0))
    with pytest.raises(UsageError, match="stride 4"):
        cluster_maps([Window([crop], slice(0, 60), slice(0, 44))], 3)


def test_equally_near_centroids_give_the_first():
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 5)
    pixels = clusters._read([Window([FeatureMap(values, 1, (0, 0), (1, 5))], slice(0, 1), slice(0, 5))])
    standard = clusters._standard(pixels, standardise=False)  # shift 2
    labels, _ = clusters._nearest(pixels, standard, np.array([[-1.0], [1.0], [1.0]]))
    assert labels[0].tolist() == [0, 0, 0, 1, 1]


def test_an_empty_cluster_keeps_its_centroid():
    pixels = clusters._read([_window()])
    standard = clusters._standard(pixels, standardise=True)
    far = np.vstack([np.zeros(10), np.full(10, 99.0)])
    labels, _ = clusters._nearest(pixels, standard, far)
    np.testing.assert_array_equal(clusters._means(pixels, standard, labels, far)[1], far[1])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_constant_maps_are_one_cluster(value):
    flat = FeatureMap(torch.full((3, 7, 9), value), 4, (0, 0), (7, 9))
    found, (labels,) = cluster_maps([Window([flat], slice(0, 27), slice(0, 35))], 5)
    assert len(found.centroids) == 1
    assert not labels.any()
    assert found.inertia == pytest.approx(0, abs=1e-9)
    colours = principal_components([Window([flat], slice(0, 27), slice(0, 35))])[0]
    np.testing.assert_allclose(colours, 0.5, atol=1e-6)


def test_a_constant_channel_among_others_changes_nothing():
    window = _window()
    flat = FeatureMap(torch.full((1, 15, 11), 7.3), 4, (0, 0), (15, 11))
    with_flat = dataclasses.replace(window, maps=[*window.maps, flat])
    np.testing.assert_array_equal(cluster_maps([window], 4)[1][0], cluster_maps([with_flat], 4)[1][0])


def test_more_clusters_than_distinct_points():
    values = torch.tensor([[0.0, 1.0], [0.0, 5.0]]).reshape(1, 2, 2)
    found, (labels,) = cluster_maps([Window([FeatureMap(values, 1, (0, 0), (2, 2))], slice(0, 2), slice(0, 2))], 8)
    assert len(found.centroids) == 3
    assert labels[0, 0] == labels[1, 0]
    assert len(np.unique(labels)) == 3
    assert found.inertia == pytest.approx(0, abs=1e-12)


def test_one_pixel():
    window = Window([FeatureMap(torch.ones(4, 1, 1), 16, (0, 0), (1, 1))], slice(0, 1), slice(0, 1))
    assert cluster_maps([window], 3)[1][0].tolist() == [[0]]


@pytest.mark.parametrize(
    ("windows", "k", "words"),
    [
        ([], 3, "at least one"),
        ([_window()], 0, "at least 1"),
        ([_window(rows=slice(4, 4))], 3, "without pixels"),
        ([_window(maps=[])], 3, "without pixels or feature maps"),
        ([_window(), _window(maps=_window().maps[:1])], 3, r"\[6, 10\] channels"),
    ],
)
def test_what_cannot_be_clustered(windows, k, words):
    with pytest.raises(UsageError, match=words):
        cluster_maps(windows, k)


def test_features_that_are_not_finite():
    bad = _window()
    bad.maps[0].values[0, 0, 0] = torch.inf
    with pytest.raises(InputError, match="infinite"):
        cluster_maps([bad], 3)


@given(st.permutations(range(5)), st.integers(0, 100))
def test_a_renumbered_clustering_is_matched_back(order, seed):
    labels = np.random.default_rng(seed).integers(0, 5, (9, 11))
    labels.ravel()[:5] = range(5)
    renumbered = np.asarray(order)[labels]
    np.testing.assert_array_equal(match_labels(labels, renumbered, 5)[renumbered], labels)


def test_matching_has_the_largest_overlap_and_is_a_permutation():
    reference, other = np.array([0, 0, 0, 1, 1, 2]), np.array([2, 2, 1, 1, 1, 1])
    mapping = match_labels(reference, other, 4)
    assert sorted(mapping) == [0, 1, 2, 3]
    assert mapping[2] == 0
    assert mapping[1] == 1
    with pytest.raises(UsageError, match="same pixels"):
        match_labels(reference, other[:3], 3)


def test_colours_of_several_clusterings():
    base = np.repeat(np.arange(3), 4)
    noisy = base.copy()
    noisy[0] = 2
    given_ = [np.array([2, 0, 1])[noisy], np.array([1, 2, 0])[base], base]
    colours = matched_colours(given_, 3)
    shown = [colour[labels] for colour, labels in zip(colours, given_, strict=True)]
    np.testing.assert_array_equal(shown[1], shown[2])
    assert (shown[0] != shown[1]).sum() == 1


def test_principal_components_are_those_of_the_upsampled_features():
    from sklearn.decomposition import PCA

    window = _window()
    points = _standardised(_upsampled(window))
    wanted = PCA(3).fit(points)
    components = fit_components([window])
    ours = clusters._scored(clusters._read([window])[0], components.weights, components.offset)
    theirs = wanted.transform(points)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-8)
    colours = project(components, window)
    assert colours.dtype == np.float32
    assert colours.shape == (60, 44, 3)
    assert colours.min() == 0
    assert colours.max() == 1
    np.testing.assert_array_equal(colours, principal_components([window])[0])


def test_the_sign_of_a_component_does_not_turn_over():
    window = _window()
    turned = dataclasses.replace(window, maps=window.maps[::-1])  # other order of channels, other arithmetic
    np.testing.assert_allclose(principal_components([window])[0], principal_components([turned])[0], atol=1e-4)


def test_fewer_channels_than_components():
    values = torch.arange(12.0).reshape(1, 3, 4)
    (colours,) = principal_components([Window([FeatureMap(values, 2, (0, 0), (3, 4))], slice(0, 6), slice(0, 8))])
    np.testing.assert_allclose(colours[..., 1:], 0.5)
    assert np.ptp(colours[..., 0]) == 1
