"""Digests by which a card knows the images that trained its network."""

import numpy as np
import pytest
import zarr

from mdm_studio.errors import UnreadableImageError
from mdm_studio.io import image_digest as module
from mdm_studio.io.image_digest import image_digest, image_digests


def test_equal_bytes_have_equal_digests_whatever_the_name(tmp_path):
    for name, content in (("a.png", b"1"), ("b.tif", b"1"), ("c.png", b"2")):
        (tmp_path / name).write_bytes(content)
    found = [image_digest(tmp_path / name) for name in ("a.png", "b.tif", "c.png")]
    assert found[0] == found[1] != found[2]
    assert {len(each) for each in found} == {16}
    assert image_digests(tmp_path.iterdir()) == sorted(set(found))


def test_large_files_are_known_by_their_size_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_END", 10)
    base = bytearray(range(100))
    digests = set()
    for place in (None, 5, 50, 95):
        content = bytearray(base)
        if place is not None:
            content[place] = 255
        (tmp_path / "a").write_bytes(content)
        digests.add(image_digest(tmp_path / "a"))
    (tmp_path / "a").write_bytes(base + b"x")
    digests.add(image_digest(tmp_path / "a"))
    assert len(digests) == 4  # a change in the middle is not seen


def test_a_zarr_folder_is_one_image(tmp_path):
    for name, value in (("a.zarr", 1), ("b.zarr", 1), ("c.zarr", 2)):
        zarr.save_array(tmp_path / name, np.full((4, 4), value))
    found = [image_digest(tmp_path / name) for name in ("a.zarr", "b.zarr", "c.zarr")]
    assert found[0] == found[1] != found[2]


def test_too_many_images_and_missing_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGES", 1)
    (tmp_path / "a.png").write_bytes(b"1")
    assert len(image_digests([tmp_path / "a.png"])) == 1
    assert image_digests([tmp_path / "a.png"] * 2) == []
    with pytest.raises(UnreadableImageError, match="not there"):
        image_digest(tmp_path / "b.png")
