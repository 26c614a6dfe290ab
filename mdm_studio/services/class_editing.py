"""The classes of a live session, and what editing them does to the strokes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.errors import UsageError
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.masks import class_palette
from mdm_studio.services.live_core import LiveImage
from mdm_studio.services.live_errands import LiveErrands
from mdm_studio.services.live_plan import PlaneKey, Window
from mdm_studio.services.strokes import block_window

MOST_CLASSES = 255
"""Masks of live sessions are 8 bits deep, and 0 is no class."""
MOST_UNDONE = 50
"""Changes of classes that can be undone; each keeps the strokes that it took away."""
Change = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class _Undo:
    """How to take a change back: its name, the classes before and after it, and of each window the labels before and after."""

    what: str
    before: tuple[LabelClass, ...]
    after: tuple[LabelClass, ...]
    labels: list[tuple[LiveImage, int, Window, NDArray[Any], NDArray[Any]]]


class ClassEditing(LiveErrands):
    """Verbs that change the classes; those that rewrite strokes can be undone."""

    classes_changed = Signal(tuple)
    class_change_made = Signal(str)

    def __init__(self, *args: Any, **options: Any) -> None:
        self.classes: tuple[LabelClass, ...] = ()
        self._undo: list[_Undo] = []
        self._leaving: list[int] = []  # values whose strokes are about to be rewritten: they need no class
        super().__init__(*args, **options)

    def add_class(self, name: str | None = None, color: str | None = None) -> LabelClass:
        """Add a class with the lowest free value.

        Raises
        ------
        UsageError
            If the name is taken, or there are 255 classes.
        """
        taken = {each.value for each in self.classes}
        value = next((v for v in range(1, MOST_CLASSES + 1) if v not in taken), None)
        if value is None:
            raise UsageError(f"there are {MOST_CLASSES} classes already; merge or remove some first")
        added = _named(value, name, color, self.classes)
        self._set((*self.classes, added))
        return added

    def rename_class(self, value: int, name: str) -> None:
        """Give a class another name, which no other class has."""
        self._set(self._with(value, name=_free_name(name, [c for c in self.classes if c.value != value])))

    def recolor_class(self, value: int, color: str) -> None:
        """Give a class another colour, ``#rrggbb``."""
        self._set(self._with(value, color=color))

    def remove_class(self, value: int) -> None:
        """Remove a class and erase its strokes."""
        gone = self._find(value)
        kept = tuple(each for each in self.classes if each.value != value)
        self._edit(f"removal of {gone.name!r}", kept, {value}, lambda labels: np.where(labels == value, 0, labels))

    def merge_classes(self, source: int, target: int) -> None:
        """Give the strokes of the class `source` to the class `target`, and remove `source`."""
        if source == target:
            raise UsageError("a class cannot be merged with itself; choose another one")
        one, other = self._find(source), self._find(target)
        kept = tuple(each for each in self.classes if each.value != source)
        what = f"merge of {one.name!r} into {other.name!r}"
        self._edit(what, kept, {source}, lambda labels: np.where(labels == source, target, labels))

    def set_classes(self, classes: Iterable[LabelClass]) -> None:
        """Take over a list of classes; those that are painted and not in it are kept."""
        given = tuple(classes)
        self._set((*given, *self._painted_besides(given)))

    def import_classes(self, classes: Iterable[LabelClass]) -> None:
        """As `set_classes`, and it can be undone."""
        given, before = tuple(classes), self.classes
        self._set((*given, *self._painted_besides(given)))
        self._remember(_Undo("import of classes", before, self.classes, []))

    def undo_class_change(self) -> str | None:
        """Take back the last removal, merge, or cluster made a class; what it was, or None if there is none."""
        if not self._undo:
            return None
        undo = self._undo.pop()
        known = {each.value for each in (*undo.before, *undo.after)}
        self._set((*undo.before, *(each for each in self.classes if each.value not in known)))
        self._send("head", lambda: self._restore(undo))
        return undo.what

    def paint_window(
        self,
        key: str,
        plane: tuple[int, ...],
        window: Window,
        painted: NDArray[np.bool_],
        value: int,
        before: Sequence[LabelClass] | None = None,
    ) -> None:
        """Give pixels that have no label yet to a class (a cluster becomes a class); can be undone.

        Parameters
        ----------
        painted : (h, w) bool
            Of the window.
        before : sequence of LabelClass, optional
            Classes that undoing brings back, where the class was added for these pixels.
        """
        named, image = self._find(value), self.images[key]
        undo = _Undo(f"cluster made {named.name!r}", self.classes if before is None else tuple(before), self.classes, [])
        self._remember(undo)

        def change(labels: NDArray[Any]) -> NDArray[Any]:
            return np.where(painted & (labels == 0), np.asarray(value, labels.dtype), labels)

        self._send("head", lambda: self._rewrite([(image, image.number(plane), window)], change, undo))

    @property
    def painted(self) -> dict[int, int]:
        """Painted pixels of each class value."""
        return self.strokes.counts()

    def class_table(self) -> Mapping[int, LabelClass]:
        """Classes by value, those that are painted and have no entry included."""
        return {each.value: each for each in self.classes}

    def can_bring_back(self, key: str) -> bool:
        """Whether undoing a change of classes paints in an image; as long as it does the image stays open."""
        return any(image.key == key for undo in list(self._undo) for image, *_ in undo.labels)

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _remember(self, undo: _Undo) -> None:
        """Be able to undo a change, and say so."""
        self._undo.append(undo)
        del self._undo[:-MOST_UNDONE]
        self.class_change_made.emit(undo.what)

    def _painted_besides(self, classes: Iterable[LabelClass]) -> list[LabelClass]:
        """Classes that are painted and not among the given ones."""
        missing = set(self.painted) - {each.value for each in classes}
        return [each for each in self.classes if each.value in missing]

    def _find(self, value: int) -> LabelClass:
        for each in self.classes:
            if each.value == value:
                return each
        raise UsageError(f"there is no class with the value {value}; there are {[each.value for each in self.classes]}")

    def _with(self, value: int, **changes: str) -> tuple[LabelClass, ...]:
        changed = replace(self._find(value), **changes)  # type: ignore[arg-type]
        return tuple(changed if each.value == value else each for each in self.classes)

    def _set(self, classes: Iterable[LabelClass]) -> None:
        self.classes = tuple(sorted(classes, key=lambda each: each.value))
        self.classes_changed.emit(self.classes)
        self._crew.wake()

    def _edit(self, what: str, classes: tuple[LabelClass, ...], values: set[int], change: Change) -> None:
        undo = _Undo(what, self.classes, classes, [])
        self._leaving += values
        self._set(classes)
        self._remember(undo)

        def errand() -> None:
            try:
                rewrite()
            finally:
                for value in values:
                    self._leaving.remove(value)
            self._strokes_changed()  # what was painted with them meanwhile

        def rewrite() -> None:
            places = []
            for block, painted in self.strokes:
                image = self.images.get(block.plane.image)
                if image is not None and values & painted.counts.keys():
                    rows, cols = painted.rows, painted.cols
                    ends = (int(each) for each in (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1))
                    places.append((image, block.plane.plane, Window(*ends)))
            self._rewrite(places, change, undo)

        self._send("head", errand)

    def _rewrite(self, places: Iterable[tuple[LiveImage, int, Window]], change: Change, undo: _Undo) -> None:
        written = []
        for image, plane, window in places:
            old = image.read_labels(plane, window)
            new = change(old).astype(old.dtype)
            if not np.array_equal(old, new):
                undo.labels.append((image, plane, window, old, new))
                written.append((image, plane, window, new))
        self._overwrite(written)

    def _restore(self, undo: _Undo) -> None:
        written = []
        for known, plane, window, old, new in undo.labels:
            image = self.images.get(known.key, known)  # it may have been opened anew since
            now = image.read_labels(plane, window)  # what was painted since stays
            written.append((image, plane, window, np.where((old != new) & (now == new), old, now)))
        self._overwrite(written)

    def _overwrite(self, written: Sequence[tuple[LiveImage, int, Window, NDArray[Any]]]) -> None:
        """Write labels and take them over, all before anybody looks at which classes are painted."""
        self._stroke_at, self._paused = time.perf_counter(), False
        for image, plane, window, labels in written:
            image.write_labels(plane, window, labels)
            around = block_window(window.rows, window.cols, image.source.height, image.source.width)
            self.strokes.update(PlaneKey(image.key, plane), around, image.read_labels(plane, around))
            self.labels_absorbed.emit(image.key, plane, around)
        self._strokes_changed()
        for key in {image.key for image, *_ in written}:
            self.labels_rewritten.emit(key)

    def _strokes_changed(self) -> None:
        """Every value that is painted has a class; without two classes no picture stands for the strokes any more."""
        unknown = sorted(set(self.painted) - {each.value for each in self.classes} - set(self._leaving))
        if unknown:
            self._set((*self.classes, *(_named(value, None, None, self.classes) for value in unknown)))
        if len(self.painted) < 2 and self.bench and self.bench.head and not self.bench.head.facts.loaded:
            self.bench.drop_head()
            self._erase_pictures()

    def _erase_pictures(self) -> None:
        for image in list(self.images.values()):
            for output, picture in list(image.pictures.items()):
                picture.erase()
                self.picture_changed.emit(image.key, output)


def _named(value: int, name: str | None, color: str | None, others: Iterable[LabelClass]) -> LabelClass:
    return LabelClass(value, _free_name(name or f"class {value}", others), color or class_palette(value + 1)[value])


def _free_name(name: str, others: Iterable[LabelClass]) -> str:
    text = name.strip()
    if not text:
        raise UsageError("a class needs a name; write a word or two")
    if any(each.name.lower() == text.lower() for each in others):
        raise UsageError(f"there is a class {text!r} already; choose another name")
    return text
