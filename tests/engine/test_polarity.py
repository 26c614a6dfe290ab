"""Which way round an image is, and whether a folder mixes both."""

import numpy as np
import pytest

from mdm_studio.engine.polarity import mixed, polarity, some_of
from mdm_studio.io.images import ArrayPlane


def _spots(seed, *, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    image = rng.normal(0.2, 0.02, (1, 64, 80))
    image[:, 20:28, 30:38] = 0.8
    return (np.clip(image, 0, 1) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bright_spots_dark_spots_and_neither(dtype):
    spots = _spots(0, dtype=dtype)
    assert polarity(ArrayPlane(spots)) == 1
    assert polarity(ArrayPlane(np.iinfo(dtype).max - spots)) == -1
    assert polarity(ArrayPlane(np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(dtype))) == 0
    assert polarity(ArrayPlane(np.zeros((1, 64, 64), dtype))) == 0


def test_one_hot_pixel_decides_nothing():
    dark_spots = 255 - _spots(1).astype(float)
    dark_spots[0, 0, 0] = 1e6
    assert polarity(ArrayPlane(dark_spots)) == -1


@pytest.mark.parametrize(
    ("found", "answer"),
    [([], False), ([0, 0], False), ([1] * 20, False), ([1, -1], True), ([1] * 30 + [-1] * 2, True), ([1] * 31 + [-1], False)],
)
def test_both_polarities_need_a_share(found, answer):
    assert mixed(found) is answer


@pytest.mark.parametrize("count", [0, 1, 5, 32, 33, 1000])
def test_some_images_are_looked_at_the_first_and_last_among_them(count):
    some = some_of(range(count))
    assert len(some) == min(count, 32)
    assert len(set(some)) == len(some)
    assert some == sorted(some)
    if count:
        assert some[0] == 0
        assert some[-1] == (count - 1 if count > 1 else 0)
