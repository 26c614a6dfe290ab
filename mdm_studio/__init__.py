"""From unlabelled images and a few brush strokes to segmentation masks, with masked-diffusion features.

The names below are imported from their own modules when they are first used, so that ``import mdm_studio`` loads neither
torch nor NumPy. To publish another one, add it to ``_HOMES`` and, for type checkers, to the imports under
``TYPE_CHECKING``; a test keeps the two lists equal.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdm_studio.errors import MDMStudioError
    from mdm_studio.io.feature_cache import FeatureCache
    from mdm_studio.io.images import find_images, open_image

__version__ = "0.1.0"

_HOMES = {
    "FeatureCache": "mdm_studio.io.feature_cache",
    "MDMStudioError": "mdm_studio.errors",
    "find_images": "mdm_studio.io.images",
    "open_image": "mdm_studio.io.images",
}

__all__ = ["FeatureCache", "MDMStudioError", "__version__", "find_images", "open_image"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here again
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
