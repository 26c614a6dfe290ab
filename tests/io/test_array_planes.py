"""Arrays as planes: any order of axes, any array that a viewer shows, nothing read that was not asked for."""

import os

import dask.array
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.storage import MemoryStore

from mdm_studio.errors import ChannelsError, InputError, UnreadableImageError
from mdm_studio.io import array_planes
from mdm_studio.io.array_planes import ArrayImage, usual_channels
from mdm_studio.io.images import ArrayPlane

ALL = slice(None)


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def in_zarr(array):
    chunks = tuple(min(n, 16) for n in array.shape)
    stored = zarr.create_array(MemoryStore(), shape=array.shape, dtype=array.dtype, chunks=chunks)
    stored[...] = array
    return stored


WRAPPERS = {"numpy": lambda a: a, "dask": lambda a: dask.array.from_array(a, chunks=16), "zarr": in_zarr}


class Watched:
    """An array that remembers what was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        block = self.array[key]
        self.read.append(block.size)
        return block


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", ">u2", "int32", "float32", ">f8"])
def test_a_plane_is_read_by_regions(wrapper, dtype):
    array = noise(40, 50, dtype=dtype)
    plane = ArrayImage(WRAPPERS[wrapper](array), name="field").plane()
    assert (plane.shape, plane.dtype, plane.rgb, plane.name) == ((1, 40, 50), array.dtype.newbyteorder("="), False, "field")
    block = plane.read(slice(3, 20), slice(40, 99))
    assert block.dtype.isnative
    assert block.flags.c_contiguous
    assert np.array_equal(block, array[None, 3:20, 40:99])
    assert plane.read(slice(5, 5), ALL).shape == (1, 0, 50)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("shape", "options", "stack"),
    [
        ((3, 2, 20, 30), {}, (3, 2)),
        ((3, 20, 30, 3), {"rgb": True}, (3,)),
        ((20, 30, 4), {"rgb": True}, ()),
        ((4, 20, 30), {"channel_axis": 0}, ()),
        ((20, 30, 5), {"channel_axis": -1}, ()),
        ((20, 5, 30), {"channel_axis": 1}, ()),
        ((2, 4, 3, 20, 30), {"channel_axis": 1}, (2, 3)),
        ((2, 3, 20, 30, 4), {"channel_axis": -1, "channels": (3, 0)}, (2, 3)),
        ((9, 20, 30), {"channel_axis": 0, "channels": (8, 0)}, ()),
        ((2, 20, 30, 9), {"channel_axis": 3, "channels": (0, 8)}, (2,)),
        ((20, 30, 3), {"rgb": True, "channels": (2, 1)}, ()),
    ],
)
def test_axes_and_channels(wrapper, shape, options, stack):
    array = noise(*shape, dtype="uint16")
    image = ArrayImage(WRAPPERS[wrapper](array), **options)
    axis = array.ndim - 1 if options.get("rgb") else options.get("channel_axis")
    expected = array[..., None, :, :] if axis is None else np.moveaxis(array, axis, -3)
    if options.get("rgb"):
        expected = expected[..., :3, :, :]
    if "channels" in options:
        expected = expected[..., list(options["channels"]), :, :]
    assert (image.stack_shape, image.planes, image.channels) == (stack, int(np.prod(stack)), expected.shape[-3])
    assert (image.height, image.width) == (20, 30)
    assert image.rgb == (options == {"rgb": True})
    for index in np.ndindex(*stack):
        plane = image.plane(index)
        assert np.array_equal(plane.read(ALL, ALL), expected[index])
        assert np.array_equal(plane.read(slice(3, 9), slice(7, 8)), expected[index][:, 3:9, 7:8])


@settings(max_examples=50, deadline=None)
@given(data=st.data(), array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=5, max_side=6)))
def test_any_channel_axis(data, array):
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    channels = tuple(data.draw(st.lists(st.integers(0, array.shape[axis] - 1), min_size=1, max_size=4)))
    image = ArrayImage(array, channel_axis=axis, channels=channels)
    moved = np.moveaxis(array, axis, -3)[..., channels, :, :]
    index = data.draw(st.tuples(*(st.integers(0, n - 1) for n in image.stack_shape)))
    plane = image.plane(index)
    assert np.array_equal(plane.read(ALL, ALL), moved[index])
    assert np.array_equal(plane.sample(), moved[index])


def test_only_the_region_is_read():
    watched = Watched(noise(2, 300, 300, 3))
    plane = ArrayImage(watched, rgb=True).plane((1,))
    assert watched.read == []
    plane.read(slice(10, 20), slice(0, 30))
    assert watched.read == [10 * 30 * 3]


def test_not_a_number_stays():
    array = noise(20, 20, dtype="float32")
    array[3, 4] = np.nan
    plane = ArrayImage(array).plane()
    assert np.isnan(plane.read(ALL, ALL)[0, 3, 4])
    assert plane.digest() == ArrayImage(array.copy()).plane().digest()


def test_the_names_of_planes():
    assert ArrayImage(noise(2, 3, 8, 8), name="cells").plane((1, 2)).name == "cells[1,2]"


# ------------------------------------------------------------------------------------------------------------- pyramids


def test_the_sample_of_a_small_plane_is_that_of_a_file():
    array = noise(300, 200)
    image = ArrayImage([array, array[::2, ::2]])
    assert np.array_equal(image.plane().sample(1000), ArrayPlane(array[None]).sample(1000))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_sample_of_a_large_plane_comes_from_a_coarse_level(monkeypatch, wrapper):
    monkeypatch.setattr(array_planes, "_SAMPLED_WHOLE", 1000)
    array = noise(4, 64, 96, 3)
    levels = [array, array[:, ::2, ::2], array[::2, ::4, ::4], array[::2, ::32, ::32]]
    image = ArrayImage([WRAPPERS[wrapper](level) for level in levels], rgb=True)
    assert np.array_equal(image.plane((3,)).read(ALL, ALL), np.moveaxis(array[3], -1, 0))
    assert np.array_equal(image.plane((3,)).sample(384), np.moveaxis(levels[2][1], -1, 0))
    assert np.array_equal(image.plane((3,)).sample(90), np.moveaxis(levels[2][1, ::2, ::2], -1, 0))
    assert image.plane((3,)).sample(10_000).shape == (3, 64, 96)
    alone = ArrayImage(WRAPPERS[wrapper](array), rgb=True).plane((3,))
    assert np.array_equal(alone.sample(96), np.moveaxis(array[3, ::8, ::8], -1, 0))


def test_levels_that_do_not_belong_are_left_out(monkeypatch):
    monkeypatch.setattr(array_planes, "_SAMPLED_WHOLE", 10)
    array = noise(3, 64, 64)
    image = ArrayImage([array, array[:2, ::2, ::2], array[0, ::8, ::8], noise(3, 99, 99)], channel_axis=0)
    assert image.plane().sample(1).shape[0] == 3


# -------------------------------------------------------------------------------------------------------------- digests


def test_a_plane_in_memory_is_known_by_all_its_pixels():
    array = noise(3, 70, 60)
    image = ArrayImage(np.moveaxis(array, 0, -1), rgb=True)
    digest = image.plane().digest()
    assert digest == ArrayPlane(array, rgb=True).digest()
    array[1, 69, 59] += 1
    assert image.plane().digest() != digest


def test_lazy_arrays_without_a_file_share_nothing():
    lazy = dask.array.from_array(np.zeros((2, 50, 50), np.uint8))
    image = ArrayImage(lazy)
    digests = {image.plane((0,)).digest(), image.plane((1,)).digest(), ArrayImage(lazy).plane((0,)).digest()}
    assert len(digests) == 3
    assert image.plane((0,)).digest() in digests


def test_lazy_arrays_of_a_file_are_known_by_size_time_and_sample(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(100))
    os.utime(path, ns=(1, 1))
    lazy = dask.array.from_array(noise(3, 50, 50))

    def digest(array=lazy, index=(), **options):
        return ArrayImage(array, **({"channel_axis": 0, "source": path} | options)).plane(index).digest()

    first = digest()
    path = path.rename(tmp_path / "b.raw")
    assert digest() == first
    assert digest(lazy + 1) != first
    assert digest(channels=(0, 1)) != digest(channels=(0, 2))
    assert digest(channel_axis=None, index=(1,)) != digest(channel_axis=None, index=(2,))
    os.utime(path, ns=(1, 2))
    assert digest() != first
    assert digest(source=tmp_path / "gone") != digest(source=tmp_path / "gone")


def test_a_folder_is_known_by_the_files_in_it(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(32, 32), dtype="uint8")
    array[...] = 1
    first = ArrayImage(array, source=tmp_path / "a.zarr").plane().digest()
    assert ArrayImage(array, source=tmp_path / "a.zarr").plane().digest() == first
    os.utime(tmp_path / "a.zarr" / "c" / "1" / "1", ns=(1, 2**62))
    assert ArrayImage(array, source=tmp_path / "a.zarr").plane().digest() != first


def test_the_digest_of_a_large_array_reads_little(monkeypatch):
    monkeypatch.setattr(array_planes, "_SAMPLED_WHOLE", 1 << 20)
    watched = Watched(np.broadcast_to(np.uint8(1), (20_000, 30_000)))
    image = ArrayImage(watched)
    assert image.plane().digest() == image.plane().digest()
    assert sum(watched.read) == 2 * 8 * 8 * 64 * 64
    flat = ArrayImage(Watched(np.broadcast_to(np.uint8(1), (10, 2_000_000))))
    assert flat.plane().digest()


def test_large_arrays_in_memory_are_not_read_whole(monkeypatch):
    array = noise(64, 64)
    whole = ArrayImage(array).plane().digest()
    monkeypatch.setattr(array_planes, "IN_MEMORY_BYTES", 100)
    assert ArrayImage(array).plane().digest() != whole


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (np.zeros(5), {}, "shape"),
        (np.zeros((0, 5)), {}, "at least 1"),
        (np.zeros((5, 3)), {"rgb": True}, "fewer than two axes"),
        (np.zeros((5, 3)), {"channel_axis": 0}, "fewer than two axes"),
        (np.zeros((5, 5, 2)), {"rgb": True}, "last axis has 2"),
        (np.zeros((5, 5, 3)), {"rgb": True, "channel_axis": 2}, "only one"),
        (np.zeros((5, 5, 3)), {"channel_axis": 3}, "no axis 3"),
        (np.zeros((5, 5), complex), {}, "complex128"),
        (np.zeros((5, 5), object), {}, "object"),
        (np.zeros((5, 5), "datetime64[s]"), {}, "datetime64"),
        ([], {}, "no pyramid level"),
    ],
)
def test_what_is_no_image_is_refused_in_words(array, options, words):
    with pytest.raises(InputError, match=words):
        ArrayImage(array, **options)


@pytest.mark.parametrize("channels", [(), (3,), (-1,)])
def test_channels_that_are_not_there(channels):
    with pytest.raises(ChannelsError, match="0 to 2"):
        ArrayImage(np.zeros((3, 5, 5)), channel_axis=0, channels=channels)


@pytest.mark.parametrize(("axis", "rgb"), [(1, False), (None, True)])
def test_the_same_image_with_other_channels(axis, rgb):
    array = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 3), np.uint8)
    image = ArrayImage(array, channel_axis=axis, rgb=rgb, name="field")
    other = image.reading((2, 0))
    assert (image.chosen, other.chosen, other.available) == ((0, 1, 2), (2, 0), 3)
    assert (other.name, other.channels, other.rgb, other.stack_shape) == ("field", 2, False, image.stack_shape)
    np.testing.assert_array_equal(other.plane((1,)).read(ALL, ALL), image.plane((1,)).read(ALL, ALL)[[2, 0]])
    assert other.reading((0, 1, 2)).plane((0,)).digest() == image.plane((0,)).digest()
    assert other.plane((0,)).digest() != image.plane((0,)).digest()
    with pytest.raises(ChannelsError, match="0 to 2"):
        image.reading((3,))


@pytest.mark.parametrize(("available", "usual"), [(1, (0,)), (2, (0, 1)), (3, (0, 1, 2)), (7, (0, 1, 2))])
def test_the_channels_that_are_read_until_somebody_chooses(available, usual):
    assert usual_channels(available) == usual


@pytest.mark.parametrize("index", [(), (2,), (-1,), (0, 0)])
def test_planes_that_are_not_there(index):
    with pytest.raises(InputError, match=r"\(2,\)"):
        ArrayImage(np.zeros((2, 5, 5))).plane(index)


def test_nested_lists_of_numbers_are_an_array():
    assert ArrayImage([[1, 2], [3, 4]]).plane().read(ALL, ALL).tolist() == [[[1, 2], [3, 4]]]


def test_a_lazy_array_that_cannot_be_read_names_itself():
    def fail(block):
        raise OSError("the drive is gone")

    lazy = dask.array.zeros((20, 20), dtype="uint8").map_blocks(fail, dtype="uint8", meta=np.empty((0, 0), "uint8"))
    with pytest.raises(UnreadableImageError, match=r"slide 7.*the drive is gone"):
        ArrayImage(lazy, name="slide 7").plane().read(ALL, ALL)
