"""What ``project.json`` may hold, entry by entry: one that makes no sense is named and left out, and the rest is used.

It works on JSON's own values, as `mdm_studio.services.project_migrations` leaves them, and gives such values back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from mdm_studio.io.json_files import check_value
from mdm_studio.io.labels import MAX_CLASSES
from mdm_studio.io.masks import class_palette

Facts = dict[str, Any]
Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Numbers = tuple[Annotated[int, Meta(ge=0, lt=1 << 31)], ...] | None

_MAPPINGS = ("settings", "images", "view", "ranking")


@dataclass(frozen=True)
class _Class:
    value: Annotated[int, Meta(ge=1, le=MAX_CLASSES)]
    name: str
    color: Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$")]


@dataclass(frozen=True)
class _Place:
    """What an image can be found by; the rest of an entry is known again when it is opened."""

    name: str
    path: str | None = None
    absolute: str | None = None


@dataclass(frozen=True)
class _Image(_Place):
    stack_shape: tuple[Count, ...] = ()
    shape: tuple[Count, Count] = (0, 0)
    dtype: str = ""
    pixel_size: tuple[float, float] = (1.0, 1.0)
    unit: str = ""
    channels: tuple[Count, ...] = ()
    painted: Count = 0
    reviewed: bool = False
    uncertainty: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    ranked: Count = 0


_SETTINGS: Mapping[str, Any] = {
    "backbone": str,
    "blocks": _Numbers,
    "timesteps": _Numbers,
    "scales": tuple[Literal[1, 2, 4, 8], ...] | None,
    "filters": bool | None,
    "smooth": Annotated[int, Meta(ge=0, le=32)],
    "noise": str,
}


def check_project(facts: Mapping[str, Any]) -> tuple[Facts, list[str]]:
    """The content of a ``project.json`` as far as it can be used, and in words what cannot.

    Raises
    ------
    ValueError
        If its parts are not there, or not of their kind.
    """
    outer = check_value({name: facts.get(name) for name in _MAPPINGS}, dict[str, dict[str, Any]])
    listed = check_value(facts.get("classes"), list[Any])
    problems: list[str] = []
    images = {key: _image(key, each, problems) for key, each in outer["images"].items()}
    return {
        "classes": _classes(listed, problems),
        "settings": _settings(outer["settings"], problems),
        "images": {key: each for key, each in images.items() if each is not None},
        "view": outer["view"],
        "ranking": outer["ranking"],
    }, problems


def _classes(listed: list[Any], problems: list[str]) -> list[Facts]:
    found: dict[int, Facts] = {}
    for number, each in enumerate(listed, 1):
        try:
            known = asdict(check_value(each, _Class))
        except ValueError as error:
            known = _with_usual_color(each)
            rest = "it is left out" if known is None else "it has its usual colour"
            problems.append(f"class {number} is damaged ({error}): {rest}")
        if known is None:
            continue
        if known["value"] in found:
            problems.append(f"class {number} has the value {known['value']}, which another has: it is left out")
            continue
        found[known["value"]] = known
    return list(found.values())


def _with_usual_color(each: Any) -> Facts | None:
    try:
        values = check_value(each, dict[str, Any])
        return asdict(check_value(values | {"color": class_palette(MAX_CLASSES).get(values.get("value", 0), "")}, _Class))
    except (ValueError, TypeError):  # a value that cannot be looked up
        return None


def _image(key: str, each: Any, problems: list[str]) -> Facts | None:
    try:
        image = check_value(each, _Image)
        values = asdict(image)
        values["shares"] = {str(int(value)): share for value, share in image.shares.items()}
        if not all(0 < size < math.inf for size in image.pixel_size):  # as if it were not known
            values |= {"pixel_size": (1.0, 1.0), "unit": ""}
        return values
    except ValueError as error:
        try:
            place = check_value(each, _Place)
        except ValueError:
            problems.append(f"the entry of image {key} is damaged ({error}): it is left out, its strokes stay on disk")
            return None
        problems.append(f"the entry of image {place.name} is damaged ({error}): only its name and place are used")
        return asdict(_Image(**asdict(place)))


def _settings(values: Facts, problems: list[str]) -> Facts:
    kept = {}
    for name, value in values.items():
        try:
            check_value(value, _SETTINGS.get(name, object))
        except ValueError as error:
            problems.append(f"the setting {name} is damaged ({error}): the usual one is used")
            continue
        kept[name] = value
    return kept
