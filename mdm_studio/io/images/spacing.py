"""Pixel sizes and their units."""

from __future__ import annotations

import math

_UNITS = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometre", "\\u00b5m"), "micrometer"),
    **dict.fromkeys(("nm", "nanometre"), "nanometer"),
    **dict.fromkeys(("mm", "millimetre"), "millimeter"),
    **dict.fromkeys(("cm", "centimetre"), "centimeter"),
    **dict.fromkeys(("å", "ångström"), "angstrom"),
    **dict.fromkeys(("m", "metre"), "meter"),
    "in": "inch",
}
_NO_UNITS = ("", "none", "pixel", "pixels", "reference frame")


def spacing(size_y: float, size_x: float, unit: str | None) -> tuple[tuple[float, float] | None, str | None]:
    """Pixel size and unit if they say anything, otherwise (None, None)."""
    unit = (unit or "").strip().lower()
    if unit in _NO_UNITS or not all(math.isfinite(s) and s > 0 for s in (size_y, size_x)):
        return None, None
    return (size_y, size_x), _UNITS.get(unit, unit)
