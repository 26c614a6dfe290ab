"""What is trained and for how long: recipe, where it begins, size, scale, crop, minutes, with times that were measured."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QLineEdit, QSpinBox

from mdm_studio.services.backbone_list import BackboneFacts, list_backbones
from mdm_studio.services.estimates import Speed, known_speed, measure_speed
from mdm_studio.services.new_pretraining import BATCH, Wanted, network_channels
from mdm_studio.services.recipe_list import RecipeFacts, list_recipes
from napari_mdm_studio._numbers import parse_numbers
from napari_mdm_studio._pretrain_recipe import RecipeRows
from napari_mdm_studio._widgets import Section, button, combo, form, note, quietly, row
from napari_mdm_studio._worker import Runner

if TYPE_CHECKING:
    from mdm_studio.services.folder_survey import FolderSurvey
    from napari_mdm_studio._session_home import SessionHome

_SCALES = (1, 2, 4, 8)
_SMALLEST, _LARGEST, _STEP = 32, 512, 16
_LONGEST = 7 * 24 * 60
_USUAL = 60  # minutes, until the speed is known
_CHANNELS = 64
_PAUSE = 600  # ms after the last change of the form
_SCALE_WORDS = "Images are made so many times smaller. Objects should be 15 to 50 pixels wide then."
_CROP_WORDS = "Side of the crops that are cut out of the images."
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
        self.recipe = RecipeRows()
        self._later = QTimer(self, singleShot=True, interval=_PAUSE)
        self._later.timeout.connect(self._measure_unless_known)
        self._build()
        self.put(Wanted())
        home.runner.start(_listed, done=self._offer_all, failed=lambda why: None)

    def _build(self) -> None:
        scales = {scale: "as they are" if scale == 1 else f"{scale} times smaller" for scale in _SCALES}
        self.scale = combo("Working scale", _SCALE_WORDS, scales, letters=12)
        self.crop = _spin("Size of the crops", _CROP_WORDS, _SMALLEST, _LARGEST, _STEP, " px")
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
        rows = form()
        self.recipe.add_to(rows)
        rows.addRow("Wor&king scale", self.scale)
        rows.addRow("Cro&p", self.crop)
        rows.addRow("Cha&nnels", self.channels)
        rows.addRow("", self.jitter)
        rows.addRow("&Time", self.minutes)
        rows.addRow("Na&me", self.name)
        self.body.addLayout(rows)
        self.body.addWidget(self.recipe.advanced)
        self.estimate = note()
        self.estimate.setAccessibleName("How long it takes")
        self.measure_button = button("Meas&ure", "Time a few real steps on this device now.", self.measure, small=True)
        self.body.addLayout(row(self.estimate, self.measure_button))
        self.recipe.changed.connect(self._chosen)
        self.recipe.crop_wanted.connect(lambda side: quietly(self.crop, "setValue", side))
        self.scale.activated.connect(lambda _: self._chosen())
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

    def _offer_all(self, found: tuple[tuple[RecipeFacts, ...], tuple[BackboneFacts, ...]]) -> None:
        if self._number >= 0:
            self.recipe.offer_recipes(found[0])
            self.offer(found[1])

    def offer(self, found: Sequence[BackboneFacts]) -> None:
        """Offer the backbones there are to start from."""
        if self._number >= 0:
            self.recipe.offer_backbones(found)
            self._chosen()

    def put(self, wanted: Wanted) -> None:
        """Show what was chosen the last time."""
        self.recipe.put(wanted)
        self.scale.setCurrentIndex(max(0, self.scale.findData(wanted.scale)))
        quietly(self.crop, "setValue", wanted.crop)
        self.jitter.setChecked(wanted.jitter)
        self._chosen()

    def wanted(self) -> Wanted:
        """What the form says."""
        others = Wanted(
            scale=self.scale.currentData(),
            crop=self.crop.value(),
            jitter=self.jitter.isChecked(),
            minutes=self.minutes.value(),
            device=self._home.session.settings.device,
            channels=self._channels(),
        )
        return self.recipe.fill_in(others)

    def _channels(self) -> tuple[int, ...] | None:
        text = self.channels.text().strip()
        return parse_numbers(text, _CHANNELS) if text else None

    def take_typed(self) -> None:
        """Take over numbers that were typed and not confirmed."""
        for spin in (self.crop, self.minutes):
            spin.interpretText()
        self.recipe.take_typed()

    def reads(self) -> int | None:
        """Channels of the backbone to start from; None if that is not known, or it starts from nothing."""
        return self.recipe.start.in_channels or None if self.recipe.start else None

    def _chosen(self) -> None:
        wrong = self.channels.text().strip() and not self._channels()
        self.channels.setStyleSheet(_WRONG if wrong else "")
        self.recipe.read_channels(network_channels(self._survey, self._channels()))
        self.changed.emit()
        self._ask_soon()

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
        self.recipe.read_channels(network_channels(self._survey, self._channels()))
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


def _listed() -> tuple[tuple[RecipeFacts, ...], tuple[BackboneFacts, ...]]:
    """Runs on the helper's thread."""
    return list_recipes(), list_backbones()


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
