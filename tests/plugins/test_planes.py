"""Geometry, channel axes and changed regions, without a viewer."""

import numpy as np
import pytest

from mdm_studio.errors import ChannelsError

napari_layers = pytest.importorskip("napari.layers")
Image, Labels = napari_layers.Image, napari_layers.Labels


def layer_options():
    place = {"scale": (2.0, 0.5, 0.25), "translate": (1.0, 10.0, 20.0)}
    return {**place, "units": ("micrometer",) * 3, "axis_labels": ("z", "y", "x")}


def test_the_geometry_of_a_layer_is_that_of_its_outputs():
    from napari_mdm_studio._geometry import Geometry

    image = Image(np.zeros((3, 40, 50), np.uint8), rotate=(0, 0, 30), **layer_options())
    labels = Labels(np.zeros((3, 40, 50), np.uint8), **Geometry.of(image).options())
    for point in ((0, 0, 0), (2, 39, 49), (1, 7, 3)):
        np.testing.assert_allclose(labels.data_to_world(point), image.data_to_world(point))
    assert labels.axis_labels == ("z", "y", "x")
    assert labels.units == image.units


def test_shear_and_affine_are_carried():
    from napari_mdm_studio._geometry import Geometry

    affine = np.array([[1.0, 0.2, 3], [0.1, 1, 4], [0, 0, 1]])
    image = Image(np.zeros((40, 50), np.uint8), shear=[0.3], affine=affine, scale=(2, 3))
    labels = Labels(np.zeros((40, 50), np.uint8), **Geometry.of(image).options())
    np.testing.assert_allclose(labels.data_to_world((7, 9)), image.data_to_world((7, 9)))


@pytest.mark.parametrize(
    ("axis", "shape", "kept"), [(0, (3, 40, 50), (1, 2)), (1, (2, 3, 40, 50), (0, 2, 3)), (-1, (40, 50, 3), (0, 1))]
)
def test_the_channel_axis_is_left_out(axis, shape, kept):
    from napari_mdm_studio._geometry import Geometry

    scale = tuple(float(number + 1) for number in range(len(shape)))
    geometry = Geometry.of(Image(np.zeros(shape, np.uint8), rgb=False, scale=scale), axis)
    assert geometry.shape == tuple(shape[each] for each in kept)
    assert geometry.scale == tuple(scale[each] for each in kept)
    assert geometry.axes == kept
    assert geometry.axis_labels is None  # napari's own names number the axes


def test_rgb_and_pyramids():
    from napari_mdm_studio._geometry import Geometry
    from napari_mdm_studio._planes import channel_axes, describe_channels, planes_of

    rgb = Image(np.zeros((40, 50, 3), np.uint8), rgb=True)
    assert Geometry.of(rgb).shape == (40, 50)
    assert channel_axes(rgb) == (None,)
    assert describe_channels(rgb, None) == "RGB"
    assert planes_of(rgb).channels == 3
    pyramid = Image([np.zeros((64, 80)), np.zeros((32, 40))], multiscale=True)
    assert Geometry.of(pyramid).shape == (64, 80)
    assert planes_of(pyramid).plane(()).shape == (1, 64, 80)


def test_channels_are_offered_and_guessed():
    from napari_mdm_studio._planes import channel_axes, describe_channels, likely_channel_axis, planes_of

    stack = Image(np.zeros((5, 3, 40, 50), np.uint8), axis_labels=("z", "c", "y", "x"))
    assert channel_axes(stack) == (None, 0, 1, -1)
    assert likely_channel_axis(stack) == 1
    assert describe_channels(stack, 1) == "second axis: 3 channels"
    planes = planes_of(stack, 1)
    assert (planes.stack_shape, planes.channels) == ((5,), 3)
    assert likely_channel_axis(Image(np.zeros((3, 40, 50)))) is None


def test_channels_are_typed():
    from napari_mdm_studio._planes import as_typed, parse_channels, planes_of

    assert parse_channels("2, 0-1", "a", 5) == (2, 0, 1)
    for wrong in ("", "5", "1-9", "a"):
        with pytest.raises(ChannelsError, match="no channels of a: it has 5, counted from 0 to 4; type for example 0,1,2"):
            parse_channels(wrong, "a", 5)
    assert as_typed((2, 0)) == "2,0"
    layer = Image(np.arange(5, dtype=np.uint8)[:, None, None] + np.zeros((5, 40, 50), np.uint8))
    assert planes_of(layer, 0).chosen == (0, 1, 2)
    plane = planes_of(layer, 0, (4, 1)).plane()
    np.testing.assert_array_equal(plane.read(slice(0, 1), slice(0, 1)).ravel(), (4, 1))
    with pytest.raises(ChannelsError, match="7"):
        planes_of(layer, 0, (7,))
    assert planes_of(Image(np.zeros((40, 50, 4), np.uint8), rgb=True)).chosen == (0, 1, 2)


def test_large_strokes_take_memory_where_they_are_painted(monkeypatch):
    from napari_mdm_studio import _planes

    assert isinstance(_planes.empty_strokes((40, 50)), np.ndarray)
    monkeypatch.setattr(_planes, "IN_MEMORY", 1000)
    large = _planes.empty_strokes((2, 2000, 3000))
    assert large.chunks == (1, 512, 512)
    assert large.dtype == np.uint8
    large[1, 5:9, 7:8] = 3
    assert np.asarray(large[1, 5, 7]) == 3


@pytest.mark.parametrize("way", ["paint", "fill", "polygon", "setitem", "undo", "redo"])
def test_every_edit_of_labels_is_told_with_its_region(way):
    from napari_mdm_studio._strokes import StrokesWatcher

    layer = Labels(np.zeros((100, 120), np.uint8))
    layer.data[60:70, 60:70] = 2
    layer.brush_size, layer.n_edit_dimensions = 6, 2
    got, replaced = [], []
    watcher = StrokesWatcher(layer, got.append, lambda: replaced.append(1), lambda tell: tell())
    edits = {
        "paint": lambda: layer.paint((20, 30), 1),
        "fill": lambda: layer.fill((65, 65), 3),
        "polygon": lambda: layer.paint_polygon(np.array([(10, 10), (10, 20), (20, 20), (20, 10)]), 1),
        "setitem": lambda: layer.data_setitem((np.array([5, 9]), np.array([7, 30])), 1),
    }
    before = layer.data.copy()
    if way in edits:
        edits[way]()
    else:
        edits["paint"]()
        layer.undo()
        if way == "redo":
            got.clear()
            before = layer.data.copy()
            layer.redo()
        else:
            assert got[0] == got[1]
    (region,) = got[-1:]
    assert region.plane == ()
    rows, cols = np.nonzero(layer.data != before) if way != "undo" else (np.array([17, 23]), np.array([27, 33]))
    if way != "undo":
        assert (region.rows.start, region.rows.stop) == (rows.min(), rows.max() + 1)
        assert (region.cols.start, region.cols.stop) == (cols.min(), cols.max() + 1)
    assert not replaced
    watcher.close()
    layer.paint((50, 50), 1)
    layer.undo()
    assert got[-1] == region


def test_a_stroke_through_a_stack_is_told_plane_by_plane():
    from napari_mdm_studio._strokes import Changed, StrokesWatcher

    layer = Labels(np.zeros((4, 50, 60), np.uint8))
    got = []
    StrokesWatcher(layer, got.append, lambda: None, lambda tell: tell())
    layer.data_setitem((np.array([0, 0, 3]), np.array([5, 6, 7]), np.array([8, 2, 4])), 1)
    assert got == [Changed((0,), slice(5, 7), slice(2, 9)), Changed((3,), slice(7, 8), slice(4, 5))]
    got.clear()
    layer.brush_size, layer.n_edit_dimensions = 3, 3
    layer.paint((2, 20, 20), 1)
    assert {region.plane for region in got} == {(1,), (2,), (3,)}


@pytest.mark.parametrize("way", ["paint", "polygon", "setitem", "mouse"])
def test_a_stroke_is_told_once_it_is_in_the_array(way):
    from napari_mdm_studio._strokes import StrokesWatcher

    layer, waiting, seen = Labels(np.zeros((50, 60), np.uint8)), [], []
    layer.brush_size = 5
    StrokesWatcher(layer, lambda part: seen.append(layer.data[part.rows, part.cols].any()), lambda: None, waiting.append)
    if way == "mouse":
        with layer.block_history():
            layer.paint((20, 20), 1)
    elif way == "polygon":
        layer.paint_polygon(np.array([(10, 10), (10, 20), (20, 20), (20, 10)]), 1)
    elif way == "setitem":
        layer.data_setitem((np.array([5]), np.array([7])), 1)
    else:
        layer.paint((20, 20), 1)
    assert bool(waiting) is (way != "mouse")
    for tell in waiting:
        tell()
    assert seen == [True]


def test_another_array_is_told():
    from napari_mdm_studio._strokes import StrokesWatcher

    layer, replaced = Labels(np.zeros((50, 60), np.uint8)), []
    StrokesWatcher(layer, lambda _: None, lambda: replaced.append(1), lambda tell: tell())
    layer.data = np.ones((50, 60), np.uint8)
    assert replaced == [1]


@pytest.mark.parametrize(
    ("corners", "wanted"),
    [
        (((-20, -20), (-20, 80), (60, -20), (60, 80)), (slice(0, 40), slice(0, 50), 1.0)),
        (((10.0, 10), (10, 20), (18, 10), (18, 20)), (slice(10, 19), slice(10, 21), 0.1)),
        (((50, 60), (50, 70), (60, 60), (60, 70)), None),
        (((0, 20), (20, 40), (20, 0), (40, 20)), (slice(0, 40), slice(0, 41), 0.2 * 2**0.5)),  # turned by 45 degrees
    ],
)
def test_the_part_on_the_screen(corners, wanted):
    from napari_mdm_studio._geometry import shown_part

    canvas = (80, 100)
    shown = shown_part((40, 50), np.array(corners, float), canvas)
    if wanted is None:
        assert shown is None
    else:
        assert (shown.rows, shown.cols) == wanted[:2]
        assert shown.pixel == pytest.approx(wanted[2], rel=0.01)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("7", (7,)), ("4, 6-8", (4, 6, 7, 8)), (" 3;1 ", (1, 3)), ("", None), ("8-6", None), ("x", None), ("99", None)],
)
def test_lists_of_numbers(text, numbers):
    from napari_mdm_studio._numbers import as_text, parse_numbers

    assert parse_numbers(text, 17) == numbers
    if numbers:
        assert parse_numbers(as_text(numbers), 17) == numbers
