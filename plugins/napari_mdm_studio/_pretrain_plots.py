"""Two curves: the loss of a pretraining, and how well its checkpoints tell the classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QSizePolicy

from mdm_studio.services.checkpoint_scores import CheckpointScore
from mdm_studio.services.job_curves import JobLook

_HEIGHT = 156
_MEAN, _NEW, _USED = "#56b4e9", "#e69f00", "#9a9a9a"  # of Okabe and Ito: told apart by the colour-blind
_PALE = 70


class _Plot(pg.PlotWidget):  # type: ignore[misc]
    """A quiet plot in the colours of the window."""

    _made = False  # pyqtgraph lets events come while it is

    def __init__(self, name: str, bottom: str, left: str) -> None:
        super().__init__(background=None)
        self.setAccessibleName(name)
        self.setFixedHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMenuEnabled(False)
        self.hideButtons()
        self.setMouseEnabled(x=False, y=False)
        self.plotItem.setContentsMargins(0, 0, 4, 8)
        self.plotItem.setLabel("bottom", bottom)
        self.plotItem.setLabel("left", left)
        self.getAxis("left").enableAutoSIPrefix(False)
        self.getAxis("bottom").enableAutoSIPrefix(False)
        self._made = True
        self._dress()

    def changeEvent(self, event: Any) -> None:
        """Qt's hook."""
        super().changeEvent(event)
        if self._made and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._dress()

    def wheelEvent(self, event: Any) -> None:
        """Qt's hook: the wheel scrolls the dock."""
        event.ignore()

    def _dress(self) -> None:
        color = self.palette().color(self.foregroundRole())
        for side in ("left", "bottom"):
            axis = self.getAxis(side)
            axis.setPen(color)
            axis.setTextPen(color)


class LossPlot(_Plot):
    """Loss of every step, and its running mean."""

    def __init__(self) -> None:
        super().__init__("Loss curve", "step", "loss")
        pale = pg.mkColor(_MEAN)
        pale.setAlpha(_PALE)
        self._raw = self.plot([], [], pen=pg.mkPen(pale, width=1))
        self._mean = self.plot([], [], pen=pg.mkPen(_MEAN, width=2))

    def show_look(self, look: JobLook | None) -> None:
        """Show the losses so far."""
        raw, mean = look.curves() if look is not None else (np.empty((0, 2)), np.empty((0, 2)))
        self._raw.setData(raw[:, 0], raw[:, 1])
        self._mean.setData(mean[:, 0], mean[:, 1])

    def set_log(self, log: bool) -> None:
        """Whether the loss is shown on a logarithmic axis."""
        self.setLogMode(y=log)


class ScorePlot(_Plot):
    """Scores of the checkpoints with their errors, beside those of what is read now."""

    def __init__(self) -> None:
        super().__init__("Scores of the checkpoints on your strokes", "step", "% found")
        self._bars = pg.ErrorBarItem(x=np.zeros(1), y=np.zeros(1), height=np.zeros(1), beam=0.0, pen=pg.mkPen(_NEW))
        self.addItem(self._bars)
        self._used = self.plot([], [], pen=pg.mkPen(_USED, width=2, style=pg.QtCore.Qt.PenStyle.DashLine), symbol="s")
        self._new = self.plot([], [], pen=pg.mkPen(_NEW, width=2), symbol="o")
        for curve, color in ((self._used, _USED), (self._new, _NEW)):
            curve.setSymbolSize(6)
            curve.setSymbolBrush(color)
            curve.setSymbolPen(color)

    def show_scores(self, scores: Sequence[CheckpointScore]) -> None:
        """Show these."""
        steps = np.array([score.step for score in scores], float)
        new, errors, used = (
            np.array([100 * getattr(score, name) for score in scores], float) for name in ("score", "error", "reference")
        )
        self._new.setData(steps, new)
        self._used.setData(steps, used)
        self._bars.setData(x=steps, y=new, height=2 * errors)
        self._bars.setVisible(bool(len(scores)))
        if scores:
            self.setXRange(0, steps[-1])
