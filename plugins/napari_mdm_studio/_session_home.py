"""One session for each viewer: made by the first dock that needs it, ended with the window."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Hashable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal, SignalInstance
from qtpy.QtCore import QEvent, QObject

from mdm_studio.errors import MDMStudioError
from napari_mdm_studio._bridge import Bridge
from napari_mdm_studio._geometry import ChannelAxis
from napari_mdm_studio._history import History
from napari_mdm_studio._keys import KeyBinder
from napari_mdm_studio._lost_project import LostProjectWatch
from napari_mdm_studio._opengl import keep_programs
from napari_mdm_studio._planes import Channels
from napari_mdm_studio._preferences import Preferences, preferences
from napari_mdm_studio._worker import Relay, Runner

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image
    from qtpy.QtWidgets import QWidget

    from mdm_studio.services.session import Session
    from mdm_studio.services.workspace import Workspace
    from napari_mdm_studio._project import ProjectView

SEGMENT = "Segment"
"""Name of the dock that labels."""
BROWSER = "Images of the project"
"""Name of the dock that lists images."""
_LABELS_MODULES = ("pandas", "napari._qt.layer_controls.qt_labels_controls", "napari._vispy.layers.labels")
_warm = threading.Event()
_homes: weakref.WeakKeyDictionary[Any, SessionHome] = weakref.WeakKeyDictionary()


def home_of(viewer: Any, *, session: Callable[[Preferences], Session] | None = None) -> SessionHome:
    """The home of a viewer's session; made when it is first asked for.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer itself, or the proxy of it that napari hands to plugins.
    session : callable, optional
        Makes the session in place of the usual one.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    home = _homes.get(viewer)
    if home is None:
        chosen = preferences()
        home = _homes[viewer] = SessionHome(viewer, (session or new_session)(chosen), chosen)
        home.closed.connect(lambda: _homes.pop(viewer, None))
    return home


def present_home(viewer: Any) -> SessionHome | None:
    """The home of a viewer's session, if there is one already."""
    return _homes.get(getattr(viewer, "__wrapped__", viewer))


def warm_up() -> None:
    """Import what the session's threads and napari's first Labels layer will want; seconds, the first time.

    Imports on several threads hold each other up: a window that adds layers while PyTorch is imported stands still for as
    long as both take together.
    """
    import_module("mdm_studio.services.live_work")
    for name in _LABELS_MODULES:
        with contextlib.suppress(ImportError):  # napari may move its own modules
            import_module(name)
    _warm.set()


def new_session(chosen: Preferences, keep: Literal["automatic"] | Path = "automatic") -> Session:
    """A session as the preferences have it; `keep` is a project, or else the work goes into a recovery project."""
    from mdm_studio.config import CACHE_BYTES, default_cache_dir
    from mdm_studio.io.feature_cache import FeatureCache
    from mdm_studio.services.session import LiveSettings, Session

    settings = LiveSettings(backbone=chosen.backbone, device=chosen.device, smooth=chosen.smooth)
    cache = FeatureCache(default_cache_dir(), max_bytes=CACHE_BYTES, optional=True)
    session = Session(cache, memory=chosen.memory << 20, settings=settings, live=chosen.live, keep=keep)
    for name in ("background", "object"):  # two at least are needed, and a restored project brings its own
        session.add_class(name)
    return session


class SessionHome:
    """A session, its bridge to the layers, and the threads and signals between them and the docks.

    Attributes
    ----------
    session : Session
        The session.
    bridge : Bridge
        Keeps layers and session in step.
    history : History
        Undoes strokes and changes of classes in one order.
    runner : Runner
        Runs what must not run on the GUI thread.
    save : callable or None
        Saves what `Session.unsaved` tells of and gives whether that was done; asked when the window closes. The Segment
        dock sets it.
    docks : dict
        The docks that are open, by name; see `has_dock`.
    project : ProjectView or None
        Shows the images of a project one at a time; None while images are chosen among the viewer's own layers. See
        `napari_mdm_studio._project.open_project`.
    lost : LostProjectWatch
        Asks what to do when the folder of the project has gone.
    closed : Signal
        The session has ended.
    backbones_changed : Signal
        There is another backbone: lists of them are read again.
    project_asked : Signal
        The user wants the project in a folder. A program around the viewer that listens opens it; else it is opened here.
    """

    closed = Signal()
    backbones_changed = Signal()
    project_asked = Signal(Path)

    def __init__(self, viewer: Viewer, session: Session, chosen: Preferences) -> None:
        keep_programs()
        self.viewer, self.preferences = viewer, chosen
        self.session: Session = session
        self.runner = Runner()
        self.save: Callable[[], bool] | None = None
        self.docks: dict[str, QWidget] = {}
        self.project: ProjectView | None = None
        self._kept: dict[Relay, QWidget | None] = {}
        self._open = True
        self.bridge: Bridge = Bridge(viewer, session, self.relay)
        self.history: History = History(self)
        self.relay(session.failed, self.warn)
        self.relay(session.noticed, self.tell)
        self.relay(self.bridge.told, self.warn)
        self._keys = KeyBinder(self, main_window(viewer), canvas_widget(viewer))
        self.lost = LostProjectWatch(self, main_window(viewer))
        self._watch = _CloseWatch(main_window(viewer), self.may_close, self.close)

    @property
    def workspace(self) -> Workspace | None:
        """The project that is open, if one is."""
        return self.project.workspace if self.project else None

    def show_image(self, image_id: str) -> None:
        """Show an image of the project in place of the one that is shown."""
        if self.project is not None:
            self.project.show(image_id)

    def next_image(self, step: int = 1) -> None:
        """Show the next image of the project, or the one before (-1), in the order of the browser."""
        if self.project is None:
            self.tell("No project is open: create or open one first.")
        else:
            self.project.step(step)

    def relay(
        self,
        signal: SignalInstance,
        callback: Callable[..., object],
        every: float = 0.0,
        key: Callable[..., Hashable] | None = None,
        owner: QWidget | None = None,
    ) -> Relay:
        """Bring a signal to the GUI thread as long as the session and `owner`, a widget, live; see `Relay`."""
        relay = Relay(signal, callback, every=every, key=key)
        self._kept[relay] = owner
        if owner is not None:
            owner.destroyed.connect(lambda: self.drop(relay))
        return relay

    def when_warm(self, callback: Callable[[], object]) -> None:
        """Call `callback`, at once or when everything is imported that would make the window stand still; see `warm_up`."""
        if _warm.is_set():
            callback()
        else:
            self.runner.start(warm_up, done=lambda _: callback(), failed=self.warn)

    def drop(self, relay: Relay) -> None:
        """End a relay before the session ends."""
        relay.close()
        self._kept.pop(relay, None)

    def choose_image(self, layer: Image, channel_axis: ChannelAxis = None, channels: Channels = None) -> bool:
        """Choose an image layer for labelling; False, and a message, if it cannot be one."""
        return self.attempt(self.bridge.add, layer, channel_axis, channels)

    def has_dock(self, name: str, dock: QWidget) -> None:
        """Know a dock as long as it is open, so that no command opens it a second time."""
        self.docks[name] = dock

    def lost_dock(self, dock: QWidget) -> None:
        """A dock was closed: nothing more is brought to it and its parts."""
        self.docks = {name: other for name, other in self.docks.items() if other is not dock}
        for relay, owner in list(self._kept.items()):
            if owner is not None and (owner is dock or dock.isAncestorOf(owner)):
                self.drop(relay)

    def attempt(self, verb: Callable[..., object], *values: Any, **options: Any) -> bool:
        """Call a verb of the session; False, and a message, if it refuses in words."""
        try:
            verb(*values, **options)
        except MDMStudioError as error:
            self.warn(str(error))
            return False
        return True

    def tell(self, text: str) -> None:
        """Tell the user something."""
        from napari.utils.notifications import show_info

        show_info(text)

    def warn(self, text: str) -> None:
        """Tell the user what did not work."""
        from napari.utils.notifications import show_warning

        show_warning(text)

    def may_close(self) -> bool:
        """Ask about unsaved work; without images nothing is left to lose."""
        unsaved = self.session.unsaved() if self.bridge.images or self.project else None
        if unsaved is None:
            return True
        answer = ask_about_unsaved(main_window(self.viewer), unsaved)
        if answer == "save" and self.save is None:
            self.warn(f"Open the {SEGMENT} dock to choose where the work is saved.")
            return False
        if answer == "save":
            return bool(self.save and self.save())
        return answer == "discard"

    def close(self) -> None:
        """End the session and every thread; the layers stay."""
        if not self._open:
            return
        self._open = False
        self._watch.close()
        self._keys.close()
        self.lost.close()
        self.history.close()
        for relay in self._kept:
            relay.close()
        self._kept.clear()
        self.bridge.close()
        self.runner.close()
        if self.project is None:
            self.session.close()
        else:
            self.project.close()
        self.closed.emit()


def main_window(viewer: Viewer) -> Any:
    """The viewer's QMainWindow; napari has no public way to its close event."""
    return viewer.window._qt_window  # noqa: SLF001


def canvas_widget(viewer: Viewer) -> Any:
    """The Qt widget that the mouse and the keys of the canvas go to; it has no public way either."""
    return viewer.window._qt_viewer.canvas.native  # noqa: SLF001


def ask_about_unsaved(parent: Any, unsaved: str) -> str:
    """Ask what to do with unsaved work: "save", "discard" or "cancel"."""
    from qtpy.QtWidgets import QMessageBox

    box = QMessageBox(QMessageBox.Icon.Question, "MDM Studio", "Save before closing?", parent=parent)
    box.setInformativeText(unsaved)
    buttons = QMessageBox.StandardButton
    box.setStandardButtons(buttons.Save | buttons.Discard | buttons.Cancel)
    box.setDefaultButton(buttons.Save)
    answer = buttons(box.exec())
    return {buttons.Save: "save", buttons.Discard: "discard"}.get(answer, "cancel")


class _CloseWatch(QObject):
    """Lets a window close only when it may, and says when it did.

    The window hides once its close event was accepted, by us and by napari, which may ask questions of its own.
    """

    def __init__(self, window: Any, may_close: Callable[[], bool], closed: Callable[[], None]) -> None:
        super().__init__()
        self._window, self._may_close, self._closed = window, may_close, closed
        self._closing = False
        window.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Qt's hook."""
        if event.type() == QEvent.Type.Close:
            if not self._may_close():
                event.ignore()
                return True
            self._closing = True
            if not self._window.isVisible():
                self._closed()
        elif event.type() == QEvent.Type.Hide and self._closing and not event.spontaneous():
            self._closed()
        return False

    def close(self) -> None:
        """Watch no longer."""
        self._window.removeEventFilter(self)
        self._closing = False
        self._may_close, self._closed = (lambda: True), (lambda: None)
