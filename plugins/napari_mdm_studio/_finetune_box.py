"""The whole network learns the strokes: begun, watched, stopped, and shown in turn with the ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QButtonGroup, QProgressBar, QRadioButton, QSpinBox, QWidget

from napari_mdm_studio._widgets import Section, button, note, quietly, row

if TYPE_CHECKING:
    from mdm_studio.services.live_finetune import FinetuneState
    from napari_mdm_studio._session_home import SessionHome

_BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"
_FEWEST, _USUAL, _MOST, _STEP = 10, 200, 10_000, 50
_WHAT = "The whole network learns the strokes, for minutes, while you go on painting; compare its masks with the ensemble's."


class FinetuneBox(Section):
    """Fine-tune, Stop, how far it is, and whose masks are shown."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Fine-tuning")
        self._home, session = home, home.session
        self.start = button("Fine-tune the network", _WHAT, self._start)
        self.steps = QSpinBox()
        self.steps.setRange(_FEWEST, _MOST)
        self.steps.setSingleStep(_STEP)
        self.steps.setValue(_USUAL)
        self.steps.setSuffix(" steps")
        self.steps.setAccessibleName("Steps of fine-tuning")
        self.steps.setToolTip("How long it learns: more for many strokes, fewer for a first try.")
        self.stop = button("Stop", "Stop it, and go back to what was there before.", session.cancel_finetune, small=True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(_BAR)
        self.bar.setAccessibleName("Share of the fine-tuning that is done")
        self.text = note()
        self.text.setAccessibleName("How far the fine-tuning is")
        self.ensemble, self.network = QRadioButton("ensemble"), QRadioButton("fine-tuned network")
        self.ensemble.setToolTip("Show and save the masks of the small networks that follow your strokes.")
        self.network.setToolTip("Show and save the masks of the fine-tuned network.")
        self._group = QButtonGroup(self)
        for each, finetuned in ((self.ensemble, False), (self.network, True)):
            self._group.addButton(each)
            each.clicked.connect(lambda _, chosen=finetuned: session.show_finetuned(chosen))
        self.shown = QWidget()
        self.shown.setLayout(row(self.ensemble, self.network, None))
        self.body.addLayout(row(self.start, self.steps, self.stop))
        for part in (self.bar, self.text, self.shown):
            self.body.addWidget(part)
        home.relay(session.finetune_changed, self.show_state, every=0.1, key=lambda *_: None, owner=self)
        self.show_state(session.finetuning)

    def _start(self) -> None:
        self.steps.interpretText()
        self._home.attempt(self._home.session.finetune, steps=self.steps.value())

    def show_state(self, state: FinetuneState) -> None:
        """Show what the session says."""
        running, there = state.phase == "running", state.phase != "none"
        self.start.setEnabled(not running)
        self.steps.setEnabled(not running)
        self.stop.setVisible(running)
        self.bar.setVisible(running)
        self.bar.setValue(round(1000 * state.done))
        words = [f"{state.note[:1].upper()}{state.note[1:]}."] if running and state.note else []
        if there and not running and state.outdated:
            words.append("Strokes painted since are not in it: fine-tune again.")
        self.text.setText(" ".join(words))
        self.text.setVisible(bool(words))
        self.shown.setVisible(there)
        quietly(self.network if state.shown else self.ensemble, "setChecked", True)
