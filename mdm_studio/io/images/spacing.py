"""Pixel sizes as files spell them, brought to one unit for both axes, or dropped with a word.

Metadata never decides whether pixels are read: a size that is no length is dropped, and a note says so.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_METRES = {
    "picometer": 1e-12, "angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2,
    "decimeter": 1e-1, "meter": 1.0, "kilometer": 1e3, "inch": 0.0254, "foot": 0.3048, "yard": 0.9144,
}  # fmt: skip
_SPELLINGS = {
    "pm": "picometer", "å": "angstrom", "ångström": "angstrom", "a": "angstrom", "nm": "nanometer", "µm": "micrometer",
    "μm": "micrometer", "um": "micrometer", "\\u00b5m": "micrometer", "micron": "micrometer", "mm": "millimeter",
    "cm": "centimeter", "dm": "decimeter", "m": "meter", "km": "kilometer", "in": "inch", "ft": "foot", "yd": "yard",
}  # fmt: skip
_NO_UNITS = ("", "none", "null", "pixel", "px", "reference frame", "referenceframe")
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(.*)", re.IGNORECASE | re.DOTALL)
_THOUSANDS = re.compile(r"[1-9]\d{0,2},\d{3}")  # one thousand and more, or a decimal comma: nobody knows
_PLAUSIBLE = (1e-15, 1e9)  # metres: from less than an atom to more than a planet


class Spacing(NamedTuple):
    """Height and width of a pixel in `unit`, or None; and what could not be understood, in words."""

    size: tuple[float, float] | None = None
    unit: str | None = None
    notes: tuple[str, ...] = ()


class Length(NamedTuple):
    """The size of a pixel along an axis as a file has it: a number or a text, and its unit or None."""

    value: object
    unit: object = None


def spacing(y: Length, x: Length) -> Spacing:
    """Pixel size and unit of what a file says of both axes.

    Different units are brought to micrometres. A size without a unit, or in pixels, says nothing. What is no length (text,
    zero, negative, infinite, an unknown unit) is dropped with a note; a decimal comma and a unit behind the number are read,
    with a note too.

    Examples
    --------
    >>> spacing(Length("0.5", "µm"), Length(500, "nm"))
    Spacing(size=(0.5, 0.5), unit='micrometer', notes=())
    >>> spacing(Length("wide", "µm"), Length(0.5, "µm")).notes
    ("the pixel size is dropped: 'wide' is no number",)
    """
    try:
        notes = dict.fromkeys(note for note in (_odd(y), _odd(x)) if note)
        (size_y, unit_y), (size_x, unit_x) = _length(y), _length(x)
    except ValueError as error:
        return Spacing(notes=(f"the pixel size is dropped: {error}",))
    if unit_y is None and unit_x is None:
        return Spacing()
    if unit_y is None or unit_x is None:
        return Spacing(notes=(f"the pixel size is dropped: only one of its axes has a unit ({unit_y or unit_x})",))
    if unit_y != unit_x:
        size_y, size_x, unit_y = _micrometres(size_y, unit_y), _micrometres(size_x, unit_x), "micrometer"
    return Spacing((size_y, size_x), unit_y, tuple(notes))


def _micrometres(size: float, unit: str) -> float:
    return float(f"{size * _METRES[unit] / _METRES['micrometer']:.12g}")  # 500 nm are 0.5 um, not 0.5000000000000001


def _length(length: Length) -> tuple[float, str | None]:
    """Number and unit; None for a size in pixels or without a unit. ValueError, in words, if it is no length."""
    number, behind = _split(length.value)
    unit = _unit(length.unit)
    if behind:
        if unit is not None and unit != _unit(behind):
            raise ValueError(f"{length.value!r} contradicts its unit {length.unit!r}")
        unit = _unit(behind)
    if unit is None:
        return number, None
    low, high = _PLAUSIBLE
    if not math.isfinite(number) or not low <= number * _METRES[unit] <= high:
        raise ValueError(f"{_shown(length.value)} {unit} is no size of a pixel")
    return number, unit


def _split(value: object) -> tuple[float, str]:
    """The number, and the text behind it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_shown(value)} is no number")
    if not isinstance(value, str):
        return (math.inf if isinstance(value, int) and value.bit_length() > 1000 else float(value)), ""
    text = value.strip()
    if _THOUSANDS.match(text):
        raise ValueError(f"{_shown(value)} may be two numbers, with a comma for thousands or for decimals")
    found = _NUMBER.fullmatch(text.replace(",", ".", 1))
    if found is None:
        raise ValueError(f"{_shown(value)} is no number")
    return float(found[1]), found[2].strip()


def _unit(unit: object) -> str | None:
    """As OME-Zarr spells it; None for pixels or nothing."""
    text = str(unit or "").strip().casefold()
    singular = text[:-1] if len(text) > 3 and text.endswith("s") else text
    american = singular.replace("metre", "meter")
    if singular in _NO_UNITS:
        return None
    found = _SPELLINGS.get(american, american)
    if found not in _METRES:
        raise ValueError(f"{_shown(unit)} is no unit of length that is known")
    return found


def _odd(length: Length) -> str:
    """What is said of a size that is not spelled as a plain number."""
    value = length.value
    if not isinstance(value, str) or not set(value.strip()) - set("+-.0123456789eE"):
        return ""
    number, behind = _split(value)
    return f"the pixel size {_shown(value)} is read as {number:g} {_unit(behind) or _unit(length.unit) or ''}".rstrip()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
