"""The advisor: which blocks and timesteps tell the classes apart, and what to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_mdm_studio._explorer_matrix import Matrix
from napari_mdm_studio._numbers import as_text
from napari_mdm_studio._widgets import Section, button, note, row

if TYPE_CHECKING:
    from mdm_studio.engine.advisor import Advice, AdviceStep, Score
    from mdm_studio.services.live_explore import Explorer
    from napari_mdm_studio._session_home import SessionHome

JOB = "advisor"
_AT_ZERO = " at t = 0"  # what an advice says of a network without timesteps
_ROW = 27
_BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"


class AdvisorBox(Section):
    """A heat map of scores, and the recommendation in words with a button that applies it.

    Parameters
    ----------
    home : SessionHome
        Whose session is advised.
    explorer : Explorer
        Does it.
    cells : callable
        Blocks and timesteps to score, or None if the fields that name them are wrong.
    """

    def __init__(
        self, home: SessionHome, explorer: Explorer, cells: Callable[[], tuple[Sequence[int], Sequence[int]] | None]
    ) -> None:
        super().__init__("Advisor")
        self._home, self._explorer, self._cells = home, explorer, cells
        self._scores: dict[tuple[int, int] | None, Score] = {}
        self._advice: Advice | None = None
        tooltip = (
            "Cross-validates every block and timestep of the matrix on your strokes, a stroke always as a whole. "
            "It needs two strokes at least of each of two classes."
        )
        self.score = button("&Score blocks and timesteps from my strokes", tooltip, self.start)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(_BAR)
        self.bar.setAccessibleName("Share of the scores that is done")
        self.text = note("Scores say how well each block and timestep tells your classes apart where it has not seen a stroke.")
        self.text.setAccessibleName("What the advisor is doing")
        self.matrix = Matrix("Scores of blocks and timesteps", row_height=_ROW)
        self.matrix.hide()
        self.words = note()
        self.words.setForegroundRole(self.words.palette().ColorRole.WindowText)
        self.words.setAccessibleName("Recommendation")
        self.reason = note()
        self.reason.setAccessibleName("Reason for the recommendation")
        self.apply = button("&Apply", "The classifier reads what is recommended.", self._apply, small=True)
        self.body.addWidget(self.score)
        parts: tuple[QWidget, ...] = (self.text, self.bar, self.matrix, self.words, self.reason)
        for part in parts:
            self.body.addWidget(part)
        self.body.addLayout(row(self.apply, None))
        self.bar.hide()
        self._hide_advice()

    def start(self) -> None:
        """Score what the matrix shows."""
        cells = self._cells()
        if cells is None:
            return
        blocks, timesteps = cells
        if not self._home.attempt(self._explorer.advise, blocks, timesteps):
            return
        self._scores, self._advice = {}, None
        self._hide_advice()
        self.matrix.hide()
        self.matrix.set_cells(blocks, timesteps, self._explorer.describe, timed=self._explorer.timed)
        self.matrix.clear_cells()
        self.show_progress("looking at the strokes", 0.0)

    def _hide_advice(self) -> None:
        self.words.hide()
        self.reason.hide()
        self.apply.hide()

    def show_progress(self, words: str, share: float) -> None:
        """Say what is being computed."""
        self.text.setText(words[:1].upper() + words[1:])
        self.text.show()
        self.bar.setValue(round(1000 * share))
        self.bar.show()

    def show_idle(self) -> None:
        """Nothing is computed any more; if there is no advice, it was stopped."""
        if self.bar.isVisibleTo(self):
            self.bar.hide()
            self.text.setText("Stopped.")
            self.text.setVisible(self._advice is None)

    def show_failure(self, message: str) -> None:
        """Say why there is no advice."""
        self.bar.hide()
        self.matrix.hide()
        self.text.setText(message[:1].upper() + message[1:])
        self.text.show()

    def take(self, news: AdviceStep | Advice) -> None:
        """A score, or the advice."""
        from mdm_studio.engine.advisor import Advice  # loaded by now: not while the window opens

        if isinstance(news, Advice):
            self._conclude(news)
        elif news.cell not in self._scores:  # later ones are those of sets
            self._scores[news.cell] = news.score
            self._draw(())

    def _draw(self, chosen: Sequence[Any]) -> None:
        """Paint the scores there are, from the least to the best."""
        means = [score.mean for score in self._scores.values()]
        low, high = min(means), max(means)
        self.matrix.show()
        for cell, score in self._scores.items():
            fill = viridis((score.mean - low) / (high - low) if high > low else 1.0)
            words = f"{score.mean:.3f} \N{PLUS-MINUS SIGN} {score.spread:.3f} over {len(score.folds)} folds"
            if cell is None:
                self.matrix.set_last_row("filters", f"{score.mean:.3f}", fill, words, framed=None in chosen)
            else:
                self.matrix.set_score(*cell, f"{score.mean:.3f}", fill, words, best=cell in chosen)

    def _conclude(self, advice: Advice) -> None:
        self._advice = advice
        chosen = [(block, t) for block in advice.blocks for t in advice.timesteps]
        self._draw([*chosen, *([None] if advice.with_filters else [])])
        self.matrix.set_read(advice.blocks, advice.timesteps)
        self.bar.hide()
        self.text.hide()
        timed = self._explorer.timed
        self.words.setText(in_words(advice, timed=timed))
        self.reason.setText(f"{advice.reason if timed else advice.reason.replace(_AT_ZERO, '')}.")
        self.apply.setText("&Apply")
        self.apply.setEnabled(True)
        self.words.show()
        self.reason.show()
        self.apply.show()

    def _apply(self) -> None:
        if self._advice is not None and self._home.attempt(self._explorer.apply, self._advice):
            self.apply.setText("Applied")
            self.apply.setEnabled(False)

    def forget(self) -> None:
        """The backbone is another one: its scores mean nothing now."""
        self._scores, self._advice = {}, None
        self._hide_advice()
        self.matrix.hide()


def in_words(advice: Advice, *, timed: bool = True) -> str:
    """The recommendation as a sentence.

    Parameters
    ----------
    advice : Advice
        What the advisor found.
    timed : bool
        Whether the network has timesteps.
    """
    expected = f"expected score {advice.expected.mean:.2f} \N{PLUS-MINUS SIGN} {advice.expected.spread:.2f}"
    if not advice.blocks:
        return f"Read the classical filters alone: {expected}."
    blocks = f"block{'s' * (len(advice.blocks) > 1)} {as_text(advice.blocks)}"
    times = f" at t {as_text(advice.timesteps)}" if timed else ""
    return f"Read {blocks}{times}, {'with' if advice.with_filters else 'without'} the classical filters: {expected}."


def viridis(share: float) -> QColor:
    """Colour of a share 0..1: light is more, in steps that the colour-blind see alike."""
    from napari.utils.colormaps import ensure_colormap

    red, green, blue, _ = ensure_colormap("viridis").map(np.array([share]))[0]
    return QColor.fromRgbF(float(red), float(green), float(blue))
