"""The 19 corruptions: repeatable, of any size and type, as strong as published."""

import numpy as np
import pytest
from skimage.data import astronaut

from mdm_studio.engine import image_corruptions
from mdm_studio.engine.corruption_layers import drops, plasma
from mdm_studio.engine.image_corruptions import CORRUPTIONS, GROUPS, chosen, corrupt, generator_for, refusal
from mdm_studio.errors import InputError, UsageError


@pytest.fixture(scope="module")
def picture():
    """A colour picture ``(3, 96, 120)``."""
    return np.ascontiguousarray(astronaut()[20:116, 180:300].transpose(2, 0, 1))


def made(image, name, severity, *, seed=0, rgb=True):
    return corrupt(image, name, severity, generator_for("an image", name, severity, seed), rgb=rgb)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_changes_the_picture_more_with_severity_and_the_same_seed_does_the_same(picture, name):
    weak, strong = made(picture, name, 1), made(picture, name, 5)
    distance = [np.abs(each.astype(float) - picture).mean() for each in (weak, strong)]
    assert strong.dtype == np.uint8
    assert strong.shape == picture.shape
    assert 0 < distance[0]
    assert distance[0] < distance[1] or name == "saturate"  # less colour first, then more
    assert np.array_equal(made(picture, name, 5), strong)


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "glass_blur", "frost", "elastic_transform"])
def test_another_seed_another_result(picture, name):
    assert not np.array_equal(made(picture, name, 3), made(picture, name, 3, seed=1))


@pytest.mark.parametrize(("name", "severity", "spread"), [("gaussian_noise", 1, 0.08), ("gaussian_noise", 3, 0.18)])
def test_noise_is_as_strong_as_published(name, severity, spread):
    flat = np.full((3, 64, 64), 128, np.uint8)
    assert (made(flat, name, severity) / 255.0).std() == pytest.approx(spread, rel=0.03)


def test_impulses_are_salt_and_pepper():
    flat = np.full((1, 100, 100), 128, np.uint8)
    values, counts = np.unique(made(flat, "impulse_noise", 5, rgb=False), return_counts=True)
    assert values.tolist() == [0, 128, 255]
    assert (counts[[0, 2]] / 10_000).tolist() == pytest.approx([0.135, 0.135], abs=0.015)


def test_glass_blur_is_the_pass_from_the_last_pixel_to_the_first():
    """The published loop, pixel by pixel, against the chains that are followed for all pixels at once."""
    for reach in (1, 4):
        generator = np.random.default_rng(3)
        found = image_corruptions._scattered(40, 37, reach, np.random.default_rng(3))
        rows, cols = range(reach + 1, 40 - reach + 1), range(reach + 1, 37 - reach + 1)
        dy, dx = generator.integers(-reach, reach, (2, len(rows), len(cols)))
        wanted = np.arange(40 * 37).reshape(40, 37)
        for h in reversed(rows):
            for w in reversed(cols):
                wanted[h, w] = wanted[h + dy[h - rows[0], w - cols[0]], w + dx[h - rows[0], w - cols[0]]]
        assert np.array_equal(found.reshape(40, 37), wanted)


@pytest.mark.parametrize("name", [name for name, each in CORRUPTIONS.items() if each.channels == "any"])
def test_scientific_images_keep_their_type_and_range(name):
    """Two channels of 12 bits in uint16, and floats with a hole in them."""
    image = (np.random.default_rng(0).random((2, 40, 48)) * 4095).astype(np.uint16)
    found = made(image, name, 3, rgb=False)
    assert found.dtype == np.uint16
    assert found.shape == image.shape
    assert found.max() <= 4095
    floats = image.astype(np.float32)
    floats[0, 0, 0] = np.nan
    assert np.isfinite(made(floats, name, 2, rgb=False)).all()


def test_brightness_keeps_the_hue_of_colours():
    image = np.broadcast_to(np.array([[[60]], [[30]], [[15]]], np.uint8), (3, 32, 32))
    red, green, blue = made(image, "brightness", 2)[:, 0, 0].astype(float)
    assert (green / red, blue / red) == pytest.approx((0.5, 0.25), abs=0.01)
    assert red == pytest.approx(60 + 0.2 * 255, abs=1)


def test_grey_pictures_have_weather_but_no_colours(picture):
    grey = picture[:1]
    assert made(grey, "frost", 1, rgb=False).shape == grey.shape
    assert made(grey, "spatter", 4, rgb=False).shape == grey.shape
    assert made(grey, "jpeg_compression", 4, rgb=False).shape == grey.shape
    assert "colours" in refusal("saturate", 1, rgb=False)
    with pytest.raises(InputError, match="leave it out"):
        made(grey, "saturate", 1, rgb=False)
    with pytest.raises(InputError, match="5 channels"):
        made(np.repeat(grey, 5, 0), "jpeg_compression", 1, rgb=False)


def test_groups():
    assert {name: len(members) for name, members in GROUPS.items()} == {"all": 19, "imagenet-c": 15, "mdm": 15, "ddpm-seg": 18}
    assert not {"motion_blur", "zoom_blur", "snow", "fog"} & set(GROUPS["mdm"])
    assert chosen("Fog, imagenet-c")[0] == "fog"
    assert len(chosen("fog,imagenet-c")) == 15


@pytest.mark.parametrize("text", ["", "smog", "fog,smog"])
def test_names_that_do_not_exist(text):
    with pytest.raises(UsageError, match="choose from"):
        chosen(text)


def test_what_cannot_be_corrupted(picture):
    with pytest.raises(UsageError, match="severity 6"):
        made(picture, "fog", 6)
    with pytest.raises(InputError, match="31 x 120"):
        made(picture[:, :31], "fog", 1)
    with pytest.raises(UsageError, match="give one"):
        corrupt(picture, "fog,snow", 1, np.random.default_rng(0), rgb=True)


def test_layers_of_odd_sizes():
    heights = plasma((33, 70), 2.0, np.random.default_rng(0))
    assert heights.shape == (33, 70)
    assert 0 <= heights.min() < heights.max() <= 1
    assert not drops((32, 32), (0.1, 0.01, 4, 0.69, 0.6), np.random.default_rng(0)).any()  # no noise is above the threshold
