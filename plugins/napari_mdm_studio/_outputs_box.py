"""What is shown over the images: prediction, uncertainty, probabilities; and where to look next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QLabel, QSlider

from napari_mdm_studio._actions import with_key
from napari_mdm_studio._pictures import PROBABILITY, UNCERTAINTY
from napari_mdm_studio._widgets import Section, menu_button, quietly, row

if TYPE_CHECKING:
    from mdm_studio.io.classifier_file import LabelClass
    from napari_mdm_studio._session_home import SessionHome


class OutputsBox(Section):
    """Ticks for the outputs, and how the prediction looks."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Show")
        self._home = home
        bridge = home.bridge
        self.prediction = QCheckBox("Prediction")
        self.prediction.setToolTip(with_key("Show the predicted classes.", "toggle_prediction"))
        self.prediction.clicked.connect(lambda on: bridge.set_look(replace(bridge.look, visible=on)))
        self.contour = QCheckBox("outlines")
        self.contour.setToolTip("Show the outlines of the predicted classes instead of areas.")
        self.contour.clicked.connect(lambda on: bridge.set_look(replace(bridge.look, contour=on)))
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(5, 100)
        self.opacity.setAccessibleName("Opacity of the prediction")
        self.opacity.setToolTip("Opacity of the prediction.")
        self.opacity.valueChanged.connect(lambda value: bridge.set_look(replace(bridge.look, opacity=value / 100)))
        label = QLabel("opacity")
        label.setBuddy(self.opacity)
        self.body.addLayout(row(self.prediction, self.contour, label, self.opacity))
        self.uncertainty = QCheckBox("U&ncertainty")
        self.uncertainty.setToolTip("Bright where the prediction is in doubt.")
        self.uncertainty.clicked.connect(lambda on: bridge.set_output(UNCERTAINTY, on))
        self.probability, self._probabilities = menu_button("Pro&bability of", "Show how probable a class is, pixel by pixel.")
        self.body.addLayout(row(self.uncertainty, None, self.probability))
        bridge.outputs_changed.connect(self.show_outputs)
        home.relay(home.session.classes_changed, self._list_classes, key=lambda *_: None, owner=self)
        self._list_classes(home.session.classes)
        self.show_outputs()

    def show_outputs(self) -> None:
        """Show what is shown."""
        bridge = self._home.bridge
        self.prediction.setChecked(bridge.look.visible)
        self.contour.setChecked(bridge.look.contour)
        quietly(self.opacity, "setValue", round(100 * bridge.look.opacity))
        self.uncertainty.setChecked(UNCERTAINTY in bridge.outputs)
        for act in self._probabilities.actions():
            act.setChecked(act.data() in bridge.outputs)

    def _list_classes(self, classes: Sequence[LabelClass]) -> None:
        menu = self._probabilities
        menu.clear()
        for each in classes:
            output = f"{PROBABILITY}{each.value}"
            act = menu.addAction(each.name)
            act.setCheckable(True)
            act.setData(output)
            act.toggled.connect(lambda on, output=output: self._show(output, on))
        self.probability.setEnabled(bool(classes))
        there = {f"{PROBABILITY}{each.value}" for each in classes}
        for gone in [output for output in self._home.bridge.outputs if output.startswith(PROBABILITY) and output not in there]:
            self._home.bridge.set_output(gone, on=False)
        self.show_outputs()

    def _show(self, output: str, on: bool) -> None:
        if on != (output in self._home.bridge.outputs):
            self._home.bridge.set_output(output, on)

    def end(self) -> None:
        """Listen no longer."""
        self._home.bridge.outputs_changed.disconnect(self.show_outputs, missing_ok=True)
