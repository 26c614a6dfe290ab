"""Imports what the viewer needs while the start page can be used already."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Final

_VIEWER: Final = (
    "napari",
    "napari.viewer",
    "napari._qt.qt_main_window",
    "napari._qt.layer_controls",
    "napari._vispy.layers.image",
)
_DOCKS: Final = ("napari_mdm_studio._segment", "napari_mdm_studio._browser", "napari_mdm_studio._project")


def load_viewer() -> None:
    """Import napari, find its plugins and register its commands. Call it on a thread; no widget is made here."""
    for name in _VIEWER:
        try:
            import_module(name)
        except ImportError:
            # PySide looks into each module that is imported, and pydantic, asked in the middle of its own import, may go
            # round in a circle; what it has imported by then is there the second time
            import_module(name)
    for module, verb in (
        ("napari.plugins", "_initialize_plugins"),
        ("napari._qt._qapp_model.qactions", "init_qactions"),
    ):
        with contextlib.suppress(ImportError, AttributeError):  # napari may move its own; the first viewer does the same
            getattr(import_module(module), verb)()


def load_session() -> None:
    """Import the docks, PyTorch and what the first stroke waits for. Call it on a thread, after `load_viewer`."""
    for name in _DOCKS:
        import_module(name)
    from napari_mdm_studio._session_home import warm_up

    warm_up()
