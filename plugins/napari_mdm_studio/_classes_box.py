"""The classes: key, colour, name, painted pixels; add, remove, merge, undo, CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QKeySequence, QShortcut
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
        self.table = _class_table()
        self.table.itemChanged.connect(self._renamed)
        self.table.cellDoubleClicked.connect(self._opened)
        self.table.itemSelectionChanged.connect(self._selected)
        self.body.addWidget(self.table)
        session = home.session
        self.add = button("&Add", "Add a class.", lambda: home.attempt(session.add_class), small=True)
        self.remove = button("&Remove", "Remove the selected class and erase its strokes; Undo brings both back.", self._remove)
        self.merge, self._targets = menu_button("&Merge into", "Give the strokes of the selected class to another one.")
        self.undo = button("&Undo", "Undo the last change of classes.", home.undo_class_change, small=True)
        self.csv, menu = menu_button("CSV", "Read or write the classes as a table.")
        menu.addAction("&Import classes...", self.import_csv)
        menu.addAction("&Export classes...", self.export_csv)
        self.body.addLayout(row(self.add, self.remove, self.merge, self.undo, None, self.csv))
        for key, act in (("F2", self._edit), ("Delete", self._remove), ("Return", self._choose_color)):
            QShortcut(QKeySequence(key), self.table, act, context=Qt.ShortcutContext.WidgetShortcut)
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
            self._item(number, KEY, key, "Press this key in the canvas to paint with the class.")
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
        value = self.selected()
        if value is not None:
            self._home.attempt(self._home.session.remove_class, value)

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
        self._home.attempt(self._home.session.set_classes, classes)

    def _tell_saved(self, path: Path) -> None:
        self._home.tell(f"Classes saved to {path}")

    def end(self) -> None:
        """Listen to the layers no longer."""
        self._home.bridge.class_selected.disconnect(self._select_value, missing_ok=True)


def _class_table() -> Any:
    table = QTableWidget(0, 4)
    table.setAccessibleName("Classes")
    table.horizontalHeader().hide()
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(26)
    table.setShowGrid(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setTabKeyNavigation(False)
    table.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
    modes = QHeaderView.ResizeMode
    for column, mode in ((KEY, modes.Fixed), (COLOR, modes.Fixed), (NAME, modes.Stretch), (PAINTED, modes.ResizeToContents)):
        table.horizontalHeader().setSectionResizeMode(column, mode)
    table.setColumnWidth(KEY, 24)
    table.setColumnWidth(COLOR, 30)
    return table
