"""Keys act wherever the focus is, except while text is typed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QLineEdit,
    QMenu,
    QMenuBar,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

from napari_mdm_studio._actions import ACTIONS, CANVAS_KEYS
from napari_mdm_studio._widgets import Dock

if TYPE_CHECKING:
    from napari_mdm_studio._session_home import SessionHome

_TEXT = (QLineEdit, QTextEdit, QPlainTextEdit, QAbstractSpinBox, QMenuBar, QMenu)
_REPEATED = frozenset({"PageUp", "PageDown", "Ctrl+Z", "Ctrl+Shift+Z"})
"""Keys that act again and again while they are held down."""
_LAYER_KEYS = frozenset("123456789ERL")
"""Keys that mean something else to napari's layers of points, shapes or labels."""


class _Key(NamedTuple):
    name: str
    run: Callable[[SessionHome], object]


def _key_table() -> dict[tuple[Any, Any], _Key]:
    """What is done by key and modifiers, as Qt's events tell them."""
    modifiers = Qt.KeyboardModifier
    keys = {
        (getattr(Qt.Key, f"Key_{each.key}"), modifiers.NoModifier): _Key(each.key, each.run) for each in ACTIONS if each.key
    }
    # where digits stand above other signs, as on French keyboards, they come with Shift
    keys |= {(key, modifiers.ShiftModifier): meant for (key, _), meant in keys.items() if meant.name.isdigit()}
    keys[Qt.Key.Key_Z, modifiers.ControlModifier] = _Key("Ctrl+Z", lambda home: home.history.undo())
    redo = modifiers.ControlModifier | modifiers.ShiftModifier
    keys[Qt.Key.Key_Z, redo] = _Key("Ctrl+Shift+Z", lambda home: home.history.redo())
    return keys


class KeyBinder(QObject):
    """Takes the keys of the actions from whichever widget of the window has the focus.

    Menus, lists and napari's layers have keys of their own; ours come first, so that a key means the same everywhere. Text
    fields, spin boxes and dialogs keep theirs. While a mouse button is down in the canvas the keys wait: a stroke is whole.

    Parameters
    ----------
    home : SessionHome
        What the actions act on.
    page : QWidget
        napari's window, or the page it is in the window of the program around it.
    canvas : QWidget
        The canvas of it.
    """

    def __init__(self, home: SessionHome, page: Any, canvas: Any) -> None:
        super().__init__()
        self._home, self._page, self._canvas = home, page, canvas
        self._keys = _key_table()
        self._watched: Any = None
        self._dragging = False
        canvas.installEventFilter(self)
        self._application = cast("Any", QApplication.instance())
        self._application.focusChanged.connect(self._focus_moved)
        self._focus_moved(None, QApplication.focusWidget())

    def _focus_moved(self, _: Any, now: QWidget | None) -> None:
        """Watch the widget with the focus alone: a filter of all widgets would slow down everything that is drawn."""
        with contextlib.suppress(RuntimeError):  # it was deleted meanwhile
            if self._watched is not None:
                self._watched.removeEventFilter(self)
        window = self._page.window()
        target = now or window.focusWidget() or window  # as Qt does where no widget has the focus, a dock was hidden with it
        self._watched = target if target is not self._canvas and self._has(target) else None
        if self._watched is not None:
            self._watched.installEventFilter(self)

    def _has(self, widget: QWidget) -> bool:
        """Whether a widget is in the window, or in a dock pulled out of it; a dialog is not, nor a list that drops down."""
        window = widget.window()
        if window is self._page.window():
            return bool(self._page.isVisible())
        return isinstance(window, QDockWidget) and self._page in _ancestors(window)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Qt's hook."""
        kind = event.type()
        if watched is self._canvas and kind in (QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonRelease):
            self._dragging = event.buttons() != Qt.MouseButton.NoButton
        if kind not in (QEvent.Type.KeyPress, QEvent.Type.ShortcutOverride):
            return False
        key = self._meant(watched, event)
        if key is None:
            return False
        event.accept()
        if kind == QEvent.Type.KeyPress and not self._dragging and (not event.isAutoRepeat() or key.name in _REPEATED):
            key.run(self._home)
        return True

    def _meant(self, watched: QWidget, event: Any) -> _Key | None:
        key = self._keys.get((event.key(), event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier))
        if key is None or types_text(watched) or (key.name in CANVAS_KEYS and watched is not self._canvas):
            return None
        return None if self._is_for_another_layer(key, watched) else key

    def _is_for_another_layer(self, key: _Key, watched: QWidget) -> bool:
        """Whether the user works on a layer that is not ours, in napari's own part of the window."""
        active: Any = self._home.viewer.layers.selection.active
        if active is None or self._home.bridge.bound_to(active) is not None or isinstance(watched, Dock):
            return False
        if any(isinstance(each, Dock) for each in _ancestors(watched)):
            return False
        undoes = key.name.startswith("Ctrl") and hasattr(active, "undo")
        return undoes or (key.name in _LAYER_KEYS and getattr(active, "_type_string", "image") != "image")

    def close(self) -> None:
        """Take no key any more."""
        self._application.focusChanged.disconnect(self._focus_moved)
        for each in (self._canvas, self._watched):
            with contextlib.suppress(RuntimeError):
                if each is not None:
                    each.removeEventFilter(self)
        self._watched = None


def types_text(widget: QWidget) -> bool:
    """Whether letters go into a widget, or choose a menu."""
    if isinstance(widget, QComboBox):
        return bool(widget.isEditable())
    return isinstance(widget, _TEXT)


def _ancestors(widget: QWidget) -> list[Any]:
    found: list[Any] = []
    above: Any = widget.parentWidget()
    while above is not None:
        found.append(above)
        above = above.parentWidget()
    return found
