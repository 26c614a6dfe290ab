"""A small window that adds a backbone of others: what it is, the name it gets, and how far its import is."""

from __future__ import annotations

import threading

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFileDialog, QLineEdit, QProgressBar, QVBoxLayout, QWidget

from mdm_studio.services.backbone_adding import LICENCE, Addition, Found, add_backbone, checkpoint_networks, look_at
from napari_mdm_studio._widgets import button, combo, form, label, note, row, show_row
from napari_mdm_studio._worker import Runner

_WIDTH = 520
_BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"
_FILES = "Checkpoints (*.pt *.pth *.ckpt *.safetensors)"
_WRONG = "color: #d55e00;"


class AddBackbone(QDialog):
    """Asks for a source and a name, and adds it in the background; `added` with the name of the new backbone."""

    added = Signal(str)

    def __init__(self, parent: QWidget, *, hub: bool) -> None:
        super().__init__(parent)
        self._runner, self._stop = Runner(), threading.Event()
        self._own_name = self._running = self._closed = self._asked = False
        self._found = Found("", "")
        self.setWindowTitle("Add a backbone from Hugging Face" if hub else "Add a backbone from a folder or checkpoint")
        self.setMinimumWidth(_WIDTH)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._make(hub)
        self.finished.connect(lambda _: self.end())
        self._look()

    def _make(self, hub: bool) -> None:
        self.source = QLineEdit()
        self.source.setAccessibleName("Model, folder or file")
        self.source.setPlaceholderText("facebook/dinov2-small" if hub else "a folder, or a checkpoint")
        self.source.setToolTip("Name of a model on Hugging Face, a folder that one was saved to, or a published checkpoint.")
        self.source.textChanged.connect(lambda _: self._look())
        self.folder = button("&Folder...", "Choose the folder of a model, or of a backbone.", self._ask_folder, small=True)
        self.file = button("Fi&le...", "Choose a checkpoint: .pt or .safetensors.", self._ask_file, small=True)
        self.network = combo("Network of the checkpoint", "What was trained; each is tried unless you know.", {"": "find out"})
        self.name = QLineEdit()
        self.name.setAccessibleName("Name of the new backbone")
        self.name.setToolTip("It stands under this name in the list.")
        self.name.textEdited.connect(self._name_typed)
        source = QWidget()
        source.setLayout(row(self.source, *(() if hub else (self.folder, self.file))))
        self._rows = form()
        self._rows.addRow(label("Mo&del" if hub else "F&rom", self.source), source)
        self.what = note()
        self.what.setAccessibleName("What will be done")
        self._rows.addRow("", self.what)
        self._rows.addRow("Ne&twork", self.network)
        self._rows.addRow("&Name", self.name)
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(_BAR)
        self.bar.setAccessibleName("The backbone is being added")
        self.bar.hide()
        self.said = note()
        self.said.setAccessibleName("What became of it")
        self.said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.said.hide()
        self.add = button("&Add", "Make a backbone of it.", self.start)
        self.add.setDefault(True)
        self.cancel = button("&Cancel", "Stop, and close.", self.reject)
        buttons = QDialogButtonBox()
        buttons.addButton(self.add, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.addButton(self.cancel, QDialogButtonBox.ButtonRole.RejectRole)
        layout = QVBoxLayout(self)
        layout.addLayout(self._rows)
        for part in (note(LICENCE), self.bar, self.said, buttons):
            layout.addWidget(part)

    def end(self) -> None:
        """Stop what runs."""
        self._closed = True
        self._stop.set()
        self._runner.close()

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of a model or backbone", self.source.text())
        if chosen:
            self.source.setText(chosen)

    def _ask_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Checkpoint", self.source.text(), _FILES)
        if chosen:
            self.source.setText(chosen)

    def _offer_networks(self, networks: tuple[str, ...]) -> None:
        for name in networks:
            self.network.addItem(name, name)

    def _name_typed(self, text: str) -> None:
        self._own_name = bool(text.strip())
        self._show_add()

    def _look(self) -> None:
        """Say what stands there; no more than a few questions to the file system."""
        self._found = look_at(self.source.text())
        self.what.setText(self._found.words)
        if not self._own_name:
            self.name.setText(self._found.name)
        show_row(self._rows, self.network, self._found.kind == "checkpoint")
        if self._found.kind == "checkpoint" and not self._asked:
            self._asked = True
            self._runner.start(checkpoint_networks, done=self._offer_networks, failed=self._failed)
        self.said.hide()
        self._show_add()
        self._fit()

    def _show_add(self) -> None:
        self.add.setEnabled(bool(self._found.kind) and bool(self.name.text().strip()) and not self._running)

    # ---- adding ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Add it."""
        if self._running:
            return
        self._show_running(True)
        network = self.network.currentData() if self._found.kind == "checkpoint" else ""
        addition = Addition(self.source.text().strip(), self.name.text().strip(), network or "")
        self._say("Fetching it..." if self._found.kind == "hub" else "Reading it...")
        self._runner.start(lambda: add_backbone(addition, self._stop.is_set), done=self._done, failed=self._failed)

    def _show_running(self, running: bool) -> None:
        self._running = running
        for part in (self.source, self.folder, self.file, self.network, self.name):
            part.setEnabled(not running)
        self.bar.setVisible(running)
        self._show_add()

    def _done(self, name: str | None) -> None:
        if self._closed or name is None:
            return
        self._running = False
        self.added.emit(name)
        self.accept()

    def _failed(self, why: str) -> None:
        if not self._closed:
            self._show_running(False)
            named = "/" in why.split(" ", 1)[0]  # it begins with the name of a model or file: that stays as it is
            self._say(f"{why if named else why[:1].upper() + why[1:]}.", wrong=True)

    def _say(self, words: str, *, wrong: bool = False) -> None:
        self.said.setText(words)
        self.said.setForegroundRole(self.palette().ColorRole.WindowText)
        self.said.setStyleSheet(_WRONG if wrong else "")
        self.said.show()
        self._fit()

    def _fit(self) -> None:
        """As high as its words need at this width."""
        layout = self.layout()
        if layout is not None:
            layout.activate()
            self.resize(self.width(), layout.totalHeightForWidth(self.width()))
