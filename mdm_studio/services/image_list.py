"""The images of a project as a list: which are shown, and in what order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from mdm_studio.io.images import image_name

State = Literal["all", "labelled", "unlabelled", "predicted", "reviewed", "not reviewed", "problem"]
Order = Literal["name", "uncertainty", "labelled"]


@dataclass(frozen=True)
class ImageEntry:
    """An image of a project.

    Attributes
    ----------
    id : str
        Unique and lasting in its project; the session knows the image by it, too.
    path : Path
        Absolute; where the image is, or was when it was last seen.
    painted : int
        Labelled pixels.
    reviewed : bool
        Somebody has looked at it and found it well.
    uncertainty : float or None
        Of the last ranking, in nats; None if nothing was predicted yet.
    shares : mapping of int to float
        Class value -> its share of the pixels, of the last ranking.
    problem : str
        Why it cannot be read, in words; empty if it can, as far as is known.
    """

    id: str
    path: Path
    painted: int = 0
    reviewed: bool = False
    uncertainty: float | None = None
    shares: Mapping[int, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        """For people: the file without its extension."""
        return image_name(self.path)


def select(
    entries: Iterable[ImageEntry], *, text: str = "", state: State = "all", sort: Order = "name"
) -> tuple[ImageEntry, ...]:
    """The entries that are to be shown, in order.

    Parameters
    ----------
    text : str
        Words that the path has, each somewhere, in whatever case.
    state : {"all", "labelled", "unlabelled", "predicted", "reviewed", "not reviewed", "problem"}
        ``unlabelled`` leaves out those with a problem: nobody can label them.
    sort : {"name", "uncertainty", "labelled"}
        ``name``: natural order (``img2`` before ``img10``). ``uncertainty``: the most uncertain first, then those that were
        never predicted. ``labelled``: most labelled pixels first. What is equal goes by name.
    """
    words = text.lower().split()
    shown = [entry for entry in entries if _is(entry, state) and all(word in str(entry.path).lower() for word in words)]
    shown.sort(key=_natural)
    if sort == "uncertainty":
        shown.sort(key=lambda entry: -1.0 if entry.uncertainty is None else entry.uncertainty, reverse=True)
    elif sort == "labelled":
        shown.sort(key=lambda entry: entry.painted, reverse=True)
    return tuple(shown)


def _is(entry: ImageEntry, state: State) -> bool:
    return {
        "all": True,
        "labelled": entry.painted > 0,
        "unlabelled": not entry.painted and not entry.problem,
        "predicted": entry.uncertainty is not None,
        "reviewed": entry.reviewed,
        "not reviewed": not entry.reviewed,
        "problem": bool(entry.problem),
    }[state]


def _natural(entry: ImageEntry) -> tuple[list[tuple[int, int | str]], str]:
    return _natural_of(entry.path)


@lru_cache(maxsize=1 << 16)  # a list of 10,000 is sorted anew whenever one of them has changed
def _natural_of(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    # numbers before words at the same place, as file managers do; the pairs keep numbers and words comparable
    parts = [part for part in re.split(r"(\d+)", image_name(path).lower()) if part]
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], str(path)
