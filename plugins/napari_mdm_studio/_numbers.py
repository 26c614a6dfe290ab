"""Lists of numbers as people type them: ``7`` or ``4, 6-8``."""

from __future__ import annotations

import re
from collections.abc import Iterable


def parse_numbers(text: str, largest: int, *, ordered: bool = False) -> tuple[int, ...] | None:
    """The numbers in `text`, or None if it is no list of numbers from 0 to `largest`; ascending, unless typed `ordered`.

    Examples
    --------
    >>> parse_numbers("4, 6-8", 17)
    (4, 6, 7, 8)
    """
    found: dict[int, None] = {}  # an ordered set
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        span = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if span is None:
            return None
        first, last = int(span[1]), int(span[2] or span[1])
        if first > last or last > largest:
            return None
        found |= dict.fromkeys(range(first, last + 1))
    return tuple(found if ordered else sorted(found)) or None


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
