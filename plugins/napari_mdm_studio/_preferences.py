"""What the user set under Preferences, MDM Studio; napari.yaml declares it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mdm_studio.config import DEFAULT_BACKBONE, SMOOTH

PLUGIN = "mdm-studio"
"""Name of the plugin: that of the distribution."""

DISPLAY_NAME = "MDM Studio"
"""The same for people."""


@dataclass(frozen=True)
class Preferences:
    """The user's preferences.

    Attributes
    ----------
    backbone : str
        Name of the backbone chosen at the start.
    device : str
        "auto", "cpu", "cuda" or "mps".
    live : bool
        Whether the prediction follows the strokes from the start.
    memory : int
        Megabytes of features kept in memory.
    smooth : int
        Radius in pixels of the filter on predictions; 0 for none.
    """

    backbone: str = DEFAULT_BACKBONE
    device: str = "auto"
    live: bool = True
    memory: int = 2048
    smooth: int = SMOOTH


def preferences() -> Preferences:
    """The preferences; the defaults where this plugin is not registered with napari."""
    from napari.settings import get_plugin_settings

    try:
        settings: Any = get_plugin_settings(PLUGIN)
    except KeyError:
        return Preferences()
    return Preferences(**{field.name: getattr(settings.live, field.name) for field in fields(Preferences)})
