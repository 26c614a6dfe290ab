"""A home that cannot be written stops neither the program nor the libraries under it.

napari keeps its themes in the user's cache folder and cannot start without; it gets a temporary one then, for this run.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mdm_studio.config import user_data_dir

_logger = logging.getLogger(__name__)


def spare_places(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that lead napari and matplotlib elsewhere where they could not write; a warning says so, once.

    Parameters
    ----------
    environment : mapping
        Of this process.
    """
    usual = Path(environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    variables = {} if sys.platform == "win32" or _can_write(usual / "napari") else {"XDG_CACHE_HOME": "cache"}
    if not _can_write(user_data_dir()):
        variables["NAPARI_CONFIG"] = "napari.yaml"
    if variables and "MPLCONFIGDIR" not in environment:
        variables["MPLCONFIGDIR"] = "matplotlib"
    if not variables:
        return {}
    spare = Path(tempfile.mkdtemp(prefix="mdm-studio-"))
    atexit.register(shutil.rmtree, spare, ignore_errors=True)
    _logger.warning("the home folder cannot be written: settings and recent projects last until the program ends")
    return {name: str(spare / place) for name, place in variables.items()}


def _can_write(folder: Path) -> bool:
    """Whether a folder can be made and written to; trying is the only way to know on every file system."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
