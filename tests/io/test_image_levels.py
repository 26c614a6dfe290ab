"""Image files as arrays that a viewer shows: what is read in pieces is what is read at once."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.errors import UnreadableImageError
from mdm_studio.io import image_levels
from mdm_studio.io.image_levels import _Lazy, open_levels
from mdm_studio.io.images import open_image
from mdm_studio.io.masks import open_mask
from mdm_studio.io.thumbnails import make_thumbnail

rng = np.random.default_rng(0)
SHAPES = {  # shape and axes of a file, shape and channel axis of what is shown
    "plain": ((70, 90), "YX", (70, 90), None),
    "stack": ((2, 3, 70, 90), "TZYX", (2, 3, 70, 90), None),
    "channels": ((4, 70, 90), "CYX", (4, 70, 90), 0),
    "both": ((3, 2, 70, 90), "ZCYX", (2, 3, 70, 90), 0),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_of_file_is_shown_and_read_alike(tmp_path, monkeypatch, kind, large):
    shape, axes, shown, axis = SHAPES[kind]
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, rng.integers(0, 4000, shape, np.uint16), metadata={"axes": axes}, tile=(16, 16))
    monkeypatch.setattr(image_levels, "WHOLE", 0 if large else 1 << 20)
    levels = open_levels(path)
    assert (levels.levels[0].shape, levels.channel_axis, levels.rgb, len(levels.scale)) == (shown, axis, False, len(shown))
    image = levels.as_image()
    with open_image(path, image.chosen) as file:
        assert image.stack_shape == file.stack_shape
        for number, index in enumerate(np.ndindex(file.stack_shape)):
            region = slice(5, 40), slice(33, 90)
            np.testing.assert_array_equal(image.plane(index).read(*region), file.plane(number).read(*region))
            if not large:  # features computed for a file are found again when it is shown
                assert image.plane(index).digest() == file.plane(number).digest()
    levels.close()


parts = st.integers(0, 3) | st.builds(slice, st.none() | st.integers(-5, 70), st.none() | st.integers(0, 70), st.integers(1, 5))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / "a.ome.tif"
    pixels = rng.integers(0, 4000, (4, 5, 16, 32), np.uint16)
    tifffile.imwrite(path, pixels, metadata={"axes": "ZCYX"})
    with open_image(path) as image:
        yield _Lazy(image), np.moveaxis(pixels, 1, 0)


@settings(max_examples=60, deadline=None)
@given(key=st.tuples(parts, parts, parts, parts))
def test_any_part_can_be_read(stack, key):
    lazy, pixels = stack
    np.testing.assert_array_equal(lazy[key], pixels[key])


def test_large_images_have_coarse_levels(tmp_path, monkeypatch):
    pixels = rng.integers(0, 255, (1500, 1100, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(256, 256))
    with open_mask(tmp_path / "b", (1500, 1100), np.uint8, format="ome-zarr", axes="YX") as writer:
        writer.write(0, 0, pixels[..., 0])
    monkeypatch.setattr(image_levels, "WHOLE", 0)
    monkeypatch.setattr(image_levels, "_ONE_LEVEL", 1000)
    levels = open_levels(tmp_path / "a.tif")
    assert [level.shape for level in levels.levels] == [(1500, 1100, 3), (375, 275, 3), (94, 69, 3)]
    np.testing.assert_array_equal(levels.levels[1], pixels[2::4, 2::4])
    levels.close()
    levels = open_levels(tmp_path / "b.ome.zarr")
    assert [level.shape for level in levels.levels] == [(1500, 1100), (750, 550), (375, 275)]
    assert make_thumbnail(tmp_path / "b.ome.zarr", 64).shape == (64, 47, 3)
    (tmp_path / "c.tif").write_bytes(b"II*")
    with pytest.raises(UnreadableImageError, match=r"c\.tif"):
        open_levels(tmp_path / "c.tif")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_thumbnails_of_any_channels(tmp_path, channels):
    pixels = rng.normal(100, 20, (channels, 60, 90)).astype(np.float32)
    pixels[0, :9] = np.nan
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "CYX"})
    picture = make_thumbnail(tmp_path / "a.ome.tif", 45)
    assert (picture.shape, picture.dtype) == ((30, 45, 3), np.uint8)
    assert (np.ptp(picture.astype(int), axis=2).max() == 0) == (channels == 1)  # grey images stay grey
    assert picture.max() > 150


def test_what_is_left_out_goes_with_the_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name in ("one", "two"):
            writer.write(np.zeros((8, 9), np.uint8), metadata={"axes": "YX", "Name": name})
    assert open_levels(tmp_path / "a.ome.tif").remarks == ("left out: scene 2 of 2 (two)",)
