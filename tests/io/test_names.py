"""Names of files and classes as people, screens and spreadsheets see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdm_studio.io.names import as_cell, as_text, of_cell, one_line

TEXT = st.text(st.characters())  # lone surrogates among them


@given(text=TEXT)
def test_any_name_can_be_shown_and_written(text):
    for shown in (as_text(text), one_line(text), as_cell(text)):
        shown.encode()
    assert len(one_line(text).splitlines()) <= 1
    assert not {"\x1b", "\u202e", "\u2066", "\x07", "\x9b"} & set(one_line(text))


@given(text=st.text())
def test_a_cell_gives_its_text_back(text):
    cell = as_cell(text)
    assert of_cell(cell) == text
    assert not cell.startswith(tuple("=+-@\t\r\n"))


@pytest.mark.parametrize("text", ["nucleus", "Zellkern µm", "細胞", "a b", "\N{WOMAN}\u200d\N{MICROSCOPE}"])
def test_usual_names_stay(text):
    assert as_text(text) == one_line(text) == as_cell(text) == text
