import numpy as np

from mdm_studio.services.live_plan import PlaneKey, Tile, Window
from mdm_studio.services.suggestions import SIDE, suggest

PLANE, OTHER = PlaneKey("a", 0), PlaneKey("b", 0)


def doubt(plane=PLANE, **places):
    """A tile of 512 x 512 at every fourth pixel; `places` are (row, col) of windows of 128 pixels with high uncertainty."""
    values = np.full((128, 128), 0.01, np.float32)
    for value, (row, col) in places.items():
        values[row * 32 : row * 32 + 32, col * 32 : col * 32 + 32] = float(value[1:]) / 100
    return {Tile(plane, 0, 0): (Window(0, 512, 0, 512), values)}


def test_the_most_uncertain_window_is_suggested_and_says_why():
    found = suggest(doubt(u40=(2, 1)), [])
    assert found.plane == PLANE
    assert found.window == Window(256, 384, 128, 256)
    assert "0.40" in found.why


def test_among_equals_the_one_far_from_the_strokes():
    found = suggest(doubt(u30=(0, 0), u31=(3, 3)), [(PLANE, 500.0, 500.0)])
    assert found.window == Window(0, SIDE, 0, SIDE)
    assert "from the nearest stroke" in found.why


def test_the_same_window_is_not_suggested_twice_and_the_next_is_not_beside_it():
    everything = doubt(u40=(0, 0), u39=(0, 1), u38=(3, 3))
    first = suggest(everything, [])
    second = suggest(everything, [], [first])
    assert first.window == Window(0, 128, 0, 128)
    assert second.window == Window(384, 512, 384, 512)


def test_an_image_without_strokes_is_preferred():
    found = suggest(doubt(u30=(0, 0)) | doubt(OTHER, u25=(0, 0)), [(PLANE, 300.0, 300.0)])
    assert found.plane == OTHER
    assert "nothing is painted in this image yet" in found.why


def test_every_second_time_an_image_that_was_never_looked_at():
    unseen = [(OTHER, Window(0, 256, 0, 256))]
    first = suggest(doubt(u40=(0, 0)), [], [], unseen)
    second = suggest(doubt(u40=(0, 0)), [], [first], unseen)
    third = suggest(doubt(u40=(0, 0)), [], [first, second], unseen)
    assert [each.plane for each in (first, second, third)] == [PLANE, OTHER, PLANE]
    assert second.why == "Nothing of this image has been looked at yet"
    assert suggest(doubt(u40=(0, 0)), [], [first, second, third], unseen).plane == PLANE  # not a second time


def test_nothing_is_suggested_before_there_is_a_picture():
    assert suggest({}, []) is None
