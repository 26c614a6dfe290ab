"""How recipes are found: entry points, ours and those of other packages alike."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal

from mdm_studio.errors import UsageError

Group = Literal["backbones", "heads", "recipes"]


def names(group: Group) -> list[str]:
    """Names registered under ``mdm_studio.<group>``, sorted."""
    return sorted({point.name for point in entry_points(group=f"mdm_studio.{group}")})


def load(group: Group, name: str) -> Any:
    """Import and return what is registered as `name` under ``mdm_studio.<group>``.

    Raises
    ------
    UsageError
        If nothing has that name; the message lists the names there are.
    """
    for point in entry_points(group=f"mdm_studio.{group}", name=name):
        return point.load()
    known = ", ".join(names(group)) or "none: is the package installed?"
    raise UsageError(f"there is no {group.rstrip('s')} called {name!r}; choose one of: {known}")
