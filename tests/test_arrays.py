"""Raw values to [-1, 1], and channels to what a backbone reads."""

import numpy as np
import pytest

from mdm_studio.arrays import fit_channels, intensity_window, normalise
from mdm_studio.errors import ChannelsError


def _stretched(raw, law="percentile", joint=True):
    return normalise(raw, intensity_window(raw, law, joint=joint))


def test_range_is_the_papers_own():
    raw = np.array([[[0, 51, 255]]], np.uint8)
    np.testing.assert_allclose(_stretched(raw, "range"), raw / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 16])
def test_percentile_does_not_depend_on_the_bits(scale):
    raw = np.random.default_rng(0).integers(100, 4000, (1, 50, 50)).astype(np.uint16)
    np.testing.assert_allclose(_stretched(raw), _stretched((raw * scale).astype(np.uint16)), atol=1e-5)
    assert _stretched(raw).min() == -1
    assert _stretched(raw).max() == 1


def test_an_empty_image_stays_flat():
    raw = np.random.default_rng(0).integers(10, 12, (1, 50, 50)).astype(np.uint8)
    assert np.ptp(_stretched(raw)) < 0.6  # a grey level of noise is not blown up to the whole range
    assert np.isfinite(_stretched(np.zeros((1, 5, 5), np.uint8))).all()


def test_colours_stay_together_and_channels_apart():
    raw = np.stack([np.linspace(0, 100, 64), np.linspace(0, 200, 64)])[:, None].astype(np.uint8)
    assert _stretched(raw, joint=True)[0].max() < 0.1
    assert _stretched(raw, joint=False)[0].max() == 1


def test_not_a_number_is_dark_and_does_not_count():
    raw = np.array([[[np.nan, 0.0, 1.0, np.inf]]], np.float32)
    assert _stretched(raw).tolist() == [[[-1, -1, 1, 1]]]


def test_bool():
    assert _stretched(np.array([[[True, False]]])).tolist() == [[[1, -1]]]


@pytest.mark.parametrize(("have", "wanted"), [(1, 3), (2, 3), (3, 3), (1, 5)])
def test_channels_that_fit(have, wanted):
    assert fit_channels(np.ones((have, 2, 2)), wanted, name="a").shape == (wanted, 2, 2)


@pytest.mark.parametrize(("have", "wanted"), [(4, 3), (3, 1), (2, 5)])
def test_channels_that_do_not(have, wanted):
    with pytest.raises(ChannelsError, match=f"field.tif has {have} channels .* reads {wanted}"):
        fit_channels(np.ones((have, 2, 2)), wanted, name="field.tif")
