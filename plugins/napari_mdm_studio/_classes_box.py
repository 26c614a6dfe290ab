"""The classes: key, colour, name, painted pixels; add, remove, merge, undo, CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QFileDialog, QHeaderView, QTableWidget, QTableWidgetItem

from mdm_studio.io.class_table import read_class_table, write_class_table
from napari_mdm_studio._actions import KEYS_OF_CLASSES
from napari_mdm_studio._widgets import Section, button, menu_button, row, save_suffix, swatch

if TYPE_CHECKING:
    from mdm_studio.io.classifier_file import LabelClass
    from napari_mdm_studio._session_home import SessionHome

KEY, COLOR, NAME, PAINTED = range(4)
_ROWS_SHOWN = 6
_CSV = "Class tables (*.csv)"


class ClassesBox(Section):
    """The table of classes and what can be done with them."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Classes")
        self._home = home
        self._values: list[int] = []
        keys = Qt.Key
        acts = {keys.Key_F2: self._edit, keys.Key_Delete: self._remove}
        self.table = _ClassTable(acts | dict.fromkeys((keys.Key_Return, keys.Key_Enter), self._choose_color))
        self.table.itemChanged.connect(self._renamed)
        self.table.cellDoubleClicked.connect(self._opened)
        self.table.itemSelectionChanged.connect(self._selected)
        self.table.cellClicked.connect(lambda *_: self._selected())  # the brush comes back, also to the class that is selected
        self.body.addWidget(self.table)
        session = home.session
        self.add = button("&Add", "Add a class.", lambda: home.attempt(session.add_class), small=True)
        self.remove = button("&Remove", "Remove the selected class and erase its strokes; Undo brings both back.", self._remove)
        self.merge, self._targets = menu_button("&Merge into", "Give the strokes of the selected class to another one.")
        self.undo = button("&Undo", "Undo the last change of classes.", home.history.undo_classes, small=True)
        self.csv, menu = menu_button("CSV", "Read or write the classes as a table.")
        menu.addAction("&Import classes...", self.import_csv)
        menu.addAction("&Export classes...", self.export_csv)
        self.body.addLayout(row(self.add, self.remove, self.merge, self.undo, None, self.csv))
        home.relay(session.classes_changed, self.show_classes, key=lambda *_: None, owner=self)
        home.relay(session.status_changed, lambda _: self._show_painted(), every=0.25, key=lambda *_: None, owner=self)
        home.bridge.class_selected.connect(self._select_value)
        self.show_classes(session.classes)

    def selected(self) -> int | None:
        """Value of the selected class."""
        number = self.table.currentRow()
        return self._values[number] if 0 <= number < len(self._values) else None

    def show_classes(self, classes: Sequence[LabelClass]) -> None:
        """Show the classes there are."""
        selected = self.selected()
        if selected is None and classes:
            selected = classes[0].value
        self.table.blockSignals(True)
        self._values = [each.value for each in classes]
        self.table.setRowCount(len(classes))
        for number, each in enumerate(classes):
            key = str(number + 1) if number < KEYS_OF_CLASSES else ""
            self._item(number, KEY, key, "Press this key to paint with the class.")
            color = self._item(number, COLOR, "", "Double-click, or Return, for another colour.")
            color.setIcon(swatch(each.color))
            color.setData(Qt.ItemDataRole.UserRole, each.color)
            color.setData(Qt.ItemDataRole.AccessibleTextRole, f"colour {each.color}")
            name = self._item(number, NAME, each.name, "Double-click, or F2, for another name.")
            name.setFlags(name.flags() | Qt.ItemFlag.ItemIsEditable)
            self._item(number, PAINTED, "", "Painted pixels.")
        if selected in self._values:
            self.table.selectRow(self._values.index(selected))
        self.table.blockSignals(False)
        rows = max(2, min(len(classes), _ROWS_SHOWN))
        self.table.setFixedHeight(rows * self.table.verticalHeader().defaultSectionSize() + 6)
        self._show_painted()
        self._fill_merge(classes)

    def _item(self, number: int, column: int, text: str, tooltip: str) -> QTableWidgetItem:
        item = QTableWidgetItem(text)
        item.setToolTip(tooltip)
        item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
        if column in (KEY, PAINTED):
            side = Qt.AlignmentFlag.AlignRight if column == PAINTED else Qt.AlignmentFlag.AlignHCenter
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
        self.table.setItem(number, column, item)
        return item

    def _show_painted(self) -> None:
        painted = self._home.session.painted
        for number, value in enumerate(self._values):
            item = self.table.item(number, PAINTED)
            if item is not None:
                item.setText(f"{painted.get(value, 0):,} px")

    def _fill_merge(self, classes: Sequence[LabelClass]) -> None:
        self._targets.clear()
        for each in classes:
            self._targets.addAction(swatch(each.color), each.name, self._merge_into(each.value))
        self.merge.setEnabled(len(classes) > 1)
        self.remove.setEnabled(bool(classes))

    def _merge_into(self, target: int) -> Callable[[], None]:
        def merge() -> None:
            source = self.selected()
            if source is not None and source != target:
                self._home.attempt(self._home.session.merge_classes, source, target)

        return merge

    def _remove(self) -> None:
        session, value = self._home.session, self.selected()
        removed = next((each for each in session.classes if each.value == value), None)
        if removed is None:
            return
        painted = session.painted.get(removed.value, 0)
        if self._home.attempt(session.remove_class, removed.value):
            strokes = f" and its {painted:,} painted pixels are" if painted else " is"
            self._home.tell(f"The class {removed.name!r}{strokes} removed. Ctrl+Z brings it back.")

    def _renamed(self, item: QTableWidgetItem) -> None:
        if item.column() == NAME:
            value, name = self._values[item.row()], " ".join(item.text().split())
            if not name or not self._home.attempt(self._home.session.rename_class, value, name):
                self.show_classes(self._home.session.classes)

    def _edit(self) -> None:
        item = self.table.item(self.table.currentRow(), NAME)
        if item is not None:
            self.table.editItem(item)

    def _opened(self, number: int, column: int) -> None:
        if column == COLOR:
            self._choose_color()

    def _choose_color(self) -> None:
        number = self.table.currentRow()
        item = self.table.item(number, COLOR)
        if item is not None:
            color = QColorDialog.getColor(QColor(item.data(Qt.ItemDataRole.UserRole)), self, "Colour of the class")
            if color.isValid():
                self._home.attempt(self._home.session.recolor_class, self._values[number], color.name())

    def _selected(self) -> None:
        value = self.selected()
        if value is not None:
            self._home.bridge.take_tool("paint", value)

    def _select_value(self, value: int) -> None:
        if value in self._values and value != self.selected():
            self.table.blockSignals(True)
            self.table.selectRow(self._values.index(value))
            self.table.blockSignals(False)

    def import_csv(self, path: str = "") -> None:
        """Take the classes of a CSV file; asks for it unless `path` is given."""
        path = path or QFileDialog.getOpenFileName(self, "Import classes", "", _CSV)[0]
        if path:
            self._home.runner.start(read_class_table, path, done=self._take, failed=self._home.warn)

    def export_csv(self, path: str = "") -> None:
        """Write the classes to a CSV file; asks for it unless `path` is given."""
        path = path or QFileDialog.getSaveFileName(self, "Export classes", "classes.csv", _CSV)[0]
        if path:
            target, classes = save_suffix(path, ".csv"), self._home.session.classes
            self._home.runner.start(
                write_class_table, target, classes, done=lambda _: self._tell_saved(target), failed=self._home.warn
            )

    def _take(self, classes: Sequence[LabelClass]) -> None:
        self._home.attempt(self._home.session.import_classes, classes)

    def _tell_saved(self, path: Path) -> None:
        self._home.tell(f"Classes saved to {path}")

    def end(self) -> None:
        """Listen to the layers no longer."""
        self._home.bridge.class_selected.disconnect(self._select_value, missing_ok=True)


class _ClassTable(QTableWidget):
    """The table of classes; its keys act while it has the focus, and never else.

    Parameters
    ----------
    acts : mapping of key to callable
        What its keys do. They come before the same keys of a menu.
    """

    def __init__(self, acts: Mapping[Any, Callable[[], object]]) -> None:
        super().__init__(0, 4)
        self._acts = acts
        self.setAccessibleName("Classes")
        self.horizontalHeader().hide()
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(26)
        self.setShowGrid(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTabKeyNavigation(False)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        modes = QHeaderView.ResizeMode
        for column, mode in (
            (KEY, modes.Fixed),
            (COLOR, modes.Fixed),
            (NAME, modes.Stretch),
            (PAINTED, modes.ResizeToContents),
        ):
            self.horizontalHeader().setSectionResizeMode(column, mode)
        self.setColumnWidth(KEY, 24)
        self.setColumnWidth(COLOR, 30)

    def event(self, event: Any) -> bool:
        """Qt's hook."""
        if event.type() == QEvent.Type.ShortcutOverride and self._act(event) is not None:
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: Any) -> None:
        """Qt's hook."""
        act = self._act(event)
        if act is None:
            super().keyPressEvent(event)
        elif not event.isAutoRepeat():
            act()

    def keyboardSearch(self, search: str) -> None:
        """Qt's hook: no letter chooses another class."""

    def _act(self, event: Any) -> Callable[[], object] | None:
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        return self._acts.get(event.key()) if plain else None
