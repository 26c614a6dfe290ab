"""What is trained and for how long: where it begins, size, scale, patch, minutes, with times that were measured."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLineEdit, QSpinBox

from mdm_studio.services.backbone_list import BackboneFacts, list_backbones
from mdm_studio.services.estimates import Speed, known_speed, measure_speed
from mdm_studio.services.new_pretraining import BATCH, SIZE_WORDS, Wanted
from napari_mdm_studio._numbers import parse_numbers
from napari_mdm_studio._widgets import Section, button, combo, note, quietly, row
from napari_mdm_studio._worker import Runner

if TYPE_CHECKING:
    from mdm_studio.services.folder_survey import FolderSurvey
    from napari_mdm_studio._session_home import SessionHome

_SCALES = (1, 2, 4, 8)
_NOTHING = "nothing: random weights"
_SMALLEST, _LARGEST, _STEP = 32, 512, 16
_LONGEST = 7 * 24 * 60
_USUAL = 60  # minutes, until the speed is known
_CHANNELS = 64
_PAUSE = 600  # ms after the last change of the form
_SIZE_TOOLTIP = "Larger ones learn more from many images, and take far longer."
_SCALE_WORDS = "Images are made so many times smaller. Objects should be 15 to 50 pixels wide then."
_PATCH_WORDS = "Side of the patches that are cut out of the images."
_WRONG = "border: 1px solid #d55e00;"


class TrainingForm(Section):
    """The choices; `changed` after each."""

    changed = Signal()

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Training")
        self._home, self._runner = home, Runner()
        self._stop, self._number = threading.Event(), 0
        self._own_minutes = self._own_name = False  # chosen by the user
        self._survey: FolderSurvey | None = None
        self.speed: Speed | None = None
        self.facts: dict[str, BackboneFacts] = {}
        self._later = QTimer(self, singleShot=True, interval=_PAUSE)
        self._later.timeout.connect(self._measure_unless_known)
        self._first = ""
        self._build()
        self.put(Wanted())
        home.runner.start(list_backbones, done=self.offer, failed=lambda why: None)

    def _build(self) -> None:
        tooltip = "Its weights are where the training begins; that saves time on like images."
        self.start_from = combo("Start from", tooltip, {}, letters=12)
        self.network_size = combo("Size of the network", _SIZE_TOOLTIP, SIZE_WORDS, letters=12)
        scales = {scale: "as they are" if scale == 1 else f"{scale} times smaller" for scale in _SCALES}
        self.scale = combo("Working scale", _SCALE_WORDS, scales, letters=12)
        self.crop = _spin("Patch size", _PATCH_WORDS, _SMALLEST, _LARGEST, _STEP, " px")
        self.minutes = _spin("Minutes", "How long it trains; pauses do not count.", 1, _LONGEST, 5, " min")
        self.minutes.setValue(_USUAL)
        self.channels = QLineEdit()
        self.channels.setAccessibleName("Channels")
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip("Channels that are read, from 0: 0,2. Empty reads all.")
        self.jitter = QCheckBox("&vary colours")
        self.jitter.setToolTip("Change stain, lamp and polarity at random, for features that depend less on them.")
        self.name = QLineEdit()
        self.name.setAccessibleName("Name of the new backbone")
        self.name.setToolTip("The backbone will have this name in the list.")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Start &from", self.start_from)
        form.addRow("Si&ze", self.network_size)
        form.addRow("Wor&king scale", self.scale)
        form.addRow("&Patch", self.crop)
        form.addRow("Cha&nnels", self.channels)
        form.addRow("", self.jitter)
        form.addRow("&Time", self.minutes)
        form.addRow("Na&me", self.name)
        self.body.addLayout(form)
        self.estimate = note()
        self.estimate.setAccessibleName("How long it takes")
        self.measure_button = button("Meas&ure", "Time a few real steps on this device now.", self.measure, small=True)
        self.body.addLayout(row(self.estimate, self.measure_button))
        for box in (self.start_from, self.network_size, self.scale):
            box.activated.connect(lambda _: self._chosen())
        self.crop.valueChanged.connect(lambda _: self._chosen())
        self.jitter.clicked.connect(lambda _: self._chosen())
        self.channels.editingFinished.connect(self._chosen)
        self.minutes.valueChanged.connect(self._minutes_chosen)
        self.name.textEdited.connect(self._name_typed)

    def end(self) -> None:
        """Stop measuring."""
        self._later.stop()
        self._stop.set()
        self._number = -1
        self._runner.close()

    # ---- what is chosen ----------------------------------------------------------------------------------------------

    def offer(self, found: Sequence[BackboneFacts]) -> None:
        """Offer the backbones there are to start from."""
        if self._number < 0:
            return
        self.facts = {facts.name: facts for facts in found if facts.problem is None}
        chosen = self.start_from.currentData()
        self.start_from.clear()
        for name, facts in self.facts.items():
            self.start_from.addItem(f"{name}: {facts.good_at}" if facts.good_at else name, name)
        self.start_from.addItem(_NOTHING, "")
        self._choose_start(self._first if chosen is None else chosen)
        self._chosen()

    def put(self, wanted: Wanted) -> None:
        """Show what was chosen the last time."""
        self._first = wanted.start_from
        self._choose_start(wanted.start_from)
        self.network_size.setCurrentIndex(max(0, self.network_size.findData(wanted.size)))
        self.scale.setCurrentIndex(max(0, self.scale.findData(wanted.scale)))
        quietly(self.crop, "setValue", wanted.crop)
        self.jitter.setChecked(wanted.jitter)
        self._chosen()

    def _choose_start(self, name: str) -> None:
        self.start_from.setCurrentIndex(max(0, self.start_from.findData(name)))

    def wanted(self) -> Wanted:
        """What the form says."""
        channels = parse_numbers(self.channels.text(), _CHANNELS) if self.channels.text().strip() else None
        start_from = self.start_from.currentData()
        return Wanted(
            start_from=self._first if start_from is None else start_from,
            size=self.network_size.currentData(),
            scale=self.scale.currentData(),
            crop=self.crop.value(),
            jitter=self.jitter.isChecked(),
            minutes=self.minutes.value(),
            device=self._home.session.settings.device,
            channels=tuple(channels) if channels else None,
        )

    def take_typed(self) -> None:
        """Take over numbers that were typed and not confirmed."""
        for spin in (self.crop, self.minutes):
            spin.interpretText()

    def reads(self) -> int | None:
        """Channels of the backbone to start from; None if that is not known, or it starts from nothing."""
        facts = self.facts.get(self.start_from.currentData() or "")
        return facts.in_channels or None if facts else None

    def _chosen(self) -> None:
        text = self.channels.text().strip()
        self.channels.setStyleSheet(_WRONG if text and not parse_numbers(text, _CHANNELS) else "")
        self._show_size()
        self.changed.emit()
        self._ask_soon()

    def _show_size(self) -> None:
        """A backbone to start from has its size."""
        from_nothing = not self.wanted().start_from
        self.network_size.setEnabled(from_nothing)
        self.network_size.setToolTip(_SIZE_TOOLTIP if from_nothing else "That of the backbone to start from.")

    def _minutes_chosen(self, _: int) -> None:
        self._own_minutes = True
        self._show_estimate()

    def _name_typed(self, text: str) -> None:
        self._own_name = bool(text.strip())

    # ---- time --------------------------------------------------------------------------------------------------------

    def show_survey(self, survey: FolderSurvey | None, name: str) -> None:
        """Another folder was looked at; it lends its name."""
        self._survey = survey if survey is not None and survey.images else None
        if not self._own_name:
            self.name.setText(name)
        self._ask_soon()

    def _ask_soon(self) -> None:
        self._stop.set()
        self._number += self._number >= 0
        self.speed = None
        self._show_estimate()
        if self._survey is not None:
            self._later.start()

    def _measure_unless_known(self) -> None:
        survey = self._survey
        if survey is None:
            return
        number, request = self._number, self.wanted().speed_request(survey)
        self._runner.start(
            lambda: known_speed(request),
            done=lambda speed: self._known(number, speed),
            failed=lambda why: self._not_measured(number, why),
        )

    def _known(self, number: int, speed: Speed | None) -> None:
        if speed is not None:
            self._show_speed(number, speed)
        elif number == self._number:
            self.measure()

    def measure(self) -> None:
        """Time a few real steps, whether they were timed before or not."""
        survey = self._survey
        if survey is None:
            return
        self._later.stop()
        self._stop.set()
        self._number += 1
        number, stop, request = self._number, threading.Event(), self.wanted().speed_request(survey)
        self._stop = stop
        self.measure_button.setEnabled(False)
        self.estimate.setText("Timing a few real steps on this device...")
        self._runner.start(
            lambda: measure_speed(request, stop.is_set),
            done=lambda speed: self._show_speed(number, speed),
            failed=lambda why: self._not_measured(number, why),
        )

    def _show_speed(self, number: int, speed: Speed | None) -> None:
        if number != self._number or speed is None:
            return
        self.speed = speed
        if not self._own_minutes:
            quietly(self.minutes, "setValue", speed.usual_minutes())
        self._show_estimate()

    def _not_measured(self, number: int, why: str) -> None:
        if number == self._number:
            self.measure_button.setEnabled(True)
            self.estimate.setText(f"{why[:1].upper()}{why[1:]}.")

    def _show_estimate(self) -> None:
        self.measure_button.setEnabled(self._survey is not None)
        if self.speed is not None:
            self.estimate.setText(self.speed.describe(self.minutes.value(), BATCH))
        elif self._survey is None:
            self.estimate.setText("How long it takes is measured once a folder is chosen.")
        else:
            self.estimate.setText("")


def _spin(name: str, tooltip: str, least: int, most: int, step: int, suffix: str) -> QSpinBox:
    made = QSpinBox()
    made.setAccessibleName(name)
    made.setToolTip(tooltip)
    made.setRange(least, most)
    made.setSingleStep(step)
    made.setSuffix(suffix)
    made.setKeyboardTracking(False)
    made.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
    return made
