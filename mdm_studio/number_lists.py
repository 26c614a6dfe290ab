"""Lists of whole numbers as people type them, on the command line and in fields: ``7``, ``0,2,5`` or ``4, 6-8``."""

from __future__ import annotations

import re
from collections.abc import Iterable

LARGEST = 99_999
"""No number that is typed into a list means more than this; a range of a milliard numbers would fill the memory."""

_SPAN = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_EXAMPLE = "write it like 8-12 or 0,2,5"


def parse_numbers(text: str, largest: int = LARGEST) -> tuple[int, ...]:
    """The numbers of a list, each once, in the order typed.

    Parameters
    ----------
    text : str
        Numbers and ranges, with commas, semicolons or spaces between them.
    largest : int
        The largest number that is meant.

    Raises
    ------
    ValueError
        If it is no such list, names nothing, goes beyond `largest`, or a range runs backwards; the text says which part is
        wrong and ends with an example.

    Examples
    --------
    >>> parse_numbers("8, 4-6")
    (8, 4, 5, 6)
    """
    found: dict[int, None] = {}  # an ordered set
    for part in filter(None, re.split(r"[,;\s]+", re.sub(r"\s+-\s+", "-", text))):
        span = _SPAN.fullmatch(part)
        if span is None:
            raise ValueError(f"{part!r} is neither a number nor a range of numbers; {_EXAMPLE}")
        if max(len(digits.lstrip("0")) for digits in span.groups("")) > len(str(largest)):  # int() takes long over millions
            raise ValueError(f"{_short(part)} is beyond {largest}; {_EXAMPLE}")
        first, last = int(span[1]), int(span[2] or span[1])
        if first > last:
            raise ValueError(f"the range {part} runs backwards, {last}-{first} is meant perhaps; {_EXAMPLE}")
        if last > largest:
            raise ValueError(f"{_short(part)} is beyond {largest}; {_EXAMPLE}")
        found |= dict.fromkeys(range(first, last + 1))
    if not found:
        raise ValueError(f"it names nothing; {_EXAMPLE}")
    return tuple(found)


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:20]}..."


def as_text(numbers: Iterable[int]) -> str:
    """The shortest way to type `numbers`.

    Examples
    --------
    >>> as_text((4, 6, 7, 8))
    '4, 6-8'
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
