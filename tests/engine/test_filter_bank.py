"""The classical filters: known images give known answers, and tiles agree with the whole."""

import numpy as np
import pytest
from scipy import ndimage

from mdm_studio.arrays import bin_pixels
from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import FeatureSettings, FilterMap, PlaneFeatures
from mdm_studio.engine.filter_bank import SIGMAS, filter_bank, filter_channels
from mdm_studio.engine.heads import sample_features
from mdm_studio.errors import UsageError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ArrayPlane
from mdm_studio.testing import blobs

PER_SIGMA = 7
SMOOTHED, LAPLACIAN, GRADIENT, STRUCTURE, HESSIAN = 0, 1, 2, slice(3, 5), slice(5, 7)


@pytest.mark.parametrize("stride", SIGMAS)
def test_shape(stride):
    image = np.zeros((3, 64, 96), np.float32)
    maps = filter_bank(image, stride)
    assert maps.shape == (filter_channels(3, stride), 64 // stride, 96 // stride)
    assert maps.dtype == np.float32


def test_a_flat_image_has_nothing_but_its_value():
    maps = filter_bank(np.full((1, 32, 32), 0.25, np.float32), 1).reshape(-1, PER_SIGMA, 32, 32)
    np.testing.assert_allclose(maps[:, SMOOTHED], 0.25, atol=1e-6)
    np.testing.assert_allclose(maps[:, SMOOTHED + 1 :], 0, atol=1e-5)


def test_a_ramp_has_its_slope_as_gradient_at_every_scale():
    ramp = np.broadcast_to(np.linspace(0, 1, 128, dtype=np.float32), (1, 128, 128))
    slope = 1 / 127
    for stride, sigmas in SIGMAS.items():
        if stride > 4:  # wider than a ramp of this size
            continue
        maps = filter_bank(ramp, stride).reshape(-1, PER_SIGMA, 128 // stride, 128 // stride)
        middle = maps[:, :, 64 // stride, 64 // stride]
        np.testing.assert_allclose(middle[:, GRADIENT], slope * np.array(sigmas), rtol=0.08)
        np.testing.assert_allclose(middle[:, STRUCTURE][:, 0], slope * np.array(sigmas), rtol=0.08)
        np.testing.assert_allclose(middle[:, LAPLACIAN], 0, atol=1e-4)


def test_a_bright_blob_has_negative_curvature_both_ways_and_a_ridge_one_way():
    rows, cols = np.mgrid[:64, :64]
    blob = np.exp(-((rows - 32) ** 2 + (cols - 32) ** 2) / 18).astype(np.float32)[None]
    ridge = np.exp(-((rows - 32) ** 2) / 18).astype(np.float32)[None]
    of_blob, of_ridge = (filter_bank(image, 1).reshape(-1, PER_SIGMA, 64, 64)[-1, HESSIAN, 32, 32] for image in (blob, ridge))
    assert (of_blob < -0.1).all()
    assert of_ridge[1] < -0.1
    assert abs(of_ridge[0]) < 0.01


def test_bin_pixels_takes_means_of_squares():
    image = np.arange(2 * 8 * 12, dtype=np.float32).reshape(2, 8, 12)
    expected = ndimage.uniform_filter(image, (0, 4, 4), mode="nearest", origin=(0, -2, -2))[:, ::4, ::4]
    np.testing.assert_allclose(bin_pixels(image, 4), expected, rtol=1e-6)
    assert bin_pixels(image, 1) is image


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(tiny_backbone)


def _plane(height, width, channels=3):
    return ArrayPlane(np.ascontiguousarray(blobs(height, width)[0].transpose(2, 0, 1)[:channels]), rgb=channels == 3)


def _at(source, pixels):
    return np.concatenate([sample_features(source.maps(*source.grid.containing(y, x)), [y], [x]).numpy() for y, x in pixels])


def test_tiles_agree_with_the_whole_image(backbone):
    """Filters look no further than their halo, so tiling changes nothing but float16's last digit."""
    plane = _plane(300, 260)
    tiled, whole = (
        PlaneFeatures(backbone, plane, FeatureSettings.of(backbone, blocks=(), filters=True, tile=tile)) for tile in (64, 512)
    )
    assert len(tiled.grid) > 1
    assert len(whole.grid) == 1
    pixels = [(63, 10), (64, 200), (127, 128), (130, 5), (299, 259), (0, 0)]
    np.testing.assert_allclose(_at(tiled, pixels), _at(whole, pixels), atol=3e-3)


def test_filters_stand_after_the_blocks_and_are_cached_like_them(backbone, tmp_path, monkeypatch):
    settings = FeatureSettings.of(backbone, blocks=(2, 3), filters=True)
    specs = settings.specs(backbone)
    assert [spec.name for spec in specs] == ["b02-t0050", "b03-t0050", *(f"filters-s{stride}" for stride in SIGMAS)]
    plane = _plane(70, 50)
    first = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path))
    made = [m.values for m in first.maps(0, 0)]
    monkeypatch.setattr("mdm_studio.engine.features.filter_bank", lambda *_: pytest.fail("computed again"))
    again = PlaneFeatures(backbone, plane, settings, FeatureCache(tmp_path)).maps(0, 0)
    assert all(bool((a == b.values).all()) for a, b in zip(made, again, strict=True))


def test_a_grey_plane_is_filtered_once_and_repeated(backbone):
    settings = FeatureSettings.of(backbone, blocks=(), filters=True)
    source = PlaneFeatures(backbone, _plane(40, 40, channels=1), settings)
    for spec, feature_map in zip(source.specs, source.maps(0, 0), strict=True):
        assert isinstance(spec, FilterMap)
        assert feature_map.values.shape[0] == spec.channels
        thirds = feature_map.values.chunk(3)
        assert bool((thirds[0] == thirds[2]).all())


def test_nothing_to_read_is_refused(backbone):
    with pytest.raises(UsageError, match="--filters"):
        FeatureSettings.of(backbone, blocks=(), filters=False)
