"""Pixel sizes as people and programs write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdm_studio.io.images.spacing import Length, spacing

UM = "micrometer"


@pytest.mark.parametrize(
    ("y", "x", "size"),
    [
        (Length("0,5", "µm"), Length("0.5", "um"), (0.5, 0.5)),
        (Length("0.5 um"), Length("500nm"), (0.5, 0.5)),
        (Length(500, "nm"), Length(0.5, "micron"), (0.5, 0.5)),
        (Length(5, "Å"), Length(1, "nanometre"), (0.0005, 0.001)),
        (Length("0,500", "µm"), Length(0.25, "Micrometers"), (0.5, 0.25)),
        (Length(1, "in"), Length(1, "µm"), (25400, 1)),
    ],
)
def test_both_axes_come_in_one_unit(y, x, size):
    found = spacing(y, x)
    assert found.size == pytest.approx(size)
    assert found.unit == UM


ODD = [0, -1, math.nan, math.inf, 10**400, "1e400", "nan", "", "wide", "1,234", "1.234,5", "0x1", None, [1], True, "5 blub"]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_no_length_is_dropped_with_a_word(value, turned):
    pair = (Length(value, "" if value == "5 blub" else "um"), Length(1, "um"))
    found = spacing(*(pair[::-1] if turned else pair))
    assert (found.size, found.unit) == (None, None)
    assert found.notes[0].startswith("the pixel size is dropped: ")


def test_sizes_in_pixels_say_nothing():
    for unit in ("pixel", "pixels", "", None, "reference frame"):
        assert spacing(Length(1, unit), Length(1, unit)) == (None, None, ())
    assert spacing(Length(1, "pixel"), Length(1, "um")).notes


@given(st.text(max_size=20), st.one_of(st.none(), st.text(max_size=8), st.integers()))
def test_no_text_is_an_error(value, unit):
    found = spacing(Length(value, unit), Length(1.0, "um"))
    assert found.size is None or all(0 < size < math.inf for size in found.size)
    assert all("\n" not in note for note in found.notes)
