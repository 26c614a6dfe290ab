"""Feature maps: tiles against the whole image, the cache against computing, odd images, scarce memory."""

import dataclasses

import numpy as np
import pytest
import tifffile
import torch

from mdm_studio.arrays import IntensityWindow, bin_pixels, intensity_window, normalise
from mdm_studio.engine.backbones import BackboneCard, load_backbone, untrained_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import sample_features
from mdm_studio.errors import BackboneError, ChannelsError, UsageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ArrayPlane, open_image
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.testing import blobs


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(tiny_backbone)


def _plane(height, width, seed=0):
    return ArrayPlane(np.ascontiguousarray(blobs(height, width, seed=seed)[0].transpose(2, 0, 1)), rgb=True)


def _at(source, rows, cols):
    """Features at pixels, tile by tile."""
    out = torch.empty(len(rows), sum(spec.channels for spec in source.specs))
    for number, (y, x) in enumerate(zip(rows, cols, strict=True)):
        out[number] = sample_features(source.maps(*source.grid.containing(y, x)), [y], [x])[0]
    return out


def test_order_of_the_feature_vector(backbone):
    settings = FeatureSettings.of(backbone, blocks=(3, 1), timesteps=(250, 50))
    assert [(spec.timestep, spec.block) for spec in settings.specs(backbone)] == [(250, 1), (250, 3), (50, 1), (50, 3)]


def test_no_seam_between_tiles(backbone):
    """At tile borders the tiled maps differ from the untiled ones no more than elsewhere, and little."""
    plane = _plane(200, 180)
    tiled = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, tile=64))
    whole = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, tile=512))
    assert len(tiled.grid) == 12
    assert len(whole.grid) == 1
    rng = np.random.default_rng(0)
    inside = rng.integers(8, 56, (40, 2)) + 64 * rng.integers(0, 2, (40, 2))
    border = np.stack([rng.choice([63, 64, 127, 128], 40), rng.integers(0, 180, 40)], axis=1)
    scale = _at(whole, *inside.T).std(dim=0)
    gaps = [((_at(tiled, *at.T) - _at(whole, *at.T)).abs() / scale).mean().item() for at in (inside, border)]
    assert gaps[1] < 0.1
    assert gaps[1] < 1.5 * gaps[0] + 0.01


def test_neighbouring_tiles_agree_on_the_cells_they_share(backbone):
    source = PlaneFeatures(backbone, _plane(64, 200), FeatureSettings.of(backbone, blocks=(3,), tile=64))
    left, right = source.maps(0, 0)[0], source.maps(0, 1)[0]
    assert left.origin == (0, 0)
    assert right.origin == (0, 31)
    shared = left.values[:, :, 31:33] - right.values[:, :, 0:2]
    assert shared.abs().mean() < 0.05 * left.values.std()


def test_cache_gives_what_computing_gives_and_computes_nothing_twice(backbone, tmp_path, monkeypatch):
    plane, settings = _plane(150, 90), FeatureSettings.of(backbone, timesteps=(50, 250))
    without = PlaneFeatures(backbone, plane, settings)
    cached = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path))
    assert list(cached.compute()) == list(cached.grid)
    monkeypatch.setattr(backbone, "features", lambda *_, **__: pytest.fail("computed again"))
    again = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path))
    assert again.missing() == []
    found = [again.maps(*tile) for tile in again.grid]
    monkeypatch.undo()
    for tile, maps in zip(again.grid, found, strict=True):
        for a, b in zip(maps, without.maps(*tile), strict=True):
            assert torch.equal(a.values, b.values)
            assert (a.stride, a.origin, a.full) == (b.stride, b.origin, b.full)


def test_other_blocks_of_the_same_image_share_an_entry(backbone, tmp_path):
    cache = FeatureCache(tmp_path)
    for blocks in ((1,), (3,)):
        list(PlaneFeatures(backbone, _plane(40, 40), FeatureSettings.of(backbone, blocks=blocks), cache).compute())
    assert [entry.maps for entry in cache.entries()] == [2]


@pytest.mark.parametrize("change", ["pixels", "weights", "tile", "precision"])
def test_whatever_changes_the_features_changes_the_key(backbone, tmp_path, change):
    cache, settings = FeatureCache(tmp_path), FeatureSettings.of(backbone)
    list(PlaneFeatures(backbone, _plane(150, 90), settings, cache).compute())
    other_plane = _plane(150, 90, seed=1) if change == "pixels" else _plane(150, 90)
    other = dataclasses.replace(settings, **{"tile": {"tile": 80}, "precision": {"precision": "bf16"}}.get(change, {}))
    if change == "weights":
        backbone = type(backbone)(dataclasses.replace(backbone.card, digest="other"), backbone.net)
    assert PlaneFeatures(backbone, other_plane, other, cache).missing()


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: bytes([*b[:-9], b[-9] ^ 255, *b[-8:]])]
)
def test_damaged_tile_is_computed_again(backbone, tmp_path, damage):
    plane, settings = _plane(150, 90), FeatureSettings.of(backbone)
    first = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path))
    good = first.maps(1, 0)[2].values
    chunk = next(tmp_path.glob("v1/*/*/b03-t0050/c/0/1/0"))
    chunk.write_bytes(damage(chunk.read_bytes()))
    again = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path)).maps(1, 0)[2].values
    assert torch.equal(good, again)


@pytest.mark.parametrize(
    "raw",
    [
        np.full((1, 1, 1), 7, np.uint8),
        np.arange(2100, dtype=np.uint16).reshape(1, 3, 700),
        np.where(np.eye(40, dtype=bool), np.nan, 0.5)[None].astype(np.float32),
        np.stack([np.full((20, 20), np.nan), np.eye(20)]),
        np.zeros((2, 20, 20), np.uint8),
        np.ones((1, 20, 20), bool),
    ],
    ids=["1x1", "thin 16-bit", "float with NaN", "a channel of NaN", "two channels", "bool"],
)
def test_odd_images_give_finite_features(backbone, raw):
    source = PlaneFeatures(backbone, ArrayPlane(raw), FeatureSettings.of(backbone))
    for tile in source.grid:
        for feature_map in source.maps(*tile):
            assert torch.isfinite(feature_map.values).all()


def test_channels_that_do_not_fit_are_refused_before_any_work(backbone):
    with pytest.raises(ChannelsError, match=r"5 channels.*--channels"):
        PlaneFeatures(backbone, ArrayPlane(np.zeros((5, 9, 9), np.uint8)), FeatureSettings.of(backbone))


@pytest.mark.parametrize(
    "wrong", [{"blocks": (4,)}, {"blocks": ()}, {"scales": (3,)}, {"scales": ()}, {"timesteps": (1001,)}, {"timesteps": ()}]
)
def test_blocks_and_timesteps_that_do_not_exist(backbone, wrong):
    with pytest.raises(UsageError, match=r"tiny|working scales"):
        FeatureSettings.of(backbone, **wrong)


def test_out_of_memory_halves_the_region(backbone, monkeypatch):
    """What fits in halves is computed in halves, with nearly the same values; the features keep their places."""
    plane, settings = _plane(64, 64), FeatureSettings.of(backbone)
    expected = [m.values for m in PlaneFeatures(backbone, plane, settings).maps(0, 0)]
    real, sizes = backbone.features, []

    def scarce(x, *args, **kwargs):
        sizes.append(tuple(x.shape[2:]))
        if x.shape[2] * x.shape[3] > 5000:
            raise torch.OutOfMemoryError("fake")
        return real(x, *args, **kwargs)

    monkeypatch.setattr(backbone, "features", scarce)
    found = [m.values for m in PlaneFeatures(backbone, plane, dataclasses.replace(settings, halo=4)).maps(0, 0)]
    assert len(sizes) > 1
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.8


def test_no_memory_at_all_says_what_to_do(backbone, monkeypatch):
    def none(*_, **__):
        raise torch.OutOfMemoryError("fake")

    monkeypatch.setattr(backbone, "features", none)
    with pytest.raises(BackboneError, match="--device cpu"):
        PlaneFeatures(backbone, _plane(64, 64), FeatureSettings.of(backbone)).maps(0, 0)


@pytest.mark.parametrize("tile", [512, 64], ids=["one tile", "lent statistics"])
def test_bfloat16_is_close(backbone, tiny_backbone, tile):
    halved = load_backbone(tiny_backbone, bf16=True)
    plane = _plane(100, 100)
    exact = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, tile=tile))
    fast = PlaneFeatures(halved, plane, FeatureSettings.of(halved, tile=tile))
    assert fast.settings.precision == "bf16"
    for a, b in zip(fast.maps(0, 0), exact.maps(0, 0), strict=True):
        assert 0 < (a.values - b.values).norm() < 0.05 * b.values.norm()


def test_a_working_scale_shows_the_backbone_the_binned_image(backbone):
    """The maps at scale 2 are those of the image binned by 2, at twice the stride."""
    plane = _plane(128, 96)
    raw = plane.read(slice(None), slice(None)).astype(np.float32)
    window = intensity_window(raw, "percentile", joint=True)
    binned = ArrayPlane(bin_pixels(normalise(raw, window), 2), rgb=True)
    scaled = PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, scales=(2,), tile=256))
    scaled._window = window
    small = PlaneFeatures(backbone, binned, FeatureSettings.of(backbone, tile=256))
    small._window = IntensityWindow((-1.0,), (1.0,))
    for a, b in zip(scaled.maps(0, 0), small.maps(0, 0), strict=True):
        assert a.stride == 2 * b.stride
        assert a.values.shape == b.values.shape
        torch.testing.assert_close(a.values, b.values, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("size", [(200, 180), (33, 70), (5, 3)])
def test_several_scales_of_odd_sizes(backbone, size, tmp_path):
    """Scales stand side by side, finest first; every pixel can be read in every tile, with the cache and without."""
    settings = FeatureSettings.of(backbone, scales=(4, 1), tile=64, filters=True)
    source = PlaneFeatures(backbone, _plane(*size), settings, FeatureCache(tmp_path))
    assert [spec.name for spec in source.specs[:3]] == ["b01-t0050", "b02-t0050", "b03-t0050"]
    assert next(spec.name for spec in source.specs if spec.name.endswith("-s4")) == "b01-t0050-s4"
    for tile in source.grid:
        rows, cols = source.grid.core(*tile)
        corners = np.array([(y, x) for y in (rows.start, rows.stop - 1) for x in (cols.start, cols.stop - 1)])
        assert torch.isfinite(sample_features(source.maps(*tile), *corners.T)).all()
    assert not source.missing()


def test_no_seam_at_a_coarse_scale(backbone):
    plane = _plane(400, 380)
    tiled, whole = (PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, scales=(4,), tile=tile)) for tile in (128, 512))
    assert len(tiled.grid) > 1 == len(whole.grid)
    pixels = np.stack([np.repeat([127, 128, 255, 256], 5), np.tile([3, 100, 127, 128, 300], 4)])
    scale = _at(whole, *pixels).std(dim=0) + 1e-3
    assert ((_at(tiled, *pixels) - _at(whole, *pixels)).abs() / scale).mean() < 0.15


def test_inverted_is_the_features_of_the_negative(backbone, tmp_path):
    plane = _plane(64, 48)
    raw = plane.read(slice(None), slice(None)).astype(np.float32)
    window = intensity_window(raw, "percentile", joint=True)
    negative = ArrayPlane(-normalise(raw, window), rgb=True)
    settings = dataclasses.replace(FeatureSettings.of(backbone), inverted=True)
    cache = FeatureCache(tmp_path)
    list(PlaneFeatures(backbone, plane, FeatureSettings.of(backbone), cache).compute())
    inverted = PlaneFeatures(backbone, plane, settings, cache)
    assert inverted.missing()  # not mistaken for the plain features
    plain = PlaneFeatures(backbone, negative, FeatureSettings.of(backbone))
    plain._window = IntensityWindow((-1.0,), (1.0,))
    for a, b in zip(inverted.maps(0, 0), plain.maps(0, 0), strict=True):
        torch.testing.assert_close(a.values, b.values, atol=1e-3, rtol=1e-3)


def test_tiles_of_a_network_that_reads_by_windows_agree_with_the_whole():
    config = MAEConfig(image_size=32, dim=32, depth=2, heads=2, decoder_dim=32, decoder_depth=1, decoder_heads=2)
    card = BackboneCard("", "", {"kind": "mae"}, {"name": "mae"}, blocks=(0, 1), timesteps=(0,))
    backbone = untrained_backbone(config, card)
    plane = _plane(104, 150)
    whole, tiled = (PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, tile=tile)) for tile in (256, 48))
    (expected, _) = whole.maps(0, 0)
    assert len(tiled.grid) == 12
    for row, col in tiled.grid:
        part, _ = tiled.maps(row, col)
        rows, cols = tiled.grid.cells(row, col, 8, 0)
        inside = part.values[:, rows.start - part.origin[0] :, cols.start - part.origin[1] :]
        inside = inside[:, : rows.stop - rows.start, : cols.stop - cols.start]
        torch.testing.assert_close(inside, expected.values[:, rows, cols], rtol=0, atol=4e-3)  # of float16


def test_features_of_a_file_that_was_written_to_are_not_kept(backbone, tmp_path):
    """They would be found again under the name of the pixels that were there before."""
    image = np.ascontiguousarray(blobs(60, 150)[0][..., 0])
    path, cache = tmp_path / "a.tif", FeatureCache(tmp_path / "cache")
    settings = FeatureSettings.of(backbone, tile=64)
    tifffile.imwrite(path, image)
    with open_image(path) as file:
        source = PlaneFeatures(backbone, file.plane(), settings, cache)
        assert source.grid.shape[1] > 1
        source.maps(0, 0)
        assert source.store.has(source.specs[0], 0, 0)
        tifffile.imwrite(path, 255 - image)
        source.maps(0, 1)
        assert not source.store.has(source.specs[0], 0, 1)
    with open_image(path) as file:
        again = PlaneFeatures(backbone, file.plane(), settings, cache)
        again.maps(0, 1)
        assert again.store.has(again.specs[0], 0, 1)


def test_a_lazy_array_is_named_after_the_file_as_it_was_when_it_was_opened(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8))
    lazy = ArrayImage(np.memmap(path, np.uint8, "r", shape=(40, 50)), source=path)
    assert not lazy.plane().changed()
    before = lazy.identity()
    tifffile.imwrite(path, np.ones((40, 50), np.uint16))
    assert lazy.plane().changed()
    assert lazy.identity() == before
    held = ArrayImage(np.zeros((40, 50), np.uint8), source=path)
    tifffile.imwrite(path, np.ones((40, 50), np.uint8))
    assert not held.plane().changed()
