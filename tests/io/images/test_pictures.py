"""Frames and transparency of PNG, GIF, WebP and JPEG, which are not read, and said."""

import numpy as np
import pytest
from PIL import Image

from mdm_studio.io.images import open_image

TRANSPARENT = "the transparency (alpha channel)"


def frames(count):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (16, 20, 3)).astype(np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.gif", {}, "frames 2 to 12 of 12"),
        ("a.png", {}, "frames 2 to 12 of 12"),
        ("a.webp", {"lossless": True}, "frames 2 to 12 of 12"),
        ("a.jpg", {"format": "MPO"}, "pictures 2 to 12 of 12"),
        ("tiff-called.png", {"format": "TIFF"}, "pages 2 to 12 of 12"),
    ],
)
def test_frames_after_the_first_are_named(tmp_path, name, options, words):
    first, *others = frames(12)
    first.save(tmp_path / name, save_all=True, append_images=others, **options)
    with open_image(tmp_path / name) as image:
        assert (image.left_out, image.planes, image.channels) == ((words,), 1, 3)
        pixels = image.plane().read(slice(None), slice(None))
    if name.endswith((".png", ".webp")):
        np.testing.assert_array_equal(pixels, np.asarray(first).transpose(2, 0, 1))


def test_a_single_picture_leaves_nothing_out(tmp_path):
    for name in ("a.gif", "a.png", "a.webp", "a.jpg", "a.bmp"):
        frames(1)[0].save(tmp_path / name)
        with open_image(tmp_path / name) as image:
            assert image.remarks == ()


def test_transparency_is_named_where_it_tells_pixels_apart(tmp_path):
    import imagecodecs

    random = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16):
        array = random.integers(0, 255, (9, 8, 4)).astype(dtype)
        for alpha, words in ((array[..., 3], (TRANSPARENT,)), (np.iinfo(dtype).max, ())):
            array[..., 3] = alpha
            (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array))
            with open_image(tmp_path / "a.png") as image:
                assert (image.left_out, image.channels) == (words, 3)
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    picture.save(tmp_path / "p.png", transparency=5)
    with open_image(tmp_path / "p.png") as image:
        assert image.left_out == (TRANSPARENT,)
