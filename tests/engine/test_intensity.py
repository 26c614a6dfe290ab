"""Windows of planes: a plane without anything to see is refused, wherever its intensities are asked for."""

import numpy as np
import pytest

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.crops import survey
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.intensity import EmptyPlaneError, plane_window
from mdm_studio.engine.polarity import polarity
from mdm_studio.io.images import ArrayPlane
from mdm_studio.io.thumbnails import make_thumbnail

EMPTY = ArrayPlane(np.full((1, 40, 50), np.nan, np.float32), name="blank.tif")


def test_a_plane_without_finite_pixels_is_refused(tiny_backbone):
    for law in ("percentile", "range"):
        with pytest.raises(EmptyPlaneError, match=r"blank\.tif has no finite pixel"):
            plane_window(EMPTY, law)
    backbone = load_backbone(tiny_backbone)
    features = PlaneFeatures(backbone, EMPTY, FeatureSettings.of(backbone, filters=True))
    for read in (lambda: features.window, lambda: features.maps(0, 0), lambda: features.brightness(slice(0, 4), slice(0, 4))):
        with pytest.raises(EmptyPlaneError, match=r"blank\.tif"):
            read()
    assert polarity(EMPTY) == 0


def test_finite_pixels_that_a_sample_missed_are_found(monkeypatch):
    pixels = np.full((2, 1200, 30), np.nan)
    pixels[:, 700:710, 7:9] = np.arange(20.0).reshape(10, 2)
    plane = ArrayPlane(pixels, name="large")
    monkeypatch.setattr(ArrayPlane, "sample", lambda self, max_pixels=0: self.read(slice(0, 9), slice(0, 9)))
    found = plane_window(plane, "percentile")
    assert found.low == pytest.approx((0.019, 0.019), abs=0.01)
    assert found.high == pytest.approx((18.981, 18.981), abs=0.01)


def test_pretraining_leaves_such_planes_out_by_name(tmp_path):
    stack = np.random.default_rng(0).random((3, 20, 20))
    stack[1] = np.inf
    np.save(tmp_path / "a.npy", np.full((20, 20), np.nan))
    np.save(tmp_path / "b.npy", stack[0])
    np.save(tmp_path / "c.npy", stack[:2].transpose(1, 2, 0))
    planes, left_out = survey([tmp_path / f"{name}.npy" for name in "abc"], (0,), "percentile")
    assert [info.path.name for info in planes] == ["b.npy", "c.npy"]
    (line,) = left_out
    assert line.startswith("a has no finite pixel")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1e30, 5e-324])
def test_thumbnails_of_anything(tmp_path, value):
    pixels = np.random.default_rng(0).random((30, 20))
    for columns in (10, 20):
        pixels[:, :columns] = value
        np.save(tmp_path / "a.npy", pixels)
        assert make_thumbnail(tmp_path / "a.npy", 16).shape == (16, 11, 3)


def test_features_of_values_out_of_range_are_those_of_the_picture(tiny_backbone):
    backbone = load_backbone(tiny_backbone)
    settings = FeatureSettings.of(backbone, filters=True)
    picture = np.random.default_rng(0).random((1, 40, 48))
    plain = PlaneFeatures(backbone, ArrayPlane(picture), settings).maps(0, 0)
    for raw in (picture * 1e300, np.rint(picture * 1e6) * 5e-324, 1e9 + picture):
        for one, other in zip(plain, PlaneFeatures(backbone, ArrayPlane(raw), settings).maps(0, 0), strict=True):
            np.testing.assert_allclose(other.values, one.values, atol=0.05)
