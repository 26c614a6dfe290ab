"""How the image browser looks, remembered from one day to the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Self

from msgspec import Meta

from mdm_studio.io.user_files import read_user_file, write_user_file
from mdm_studio.services.image_list import Order

_FILE = "browser.json"


@dataclass(frozen=True)
class BrowserChoices:
    """Size of thumbnails in pixels, and the order of the images."""

    thumbnail: Annotated[int, Meta(ge=32, le=512)] = 96
    sort: Order = "name"

    @classmethod
    def load(cls) -> Self:
        """As they were left; the usual ones where nothing, or nothing sensible, was left."""
        return read_user_file(_FILE, cls) or cls()

    def save(self) -> None:
        """Remember them; OutputError if that cannot be written."""
        write_user_file(_FILE, asdict(self))
