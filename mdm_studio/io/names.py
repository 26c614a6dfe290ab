r"""File names and class names as text that screens, UTF-8 files and spreadsheets take.

A file name of POSIX is bytes, and Python keeps those that are no UTF-8 as lone surrogates: they open the file, and nothing can
print them. In JSON they stay as they are (``\udce9``), so that they come back exactly; for people they are ``\xe9``.
"""

from __future__ import annotations

import re
import unicodedata

# what spreadsheets take for the beginning of a formula, in the wide forms of Japanese ones too
_FORMULA = re.compile("'*[=+\\-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
                      "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}]")  # fmt: skip
_CONTROL = {"Cc", "Cf", "Zl", "Zp"}  # control and direction characters, line and paragraph separators
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\N{SOFT HYPHEN}"


def as_text(name: str) -> str:
    r"""`name` with bytes that are no text written as ``\xe9``.

    Examples
    --------
    >>> print(as_text("caf\udce9.png"))
    caf\xe9.png
    """
    if name.isascii():
        return name
    return re.sub("[\ud800-\udfff]+", lambda found: _escaped(found[0]), name)


def _escaped(surrogates: str) -> str:
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else f"\\u{ord(c):04x}" for c in surrogates)


def one_line(text: str) -> str:
    r"""`text` as one line that only says what it shows: line feeds, escape sequences and marks that turn text are spelt out.

    Examples
    --------
    >>> print(one_line("a\nb\x1b[31m.png"))
    a\nb\x1b[31m.png
    """
    if text.isascii() and text.isprintable():
        return text
    shown = (repr(c)[1:-1] if unicodedata.category(c) in _CONTROL and c not in _JOINERS else c for c in as_text(text))
    return "".join(shown)


def as_cell(text: str) -> str:
    """`text` for a cell of a CSV file: an apostrophe goes before what a spreadsheet would take for a formula.

    Examples
    --------
    >>> as_cell("=1+1"), as_cell("nucleus"), as_cell("'-1")
    ("'=1+1", 'nucleus', "''-1")
    """
    text = as_text(text)
    return f"'{text}" if _FORMULA.match(text) else text


def of_cell(cell: str) -> str:
    """The text that `as_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
