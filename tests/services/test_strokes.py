import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.engine.tiles import TileGrid
from mdm_studio.services.live_plan import PlaneKey, Tile, Window
from mdm_studio.services.strokes import BLOCK, StrokeIndex, block_window

PLANE = PlaneKey("a", 0)
SIZE = (6 * BLOCK + 17, 4 * BLOCK + 5)


def whole(labels):
    return Window(0, labels.shape[0], 0, labels.shape[1])


def painted(index):
    """Everything the index holds, as a label map."""
    labels = np.zeros(SIZE, np.uint8)
    for block, stroke in index:
        assert block.plane == PLANE
        assert (stroke.rows // BLOCK == block.row).all()
        assert (stroke.cols // BLOCK == block.col).all()
        labels[stroke.rows, stroke.cols] = stroke.values
    return labels


rectangles = st.tuples(
    st.integers(0, SIZE[0] - 1), st.integers(1, 200), st.integers(0, SIZE[1] - 1), st.integers(1, 200), st.integers(0, 3)
)


@settings(max_examples=50)
@given(st.lists(rectangles, max_size=6))
def test_any_painting_is_followed_region_by_region(strokes):
    labels, index = np.zeros(SIZE, np.uint8), StrokeIndex()
    for top, height, left, width, value in strokes:
        before, known = labels.copy(), index.generation
        rows, cols = slice(top, top + height), slice(left, left + width)
        labels[rows, cols] = value
        window = block_window(rows, cols, *SIZE)
        changed = index.update(PLANE, window, labels[window.rows, window.cols])
        assert changed == (not np.array_equal(before, labels)) == (index.generation > known)
    np.testing.assert_array_equal(painted(index), labels)
    assert index.counts() == {v: int((labels == v).sum()) for v in (1, 2, 3) if (labels == v).any()}


def test_only_blocks_that_changed_get_a_new_version():
    labels, index = np.zeros(SIZE, np.uint8), StrokeIndex()
    labels[5, 5], labels[200, 200] = 1, 2
    index.update(PLANE, whole(labels), labels)
    first = {block: stroke.version for block, stroke in index}
    labels[6, 6] = 1
    index.update(PLANE, whole(labels), labels)
    assert [first[block] == stroke.version for block, stroke in sorted(index)] == [False, True]


def test_classes_by_tile():
    labels, index = np.zeros(SIZE, np.uint8), StrokeIndex()
    labels[0, 0], labels[1, 1], labels[300, 200] = 1, 2, 3
    index.update(PLANE, whole(labels), labels)
    grid = TileGrid(*SIZE, tile=(256, 256), halo=32)
    assert index.by_tile({PLANE: grid}) == {Tile(PLANE, 0, 0): {1, 2}, Tile(PLANE, 1, 0): {3}}
    assert index.by_tile({}) == {}
    assert index.planes() == {PLANE}
    assert (index.painted_in("a"), index.painted_in("b")) == (3, 0)
    labels[0, :2] = 0, 5
    index.update(PLANE, whole(labels), labels)
    assert index.painted_in("a") == 3


def test_a_closed_image_is_forgotten():
    index = StrokeIndex()
    index.update(PLANE, Window(0, 2, 0, 2), np.ones((2, 2), np.uint8))
    assert not index.knows("a")
    index.mark_known("a")
    assert index.knows("a")
    before = index.generation
    index.forget("b")
    assert index.generation == before
    index.forget("a")
    assert index.counts() == {}
    assert index.painted_in("a") == 0
    assert not index.knows("a")
    assert index.generation > before


@pytest.mark.parametrize(
    ("rows", "cols", "expected"),
    [
        (slice(70, 71), slice(0, 1), (64, 128, 0, 64)),
        (slice(-5, 3), slice(50, 9999), (0, 64, 0, SIZE[1])),
        (slice(390, 401), slice(63, 65), (384, SIZE[0], 0, 128)),
    ],
)
def test_windows_are_whole_blocks_inside_the_image(rows, cols, expected):
    assert block_window(rows, cols, *SIZE) == Window(*expected)
