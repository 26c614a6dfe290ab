"""Which images are labelled: a list to tick, with the axis that counts channels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QHeaderView, QTableWidget, QTableWidgetItem

from napari_mdm_studio._bridge import opening
from napari_mdm_studio._geometry import ChannelAxis
from napari_mdm_studio._pictures import OUTPUT
from napari_mdm_studio._planes import channel_axes, describe_channels, likely_channel_axis
from napari_mdm_studio._widgets import Section, quietly

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_mdm_studio._session_home import SessionHome

_ROWS_SHOWN = 4


class ImagesBox(Section):
    """The image layers of the viewer; a tick chooses one for labelling.

    New layers are chosen by themselves unless another image lies there already.
    """

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Images")
        self._home = home
        self._axes: dict[Image, ChannelAxis] = {}
        self._left_out: set[int] = set()  # ids of layers that the user does not want
        self._rows: list[Image] = []
        self.table = QTableWidget(0, 2)
        self.table.setAccessibleName("Images to label")
        self.table.setToolTip("Ticked images are learnt from and predicted. Space ticks the selected one.")
        self.table.horizontalHeader().hide()
        self.table.verticalHeader().hide()
        self.table.setShowGrid(False)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setTabKeyNavigation(False)
        self.table.setWordWrap(False)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
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
        home.closed.connect(self.end)
        self.destroyed.connect(partial(_end, self._emitters, self._later))
        self._update()

    def _later(self, event: Any = None) -> None:
        self._soon.start()

    def _update(self) -> None:
        from napari.layers import Image

        there = [layer for layer in self._home.viewer.layers if isinstance(layer, Image)]
        layers = [layer for layer in there if not OUTPUT.items() <= layer.metadata.items()]
        self._axes = {layer: self._axes.get(layer, likely_channel_axis(layer)) for layer in layers}
        bridge = self._home.bridge
        chosen = [layer for layer in layers if bridge.bound_to(layer)]
        new = [layer for layer in layers if layer not in self._rows and layer not in chosen and id(layer) not in self._left_out]
        self._rows = layers
        for layer in opening([*chosen, *new]):
            if layer not in chosen and not self._home.choose_image(layer, self._axes[layer]):
                self._left_out.add(id(layer))
        blocked = self.table.blockSignals(True)
        self.table.setRowCount(len(layers))
        for number, layer in enumerate(layers):
            self._fill(number, layer)
        self.table.blockSignals(blocked)
        rows = max(1, min(len(layers), _ROWS_SHOWN))
        self.table.setFixedHeight(rows * self.table.verticalHeader().defaultSectionSize() + 4)

    def _fill(self, number: int, layer: Image) -> None:
        item = QTableWidgetItem(layer.name)
        item.setToolTip(layer.name)
        item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
        ticked = self._home.bridge.bound_to(layer) is not None
        item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
        self.table.setItem(number, 0, item)
        axes = channel_axes(layer)
        if len(axes) == 1:
            self.table.removeCellWidget(number, 1)
            words = QTableWidgetItem("RGB" if layer.rgb else "")
            words.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.table.setItem(number, 1, words)
            return
        combo = QComboBox()
        combo.setAccessibleName(f"Channel axis of {layer.name}")
        combo.setToolTip("Which axis of this image counts channels; all other axes before height and width are a stack.")
        for axis in axes:
            combo.addItem(describe_channels(layer, axis), axis)
        combo.setCurrentIndex(axes.index(self._axes[layer]))
        combo.currentIndexChanged.connect(lambda index: self._choose_axis(layer, axes[index]))
        self.table.setCellWidget(number, 1, combo)

    def _ticked(self, item: QTableWidgetItem) -> None:
        layer, bridge = self._rows[item.row()], self._home.bridge
        bound = bridge.bound_to(layer)
        if item.checkState() == Qt.CheckState.Checked and bound is None:
            self._left_out.discard(id(layer))
            if not self._home.choose_image(layer, self._axes[layer]):
                quietly(self.table, "blockSignals", False)
                self._later()
        elif item.checkState() == Qt.CheckState.Unchecked and bound is not None:
            self._left_out.add(id(layer))
            bridge.remove(bound.key)

    def _choose_axis(self, layer: Image, axis: ChannelAxis) -> None:
        self._axes[layer] = axis
        bound = self._home.bridge.bound_to(layer)
        if bound is not None:
            self._home.bridge.remove(bound.key)
            self._home.choose_image(layer, axis)

    def end(self) -> None:
        """Watch the layers no longer."""
        self._soon.stop()
        _end(self._emitters, self._later)


def _end(emitters: list[Any], callback: Any, *_: Any) -> None:
    for emitter in emitters:
        emitter.disconnect(callback)
    emitters.clear()
