"""Which images are labelled: a list to tick, with the axis that counts channels and the channels that are read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QHeaderView, QLineEdit, QTableWidget, QTableWidgetItem

from mdm_studio.errors import ChannelsError
from mdm_studio.io.array_planes import usual_channels
from napari_mdm_studio._bound import opening, overlap
from napari_mdm_studio._geometry import ChannelAxis
from napari_mdm_studio._pictures import OUTPUT
from napari_mdm_studio._planes import (
    Channels,
    as_typed,
    channel_axes,
    count_channels,
    describe_channels,
    likely_channel_axis,
    parse_channels,
)
from napari_mdm_studio._widgets import Section, quietly

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_mdm_studio._session_home import SessionHome

_ROWS_SHOWN = 4
_NAME, _AXIS, _CHANNELS = range(3)
_FIELD = 56  # px: room for 0,1,2
_WRONG = "border: 1px solid #d55e00;"
_TOOLTIP = (
    "Ticked images are learnt from and predicted; Space ticks the selected one. Layers over one another are separate images, "
    "and only the first is ticked: to read channels that napari split into layers, select the layers, right-click, "
    "Merge to Stack, and choose the channel axis here."
)


class ImagesBox(Section):
    """The image layers of the viewer; a tick chooses one for labelling.

    New layers are chosen by themselves unless another image lies there already.
    """

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Images")
        self._home = home
        self._axes: dict[Image, ChannelAxis] = {}
        self._channels: dict[Image, Channels] = {}  # None where the user chose none
        self._left_out: set[int] = set()  # ids of layers that the user does not want
        self._rows: list[Image] = []
        self.table = QTableWidget(0, 3)
        self.table.setAccessibleName("Images to label")
        self.table.setToolTip(_TOOLTIP)
        self.table.horizontalHeader().hide()
        self.table.verticalHeader().hide()
        self.table.setShowGrid(False)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setTabKeyNavigation(False)
        self.table.setWordWrap(False)
        self.table.horizontalHeader().setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        for column in (_AXIS, _CHANNELS):
            self.table.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.table.verticalHeader().setDefaultSectionSize(26)
        self.table.itemChanged.connect(self._ticked)
        self.body.addWidget(self.table)
        self._soon = QTimer(self, singleShot=True, interval=0)  # many layers at once, one list
        self._soon.timeout.connect(self._update)
        layers = home.viewer.layers.events
        self._emitters = [layers.inserted, layers.removed, layers.reordered]
        for emitter in self._emitters:
            emitter.connect(self._later)
        home.bridge.images_changed.connect(self._later)
        self.destroyed.connect(partial(_end, self._emitters, self._later))
        self._ready = False  # images are listed at once, and chosen when the window need not wait for it
        self._update()
        home.when_warm(self._begin)

    def _begin(self) -> None:
        if self._emitters:  # else the dock was closed meanwhile
            self._ready, self._rows = True, []
            self._update()

    def _later(self, event: Any = None) -> None:
        self._soon.start()

    def _update(self) -> None:
        from napari.layers import Image

        if self._home.project is not None:  # it shows its own images, one at a time
            self.hide()
            return
        there = [layer for layer in self._home.viewer.layers if isinstance(layer, Image)]
        layers = [layer for layer in there if not OUTPUT.items() <= layer.metadata.items()]
        self._axes = {layer: self._axes.get(layer, likely_channel_axis(layer)) for layer in layers}
        bridge = self._home.bridge
        self._channels = {
            layer: bound.channels if (bound := bridge.bound_to(layer)) else self._channels.get(layer) for layer in layers
        }
        chosen = [layer for layer in layers if bridge.bound_to(layer)]
        seen = [layer for layer in layers if layer in self._rows or id(layer) in self._left_out or not self._ready]
        new = [layer for layer in layers if layer not in seen and layer not in chosen]
        self._rows = layers
        for layer in opening([*chosen, *new]):
            if layer not in chosen and not self._choose(layer):
                self._left_out.add(id(layer))
        blocked = self.table.blockSignals(True)
        self.table.setRowCount(len(layers))
        for number, layer in enumerate(layers):
            self._fill(number, layer)
        self.table.blockSignals(blocked)
        rows = max(1, min(len(layers), _ROWS_SHOWN))
        self.table.setFixedHeight(rows * self.table.verticalHeader().defaultSectionSize() + 4)

    def _choose(self, layer: Image) -> bool:
        return self._home.choose_image(layer, self._axes[layer], self._channels[layer])

    def _fill(self, number: int, layer: Image) -> None:
        item = QTableWidgetItem(layer.name)
        below = next((other for other in self._rows[:number] if overlap(layer, other)), None)
        item.setToolTip(layer.name if below is None else f"{layer.name} lies over {below.name}. {_TOOLTIP}")
        item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
        ticked = self._home.bridge.bound_to(layer) is not None
        item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
        self.table.setItem(number, _NAME, item)
        self._fill_axis(number, layer)
        self._fill_channels(number, layer)

    def _fill_axis(self, number: int, layer: Image) -> None:
        axes = channel_axes(layer)
        if len(axes) == 1:
            self.table.removeCellWidget(number, _AXIS)
            words = QTableWidgetItem("RGB" if layer.rgb else "")
            words.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.table.setItem(number, _AXIS, words)
            return
        combo = QComboBox()
        combo.setAccessibleName(f"Channel axis of {layer.name}")
        combo.setToolTip("Which axis of this image counts channels; all other axes before height and width are a stack.")
        for axis in axes:
            combo.addItem(describe_channels(layer, axis), axis)
        combo.setCurrentIndex(axes.index(self._axes[layer]))
        combo.currentIndexChanged.connect(lambda index: self._choose_axis(layer, axes[index]))
        self.table.setCellWidget(number, _AXIS, combo)

    def _fill_channels(self, number: int, layer: Image) -> None:
        """A field for the channels to read, where there are several to choose from."""
        available = count_channels(layer, self._axes[layer])
        if available == 1:
            self.table.removeCellWidget(number, _CHANNELS)
            nothing = QTableWidgetItem()
            nothing.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.table.setItem(number, _CHANNELS, nothing)
            return
        field = QLineEdit(as_typed(self._channels[layer] or usual_channels(available)))
        field.setFixedWidth(_FIELD)
        field.setAccessibleName(f"Channels of {layer.name}")
        field.setToolTip(
            f"Channels that are read, in this order, of the {available} that there are (0 to {available - 1}): 0,1,2 or 0-2. "
            "The bundled backbone reads one or three. Return applies them."
        )
        field.editingFinished.connect(lambda: self._choose_channels(layer, field))
        self.table.setCellWidget(number, _CHANNELS, field)

    def _ticked(self, item: QTableWidgetItem) -> None:
        layer, bridge = self._rows[item.row()], self._home.bridge
        bound = bridge.bound_to(layer)
        if item.checkState() == Qt.CheckState.Checked and bound is None:
            self._left_out.discard(id(layer))
            if not self._choose(layer):
                quietly(self.table, "blockSignals", False)
                self._later()
        elif item.checkState() == Qt.CheckState.Unchecked and bound is not None:
            self._left_out.add(id(layer))
            bridge.remove(bound.key)

    def _choose_axis(self, layer: Image, axis: ChannelAxis) -> None:
        self._axes[layer], self._channels[layer] = axis, None
        bound = self._home.bridge.bound_to(layer)
        if bound is not None:
            self._home.bridge.remove(bound.key)
            self._choose(layer)
        self._later()

    def _choose_channels(self, layer: Image, field: QLineEdit) -> None:
        """Read the channels that were typed, or say what is wrong with them."""
        if not field.isModified():
            return
        field.setModified(False)
        available = count_channels(layer, self._axes[layer])
        try:
            channels = parse_channels(field.text(), layer.name, available)
        except ChannelsError as error:
            field.setStyleSheet(_WRONG)
            self._home.warn(str(error))
            return
        field.setStyleSheet("")
        if channels == (self._channels[layer] or usual_channels(available)):
            return
        self._channels[layer] = channels
        bound = self._home.bridge.bound_to(layer)
        if bound is not None:
            self._home.attempt(self._home.bridge.read_channels, bound.key, channels)

    def end(self) -> None:
        """Watch the layers no longer."""
        self._soon.stop()
        self._home.bridge.images_changed.disconnect(self._later, missing_ok=True)
        _end(self._emitters, self._later)


def _end(emitters: list[Any], callback: Any, *_: Any) -> None:
    for emitter in emitters:
        emitter.disconnect(callback)
    emitters.clear()
