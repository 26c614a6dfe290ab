import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.services import pictures
from mdm_studio.services.live_plan import Window
from mdm_studio.services.pictures import Picture


def test_a_small_image_has_one_level_and_a_large_one_several():
    assert [level.shape for level in Picture((), 1024, 1024, np.uint8).levels] == [(1024, 1024)]
    shapes = [level.shape for level in Picture((3,), 2050, 2000, np.uint8).levels]
    assert shapes == [(3, 2050, 2000), (3, 1025, 1000), (3, 513, 500), (3, 257, 250)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(33, 300),
    st.integers(33, 300),
    st.sampled_from([1, 2, 4, 8, 16, 32]),
    st.integers(0, 8),
    st.integers(0, 8),
    st.data(),
)
def test_what_is_drawn_is_seen_on_every_level(height, width, step, row, col, data):
    top, left = min(row * 32, height // 32 * 32 - 32), min(col * 32, width // 32 * 32 - 32)
    window = Window(top, min(top + data.draw(st.integers(1, 5)) * 32, height), left, min(left + 64, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "ONE_LEVEL", 1000)
        patch.setattr(pictures, "_SMALLEST", 40)
        picture = Picture((2,), height, width, np.int64)
    h, w = -(-(window.bottom - top) // step), -(-(window.right - left) // step)
    values = np.arange(1, h * w + 1).reshape(h, w)
    picture.draw(1, window, step, values)
    fine = np.repeat(np.repeat(values, step, 0), step, 1)[: window.bottom - top, : window.right - left]
    expected = np.zeros((height, width), np.int64)
    expected[window.rows, window.cols] = fine
    for level, shown in enumerate(picture.levels):
        assert not shown[0].any()
        size = 1 << level
        if size <= 32:
            np.testing.assert_array_equal(shown[1], expected[::size, ::size])
