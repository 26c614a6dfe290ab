"""Lists of numbers in fields: ``7`` or ``4, 6-8``, see `mdm_studio.number_lists`."""

from __future__ import annotations

from mdm_studio import number_lists
from mdm_studio.number_lists import as_text

__all__ = ["as_text", "parse_numbers"]


def parse_numbers(text: str, largest: int, *, ordered: bool = False) -> tuple[int, ...] | None:
    """The numbers in `text`, or None if it is no list of numbers from 0 to `largest`; ascending, unless typed `ordered`.

    Examples
    --------
    >>> parse_numbers("4, 6-8", 17)
    (4, 6, 7, 8)
    """
    try:
        found = number_lists.parse_numbers(text, largest)
    except ValueError:
        return None
    return found if ordered else tuple(sorted(found))
