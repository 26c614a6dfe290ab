"""How the image browser looks, remembered from one day to the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, get_args

from mdm_studio.config import user_data_dir
from mdm_studio.io.atomic import write_json
from mdm_studio.services.image_list import Order

_SMALLEST, _LARGEST = 32, 512


@dataclass(frozen=True)
class BrowserChoices:
    """Size of thumbnails in pixels, and the order of the images."""

    thumbnail: int = 96
    sort: Order = "name"

    @classmethod
    def load(cls) -> Self:
        """As they were left; the usual ones where nothing, or nothing sensible, was left."""
        try:
            facts = json.loads(_file().read_text("utf-8"))
            found = cls(int(facts["thumbnail"]), facts["sort"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return found if _SMALLEST <= found.thumbnail <= _LARGEST and found.sort in get_args(Order) else cls()

    def save(self) -> None:
        """Remember them; OutputError if that cannot be written."""
        write_json(_file(), asdict(self))


def _file() -> Path:
    return user_data_dir() / "browser.json"
