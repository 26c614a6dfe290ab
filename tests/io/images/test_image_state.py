"""The state of an image covers every file that it is made of."""

import os

import numpy as np
import pytest
import tifffile

from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.file_signature import signature, state_of
from mdm_studio.io.images import find_images, image_signature, image_state, open_image
from mdm_studio.io.thumbnails import thumbnail

EVERYTHING = slice(None)
NAMES = ("a.ome.tif", "b.ome.tif")
XML = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{own}>{body}</OME>'
POINTER = '<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:0"/>'


def planes(names):
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    pixels = f'DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="12" SizeZ="{len(names)}" SizeC="1" SizeT="1"'
    return f'<Image ID="Image:0"><Pixels ID="Pixels:0" {pixels}>{data}</Pixels></Image>'


def write(path, value, text):
    tifffile.imwrite(path, np.full((12, 16), value, np.uint8), description=text, metadata=None)


@pytest.fixture(params=["each", "first", "companion"])
def parts(request, tmp_path):
    """A stack of two files, whose metadata are in each of them, in the first, or in a file of their own."""
    master = {"first": NAMES[0], "companion": "x.companion.ome"}.get(request.param)
    for z, name in enumerate(NAMES):
        whole = request.param == "each" or name == master
        body = planes(NAMES) if whole else POINTER.format(master=master)
        write(tmp_path / name, z + 1, XML.format(own=f' UUID="urn:uuid:{z}"', body=body))
    if request.param == "companion":
        (tmp_path / master).write_text(XML.format(own="", body=planes(NAMES)), "utf-8")
    return [tmp_path / name for name in NAMES]


def replaced(path):
    """Other pixels, and the size and the time of before: copied from elsewhere with its time."""
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] += 7
    other = path.with_suffix(".new")
    other.write_bytes(data)
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns - 1_000_000_000))
    other.replace(path)


def test_another_part_counts_as_the_image(parts):
    (path,) = find_images([parts[0].parent])
    assert path == parts[0]
    before, state = image_signature(path), image_state(path)
    with open_image(path) as image:
        plane = image.plane(1)
        assert not plane.changed()
        assert (image_signature(path), image_state(path)) == (before, state)
        replaced(parts[1])
        assert plane.changed()
    assert image_signature(path) != before
    assert image_state(path) != state
    known = image_signature(path)
    parts[1].unlink()
    assert image_signature(path) not in (known, before)


def test_a_part_of_the_same_size_and_time_is_another_state(parts):
    state = image_state(parts[0])
    time = parts[1].stat().st_mtime_ns
    replaced(parts[1])
    os.utime(parts[1], ns=(time, time))
    assert image_state(parts[0]) != state


def test_single_files_and_folders_keep_their_signature(tmp_path):
    tifffile.imwrite(tmp_path / "one.ome.tif", np.ones((12, 16), np.uint8))
    tifffile.imwrite(tmp_path / "plain.tif", np.ones((12, 16), np.uint8))
    (tmp_path / "damaged.tif").write_bytes(b"II*\0")
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}", "utf-8")
    for path in (*tmp_path.iterdir(), tmp_path / "nothing.tif"):
        assert image_signature(path) == signature(path)
        assert image_state(path) == state_of(path)


def test_scenes_of_their_own_are_not_one_another(tmp_path):
    scenes = planes(NAMES[:1]) + planes(NAMES[1:]).replace("urn:uuid:0", "urn:uuid:1").replace("Image:0", "Image:1")
    for z, name in enumerate(NAMES):
        write(tmp_path / name, z, XML.format(own=f' UUID="urn:uuid:{z}"', body=scenes))
    for path in find_images([tmp_path]):
        assert image_signature(path) == signature(path)


def test_thumbnails_and_shown_images_see_another_part(parts, tmp_path):
    path, cache = parts[0], tmp_path / "cache"
    thumbnail(path, 8, cache)
    assert len(list(cache.rglob("*.png"))) == 1
    shown = ArrayImage(np.zeros((12, 16), np.uint8), source=path).identity()
    replaced(parts[1])
    assert ArrayImage(np.zeros((12, 16), np.uint8), source=path).identity() != shown
    thumbnail(path, 8, cache)
    assert len(list(cache.rglob("*.png"))) == 2
