"""A project in a viewer: its images are shown one at a time, and learnt from whether shown or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import Qt

from mdm_studio.errors import InputError, MDMStudioError
from mdm_studio.io.paths import real_path
from napari_mdm_studio._preferences import Preferences, preferences
from napari_mdm_studio._readers import PROJECT_FILE
from napari_mdm_studio._session_home import SessionHome, home_of, main_window, new_session, present_home
from napari_mdm_studio._widgets import Dock
from napari_mdm_studio._worker import Runner

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from mdm_studio.services.session import Session
    from mdm_studio.services.workspace import LoadedImage, Workspace

_AREAS = {
    Qt.DockWidgetArea.LeftDockWidgetArea: "left",
    Qt.DockWidgetArea.TopDockWidgetArea: "top",
    Qt.DockWidgetArea.BottomDockWidgetArea: "bottom",
}


def is_project(folder: Path) -> bool:
    """Whether a folder is a project."""
    return (folder / PROJECT_FILE).is_file()


def open_project(
    viewer: Any, folder: Path, *, session: Callable[[Preferences, Path], Session] = new_session
) -> SessionHome:
    """Open a project in place of what is open in a viewer, whose docks start anew with it.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer itself, or the proxy of it that napari hands to plugins.
    folder : Path
        The project.
    session : callable
        Makes the session.

    Returns
    -------
    SessionHome
        With the project as its `workspace`; or the home as it was, if the user would rather not leave unsaved work.

    Raises
    ------
    ProjectError
        If it cannot be opened; what is open stays open.
    """
    from mdm_studio.services.workspace import Workspace

    viewer, folder = getattr(viewer, "__wrapped__", viewer), Path(folder).absolute()
    former = present_home(viewer)
    if former is not None and (is_open_in(former, folder) or not former.may_close()):
        return former
    made = session(preferences(), folder)
    try:
        workspace = Workspace(folder, made)
    except MDMStudioError:
        made.close()
        raise
    docks = _take_docks(viewer)
    leftover = [] if former is None else _leave(former)
    home = home_of(viewer, session=lambda _: made)
    home.project = ProjectView(home, workspace, leftover)
    workspace.open()
    for dock in docks:
        dock.open_in(viewer)
    home.when_warm(home.project.begin)
    return home


def create_project(
    viewer: Any, folder: Path, images: Iterable[Path], *, session: Callable[[Preferences, Path], Session] = new_session
) -> SessionHome:
    """Make a new project of images and open it; see `open_project`.

    Raises
    ------
    ProjectError
        If the folder holds something already.
    OutputError
        If it cannot be written.
    """
    from mdm_studio.services.workspace import Workspace

    Workspace.create(Path(folder).absolute(), images)
    return open_project(viewer, folder, session=session)


def is_open_in(home: SessionHome, folder: Path) -> bool:
    """Whether a home's project is the one in a folder."""
    return home.workspace is not None and real_path(home.workspace.folder) == real_path(folder)


class ProjectView:
    """Shows the images of a project, one at a time.

    An image is read on a thread, with the one before still shown. While one is read only the newest wish is remembered.

    Attributes
    ----------
    workspace : Workspace
        The project.
    order : callable
        Ids of the images in the order in which `step` goes through them; the browser sets it.
    shown : str
        Id of the image that is shown; empty for none.
    shown_changed, wanted_changed : Signal
        With that id; with the id of the image that is being read, or an empty one.

    Parameters
    ----------
    home : SessionHome
        Where it is shown.
    workspace : Workspace
        The project.
    leftover : sequence of Layer
        Of the project before: they go when the first image of this one is there, so that the canvas is never empty.
    """

    shown_changed = Signal(str)
    wanted_changed = Signal(str)

    def __init__(self, home: SessionHome, workspace: Workspace, leftover: Sequence[Layer] = ()) -> None:
        self.workspace = workspace
        self._leftover = tuple(leftover)
        self.order: Callable[[], Sequence[str]] = self.usual_order
        self.shown = self.wanted = ""
        self._home = home
        self._runner = Runner()
        self._reading = False
        self._then: Callable[[], object] | None = None
        self._place = 0  # of the image shown last, in the order of then
        self._remarked: set[str] = set()  # images of which it was told what is left out
        home.bridge.parked.connect(self._parked)

    def usual_order(self) -> tuple[str, ...]:
        """By name."""
        from mdm_studio.services.image_list import select

        return tuple(entry.id for entry in select(self.workspace.entries))

    def begin(self) -> None:
        """Show a first image: one that is labelled, if there is one."""
        from mdm_studio.services.image_list import select

        able = [entry for entry in select(self.workspace.entries, sort="labelled") if not entry.problem]
        if able and not self.wanted and not self.shown:
            self.show(able[0].id)
        elif not able:
            self._clear_leftover()

    def show(self, image_id: str, then: Callable[[], object] | None = None) -> None:
        """Show an image; `then` is called once it is there."""
        if image_id == self.shown and not self.wanted:
            if then is not None:
                then()
            return
        self.wanted, self._then = image_id, then
        self.wanted_changed.emit(image_id)
        if not self._reading:
            self._read()

    def step(self, by: int) -> None:
        """Show the next image that can be read, or the one before (-1)."""
        problems = {entry.id for entry in self.workspace.entries if entry.problem}
        order = self.order()
        here = self.wanted or self.shown
        place = order.index(here) if here in order else self._place - (by > 0)  # it may have left the list since
        there = place + by
        while 0 <= there < len(order) and order[there] in problems:
            there += by
        if 0 <= there < len(order):
            self.show(order[there])
        else:
            self._home.tell(f"This is the {'last' if by > 0 else 'first'} image of the list.")

    def toggle_reviewed(self) -> None:
        """Mark the image that is shown as reviewed, or not."""
        if self.shown:
            entry = self.workspace.entry(self.shown)
            self.workspace.set_reviewed(self.shown, not entry.reviewed)

    def suggest(self) -> None:
        """Show the image whose labels would help most."""
        self._runner.start(self.workspace.suggest, done=self._suggested, failed=self._home.warn)

    def remove(self, ids: Sequence[str]) -> None:
        """Take images out of the project; if the one shown is among them, another one is shown."""
        order = [each for each in self.order() if each not in ids or each == self.shown]
        if self.shown in ids:
            place = order.index(self.shown) if self.shown in order else 0
            others = order[place + 1 :] + order[:place][::-1]
            self._home.bridge.park(self.shown)
            if others:
                self.show(others[0])
        self.workspace.remove_images(ids)

    def close(self) -> None:
        """Read nothing more, and close the project."""
        self._home.bridge.parked.disconnect(self._parked, missing_ok=True)
        self._runner.close()
        self._leftover = ()
        self.workspace.close()

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        image_id, self._reading = self.wanted, True
        self._runner.start(_load, self.workspace, image_id, done=self._loaded, failed=partial(self._failed, image_id))

    def _loaded(self, image: LoadedImage) -> None:
        self._reading = False
        if image.id != self.wanted:
            if image.id != self.shown:
                self.workspace.release(image.id)
            if self.wanted:
                self._read()
            return
        former = self._home.bridge.images.get(self.shown)
        place = (former.geometry.shape, former.geometry.scale) if former else None
        bound = self._home.bridge.show(image)
        self._clear_leftover()
        if place != (bound.geometry.shape, bound.geometry.scale):
            self._home.viewer.reset_view()
        order = self.order()
        self._place = order.index(image.id) if image.id in order else self._place
        if image.remarks and image.id not in self._remarked:
            self._remarked.add(image.id)
            self._home.tell(f"{image.name}: {'; '.join(image.remarks)}.")
        self._arrive(image.id)

    def _clear_leftover(self) -> None:
        layers = self._home.viewer.layers
        for layer in self._leftover:
            if layer in layers:
                layers.remove(layer)
        self._leftover = ()

    def _arrive(self, image_id: str) -> None:
        self.shown, self.wanted, then, self._then = image_id, "", self._then, None
        self.wanted_changed.emit("")
        self.shown_changed.emit(image_id)
        if then is not None:
            then()

    def _failed(self, image_id: str, words: str) -> None:
        self._reading = False
        if self.wanted == image_id:
            self.wanted, self._then = "", None
            self.wanted_changed.emit("")
            self._home.warn(words)
        elif self.wanted:
            self._read()

    def _suggested(self, image_id: str | None) -> None:
        if image_id is None:
            self._home.tell("There is no image left to suggest: all are labelled.")
        else:
            self.show(image_id)

    def _parked(self, image_id: str) -> None:
        self.workspace.release(image_id)
        if image_id == self.shown:
            self.shown = ""
            self.shown_changed.emit("")


def _load(workspace: Workspace, image_id: str) -> LoadedImage:
    try:
        return workspace.load(image_id)
    except KeyError as error:
        raise InputError("the image is in the project no longer: choose another one") from error


@dataclass(frozen=True)
class _OpenDock:
    """A dock of ours as it stood in napari's window."""

    kind: type[Dock]
    name: str
    area: str
    tabbed: bool

    def open_in(self, viewer: Viewer) -> None:
        viewer.window.add_dock_widget(self.kind(viewer), name=self.name, area=self.area, tabify=self.tabbed)


def _take_docks(viewer: Viewer) -> list[_OpenDock]:
    """Close the docks of a session that ends; they are told how to come back."""
    window, found = main_window(viewer), []
    for name, dock in list(viewer.window.dock_widgets.items()):
        if not isinstance(dock, Dock):
            continue
        frame = dock.parent()
        tabbed = any(other.widget() is not None for other in window.tabifiedDockWidgets(frame))
        found.append(_OpenDock(type(dock), name, _AREAS.get(window.dockWidgetArea(frame), "right"), tabbed))
        viewer.window.remove_dock_widget(dock)
    return found


def _leave(home: SessionHome) -> list[Layer]:
    """End a home; gives the layers of a project, which are to go, while others stay, out of sight."""
    leftover: list[Layer] = []
    for bound in list(home.bridge.images.values()):
        bound.pictures.dismiss()
        if bound.kept:
            leftover += bound.layers
        else:
            bound.pictures.close()
            bound.layer.visible = bound.strokes.visible = False
    home.close()
    return leftover
