"""Raw values to [-1, 1], and channels to what a backbone reads."""

import numpy as np
import pytest

from mdm_studio.arrays import data_values, fit_channels, intensity_window, normalise, percentiles
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


def _published(raw, *, joint):
    """The percentiles and the scaling of the first version, which ordinary images keep to the last bit."""
    windows = []
    for group in [raw] if joint else [channel[None] for channel in raw]:
        finite = group[np.isfinite(group)]
        low, high = (float(p) for p in np.percentile(finite, (0.1, 99.9)))
        used = float(finite.max()) if raw.dtype.itemsize > 1 else np.iinfo(raw.dtype).max - min(np.iinfo(raw.dtype).min, 0)
        narrowest = 4 / 255 * max(used, 1.0) if raw.dtype.kind in "ui" else 1e-6 * max(abs(high), abs(low), 1e-6)
        windows.append((low, low + narrowest if high - low < narrowest else high))
    low, high = (np.asarray(ends, np.float32)[:, None, None] for ends in zip(*windows, strict=True))
    image = (raw.astype(np.float32) - low) / (high - low) * 2 - 1
    return np.clip(np.nan_to_num(image, nan=-1.0, posinf=1.0, neginf=-1.0), -1, 1)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [
        *[(np.uint8, 20, 0), (np.uint16, 300, 100), (np.uint16, 5, 60_000), (np.int16, 300, -1000), (np.int32, 300, 0)],
        *[(np.uint32, 900, 10), (np.float16, 1, 0), (np.float32, 0.2, 0), (np.float32, 4095, 100), (np.float64, 30, -50)],
    ],
)
def test_ordinary_images_are_scaled_as_ever(dtype, scale, offset, joint):
    raw = (np.random.default_rng(0).gamma(2, 1, (3, 60, 50)).clip(0, 12) * scale + offset).astype(dtype)
    if raw.dtype.kind == "f":
        raw[0, :3] = np.nan
        raw[1, 0, 0] = np.inf
    found = intensity_window(raw, "percentile", joint=joint)
    np.testing.assert_array_equal(normalise(raw, found), _published(raw, joint=joint))
    assert not found.note
    masked = np.where(raw > np.nanmedian(raw[2]), raw, np.zeros((), dtype))  # cut out of a background of 0, or 0 and 1
    for each in (masked, (masked > 0).astype(dtype), (masked > 0).astype(dtype) * dtype(255 if scale > 1 else 1)):
        np.testing.assert_array_equal(_stretched(each, joint=joint), _published(each, joint=joint))


GREYS = np.random.default_rng(1).random((1, 40, 50))


def _with(values, base, dtype, columns=10):
    raw = base.astype(dtype)
    raw[:, :, :columns] = values
    return raw


@pytest.mark.parametrize(
    "raw",
    [
        GREYS * 1e300,
        (GREYS * 2 - 1) * 1.7e308,
        np.rint(GREYS * 999) * 5e-324,
        (GREYS * 1e-20).astype(np.float32),
        (GREYS * 1e-39).astype(np.float32),
        ((GREYS - 0.5) * 6.8e38).astype(np.float32),
        ((GREYS - 0.5) * 131_008).astype(np.float16),
        (GREYS * 1e19).astype(np.uint64),
        ((GREYS - 0.5) * 1.8e19).astype(np.int64),
        1e9 + GREYS,
        (1e9 + GREYS * 1000).astype(np.uint32),
        (1e9 + GREYS * 1000).astype(np.int64),
        (-1e9 + GREYS * 1000).astype(np.int64),
    ],
    ids=lambda raw: f"{raw.dtype} {raw.max():.2g}",
)
def test_no_range_of_values_is_out_of_range(raw):
    """Huge, tiny, far from zero: the picture is the same, whatever unit it is in; warnings are errors."""
    np.testing.assert_allclose(_stretched(raw), _stretched(GREYS), atol=0.02)
    np.testing.assert_allclose(_stretched(np.where(GREYS < 0.2, raw.min(), raw)), _stretched(GREYS.clip(0.2)), atol=0.5)


@pytest.mark.parametrize("law", ["percentile", "range"])
@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (_with(-1e30, GREYS, np.float32), "values beyond 1e+29"),
        (_with(np.finfo(np.float32).max, GREYS, np.float32), "values beyond 1e+29"),
        (_with([[[-1e30] * 5 + [1e30] * 5] * 40], GREYS, np.float64), "values beyond 1e+29"),
        (_with(1e38, GREYS, np.float32, columns=1), "values beyond 1e+29"),
        (_with(-9999, GREYS, np.float32), "-9999"),
        (_with([[[-9999] * 5 + [-32768] * 5] * 40], GREYS, np.float64), "-32768 (10 % of the pixels), -9999"),
    ],
)
def test_values_for_no_data_do_not_decide(raw, name, law):
    """GDAL, ESRI and netCDF mark pixels without data with a value far outside of all others."""
    found = intensity_window(raw, law, joint=True)
    assert found.note.startswith(f"taken as no data: {name} (")
    assert np.array_equal(np.sort(data_values(raw)), np.sort(raw[np.abs(raw) <= 1]))
    image, wanted = normalise(raw, found), _stretched(GREYS[:, :, 10:], law)
    np.testing.assert_allclose(image[:, :, 10:], wanted, atol=0.01)


def test_integers_for_no_data_and_a_hot_pixel_among_them():
    for value in (-(2**31), 2**31 - 1):
        raw = _with(value, GREYS * 1000, np.int32)
        found = intensity_window(raw, "percentile", joint=True)
        assert f"no data: {value} (20 % of the pixels)" in found.note
        np.testing.assert_allclose(normalise(raw, found)[:, :, 10:], _stretched(GREYS[:, :, 10:]), atol=0.02)
    hot = (GREYS * 1000).astype(np.uint32)
    hot[0, 5, 5] = 4_000_000_000
    np.testing.assert_allclose(_stretched(hot), _stretched(GREYS).clip(None, 1), atol=2.1)
    assert np.std(_stretched(hot)) > 0.5


@pytest.mark.parametrize(
    "raw",
    [
        _with(-9999, GREYS * 4000, np.float32),  # heights below and above a datum
        np.where(GREYS < 0.5, 0, GREYS * 1e300),  # all that is not background is huge
        10.0 ** (GREYS * 76 - 38),  # every order of magnitude
        np.where(GREYS < 0.5, 0.0, 65535.0).astype(np.float32),  # a mask
        np.where(GREYS < 0.5, 0.0, -1e30),
    ],
)
def test_values_that_are_data(raw):
    found = intensity_window(raw, "percentile", joint=True)
    assert not found.note
    assert (found.low[0], found.high[0]) == pytest.approx(np.percentile(raw, (0.1, 99.9)))


def test_nothing_to_see_is_said():
    for raw in (np.full((2, 5, 5), np.nan), np.full((2, 5, 5), -np.inf, np.float32)):
        found = intensity_window(raw, "percentile", joint=False)
        assert found.empty
        assert (normalise(raw, found) == -1).all()
    half = np.stack([np.full((5, 5), np.nan), np.arange(25.0).reshape(5, 5)])
    found = intensity_window(half, "percentile", joint=False)
    assert (found.empty, found.note) == (False, "channel 0: no pixel is finite")
    assert intensity_window(np.full((1, 5, 5), 7, np.uint8), "percentile", joint=True).note == (
        "all pixels looked at are 7: there is nothing to see"
    )


def test_percentiles_of_far_apart_values():
    for dtype in (np.float16, np.float32, np.float64):
        ends = np.array([np.finfo(dtype).min, np.finfo(dtype).max])
        assert percentiles(np.repeat(ends, 50)) == tuple(ends.astype(float))
    assert percentiles(np.array([-128, 127], np.int8)) == pytest.approx((-127.745, 126.745))


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
