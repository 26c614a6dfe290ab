"""Where things lie: the resources that come with the package, the user's data and the feature cache.

The standard library and platformdirs alone, so that any module may ask.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from mdm_studio.errors import InputError

APP_NAME: Final = "mdm-studio"
DATA_VARIABLE: Final = "MDM_STUDIO_DATA"
CACHE_VARIABLE: Final = "MDM_STUDIO_CACHE"
DEFAULT_BACKBONE: Final = "mdm-nuclei"
"""The bundled backbone, used where none is named."""
CACHE_BYTES: Final = 20 * 10**9
"""Size budget of the feature cache; the least recently used features go first."""
SMOOTH: Final = 8
"""Radius in pixels of the guided filter that predictions get by default; benchmarks/NOTES.md, 4."""


def resource_roots() -> tuple[Path, ...]:
    """Folders that may hold bundled files, in the order they are looked through.

    A wheel carries them inside the package. An editable install has no copy there and reads the checkout's own
    ``resources/``, beside the package.
    """
    package = Path(__file__).resolve().parent
    return package / "resources", package.parent / "resources"


def resource(name: str) -> Path:
    """Path of a bundled file or folder.

    Parameters
    ----------
    name : str
        Path below ``resources/``, with forward slashes: ``"samples/nuclei"``.

    Raises
    ------
    InputError
        If neither the package nor the checkout has it.
    """
    for root in resource_roots():
        path = root / name
        if path.exists():
            return path
    places = " or ".join(str(root) for root in resource_roots())
    raise InputError(
        f"The bundled {name!r} is not in {places}; this installation is incomplete: install MDM Studio again, "
        "or work in a complete clone"
    )


def user_data_dir() -> Path:
    """Folder of what the user keeps: imported backbones, jobs, settings. Not created here.

    ``MDM_STUDIO_DATA`` in the environment overrides the platform's own place.
    """
    return _user_dir(DATA_VARIABLE) or _platform_dir("user_data_dir")


def default_cache_dir() -> Path:
    """Folder of the feature cache; everything in it can be computed again. Not created here.

    ``MDM_STUDIO_CACHE`` in the environment overrides the platform's own place.
    """
    return _user_dir(CACHE_VARIABLE) or _platform_dir("user_cache_dir")


def _user_dir(variable: str) -> Path | None:
    """Folder named by an environment variable; an empty value counts as unset, as the XDG rules have it."""
    value = os.environ.get(variable, "")
    return Path(os.path.expanduser(value)) if value else None  # which leaves a ~ that nobody has


def _platform_dir(kind: Literal["user_data_dir", "user_cache_dir"]) -> Path:
    import platformdirs  # here, so that asking for a bundled file costs no import

    place = Path(getattr(platformdirs, kind)(APP_NAME, appauthor=False))
    if place.is_absolute():
        return place
    # a user without a home, as in some containers: "~" would become a folder where the program was started
    return _own_temporary_folder() / kind


@lru_cache(maxsize=1)
def _own_temporary_folder() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix=f"{APP_NAME}-"))
