"""Objects of a mask: regions of one class, numbered; found piece by piece, so that memory does not grow with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ObjectMethod = Literal["components", "watershed"]


@dataclass(frozen=True)
class ObjectOptions:
    """How the objects of a mask are found.

    Attributes
    ----------
    method : {"components", "watershed"}
        Regions of one class whose pixels touch, corners included; or these cut apart where they are narrow and their
        probability is low.
    min_size : int
        Objects of fewer pixels are dropped. The watershed cuts nothing smaller than that off.
    fill_holes : bool
        Background inside a single object becomes part of it.
    background : int or None
        Class value that is no object; None takes the lowest class.
    distance : int
        For the watershed: pixels between the middles of two objects, at least.
    """

    method: ObjectMethod = "components"
    min_size: int = 0
    fill_holes: bool = False
    background: int | None = None
    distance: int = 8
