"""Names and words for the parts of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NAMED = 6
# What is kept beside the image of a slide, by the names that scanners and converters give it
_ASIDE = re.compile(r"(thumb(nail)?|label|macro|overview|preview|map)([ _-]?(image|img|picture|scan))?([ _-]?\d+)?", re.I)

_ADDRESS = re.compile(r"[\s:]*<[^<>]* at 0x[0-9a-fA-F]+>")


def is_aside(name: str) -> bool:
    """Whether an image of this name is kept beside the image of a slide: a thumbnail, its label, an overview."""
    return _ASIDE.fullmatch(name.strip()) is not None


def reason_of(error: BaseException) -> str:
    r"""First line of an error of a library, without addresses of its objects, or else the name of the error.

    Examples
    --------
    >>> reason_of(ValueError("malformed node: <ast.Name object at 0x7fa690eb9000>\\nin line 1"))
    'malformed node'
    """
    words = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    lines = _ADDRESS.sub("", words).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def parts(noun: str, numbers: Iterable[int], total: int, names: Sequence[str] = ()) -> str:
    """Some parts out of `total`, counted from 1, and what they are called; empty if there are none.

    Examples
    --------
    >>> parts("scene", [2, 3], 3, ["Pos_1", "Pos_2"])
    'scenes 2 and 3 of 3 (Pos_1, Pos_2)'
    >>> parts("frame", range(2, 13), 12)
    'frames 2 to 12 of 12'
    >>> parts("page", [1, 2, 3, 7], 7)
    'pages 1 to 3 and 7 of 7'
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    if not spans:
        return ""
    words = [word for first, last in spans for word in _span(first, last)]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    several = spans[0][0] != spans[-1][1] and not noun.endswith("s")  # one series, two series
    called = [name for name in names if name]
    more = f" and {len(called) - _NAMED} more" if len(called) > _NAMED else ""
    behind = f" ({', '.join(called[:_NAMED])}{more})" if called else ""
    return f"{noun}{'s' * several} {listed} of {total}{behind}"


def _span(first: int, last: int) -> list[str]:
    if last - first < 2:
        return [str(number) for number in range(first, last + 1)]
    return [f"{first} to {last}"]
