"""Sampling, training and voting of the ensemble, against the published way written plainly."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from mdm_studio.engine import heads
from mdm_studio.engine.heads import (
    EnsembleConfig,
    fit_ensemble,
    from_arrays,
    jensen_shannon,
    mean_probabilities,
    pixel_limit,
    predict_points,
    predict_window,
    sample_features,
    state_arrays,
    subsample,
    train_ensemble,
    vote,
)
from mdm_studio.engine.uncertainty import top_uncertainty
from mdm_studio.errors import ClassifierError, InputError, LabelsError, UsageError
from mdm_studio.nn import pixel_mlp
from mdm_studio.nn.pixel_mlp import FeatureMap, PixelMLPEnsemble
from mdm_studio.testing import golden_fill, golden_input
from tests.peer_ensemble import PeerMLP, peer_features, peer_predict, peer_top_uncertainty, stacked

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")
SMALL = EnsembleConfig(members=3, hidden=(16, 8), max_epochs=6)


def golden_members(n_classes):
    members = []
    for j in range(5):
        member = PeerMLP(12, n_classes).eval()
        golden_fill(member)
        for name, value in member.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(value.abs() + 0.5)
            if value.is_floating_point():
                value.mul_(1 + 0.3 * j)
        members.append(member)
    return members


def golden_maps():
    maps = [golden_input((1, c, s, s), k)[0] for c, s, k in ((6, 8, 8), (4, 16, 9), (2, 32, 10))]
    return [FeatureMap(m, 32 // m.shape[1], (0, 0), tuple(m.shape[1:])) for m in maps]


def random_maps(height, width, strides, *, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for s in strides:
        full = (-(-height // s), -(-width // s))
        maps.append(FeatureMap(torch.randn(channels, *full, generator=generator), s, (0, 0), full))
    return maps


def random_members(dims, n_classes, n=10):
    members = [PeerMLP(dims, n_classes).eval() for _ in range(n)]
    for member in members:
        for norm in (member.layers[2], member.layers[5]):
            norm.running_mean.uniform_(0, 0.5)
            norm.running_var.uniform_(0.3, 2)
    return members


def clouds(n=400, dims=6, n_classes=3, seed=0):
    """Classes that overlap a little."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    centres = rng.normal(0, 1.5, (n_classes, dims))
    return torch.from_numpy((centres[labels] + rng.normal(0, 1, (n, dims))).astype(np.float32)), labels


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- sampling


def test_sampled_features_are_the_published_ones():
    rows, cols = np.mgrid[:32, :32]
    features = sample_features(golden_maps(), rows.ravel(), cols.ravel())
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features.t().reshape(12, 32, 32), GOLDEN["feat"], atol=1e-6)


@pytest.mark.parametrize(("size", "strides"), [((37, 53), (8, 1, 4, 2, 16, 3)), ((1, 1), (4, 2)), ((5, 40), (16, 5))])
def test_sampling_reads_what_interpolation_holds(size, strides):
    maps = random_maps(*size, strides)
    whole = [F.interpolate(m.values[None], scale_factor=m.stride, mode="bilinear")[0, :, : size[0], : size[1]] for m in maps]
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, size[0], 200), rng.integers(0, size[1], 200)
    torch.testing.assert_close(sample_features(maps, rows, cols), torch.cat(whole)[:, rows, cols].t(), atol=1e-5, rtol=1e-5)


def test_sampling_crops_and_in_pieces(monkeypatch):
    (whole,) = random_maps(64, 64, (8,))
    crop = FeatureMap(whole.values[:, 2:6, 3:].half(), 8, (2, 3), whole.full)
    rows, cols = np.array([20, 30, 43]), np.array([63, 28, 40])
    monkeypatch.setattr(heads, "_SAMPLE_BYTES", 1)
    half = FeatureMap(whole.values.half(), 8, (0, 0), whole.full)
    assert torch.equal(sample_features([crop], rows, cols), sample_features([half], rows, cols))
    with pytest.raises(UsageError, match=r"axis 0 read cells 1\.\.2 of a map of stride 8 that holds 2\.\.5 of 0\.\.7"):
        sample_features([crop], [19], [40])
    with pytest.raises(UsageError, match="pixels 64"):
        sample_features([whole], [64], [0])
    assert sample_features([whole], [], []).shape == (0, 4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 80), st.integers(0, 5))
def test_subsample_takes_from_the_common_classes(counts, limit, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(1).shuffle(labels)
    kept = subsample(labels, limit, seed)
    assert len(kept) == min(limit, len(labels))
    assert (np.diff(kept) > 0).all()
    left = np.bincount(labels[kept], minlength=len(counts))
    gave = [n for n, all_of_it in zip(left, counts, strict=True) if n < all_of_it]
    if gave:  # no class that gave pixels has more left than one that keeps fewer than it could
        assert max(left) <= min(gave) + 1
    np.testing.assert_array_equal(kept, subsample(labels, limit, seed))


def test_subsample_can_leave_classes_as_common_as_they_are():
    labels = np.repeat([0, 1], [9000, 1000])
    kept = subsample(labels, 2000, 0, balanced=False)
    assert len(kept) == len(np.unique(kept)) == 2000
    assert 150 < labels[kept].sum() < 250
    assert labels[subsample(labels, 2000, 0)].sum() == 1000


def test_dense_masks_have_the_published_rules_unless_told_otherwise():
    strokes, dense = (EnsembleConfig.of(dense=each, members=3) for each in (False, True))
    assert strokes == EnsembleConfig(members=3)
    assert (dense.noise, dense.class_weight, dense.one_source, dense.members) == (0, "none", False, 3)
    assert EnsembleConfig.of(dense=True, class_weight="balanced").class_weight == "balanced"
    features, labels = clouds(n=60, n_classes=2)
    ensemble = fit_ensemble(features, labels, 2, replace(dense, max_epochs=2), sources=(2, 4))
    assert (ensemble.linear1.weight.abs().sum(1) > 0).all()


def test_pixel_limit():
    assert pixel_limit(1000, 5) == 50
    assert pixel_limit(1, 5) == 1
    with pytest.raises(UsageError, match="at least 1"):
        subsample(np.zeros(3, int), 0, 0)


# --- training


def test_training_learns_and_repeats_bit_for_bit():
    features, labels = clouds()
    state = torch.get_rng_state()
    first = fit_ensemble(features, labels, 3, SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    with torch.no_grad():
        assert (vote(first(features)).numpy() == labels).mean() > 0.9
    torch.rand(3)
    assert same(first, fit_ensemble(features, labels, 3, SMALL))
    assert not same(first, fit_ensemble(features, labels, 3, replace(SMALL, seed=1)))


def test_members_trained_together_equal_members_trained_alone(monkeypatch):
    features, labels = clouds()
    config = replace(SMALL, max_epochs=40, patience=3)  # members stop at different iterations
    together = fit_ensemble(features, labels, 3, config)
    seeds = config.member_seeds()
    for member in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(EnsembleConfig, "member_seeds", lambda self, m=member: (seeds[m],))
            alone = fit_ensemble(features, labels, 3, replace(config, members=1))
        for name, value in alone.state_dict().items():
            whole = together.state_dict()[name]
            expected = whole if value.ndim == 1 else whole[member : member + 1]
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_one_member_trains_as_the_published_loop():
    features, labels = clouds(n=200, n_classes=3)
    config = EnsembleConfig(members=1, class_weight="none", standardise=False, noise=0, max_epochs=8, patience=4)
    ours = [(step.epoch, step.losses[0]) for step in train_ensemble(features, labels, 3, config) if not step.done]

    peer = PeerMLP(6, 3).train()
    start = PixelMLPEnsemble(6, 3, members=1, hidden=(128, 32)).reset(config.member_seeds()).state_dict()
    for ours_name, layer in (("linear1", 0), ("linear2", 3), ("linear3", 6)):
        peer.layers[layer].weight.data.copy_(start[f"{ours_name}.weight"][0])
        peer.layers[layer].bias.data.zero_()
    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-3)
    batches, target, best, since, theirs = heads._Batches(config.member_seeds(), 200, 64), torch.from_numpy(labels), 1e7, 0, []
    for epoch in range(8):
        batches.shuffle([0])
        for batch in range(3):  # 200 // 64: the last incomplete batch is dropped
            places = batches[batch][0]
            loss = F.cross_entropy(peer(features[places]), target[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            theirs.append((epoch, loss.item()))
            if epoch > 3:
                best, since = (loss.item(), 0) if loss.item() < best else (best, since + 1)
                if since > 4:
                    break
        if since > 4:
            break
    assert [e for e, _ in ours] == [e for e, _ in theirs]
    np.testing.assert_allclose([x for _, x in ours], [x for _, x in theirs], rtol=1e-4, atol=1e-6)


def test_each_epoch_shows_every_member_other_pixels_in_another_order():
    batches = heads._Batches([1, 2], 130, 64)
    assert (batches.size, batches.per_epoch) == (64, 2)
    batches.shuffle([0, 1])
    first = batches._order.clone()
    assert (first.sort(1).values == torch.arange(130)).all()
    assert not torch.equal(first[0], first[1])
    batches.keep([1])
    assert torch.equal(batches[1][0], first[1, 64:128])
    batches.shuffle([1])
    assert not torch.equal(batches._order[0], first[1])


def test_convergence_rule():
    rule = heads._Convergence(2, EnsembleConfig(members=2, patience=2))
    assert not any(rule.stops(0, 9.0, epoch) for epoch in (0, 1, 2, 3) for _ in range(50))
    losses = [(5.0, False), (6.0, False), (5.0, False), (4.0, False), (4.0, False), (7.0, False), (4.0, True)]
    assert [rule.stops(0, loss, 4) for loss, _ in losses] == [stops for _, stops in losses]
    assert not rule.stops(1, 8.0, 4)  # the other member has a count of its own


def test_a_stopped_member_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(heads._Convergence, "stops", lambda self, member, loss, epoch: member == 1 and epoch == 2)
    features, labels = clouds()
    steps = train_ensemble(features, labels, 3, SMALL)
    stopped = next(step for step in steps if step.training == 2).snapshot()
    *_, last = steps
    final = last.snapshot()
    assert last.done
    assert torch.equal(final.linear1.weight[1], stopped.linear1.weight[1])
    assert torch.equal(final.norm2.running_mean[1], stopped.norm2.running_mean[1])
    assert not torch.equal(final.linear1.weight[[0, 2]], stopped.linear1.weight[[0, 2]])


def test_steps_and_snapshots():
    features, labels = clouds()
    steps, snapshots = [], []
    for step in train_ensemble(features, labels, 3, SMALL):
        steps.append(step)
        if step.iteration in (0, 20):
            snapshots.append(step.snapshot())
    assert [s.iteration for s in steps[:-1]] == list(range(6 * 6))
    assert [s.epoch for s in steps[:-1]] == [e for e in range(6) for _ in range(6)]
    assert [s.done for s in steps] == [False] * 36 + [True]
    assert all(len(s.losses) == 3 for s in steps)
    assert sum(steps[-1].losses) < sum(steps[0].losses)
    assert not same(*snapshots)
    assert not snapshots[0].training


@pytest.mark.parametrize("n", [2, 63, 65])
def test_few_pixels_make_one_batch(n):
    features, _ = clouds(n=n, n_classes=2)
    labels = np.arange(n) % 2
    steps = list(train_ensemble(features, labels, 2, SMALL))
    assert len(steps) == 6 + 1
    assert np.isfinite(steps[-1].losses).all()


def test_warm_start_goes_on_from_an_ensemble():
    features, labels = clouds()
    first = fit_ensemble(features, labels, 3, SMALL)
    steps = list(train_ensemble(features * 2 + 1, labels, 3, SMALL, init=first))
    fresh = list(train_ensemble(features * 2 + 1, labels, 3, SMALL))
    assert sum(steps[3].losses) < sum(fresh[3].losses)
    after = steps[-1].snapshot()
    assert torch.equal(after.shift, first.shift)  # its weights were fitted to that standardisation
    assert not same(first, after)
    with pytest.raises(UsageError, match=r"\(6, 3, 3, \(16, 8\)\) and \(6, 4, 3, \(16, 8\)\) were wanted"):
        train_ensemble(features, labels, 4, SMALL, init=first)


def test_only_some_members_train():
    """They train as they would among all, and the others stay as they are."""
    features, labels = clouds()
    config = replace(SMALL, members=4)
    start = fit_ensemble(features, labels, 3, config, sources=(2, 4))
    steps = list(train_ensemble(features, labels, 3, config, init=start, sources=(2, 4), only=(3, 0)))
    found, everyone = steps[-1].snapshot(), list(train_ensemble(features, labels, 3, config, init=start, sources=(2, 4)))
    assert [step.training for step in steps[:-1]] == [2] * 36
    np.testing.assert_array_equal(np.isnan(steps[0].losses), [False, True, True, False])
    for name, value in found.state_dict().items():
        if value.ndim > 1:
            assert torch.equal(value[1:3], start.state_dict()[name][1:3])
            whole = everyone[-1].snapshot().state_dict()[name]
            torch.testing.assert_close(value[[0, 3]], whole[[0, 3]], atol=1e-5, rtol=1e-4)
    assert not torch.equal(found.linear1.weight[0], start.linear1.weight[0])
    fresh = next(train_ensemble(features, labels, 3, config, only=[1])).snapshot()
    assert torch.equal(fresh.linear1.weight[0], heads._starting_ensemble(features, 3, config, None).linear1.weight[0])


@pytest.mark.parametrize("only", [(), (0, 0), (3,), (-1,)])
def test_members_that_cannot_be_trained_are_refused(only):
    features, labels = clouds()
    with pytest.raises(UsageError, match=r"take some of 0\.\.2, each once"):
        train_ensemble(features, labels, 3, SMALL, only=only)


def test_balanced_classes_count_alike():
    features, _ = clouds(n=8)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2])
    balanced = heads._class_weights(features, labels, 3, SMALL)
    torch.testing.assert_close(balanced, torch.tensor([8 / 12, 0, 8 / 4]))
    published = heads._class_weights(features, labels, 3, replace(SMALL, class_weight="none"))
    torch.testing.assert_close(published, torch.ones(3))


def test_balanced_weights_find_the_rare_class():
    rng = np.random.default_rng(0)
    labels = (np.arange(1000) % 20 == 0).astype(int)
    features = torch.from_numpy(rng.normal(0, 1, (1000, 4)).astype(np.float32))
    features[:, 0] += torch.from_numpy(1.5 * labels).float()
    recall = []
    for weight in ("balanced", "none"):
        ensemble = fit_ensemble(features, labels, 2, replace(SMALL, class_weight=weight))
        with torch.no_grad():
            recall.append(float((vote(ensemble(features)).numpy() == 1)[labels == 1].mean()))
    assert recall[0] > recall[1] + 0.2


def test_standardisation():
    features, labels = clouds()
    features[:, 0] = features[:, 0] * 1e3 + 1e4
    features[:, 1] = 7.0  # says nothing about the classes, and must not be blown up where it varies
    ensemble = fit_ensemble(features, labels, 3, SMALL)
    standard = (features - ensemble.shift) * ensemble.scale
    torch.testing.assert_close(standard.std(0, correction=0)[[0, 2]], torch.ones(2), atol=1e-3, rtol=0)
    assert standard.mean(0).abs().max() < 1e-3
    assert ensemble.scale[1] < 1e3
    plain = fit_ensemble(features, labels, 3, replace(SMALL, standardise=False))
    assert torch.equal(plain.scale, torch.ones(6))


def test_constant_features_and_weight_decay():
    features, labels = torch.ones(100, 4), np.arange(100) % 2
    ensemble = fit_ensemble(features, labels, 2, replace(SMALL, weight_decay=0.1))
    assert all(bool(torch.isfinite(v).all()) for v in ensemble.state_dict().values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.zeros(400, int)}, LabelsError, "of one class"),
        ({"labels": np.arange(400) % 4}, LabelsError, r"labels 0\.\.3 were met and classes are 0\.\.2"),
        ({"labels": np.arange(400) % 2 - 1}, LabelsError, r"labels -1\.\.0"),
        ({"labels": np.zeros(3, int)}, UsageError, "one label a pixel"),
        ({"features": torch.zeros(0, 6), "labels": np.zeros(0, int)}, LabelsError, "no pixel is labelled"),
        ({"features": torch.full((400, 6), torch.nan)}, InputError, "NaN"),
        ({"config": EnsembleConfig(members=0)}, UsageError, "at least 1 member"),
        ({"config": EnsembleConfig(seed=-1)}, UsageError, "seed -1"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_at_once(change, error, message):
    features, labels = clouds()
    given = {"features": features, "labels": labels, "config": EnsembleConfig(members=1), **change}
    with pytest.raises(error, match=message):
        train_ensemble(given["features"], given["labels"], 3, given["config"])


def test_members_of_two_seeds_have_nothing_in_common():
    assert not set(EnsembleConfig(seed=0).member_seeds()) & set(EnsembleConfig(seed=1).member_seeds())


# --- voting


@pytest.mark.parametrize("n_classes", [7, 34])
def test_vote_and_uncertainty_are_the_published_ones(n_classes):
    found = predict_window(stacked(golden_members(n_classes)), golden_maps(), slice(0, 32), slice(0, 32))
    np.testing.assert_array_equal(found.labels, GOLDEN[f"vote_{n_classes}"])
    assert top_uncertainty(found.uncertainty) == pytest.approx(float(GOLDEN[f"js_{n_classes}"]), abs=1e-5)
    assert (found.labels.dtype, found.probabilities.dtype, found.uncertainty.dtype) == (np.int64, np.float32, np.float32)


@pytest.mark.parametrize(
    ("size", "strides", "n_classes"),
    [((64, 64), (8, 8, 4, 2), 34), ((96, 64), (16, 8, 4, 2, 1), 3), ((5, 7), (1,), 2), ((1, 1), (1, 1), 30)],
)
def test_prediction_agrees_with_the_published_way(size, strides, n_classes):
    maps = random_maps(*size, strides, channels=24)
    members = random_members(24 * len(strides), n_classes)
    ours = predict_window(stacked(members), maps, slice(0, size[0]), slice(0, size[1]))
    theirs = peer_predict(members, peer_features([m.values for m in maps], size))
    assert (ours.labels == theirs.labels.numpy()).mean() >= 0.999
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    np.testing.assert_allclose(ours.uncertainty, theirs.uncertainty, atol=1e-5)
    if theirs.uncertainty.numel() >= 10:
        assert top_uncertainty(ours.uncertainty) == pytest.approx(peer_top_uncertainty(theirs.uncertainty), abs=1e-5)


def test_trained_prediction_agrees_with_the_published_way():
    maps = random_maps(64, 48, (8, 4, 2), channels=5)
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 64, 300), rng.integers(0, 48, 300)
    features = sample_features(maps, rows, cols)
    labels = (features[:, 0] + features[:, 7] > 0).long() + (features[:, 12] > 0.5)
    ensemble = fit_ensemble(features, labels, 3, EnsembleConfig(members=4, max_epochs=10, noise=0))
    members = [PeerMLP(15, 3).eval() for _ in range(4)]
    for e, member in enumerate(members):
        for ours, layer in (("linear1", 0), ("norm1", 2), ("linear2", 3), ("norm2", 5), ("linear3", 6)):
            state = {k.split(".")[1]: v[e] for k, v in ensemble.state_dict().items() if k.startswith(ours)}
            member.layers[layer].load_state_dict(state, strict=False)
    shift, scale = (v[:, None, None] for v in (ensemble.shift, ensemble.scale))
    theirs = peer_predict(members, (peer_features([m.values for m in maps], (64, 48)) - shift) * scale)
    ours = predict_window(ensemble, maps, slice(0, 64), slice(0, 48))
    assert (ours.labels == theirs.labels.numpy()).mean() >= 0.999
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)
    assert (ours.labels[rows, cols] == labels.numpy()).mean() > 0.8


def test_members_that_read_one_source_are_predicted_from_it_alone():
    """Maps that a member gives no weight are left out, and one that reads nothing is its biases."""
    maps = random_maps(24, 32, (4, 2, 2, 1), channels=3)
    ensemble = stacked(random_members(12, 3, n=4))
    with torch.no_grad():
        ensemble.linear1.weight[0, :, 3:] = 0
        ensemble.linear1.weight[1, :, :6] = 0
        ensemble.linear1.weight[2] = 0
    found = predict_window(ensemble, maps, slice(0, 24), slice(0, 32))
    pixels = peer_features([m.values for m in maps], (24, 32)).flatten(1).T
    with torch.inference_mode():
        expected = heads.mean_probabilities(ensemble(pixels)).T.reshape(3, 24, 32)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_windows_equal_the_whole(monkeypatch):
    maps = random_maps(37, 53, (8, 4, 2, 1))
    ensemble = stacked(random_members(16, 5, n=4))
    whole = predict_window(ensemble, maps, slice(0, 37), slice(0, 53))
    monkeypatch.setattr(pixel_mlp, "_BLOCK_BYTES", 30_000)
    part = predict_window(ensemble, maps, slice(11, 37), slice(4, 50))
    assert (part.labels == whole.labels[11:37, 4:50]).mean() >= 0.999
    np.testing.assert_allclose(part.probabilities, whole.probabilities[:, 11:37, 4:50], atol=1e-5)
    np.testing.assert_allclose(part.uncertainty, whole.uncertainty[11:37, 4:50], atol=1e-5)


@pytest.mark.parametrize("limit", [1, 4 * 5 * 53 * 10])
def test_many_classes_are_counted_a_few_rows_at_a_time(monkeypatch, limit):
    """Votes, entropies and the like never take more than `_TALLY_BYTES` for each of a few arrays (or a row)."""
    maps, ensemble = random_maps(37, 53, (8, 4, 2, 1)), stacked(random_members(16, 5, n=4))
    window = slice(3, 37), slice(1, 53)
    whole = predict_window(ensemble, maps, *window)
    monkeypatch.setattr(heads, "_TALLY_BYTES", limit)
    counted = []
    tally = heads._Tally
    monkeypatch.setattr(heads, "_Tally", lambda e, rows, cols, n: counted.append(rows) or tally(e, rows, cols, n))
    found = predict_window(ensemble, maps, *window)
    assert all(rows.stop - rows.start <= max(limit // (4 * 5 * 52), 1) for rows in counted)
    assert [rows.start for rows in counted] == [3, *(rows.stop for rows in counted[:-1])]
    assert (found.labels == whole.labels).mean() >= 0.999
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.uncertainty, whole.uncertainty, atol=1e-5)


def test_fewer_members_are_the_first_ones():
    maps, members = random_maps(16, 16, (4, 2)), random_members(8, 4)
    two = predict_window(stacked(members), maps, slice(0, 16), slice(None, 16), members=2)
    alone = predict_window(stacked(members[:2]), maps, slice(0, 16), slice(0, 16))
    np.testing.assert_array_equal(two.labels, alone.labels)
    np.testing.assert_allclose(two.probabilities, alone.probabilities, atol=1e-6)
    one = predict_window(stacked(members), maps, slice(0, 16), slice(0, 16), members=1)
    assert one.uncertainty.max() < 1e-5  # a single member does not disagree
    np.testing.assert_allclose(one.probabilities.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_points_are_predicted_as_pixels(monkeypatch, dtype):
    maps = random_maps(20, 30, (1, 1), channels=3)
    maps = [replace(m, values=m.values.to(dtype)) for m in maps]
    ensemble = stacked(random_members(6, 3, n=5))
    with torch.no_grad():
        ensemble.linear1.weight[0, :, 3:] = 0
        ensemble.linear1.weight[1, :, :4] = 0
        ensemble.linear1.weight[2] = 0
    points = torch.cat([m.values for m in maps]).flatten(1).t()
    for members in (1, 5):
        pixels = predict_window(ensemble, maps, slice(0, 20), slice(0, 30), members=members)
        found = predict_points(ensemble, points, members=members)
        np.testing.assert_array_equal(found.labels, pixels.labels.ravel())
        np.testing.assert_allclose(found.probabilities, pixels.probabilities.reshape(3, -1), atol=1e-6)
        np.testing.assert_allclose(found.uncertainty, pixels.uncertainty.ravel(), atol=1e-6)
    whole = predict_points(ensemble, points)
    monkeypatch.setattr(pixel_mlp, "_CHUNK_BYTES", 100_000)
    np.testing.assert_allclose(predict_points(ensemble, points).probabilities, whole.probabilities, atol=1e-6)
    assert (whole.labels.dtype, whole.probabilities.dtype, whole.uncertainty.dtype) == (np.int64, np.float32, np.float32)


@pytest.mark.parametrize("shape", [(0, 6), (5, 7), (6,)])
def test_points_that_do_not_fit_are_refused(shape):
    with pytest.raises(UsageError, match=r"the classifier reads \(N, 6\)"):
        predict_points(stacked(random_members(6, 2, n=2)), torch.zeros(shape))
    with pytest.raises(UsageError, match="3 members were asked for"):
        predict_points(stacked(random_members(6, 2, n=2)), torch.zeros(4, 6), members=3)


def test_equal_logits_and_equal_votes_go_to_the_smallest_class():
    maps = random_maps(8, 8, (4,))
    silent = PixelMLPEnsemble(4, 3, members=2, hidden=(4, 4)).eval()  # all weights zero: all logits equal
    assert not predict_window(silent, maps, slice(0, 8), slice(0, 8)).labels.any()
    silent.linear3.bias.data[:] = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # one vote for 2, one for 1
    assert (predict_window(silent, maps, slice(0, 8), slice(0, 8)).labels == 1).all()


def test_large_logits_stay_finite():
    maps = random_maps(8, 8, (4,))
    ensemble = stacked(random_members(4, 3))
    ensemble.linear3.weight.data *= 1e6
    found = predict_window(ensemble, maps, slice(0, 8), slice(0, 8))
    assert np.isfinite(found.probabilities).all()
    assert np.isfinite(found.uncertainty).all()
    assert found.uncertainty.min() >= 0


def test_plain_voting_functions():
    logits = torch.randn(7, 500, 4) * 2
    assert torch.equal(vote(logits), torch.mode(logits.argmax(2), 0).values)
    torch.testing.assert_close(mean_probabilities(logits), logits.softmax(2).mean(0))
    p = logits.double().softmax(2)
    expected = -(p.mean(0) * p.mean(0).log()).sum(1) + (p * p.log()).sum(2).mean(0)
    torch.testing.assert_close(jensen_shannon(logits).double(), expected, atol=1e-6, rtol=1e-4)
    assert jensen_shannon(logits[:1]).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("rows", "cols", "members", "message"),
    [
        (slice(0, 0), slice(0, 8), 1, "not empty"),
        (slice(0, 17), slice(0, 8), 1, r"the maps cover \(16, 16\)"),
        (slice(0, 8, 2), slice(0, 8), 1, "take one inside"),
        (slice(-4, 8), slice(0, 8), 1, "take one inside"),
        (slice(0, 8), slice(0, 8), 4, "4 members were asked for and the ensemble has 3"),
        (slice(0, 8), slice(0, 8), 0, "0 members"),
    ],
)
def test_windows_that_cannot_be_predicted_are_refused(rows, cols, members, message):
    with pytest.raises(UsageError, match=message):
        predict_window(stacked(random_members(8, 2, n=3)), random_maps(16, 16, (4, 2)), rows, cols, members=members)


# --- state


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(2, 5), st.integers(1, 3), st.integers(0, 99))
def test_state_survives_a_safetensors_file(dims, n_classes, members, seed):
    ensemble = PixelMLPEnsemble(dims, n_classes, members=members, hidden=(6, 4)).reset(range(seed, seed + members)).eval()
    ensemble.shift.normal_()
    again = from_arrays(load(save(state_arrays(ensemble))))
    assert same(ensemble, again)
    assert not again.training
    assert (again.dims, again.n_classes, again.members, again.hidden) == (dims, n_classes, members, (6, 4))


def test_state_that_is_no_ensemble_is_refused():
    arrays = state_arrays(PixelMLPEnsemble(3, 2, members=2, hidden=(4, 4)))
    with pytest.raises(ClassifierError, match="not an ensemble's"):
        from_arrays({})
    with pytest.raises(ClassifierError, match=r"norm1\.bias is missing and \(2, 4\) was wanted"):
        from_arrays({k: v for k, v in arrays.items() if k != "norm1.bias"})
    with pytest.raises(ClassifierError, match=r"scale is \(2,\) and \(3,\) was wanted"):
        from_arrays({**arrays, "scale": np.ones(2, np.float32)})
    with pytest.raises(ClassifierError, match="NaN"):
        from_arrays({**arrays, "scale": np.full(3, np.nan, np.float32)})


def test_each_member_reads_one_source():
    """Weights of other sources are zero and stay zero, also when training goes on from an ensemble."""
    features, labels = clouds(n=120, n_classes=2)
    ensemble = fit_ensemble(features, labels, 2, SMALL, sources=(2, 4))
    read = ensemble.linear1.weight.abs().sum(1) > 0  # (E, D)
    expected = torch.tensor([[True] * 2 + [False] * 4, [False] * 2 + [True] * 4, [True] * 2 + [False] * 4])
    assert torch.equal(read, expected)
    *_, last = train_ensemble(features, labels, 2, SMALL, init=ensemble, sources=(2, 4))
    assert torch.equal(last.snapshot().linear1.weight.abs().sum(1) > 0, expected)


def test_members_of_one_source_train_as_a_whole_first_layer_would(monkeypatch):
    """Channels that are not read are left out of the work: the numbers are those of zero weights that stay zero."""
    features, labels = clouds()
    config = replace(SMALL, members=4, max_epochs=40, patience=3, weight_decay=0.1)  # members stop at different iterations
    narrow = fit_ensemble(features, labels, 3, config, sources=(2, 4))

    def whole(sources, config, ensemble, **fresh):
        """All channels of all members, with the gradients of the others' sources struck out."""
        for member, weights in enumerate(ensemble.linear1.weight.detach()):
            weights[:, slice(2, 6) if member % 2 == 0 else slice(0, 2)] = 0
        return [slice(0, 6)] * config.members

    step = heads._Adam.step

    def masked(self, parameters, gradients):
        (weights,) = (p for p in parameters if p.shape[-1] == 6)
        mask = (weights != 0).any(1, keepdim=True)  # (E, 1, D)
        step(self, parameters, [g * mask if p is weights else g for p, g in zip(parameters, gradients, strict=True)])

    monkeypatch.setattr(heads, "_reads", whole)
    monkeypatch.setattr(heads._Adam, "step", masked)
    wide = fit_ensemble(features, labels, 3, config)
    for name, value in narrow.state_dict().items():
        torch.testing.assert_close(value, wide.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_members_that_read_everything_go_on_reading_everything():
    features, labels = clouds(n=120, n_classes=2)
    ensemble = fit_ensemble(features, labels, 2, SMALL)
    *_, last = train_ensemble(features, labels, 2, SMALL, init=ensemble, sources=(2, 4))
    assert ((last.snapshot().linear1.weight - ensemble.linear1.weight).abs().sum(1) > 0).all()


def test_training_imports_no_compiler():
    code = (
        "import sys, torch; from mdm_studio.engine.heads import *; x = torch.randn(40, 3); "
        "fit_ensemble(x, x[:, 0] > 0, 2, EnsembleConfig(members=2, max_epochs=2)); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_member_reads_all_sources():
    features, labels = clouds(n=60, n_classes=2)
    ensemble = fit_ensemble(features, labels, 2, replace(SMALL, members=1), sources=(2, 4))
    assert (ensemble.linear1.weight.abs().sum(1) > 0).all()


def test_sources_that_do_not_sum_to_the_channels():
    features, labels = clouds(n=50, n_classes=2)
    with pytest.raises(UsageError, match=r"\[2, 3\].*together 5.*6"):
        fit_ensemble(features, labels, 2, SMALL, sources=(2, 3))


def test_noise_is_a_penalty_on_steep_functions():
    """With noise the ensemble is less sure between the classes, and it is each member's own."""
    features, labels = clouds(n=60, n_classes=2)
    middle = (features[labels == 0].mean(0) + features[labels == 1].mean(0))[None] / 2
    steep, gentle = (fit_ensemble(features, labels, 2, replace(SMALL, noise=noise, max_epochs=60)) for noise in (0.0, 1.0))
    step = 0.05 * (features[labels == 1].mean(0) - features[labels == 0].mean(0))[None]
    with torch.inference_mode():
        slopes = [
            float((heads.mean_probabilities(e(middle + step)) - heads.mean_probabilities(e(middle - step)))[0, 1])
            for e in (steep, gentle)
        ]
    assert 0 < slopes[1] < slopes[0]


def test_weights_beyond_all_measure_are_an_error_and_no_class():
    ensemble = PixelMLPEnsemble(4, 2, members=2, hidden=(4, 4))
    with torch.no_grad():
        ensemble.linear3.weight.fill_(torch.finfo(torch.float32).max)
        ensemble.linear2.weight.fill_(1e30)
        ensemble.linear1.weight.fill_(1e30)
    with pytest.raises(ClassifierError, match="no numbers for these features"):
        predict_points(ensemble.eval(), torch.ones(5, 4))
