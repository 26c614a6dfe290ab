import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from mdm_studio.engine import objects as module
from mdm_studio.engine.objects import ObjectOptions, find_objects, finished, number_objects
from mdm_studio.io import scratch as scratch_module
from mdm_studio.io.scratch import Scratch
from mdm_studio.testing import blobs

PLAIN = ObjectOptions()


def same_partition(first, second):
    """Whether two maps number the same regions, whatever the numbers."""
    pairs = {(int(a), int(b)) for a, b in zip(first.ravel(), second.ravel(), strict=True)}
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    return one_to_one and all((a == 0) == (b == 0) for a, b in pairs)


def discs(*middles, radius=6, shape=(40, 60)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, np.uint8)
    for row, col in middles:
        mask[(y - row) ** 2 + (x - col) ** 2 <= radius**2] = 1
    return mask


def test_touching_objects_of_two_classes_stay_apart():
    mask = np.array([[1, 1, 2, 2], [0, 1, 2, 0], [3, 0, 0, 2], [0, 3, 0, 0]], np.uint8)
    assert number_objects(mask, PLAIN).tolist() == [[1, 1, 2, 2], [0, 1, 2, 0], [3, 0, 0, 2], [0, 3, 0, 0]]


def test_small_objects_and_the_background_are_left_out():
    mask = np.array([[1, 1, 1, 1], [1, 2, 1, 2], [1, 1, 1, 2], [0, 1, 1, 1]], np.uint8)
    assert number_objects(mask, PLAIN, 1).tolist() == [[0] * 4, [0, 1, 0, 2], [0, 0, 0, 2], [3, 0, 0, 0]]
    assert number_objects(mask, ObjectOptions(min_size=2), 1).tolist() == [[0] * 4, [0, 0, 0, 1], [0, 0, 0, 1], [0] * 4]
    assert not number_objects(np.zeros((1, 1), np.uint8), ObjectOptions("watershed", fill_holes=True)).any()


@settings(max_examples=40, deadline=None)
@given(
    mask=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)),
    band=st.integers(1, 13),
)
def test_bands_do_not_show(mask, band):
    options = ObjectOptions(fill_holes=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BAND_PIXELS", band * mask.shape[1])
        assert same_partition(number_objects(mask, PLAIN), label(mask, background=0, connectivity=2))
        in_bands = number_objects(mask, options)
    assert same_partition(in_bands, number_objects(mask, options))


def test_holes_of_one_object_are_filled():
    mask = np.array(
        [
            [1, 1, 1, 0, 2, 2, 2],
            [1, 0, 1, 0, 2, 0, 2],
            [1, 1, 1, 0, 2, 1, 2],
            [0, 0, 0, 0, 2, 2, 2],
            [1, 0, 1, 1, 1, 1, 0],
            [1, 0, 1, 0, 3, 1, 0],
            [1, 1, 1, 1, 1, 1, 0],
        ],
        np.uint8,
    )
    filled = number_objects(mask, ObjectOptions(fill_holes=True))
    assert filled[1, 1] == filled[0, 0]
    assert filled[1, 5] == 0  # it touches a second object: that is no hole of one
    assert filled[4:6, 1].tolist() == [0, 0]  # open to the rest
    assert filled[5, 3] == 0
    small_dropped = number_objects(mask, ObjectOptions(fill_holes=True, min_size=2))
    assert small_dropped[1, 5] == small_dropped[2, 5] == small_dropped[0, 4] > 0  # the speck is gone, and the hole with it
    assert small_dropped[5, 3] == small_dropped[5, 4] == small_dropped[4, 0] > 0


def test_watershed_cuts_touching_discs():
    mask = discs((12, 12), (12, 23), (30, 45))
    likely = np.ones(mask.shape, np.float32)
    assert number_objects(mask, PLAIN).max() == 2
    cut = number_objects(mask, ObjectOptions("watershed"), 0, likely)
    assert ((cut > 0) == (mask > 0)).all()
    assert (cut[12, 10], cut[12, 25], cut[30, 45]) == (1, 2, 3)  # pieces of a region stand next to each other
    assert abs((cut == 1).sum() - (cut == 2).sum()) < 20
    assert number_objects(mask, ObjectOptions("watershed", distance=30), 0, likely).max() == 2


def test_a_piece_that_is_too_small_stays_with_its_neighbour():
    mask = discs((15, 15), radius=8) | discs((15, 26), radius=5)
    likely = np.ones(mask.shape, np.float32)
    assert number_objects(mask, ObjectOptions("watershed", distance=5), 0, likely).max() == 2
    whole = number_objects(mask, ObjectOptions("watershed", distance=5, min_size=90), 0, likely)
    assert whole.max() == 1
    assert ((whole > 0) == (mask > 0)).all()


def test_improbable_pixels_part_objects():
    mask = np.zeros((20, 40), np.uint8)
    mask[5:15, 5:35] = 1
    likely = np.ones(mask.shape, np.float32)
    likely[:, 19:21] = 0.1
    cut = number_objects(mask, ObjectOptions("watershed", distance=6), 0, likely)
    assert cut[10, 10] != cut[10, 30]


def test_windows_and_the_disk_do_not_show(tmp_path, monkeypatch):
    """The same objects, whatever they are found in; nothing is left on the disk."""
    _, mask = blobs(150, 170, seed=3)
    pairs = [(row, col) for row in range(10, 140, 20) for col in range(10, 160, 11)]
    mask = np.maximum(mask, 2 * discs(*pairs[::2], *pairs[1::3], shape=mask.shape)).astype(np.uint8)
    likely = np.ones(mask.shape, np.float32)
    options = ObjectOptions("watershed", min_size=4, fill_holes=True, distance=4)
    wanted = number_objects(mask, options, 1, likely)
    assert wanted.max() > 50
    monkeypatch.setattr(module, "_BAND_PIXELS", 17 * 170)
    monkeypatch.setattr(module, "_CELL", 32)
    monkeypatch.setattr(scratch_module, "IN_MEMORY", 100)
    with Scratch(tmp_path / "a.png") as scratch:
        objects = finished(find_objects(mask, options, 1, scratch.array, likely))
        assert (objects.read(slice(None), slice(None)) == wanted).all()
        assert objects.classes[1:].tolist() == [2] * wanted.max()
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".a.png.")
    assert not list(tmp_path.iterdir())


def test_what_is_too_large_to_be_cut_stays_whole(monkeypatch):
    mask = discs((12, 12), (12, 23), (30, 45))
    monkeypatch.setattr(module, "WHOLE", 200)
    objects = finished(
        find_objects(mask, ObjectOptions("watershed"), 0, lambda n, s, d: np.zeros(s, d), np.ones(mask.shape, np.float32))
    )
    assert (len(objects), objects.uncut) == (2, 1)
