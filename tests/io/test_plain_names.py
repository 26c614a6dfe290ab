"""Names that become files."""

import pytest

from mdm_studio.errors import UsageError
from mdm_studio.io.plain_names import check_plain_name, problem_of


@pytest.mark.parametrize(
    "name", ["nuclei", "mdm-192", "My cells 2", "Zellkerne_\N{LATIN SMALL LETTER U WITH DIAERESIS}", "a.b", "console"]
)
def test_plain_names(name):
    assert check_plain_name(name, "backbone") == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("../x", "contains '/'"),
        ("a\\b", r"contains '\\\\'"),
        ("/etc/x", "contains '/'"),
        ("C:x", "contains ':'"),
        ("..", "dot"),
        (".hidden", "dot"),
        ("x.", "dot"),
        (" x", "space"),
        ("a\nb", "cannot be seen"),
        ("a\0b", "cannot be seen"),
        ("a\u202eb", "cannot be seen"),
        ("a\udcffb", "cannot be seen"),
        ("CON", "Windows"),
        ("nul.txt", "Windows"),
        ("com1", "Windows"),
        ("n" * 121, "longer"),
        ("\N{MICROSCOPE}" * 40, "longer"),
    ],
)
def test_names_that_are_not_plain(name, words):
    with pytest.raises(UsageError, match=words) as caught:
        check_plain_name(name, "backbone")
    assert "\n" not in str(caught.value)
    assert problem_of(name)
