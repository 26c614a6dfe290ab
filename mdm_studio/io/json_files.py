"""JSON files read at the door: each is checked against one type before anything else sees it.

The type is a frozen dataclass, a ``TypedDict`` or any annotation that ``msgspec`` knows, with limits as
``Annotated[int, msgspec.Meta(ge=0)]``. What does not fit is one `ValueError` whose text says where and why, for the caller to
name the file and the way out.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Model = TypeVar("Model")

MAX_JSON_BYTES = 64 << 20
"""Larger JSON files are refused: none that this program writes comes near."""


def parse_json(data: bytes | str, model: type[Model]) -> Model:
    """Value of the JSON document `data`, checked against `model`.

    Parameters
    ----------
    data : bytes or str
        UTF-8. ``NaN`` and ``Infinity`` are read, as Python writes them.
    model : type
        What the document must hold, for example ``dict[str, int]`` or a frozen dataclass. Keys that a dataclass lacks are
        ignored; missing ones take its defaults.

    Raises
    ------
    ValueError
        If `data` is no JSON, is nested too deeply, or does not fit; the text is one line.

    Examples
    --------
    >>> parse_json('{"a": 1}', dict[str, int])
    {'a': 1}
    """
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    return check_value(value, model)


def check_value(value: Any, model: type[Model]) -> Model:
    """`value`, made of JSON's own types, checked against `model` (see `parse_json`).

    Raises
    ------
    ValueError
        If it does not fit.
    """
    try:
        return msgspec.convert(value, model)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_json(path: Path, model: type[Model], *, max_bytes: int = MAX_JSON_BYTES) -> Model:
    """Content of the JSON file `path`, checked against `model` (see `parse_json`).

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no regular file, larger than `max_bytes`, or does not fit.
    """
    return parse_json(read_small_file(path, max_bytes), model)


def read_small_file(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Content of a file that is read whole; OSError and ValueError as of `read_json`."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is no regular file")  # a named pipe would be waited for for ever
    if facts.st_size > max_bytes:
        raise ValueError(f"it has {facts.st_size} bytes and at most {max_bytes} are expected")
    return path.read_bytes()
