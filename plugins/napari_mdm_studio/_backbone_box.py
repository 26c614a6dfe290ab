"""Which network describes the pixels, and what of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLineEdit, QSizePolicy, QSpinBox, QWidget

from mdm_studio.services.backbone_list import BackboneFacts, list_backbones
from napari_mdm_studio._add_backbone import AddBackbone
from napari_mdm_studio._numbers import as_text, parse_numbers
from napari_mdm_studio._widgets import Section, combo, folded, form, menu_button, note, quietly, row, show_row

if TYPE_CHECKING:
    from mdm_studio.services.session import LiveSettings, Status
    from napari_mdm_studio._session_home import SessionHome

_SCALES = (1, 2, 4, 8)
_DEVICES = (("auto", "automatic"), ("cpu", "CPU"), ("cuda", "NVIDIA GPU"), ("mps", "Apple GPU"))
_NOISES = {"fixed": "one for all", "per-timestep": "one a timestep", "fresh": "one an image"}
_NOISE_WORDS = "The noise that the backbone sees; it is the same at each call. One for all images is what was published."
_MAX_SMOOTH = 64
_LAST_TIMESTEP = _MOST_BLOCKS = 1000  # until the backbone is known


class BackboneBox(Section):
    """The backbone with what it is good at, and, folded away, the features that are read."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Backbone")
        self._home = home
        self._facts: dict[str, BackboneFacts] = {}
        self._ended = False
        self.backbone = QComboBox()
        self.backbone.setAccessibleName("Backbone")
        self.backbone.setToolTip("The pretrained network that describes every pixel.")
        self.backbone.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.backbone.setMinimumContentsLength(12)
        self.backbone.activated.connect(self._choose_backbone)
        self.summary = note()
        self.summary.setAccessibleName("What the backbone is good at")
        self.device = note()
        self.device.setAccessibleName("Device in use")
        self.device.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.head.addWidget(self.device)
        self.add, menu = menu_button("Other", "Take a network of others as a backbone.")
        self.from_hub = menu.addAction("From &Hugging Face...", lambda: self.ask(hub=True))
        self.from_folder = menu.addAction("From a &folder or checkpoint...", lambda: self.ask(hub=False))
        self.dialog: AddBackbone | None = None
        self.body.addLayout(row(self.backbone, self.add))
        self.body.addWidget(self.summary)
        self.features = FeaturesForm(home)
        self.fold = folded("Features, smoothing, device", "What is read of the backbone, and how.", self.features)
        self.body.addWidget(self.fold)
        home.relay(home.session.settings_changed, self._settings_changed, key=lambda *_: None, owner=self)
        home.relay(home.session.status_changed, self._status_changed, every=0.5, key=lambda *_: None, owner=self)
        home.backbones_changed.connect(self.list_again)
        self.list_again()
        self._settings_changed(home.session.settings)

    def ask(self, *, hub: bool) -> None:
        """Open the window that adds a backbone."""
        if self.dialog is not None:
            self.dialog.raise_()
            return
        self.dialog = AddBackbone(self, hub=hub)
        self.dialog.added.connect(self._added)
        self.dialog.finished.connect(lambda _: setattr(self, "dialog", None))
        self.dialog.open()

    def _added(self, name: str) -> None:
        """It is read from now on."""
        self._home.backbones_changed.emit()
        self._read_backbone(name)

    def list_again(self) -> None:
        """List the backbones there are now."""
        self._home.runner.start(list_backbones, done=self._list, failed=self._not_listed)

    def _status_changed(self, status: Status) -> None:
        self.device.setText(f"on {status.device}" if status.device else "")

    def end(self) -> None:
        """The list of backbones, which takes a while, may still come."""
        self._ended = True
        self._home.backbones_changed.disconnect(self.list_again, missing_ok=True)
        if self.dialog is not None:
            self.dialog.reject()

    def _not_listed(self, why: str) -> None:
        if not self._ended:
            self.summary.setText(why)

    def _list(self, found: Sequence[BackboneFacts]) -> None:
        if self._ended:
            return
        self._facts = {facts.name: facts for facts in found}
        self.backbone.clear()
        for number, facts in enumerate(found):
            self.backbone.addItem(facts.label, facts.name)
            self.backbone.setItemData(number, facts.problem or facts.good_at, Qt.ItemDataRole.ToolTipRole)
            if facts.problem is not None:
                self._disable(number)
        self._settings_changed(self._home.session.settings)

    def _disable(self, number: int) -> None:
        """Nobody chooses an entry of the list."""
        items = self.backbone.model()
        if isinstance(items, QStandardItemModel):
            items.item(number).setEnabled(False)

    def _choose_backbone(self, index: int) -> None:
        self._read_backbone(self.backbone.itemData(index))

    def _read_backbone(self, name: str) -> None:
        """What another one read means nothing to this one."""
        self._home.session.choose(backbone=name, blocks=None, timesteps=None, scales=None, filters=None)

    def _settings_changed(self, settings: LiveSettings) -> None:
        index = self.backbone.findData(settings.backbone)
        if index < 0:
            self.backbone.addItem(settings.backbone, settings.backbone)
            index = self.backbone.count() - 1
        self.backbone.setCurrentIndex(index)
        facts = self._facts.get(settings.backbone)
        self.summary.setText(facts.summary if facts else "")
        self.summary.setVisible(bool(self.summary.text()))
        self.features.show_settings(settings, facts)


class FeaturesForm(QWidget):
    """Blocks, timesteps, working scales, filters, smoothing and the device."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__()
        self._home = home
        self._n_blocks, self._latest = _MOST_BLOCKS, _LAST_TIMESTEP
        self._facts: BackboneFacts | None = None
        self._rows = rows = form()
        self.setLayout(rows)
        self.blocks, self.timesteps = QLineEdit(), QLineEdit()
        self.timesteps.setToolTip("How much noise the backbone imagines, 0 to 1000: 50 or 50,200.")
        self.blocks.editingFinished.connect(lambda: self._numbers("blocks", self.blocks, self._n_blocks - 1))
        self.timesteps.editingFinished.connect(lambda: self._numbers("timesteps", self.timesteps, self._latest))
        rows.addRow("Bloc&ks", self.blocks)
        rows.addRow("&Timesteps", self.timesteps)
        self.noise = combo("Noise", _NOISE_WORDS, _NOISES)
        self.noise.activated.connect(lambda index: home.session.choose(noise=self.noise.itemData(index)))
        rows.addRow("Noise", self.noise)
        self.scales = [QCheckBox(f"{scale}x") for scale in _SCALES]
        scales = QHBoxLayout()
        for box, scale in zip(self.scales, _SCALES, strict=True):
            box.setToolTip(f"The backbone sees the image {'as it is' if scale == 1 else f'{scale} times smaller'}.")
            box.setAccessibleName(f"Working scale {scale}")
            box.clicked.connect(self._choose_scales)
            scales.addWidget(box)
        rows.addRow("Working scale", scales)
        self.filters = QCheckBox("classical filters, too")
        self.filters.setToolTip("Edges, blobs and ridges at several sizes beside the backbone's features.")
        self.filters.clicked.connect(lambda on: home.session.choose(filters=on))
        rows.addRow("", self.filters)
        self.smooth = QSpinBox()
        self.smooth.setRange(0, _MAX_SMOOTH)
        self.smooth.setSuffix(" px")
        self.smooth.setSpecialValueText("none")
        self.smooth.setKeyboardTracking(False)
        self.smooth.setToolTip("Radius of the filter that smooths predictions and keeps the image's edges.")
        self.smooth.valueChanged.connect(lambda value: home.session.choose(smooth=value))
        rows.addRow("&Smoothing", self.smooth)
        self.device = QComboBox()
        for name, words in _DEVICES:
            self.device.addItem(words, name)
        self.device.activated.connect(lambda index: home.session.choose(device=self.device.itemData(index)))
        self.device.setToolTip("Where the backbone runs.")
        rows.addRow("Device", self.device)

    def _numbers(self, name: str, field: QLineEdit, largest: int) -> None:
        """Choose what was typed, or mark it as wrong."""
        numbers = parse_numbers(field.text(), largest)
        field.setStyleSheet("" if numbers is not None else "border: 1px solid #d55e00;")
        if numbers is not None and field.isModified():
            field.setModified(False)
            self._home.session.choose(**{name: numbers})

    def _choose_scales(self) -> None:
        chosen = tuple(scale for box, scale in zip(self.scales, _SCALES, strict=True) if box.isChecked())
        if chosen:
            self._home.session.choose(scales=chosen)
        else:  # one at least
            self.show_settings(self._home.session.settings, self._facts)

    def show_settings(self, settings: LiveSettings, facts: BackboneFacts | None) -> None:
        """Show what the session reads."""
        self._facts = facts
        facts = facts or BackboneFacts("")
        n_blocks = settings.n_blocks or len(facts.blocks)
        self._n_blocks = n_blocks or _MOST_BLOCKS
        self.blocks.setToolTip(f"{facts.blocks_words} For example 7 or 4,6-8.")
        self._latest = _LAST_TIMESTEP if facts.t_max is None else facts.t_max
        show_row(self._rows, self.timesteps, facts.has_timesteps)
        show_row(self._rows, self.noise, facts.noise is not None)
        self.noise.setCurrentIndex(max(0, self.noise.findData(settings.noise or facts.noise)))
        blocks = settings.blocks if settings.blocks is not None else facts.default_blocks
        timesteps = settings.timesteps if settings.timesteps is not None else facts.default_timesteps
        for field, numbers in ((self.blocks, blocks), (self.timesteps, timesteps)):
            if not field.hasFocus():
                field.setText(as_text(numbers))
                field.setStyleSheet("")
        self.blocks.setPlaceholderText(f"0 to {n_blocks - 1}" if n_blocks else "")
        scales = settings.scales if settings.scales is not None else facts.default_scales
        for box, scale in zip(self.scales, _SCALES, strict=True):
            box.setChecked(scale in scales)
        self.filters.setChecked(settings.filters if settings.filters is not None else facts.default_filters)
        quietly(self.smooth, "setValue", settings.smooth)
        self.device.setCurrentIndex(max(0, self.device.findData(settings.device)))
