"""Finished cells of a table, one JSON file each: what is there is not measured again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm_studio.io.atomic import write_json


class Cells:
    """The cells below a folder.

    A cell has a key (who was measured on what) and facts that its numbers depend on (weights, rules). Measured under other
    facts, it is out of date and not given.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: tuple[object, ...], facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """A finished cell, or None."""
        path = self._path(key)
        if not path.is_file():
            return None
        found = json.loads(path.read_text("utf-8"))
        return found if found["facts"] == _plain(facts) else None

    def write(self, key: tuple[object, ...], facts: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a cell, and give it as `read` would."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        cell: dict[str, Any] = _plain({"key": list(key), "facts": facts, **values})
        write_json(path, cell)
        return cell

    def _path(self, key: tuple[object, ...]) -> Path:
        *folders, name = (re.sub(r"[^\w.@,-]+", "", str(part)) for part in key)
        return self.root.joinpath(*folders) / f"{name}.json"


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, null for not-a-number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
