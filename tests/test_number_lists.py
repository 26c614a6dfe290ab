"""One way to type lists of numbers, for options and for fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdm_studio.cli.common import parse_numbers as option
from mdm_studio.errors import UsageError
from mdm_studio.number_lists import as_text, parse_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("7", (7,)),
        ("8-12", (8, 9, 10, 11, 12)),
        ("0,2,5-7", (0, 2, 5, 6, 7)),
        ("8, 4 - 6;2", (8, 4, 5, 6, 2)),
        (" 3 3 3,", (3,)),
        ("5-5", (5,)),
        ("007", (7,)),
        ("0-99999", tuple(range(100_000))),
    ],
)
def test_lists_in_the_order_typed(text, numbers):
    assert parse_numbers(text) == numbers
    assert option(text, "--blocks") == numbers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names nothing"),
        (" ,", "names nothing"),
        ("8,12-9", "12-9 runs backwards, 9-12"),
        ("8-", "'8-' is neither"),
        ("-3", "'-3' is neither"),
        ("1 -3", "'-3' is neither"),
        ("1-2-3", "'1-2-3' is neither"),
        ("1--3", "'1--3' is neither"),
        ("1.5", "neither"),
        ("1e3", "neither"),
        ("\u0663", "neither"),  # a digit, and none that is typed here
        ("\uff15", "neither"),
        ("\u00b2", "neither"),
        ("all", "neither"),
        ("1-1000000000", "beyond 99999"),
        ("9" * 5000, "beyond 99999"),
        ("0-" + "9" * 5000, "beyond 99999"),
    ],
)
def test_what_is_no_list_is_said_with_an_example(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_numbers(text)
    assert str(caught.value).endswith("write it like 8-12 or 0,2,5")
    assert len(str(caught.value)) < 100
    with pytest.raises(UsageError, match=r"^--blocks "):
        option(text, "--blocks")


def test_numbers_beyond_the_largest():
    assert parse_numbers("16-17", 17) == (16, 17)
    with pytest.raises(ValueError, match="17-18 is beyond 17"):
        parse_numbers("17-18", 17)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_what_is_written_is_read(numbers):
    assert parse_numbers(as_text(numbers)) == tuple(sorted(numbers))
