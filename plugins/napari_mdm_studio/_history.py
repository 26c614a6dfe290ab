"""One order of undoing for strokes and for changes of classes: what was done last is undone first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mdm_studio._session_home import SessionHome

_CLASSES = ""  # no image's key is empty


class History:
    """Remembers in which order strokes were painted and classes changed; the layers and the session know how to take back.

    Parameters
    ----------
    home : SessionHome
        Whose strokes and classes these are.
    """

    def __init__(self, home: SessionHome) -> None:
        self._home = home
        self._done: list[str] = []  # keys of images, or _CLASSES
        self._undone: list[str] = []
        home.session.class_change_made.connect(self._classes_changed)
        home.bridge.painted.connect(self._painted)
        home.bridge.unpainted.connect(self._unpainted)

    def _classes_changed(self, _: str) -> None:
        self._done.append(_CLASSES)
        self._undone.clear()

    def _painted(self, key: str, again: bool) -> None:
        self._done.append(key)
        if again and self._undone:
            self._undone.pop()
        elif not again:
            self._undone.clear()

    def _unpainted(self, key: str) -> None:
        _drop_last(self._done, key)
        self._undone.append(key)

    def undo(self) -> None:
        """Take back the newest stroke of an image that is shown, or the newest change of classes."""
        if _undoes_by_itself(self._home):
            self._home.viewer.layers.selection.active.undo()
            return
        while self._done:
            key = self._done[-1]
            if key == _CLASSES:
                self.undo_classes()
                return
            bound = self._home.bridge.images.get(key)
            if bound is not None and bound.watcher.can_undo:
                bound.strokes.undo()
                return
            self._done.pop()  # the image is not shown any more, and napari has forgotten the stroke
        bound = self._home.bridge.current()
        if bound is not None and bound.watcher.can_undo:  # painted before the image was chosen
            bound.strokes.undo()
        else:
            self._home.tell("There is nothing to undo.")

    def redo(self) -> None:
        """Paint again what was taken back last."""
        if _undoes_by_itself(self._home):
            self._home.viewer.layers.selection.active.redo()
            return
        while self._undone:
            bound = self._home.bridge.images.get(self._undone[-1])
            if bound is not None and bound.watcher.can_redo:
                bound.strokes.redo()
                return
            self._undone.pop()
        self._home.tell("There is nothing to redo.")

    def undo_classes(self) -> None:
        """Take back the newest change of classes, whatever was painted since, and say what it was."""
        _drop_last(self._done, _CLASSES)
        undone = self._home.session.undo_class_change()
        self._home.tell(f"Undone: {undone}" if undone else "There is no change of classes to undo.")

    def close(self) -> None:
        """Remember nothing more."""
        self._home.session.class_change_made.disconnect(self._classes_changed, missing_ok=True)
        self._home.bridge.painted.disconnect(self._painted, missing_ok=True)
        self._home.bridge.unpainted.disconnect(self._unpainted, missing_ok=True)


def _undoes_by_itself(home: SessionHome) -> bool:
    """Whether the user works on a layer with an undo of its own that is none of ours."""
    active: Any = home.viewer.layers.selection.active
    return hasattr(active, "undo") and home.bridge.bound_to(active) is None


def _drop_last(items: list[str], item: str) -> None:
    if item in items:
        del items[len(items) - 1 - items[::-1].index(item)]
