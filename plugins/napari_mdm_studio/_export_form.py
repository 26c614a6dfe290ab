"""The form of an export: which images, which classifier, what is written and where."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFileDialog, QFormLayout, QLineEdit, QSpinBox, QWidget
from superqt import QCollapsible

from mdm_studio.services.export_form import AS_CLASSIFIER, GOOD_FOR, ExportChoices, Source
from napari_mdm_studio._widgets import Section, button, combo, label, note, row

_SOURCES: Mapping[Source, str] = {
    "project": "All images of the project",
    "chosen": "Images chosen in the list",
    "open": "Images that are open here",
    "folder": "A folder",
}
_FORMATS = {"png": "PNG", "tiff": "TIFF", "ome-zarr": "OME-Zarr", "npy": "NPY"}
_METHODS = {"components": "touching pixels", "watershed": "watershed"}
_METHOD_TIPS = {
    "components": "Pixels of one class that touch are one object.",
    "watershed": "Objects that touch are split along the valleys of the probability between them.",
}
_DEVICES = {"auto": "automatic", "cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU"}
_KEEP_TIP = (
    "Kept: what this classifier wrote with these settings stays as it is, so that an export that was stopped goes on where it "
    "was; after more strokes masks are written anew. Files that no export wrote, or that you changed, are never touched. "
    "Replaced: all are written anew, those too; each old mask stays until its new one is whole."
)
_THERE = {False: "are kept if up to date", True: "are all replaced"}
_UNITS = {"px": "px", "um": "µm²"}
_TICKS = ("probabilities", "uncertainty", "objects", "csv", "parquet")
_MAX_SMOOTH = 64
_MAX_AREA = 1e7


class DropField(QLineEdit):
    """A path to type, or to drop here."""

    dropped = Signal(str)

    def dragEnterEvent(self, event: Any) -> None:
        """Qt's hook."""
        if dropped_path(event):
            event.acceptProposedAction()
        else:
            super().dragEnterEvent(event)

    def dropEvent(self, event: Any) -> None:
        """Qt's hook."""
        path = dropped_path(event)
        if path:
            event.acceptProposedAction()
            self.dropped.emit(path)
        else:
            super().dropEvent(event)


def dropped_path(event: Any) -> str:
    """The file or folder that is dragged; empty if it is something else, or several."""
    urls = event.mimeData().urls() if event.mimeData().hasUrls() else []
    return str(urls[0].toLocalFile()) if len(urls) == 1 else ""


class PathField(QWidget):
    """A path: typed, dropped or chosen in a dialog.

    Parameters
    ----------
    name, tooltip : str
        For the field.
    ask : callable
        Opens the dialog at a path and gives the one chosen, or nothing.
    """

    changed = Signal()

    def __init__(self, name: str, tooltip: str, ask: Callable[[QWidget, str], str], mnemonic: str) -> None:
        super().__init__()
        self._ask, self._usual = ask, ""
        self.field = DropField()
        self.field.setAccessibleName(name)
        self.field.setToolTip(tooltip)
        self.field.editingFinished.connect(self._edited)
        self.field.dropped.connect(self.choose)
        self.browse = button(mnemonic, f"{name}: choose it in a dialog.", self._browse, small=True)
        self.browse.setAccessibleName(f"Choose: {name}")
        self.setLayout(row(self.field, self.browse))

    @property
    def path(self) -> str:
        """What is chosen; empty for nothing."""
        return self.field.text().strip()

    def put(self, path: str) -> None:
        """Show a path; no signal."""
        if path != self.path:
            self.field.setText(path)
            self.field.setModified(False)

    def put_usual(self, path: str) -> None:
        """Show, greyed, what is taken where nothing is chosen."""
        self._usual = path
        self.field.setPlaceholderText(path)

    def choose(self, path: str) -> None:
        """Take a path, as a dialog or a drop gives it."""
        self.field.setText(str(Path(path)))
        self.field.setModified(False)
        self.changed.emit()

    def _edited(self) -> None:
        if self.field.isModified():
            self.field.setModified(False)
            self.changed.emit()

    def _browse(self) -> None:
        path = self._ask(self, self.path or self._usual)
        if path:
            self.choose(path)


def ask_folder(parent: QWidget, start: str) -> str:
    """A folder that is there, or to be made."""
    return str(QFileDialog.getExistingDirectory(parent, "Choose a folder", start))


def ask_classifier(parent: QWidget, start: str) -> str:
    """FILE.mdm."""
    return str(QFileDialog.getOpenFileName(parent, "Choose a classifier", start, "Classifiers of MDM Studio (*.mdm)")[0])


class ImagesPart(Section):
    """Which images, and with which classifier."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Images and classifier")
        self.setAcceptDrops(True)
        self.source = combo("Images to export", "Which images get masks. A folder may also be dropped here.", _SOURCES)
        self.folder = PathField("Folder of images", "The folder of the images; drop it here.", ask_folder, "F&older...")
        self.count = note()
        self.count.setAccessibleName("Images found")
        self.classifier = combo(
            "Classifier",
            "The one that your strokes train, as it is when the export starts, or one from a file.",
            {"trained": "The classifier being trained", "file": "A classifier from a file"},
        )
        self.file = PathField("Classifier's file", "FILE.mdm; drop it here.", ask_classifier, "F&ile...")
        for part in (self.source, self.folder, self.count, self.classifier, self.file):
            self.body.addWidget(part)
        for each in (self.source, self.classifier):
            each.activated.connect(self._chosen)
        for path in (self.folder, self.file):
            path.changed.connect(self.changed)

    def offer(self, counts: Mapping[Source, int]) -> None:
        """Offer the sources that there are, with how many images each has; a folder always is."""
        with QSignalBlocker(self.source):
            kept = self.source.currentData()
            self.source.clear()
            for source, words in _SOURCES.items():
                if source in counts or source == "folder":
                    more = f" ({counts[source]:,})" if source in counts else "..."
                    self.source.addItem(words + more, source)
            show_data(self.source, kept)
        self._show_fields()

    def put(self, choices: ExportChoices) -> None:
        """Show choices."""
        show_data(self.source, choices.source)
        show_data(self.classifier, choices.classifier)
        self.folder.put(choices.folder)
        self.file.put(choices.file)
        self._show_fields()

    def take(self, choices: ExportChoices) -> ExportChoices:
        """`choices` with what is shown."""
        return replace(
            choices,
            source=self.source.currentData(),
            folder=self.folder.path,
            classifier=self.classifier.currentData(),
            file=self.file.path,
        )

    def _chosen(self) -> None:
        self._show_fields()
        self.changed.emit()

    def _show_fields(self) -> None:
        self.folder.setVisible(self.source.currentData() == "folder")
        self.file.setVisible(self.classifier.currentData() == "file")

    def dragEnterEvent(self, event: Any) -> None:
        """Qt's hook."""
        if dropped_path(event):
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Qt's hook: a folder of images, or a classifier."""
        path = dropped_path(event)
        event.acceptProposedAction()
        self.drop(path)

    def drop(self, path: str) -> None:
        """Take what was dropped."""
        if path.lower().endswith(".mdm"):
            show_data(self.classifier, "file")
            chosen = self.file
        else:
            show_data(self.source, "folder")
            chosen = self.folder
        self._show_fields()
        chosen.choose(path)


class OutputsPart(Section):
    """What is written, and where."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Write")
        self.format = combo("Format of the masks", "How the masks are stored.", _FORMATS)
        for number, kind in enumerate(GOOD_FOR):
            self.format.setItemData(number, GOOD_FOR[kind], Qt.ItemDataRole.ToolTipRole)
        self.masks = tick("Masks", "One mask an image, with the image's name and size: always written.")
        self.masks.setChecked(True)
        self.masks.setEnabled(False)
        self.good_for = note()
        self.good_for.setAccessibleName("What the format is good for")
        self.probabilities = tick("Pro&babilities", "How probable each class is, pixel by pixel: large files of decimals.")
        self.uncertainty = tick("&Uncertainty", "Where the classifier is in doubt, pixel by pixel.")
        self.objects = tick("Ob&jects", "Every object with a number of its own, as a label image.")
        self.csv = tick("CSV", "A table of all objects for spreadsheets: area, centroid, intensity and more.")
        self.parquet = tick("Par&quet", "The same table for pandas, R and databases: smaller and with types.")
        self.rules = ObjectRules()
        self.out = PathField("Folder to write to", "Where everything is written; it is made if need be.", ask_folder, "&To...")
        self.more = MoreOptions()
        self.body.addLayout(row(self.masks, None, self.format))
        self.body.addWidget(self.good_for)
        self.body.addLayout(row(self.probabilities, self.uncertainty, None))
        self.body.addLayout(row(self.objects, None, note_label("Table"), self.csv, self.parquet))
        for part in (self.rules, self.out, self.more):
            self.body.addWidget(part)
        self.format.activated.connect(self._chosen)
        for box in (self.probabilities, self.uncertainty, self.objects, self.csv, self.parquet):
            box.clicked.connect(self._chosen)
        for each in (self.rules, self.out, self.more):
            each.changed.connect(self.changed)

    def put(self, choices: ExportChoices) -> None:
        """Show choices."""
        show_data(self.format, choices.format)
        for name in _TICKS:
            getattr(self, name).setChecked(getattr(choices, name))
        self.out.put(choices.out)
        self.rules.put(choices)
        self.more.put(choices)
        self._show_fields()

    def take(self, choices: ExportChoices) -> ExportChoices:
        """`choices` with what is shown."""
        ticked = {name: getattr(self, name).isChecked() for name in _TICKS}
        chosen = replace(choices, format=self.format.currentData(), out=self.out.path, **ticked)
        return self.more.take(self.rules.take(chosen))

    def _chosen(self) -> None:
        self._show_fields()
        self.changed.emit()

    def _show_fields(self) -> None:
        self.good_for.setText(GOOD_FOR[self.format.currentData()])
        self.rules.setVisible(any(box.isChecked() for box in (self.objects, self.csv, self.parquet)))


class ObjectRules(QWidget):
    """What counts as an object."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        form = form_layout(self)
        self.method = combo("How objects are found", "How objects are told apart.", _METHODS)
        for number, tip in enumerate(_METHOD_TIPS.values()):
            self.method.setItemData(number, tip, Qt.ItemDataRole.ToolTipRole)
        self.smallest = QDoubleSpinBox()
        self.smallest.setRange(0, _MAX_AREA)
        self.smallest.setDecimals(1)
        self.smallest.setAccessibleName("Smallest object")
        self.smallest.setToolTip("Smaller objects are dropped; 0 keeps all.")
        self.unit = combo("Unit of the smallest object", "µm² needs images that say how large a pixel is.", _UNITS)
        self.unit.setMinimumContentsLength(3)
        self.holes = tick("Fill hole&s", "Holes within an object belong to it.")
        form.addRow(label("Found by", self.method), row(self.method, self.holes))
        form.addRow(label("Small&est", self.smallest), row(self.smallest, self.unit))
        for each in (self.method, self.unit):
            each.activated.connect(self._chosen)
        self.holes.clicked.connect(self._chosen)
        self.smallest.editingFinished.connect(self._chosen)

    def _chosen(self, *_: object) -> None:
        self.changed.emit()

    def put(self, choices: ExportChoices) -> None:
        """Show choices."""
        show_data(self.method, choices.method)
        show_data(self.unit, "um" if choices.physical else "px")
        with QSignalBlocker(self.smallest):
            self.smallest.setValue(choices.min_size)
        self.holes.setChecked(choices.fill_holes)

    def take(self, choices: ExportChoices) -> ExportChoices:
        """`choices` with what is shown."""
        return replace(
            choices,
            method=self.method.currentData(),
            min_size=self.smallest.value(),
            physical=self.unit.currentData() == "um",
            fill_holes=self.holes.isChecked(),
        )


class MoreOptions(QCollapsible):
    """What is seldom changed: masks that are there, smoothing, device, workers."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Masks already there, smoothing, device")
        self.setDuration(0)
        self.setCollapsedIcon("▸")
        self.setExpandedIcon("▾")
        for layout in (self.layout(), self.content().layout()):
            if layout is not None:
                layout.setContentsMargins(0, 0, 0, 0)
        inside = QWidget()
        form = form_layout(inside)
        self.replace = combo("Masks that are there already", _KEEP_TIP, _THERE)
        self.smooth = QSpinBox()
        self.smooth.setRange(AS_CLASSIFIER, _MAX_SMOOTH)
        self.smooth.setSpecialValueText("as the classifier")
        self.smooth.setSuffix(" px")
        self.smooth.setAccessibleName("Smoothing")
        self.smooth.setToolTip("Masks keep to edges of the image up to this many pixels away; 0 for none.")
        self.device = combo("Device", "Where the masks are computed.", _DEVICES)
        self.workers = QSpinBox()
        self.workers.setRange(1, os.cpu_count() or 1)
        self.workers.setAccessibleName("Workers")
        self.workers.setToolTip("Images that are computed at a time, each in a process of its own; each takes its own memory.")
        form.addRow("M&asks there", self.replace)
        form.addRow("Smoothing", self.smooth)
        form.addRow("Device", self.device)
        form.addRow("Wor&kers", self.workers)
        self.addWidget(inside)
        for each in (self.replace, self.device):
            each.activated.connect(self._chosen)
        for number in (self.smooth, self.workers):
            number.editingFinished.connect(self._chosen)

    def _chosen(self, *_: object) -> None:
        self.changed.emit()

    def put(self, choices: ExportChoices) -> None:
        """Show choices."""
        show_data(self.replace, choices.replace)
        show_data(self.device, choices.device)
        for field, value in ((self.smooth, choices.smooth), (self.workers, choices.workers)):
            with QSignalBlocker(field):
                field.setValue(value)

    def take(self, choices: ExportChoices) -> ExportChoices:
        """`choices` with what is shown."""
        return replace(
            choices,
            replace=bool(self.replace.currentData()),
            smooth=self.smooth.value(),
            device=self.device.currentData(),
            workers=self.workers.value(),
        )


# ------------------------------------------------------------------------------------------------------------ small parts


def tick(text: str, tooltip: str) -> QCheckBox:
    """A tick box; `text` names its mnemonic with &."""
    made = QCheckBox(text)
    made.setToolTip(tooltip)
    made.setAccessibleName(text.replace("&", ""))
    made.setAccessibleDescription(tooltip)
    return made


def note_label(text: str) -> Any:
    """Quieter words on one line."""
    made = note(text)
    made.setWordWrap(False)
    made.setSizePolicy(made.sizePolicy().Policy.Maximum, made.sizePolicy().Policy.Minimum)
    return made


def form_layout(parent: QWidget) -> QFormLayout:
    """Labels on the left, fields on the right, without margins."""
    form = QFormLayout(parent)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def show_data(box: QComboBox, data: object) -> None:
    """Choose the item with these data, or the first one; no signal."""
    with QSignalBlocker(box):
        box.setCurrentIndex(max(0, box.findData(data)))
