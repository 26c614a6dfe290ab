"""napari's viewer as a page of our window, and our docks in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow, QTabWidget

from mdm_studio.desktop.settings import Theme

if TYPE_CHECKING:
    import napari

    from napari_mdm_studio._session_home import SessionHome

_LEFT_WIDTH, _RIGHT_WIDTH = 300, 380


@dataclass(frozen=True)
class DockPlan:
    """A dock of ours.

    Attributes
    ----------
    name : str
        Its key, and its place in the saved arrangement.
    title : str
        In words.
    home : str
        ``module:class``; imported when the dock is first opened.
    area : str
        Where it is put at first.
    keys : str
        Opens and closes it.
    begin : bool
        Whether it is open in a new window.
    """

    name: str
    title: str
    home: str
    area: Literal["left", "right"]
    keys: str
    begin: bool = True


DOCKS: Final[tuple[DockPlan, ...]] = (
    DockPlan("images", "Images", "napari_mdm_studio._browser:ImageBrowser", "left", "F2"),
    DockPlan("segment", "Segment", "napari_mdm_studio._segment:Segment", "right", "F3"),
    DockPlan("pretrain", "Pretrain", "napari_mdm_studio._pretrain:Pretrain", "right", "F4"),
    DockPlan("export", "Export", "napari_mdm_studio._export:Export", "right", "F6"),
    DockPlan("explorer", "Feature explorer", "napari_mdm_studio._explorer:FeatureExplorer", "right", "F7", begin=False),
)
"""Our docks in the order of their tabs; F5 and F11 are taken on most desktops."""


def dock_plan(name: str) -> DockPlan:
    """The dock called `name`."""
    return next(plan for plan in DOCKS if plan.name == name)


class Desk:
    """A viewer of its own for what is opened: one project, or a few images.

    Attributes
    ----------
    viewer : napari.Viewer
        The viewer.
    page : QMainWindow
        napari's own window, without its menus: put it into ours.
    home : SessionHome or None
        The home of its session, once something is open.
    docks : dict
        Our docks that there are, by name, shown or not.
    """

    def __init__(self) -> None:
        import napari

        from napari_mdm_studio._session_home import main_window

        self.viewer: napari.Viewer = napari.Viewer(title="MDM Studio", show=False, show_welcome_screen=False)
        self.page: QMainWindow = main_window(self.viewer)
        self.home: SessionHome | None = None
        self.docks: dict[str, QDockWidget] = {}
        menus = self.page.menuBar()
        menus.setNativeMenuBar(False)  # on macOS it would take the place of ours
        menus.hide()  # and Qt ignores the keys of a menu that is hidden: ours decide
        self.page.setWindowFlags(Qt.WindowType.Widget)
        for area in (Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea):
            self.page.setTabPosition(area, QTabWidget.TabPosition.North)

    # ---- docks -------------------------------------------------------------------------------------------------------

    def arrange(self, names: Sequence[str], state: str) -> None:
        """Open docks, and put them where they were when `dock_state` gave `state`; empty for the usual places."""
        for name in names:
            self.open_dock(name)
        self._usual_places()
        if state:
            self.page.restoreState(QByteArray.fromBase64(state.encode("ascii", errors="replace")))

    def open_dock(self, name: str) -> QDockWidget:
        """Open a dock, or bring it to the front."""
        plan = dock_plan(name)
        dock = self.docks.get(name)
        if dock is None:
            dock = self.docks[name] = self._made(plan)
            dock.destroyed.connect(lambda *_: self.docks.pop(name, None))
            beside = [self.docks[each.name] for each in DOCKS if each.area == plan.area and each.name in self.docks]
            if len(beside) > 1:
                self.page.tabifyDockWidget(beside[-2], dock)
        dock.show()
        dock.raise_()
        return dock

    def toggle_dock(self, name: str) -> None:
        """Open a dock, or hide it when it is in front."""
        if self.is_open(name):
            self.docks[name].hide()
        else:
            self.open_dock(name)

    def is_open(self, name: str) -> bool:
        """Whether a dock can be seen; one behind another tab cannot."""
        dock = self.docks.get(name)
        return dock is not None and not dock.isHidden() and not dock.visibleRegion().isEmpty()

    def dock_state(self) -> str:
        """The arrangement, for the settings."""
        return bytes(self.page.saveState().toBase64().data()).decode()

    def _made(self, plan: DockPlan) -> QDockWidget:
        module, _, name = plan.home.partition(":")
        widget = getattr(import_module(module), name)(self.viewer)
        made: QDockWidget = self.viewer.window.add_dock_widget(widget, name=plan.title, area=plan.area)
        return made

    def _usual_places(self) -> None:
        """Images and napari's layers as tabs on the left, everything else as tabs on the right."""
        images, segment = self.docks.get("images"), self.docks.get("segment")
        if images is not None:
            controls, layers = self._layer_docks()
            self.page.tabifyDockWidget(images, controls)
            self.page.tabifyDockWidget(controls, layers)
            images.raise_()
        if segment is not None:
            segment.raise_()

    def fit(self) -> None:
        """Give the docks their usual sizes; Qt does it only in a window that is shown."""
        controls, layers = self._layer_docks()
        images, segment = self.docks.get("images"), self.docks.get("segment")
        if images is None:  # they stand below each other
            self.page.resizeDocks([controls, layers], [1, 10_000], Qt.Orientation.Vertical)
        self.page.resizeDocks([images or controls], [_LEFT_WIDTH], Qt.Orientation.Horizontal)
        if segment is not None:
            self.page.resizeDocks([segment], [_RIGHT_WIDTH], Qt.Orientation.Horizontal)

    def _layer_docks(self) -> tuple[QDockWidget, QDockWidget]:
        window: Any = self.viewer.window
        return window._qt_viewer.dockLayerControls, window._qt_viewer.dockLayerList  # noqa: SLF001

    # ---- the viewer --------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Undo the last stroke, or the last change of classes."""
        if self.home is not None:
            self.home.history.undo()

    def redo(self) -> None:
        """Do the stroke again that was undone last."""
        if self.home is not None:
            self.home.history.redo()

    def open_files(self, paths: Sequence[Path]) -> None:
        """Open image files as layers; napari asks where several plugins read them."""
        window: Any = self.viewer.window
        window._qt_viewer._qt_open([str(path) for path in paths], stack=False)  # noqa: SLF001

    def reset_view(self) -> None:
        """Show everything."""
        self.viewer.reset_view()

    def save_classifier(self) -> None:
        """Ask where the classifier is saved, and save it."""
        self._segment().save_classifier()

    def load_classifier(self) -> None:
        """Ask for a classifier, and predict with it."""
        self._segment().load_classifier()

    def save_project_as(self) -> None:
        """Ask for a new folder, and keep the work there from now on."""
        self._segment().save_project()

    def _segment(self) -> Any:
        self.open_dock("segment")
        return self.viewer.window.dock_widgets[dock_plan("segment").title]

    def open_preferences(self) -> None:
        """Open napari's preferences, ours among them."""
        window: Any = self.viewer.window
        window._open_preferences_dialog()  # noqa: SLF001

    def open_palette(self) -> None:
        """Open napari's list of all commands."""
        window: Any = self.viewer.window
        window._toggle_command_palette()  # noqa: SLF001

    # ---- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """End the viewer, its session and its threads; False if the user wants to keep it open."""
        if not self.page.close():
            return False
        self.viewer.close()
        return True


def set_viewer_theme(theme: Theme) -> None:
    """Give all viewers a theme; napari keeps it."""
    from napari.settings import get_settings

    settings: Any = get_settings()
    if settings.appearance.theme != theme:
        settings.appearance.theme = theme
