"""Small files that a program remembers things in, in the user's data folder: none of them is worth stopping for.

What is missing, damaged or cannot be read is as good as none. Writing may fail, and whoever writes says so or does without.
"""

from __future__ import annotations

from typing import Any, TypeVar

from mdm_studio.config import user_data_dir
from mdm_studio.io.atomic import make_folder, write_json
from mdm_studio.io.json_files import read_json

Model = TypeVar("Model")

MAX_BYTES = 4 << 20
"""Larger files are none of ours."""


def read_user_file(name: str, model: type[Model]) -> Model | None:
    """Content of the file `name`, checked against `model`; None where there is none that fits."""
    try:
        return read_json(user_data_dir() / name, model, max_bytes=MAX_BYTES)
    except (OSError, ValueError):
        return None


def write_user_file(name: str, value: Any) -> None:
    """Replace the file `name`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = user_data_dir() / name
    make_folder(path.parent)
    write_json(path, value)
