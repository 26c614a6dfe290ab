"""The commands of napari.yaml: the actions for the viewer in front, and its docks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mdm_studio.errors import MDMStudioError
from napari_mdm_studio._actions import action
from napari_mdm_studio._preferences import DISPLAY_NAME
from napari_mdm_studio._session_home import BROWSER, SEGMENT, SessionHome, home_of


def open_segment() -> SessionHome | None:
    """Open the Segment dock of the viewer in front."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        return None
    home = home_of(viewer)
    if SEGMENT not in home.docks:
        from napari_mdm_studio._segment import Segment

        # by this name the menus know it, and close it instead of opening another one
        viewer.window.add_dock_widget(Segment(viewer), name=f"{SEGMENT} ({DISPLAY_NAME})", area="right")
    return home


def open_browser() -> SessionHome | None:
    """Open the dock with the images of the project in the viewer in front."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        return None
    home = home_of(viewer)
    if BROWSER not in home.docks:
        from napari_mdm_studio._browser import ImageBrowser

        viewer.window.add_dock_widget(ImageBrowser(viewer), name=f"{BROWSER} ({DISPLAY_NAME})", area="bottom")
    return home


def open_project_folder(folder: Path) -> None:
    """Open a project in the viewer in front, with the docks that show and label its images."""
    import napari
    from napari.utils.notifications import show_warning

    from napari_mdm_studio._project import open_project

    viewer = napari.current_viewer()
    if viewer is None:
        return
    try:
        open_project(viewer, folder)
    except MDMStudioError as error:
        show_warning(str(error))
        return
    open_segment()
    open_browser()


def _command(name: str) -> Callable[[], None]:
    def run() -> None:
        home = open_segment()
        if home is not None:
            home.when_warm(partial(action(name).run, home))  # the images are chosen by then

    run.__name__, run.__doc__ = name, action(name).title
    return run


choose_class_1 = _command("choose_class_1")
choose_class_2 = _command("choose_class_2")
choose_class_3 = _command("choose_class_3")
choose_class_4 = _command("choose_class_4")
choose_class_5 = _command("choose_class_5")
choose_class_6 = _command("choose_class_6")
choose_class_7 = _command("choose_class_7")
choose_class_8 = _command("choose_class_8")
choose_class_9 = _command("choose_class_9")
erase = _command("erase")
toggle_prediction = _command("toggle_prediction")
toggle_uncertainty = _command("toggle_uncertainty")
suggest_next = _command("suggest_next")
next_image = _command("next_image")
previous_image = _command("previous_image")
toggle_reviewed = _command("toggle_reviewed")
toggle_live = _command("toggle_live")
update_once = _command("update_once")
cancel = _command("cancel")
add_class = _command("add_class")
undo_class_change = _command("undo_class_change")


def add_strokes() -> None:
    """Choose the selected image layers for labelling, each with a layer for strokes."""
    from napari.layers import Image

    home = open_segment()
    if home is None:
        return
    for layer in list(home.viewer.layers.selection):
        if isinstance(layer, Image) and home.bridge.bound_to(layer) is None:
            home.choose_image(layer)
