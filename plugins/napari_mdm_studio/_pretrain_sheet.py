"""Reconstructions of the user's own images, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QPainter, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QSlider, QVBoxLayout, QWidget

from mdm_studio.services.pretraining_report import read_sheet
from napari_mdm_studio._explorer_matrix import pixmap_of
from napari_mdm_studio._widgets import quietly, row

if TYPE_CHECKING:
    from napari_mdm_studio._session_home import SessionHome

_GAP = 8
_LARGEST_ROW = 64


class SheetBox(QWidget):
    """The newest sheet of a job, and a slider back through the earlier ones."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__()
        self._home = home
        self._samples: tuple[tuple[int, Path], ...] = ()
        self._shown: Path | None = None
        self._ended = False
        self.sheet = _Sheet()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName("Step of the reconstructions")
        self.slider.setToolTip("Go back to see how they became better.")
        self.slider.setPageStep(1)
        self.slider.valueChanged.connect(lambda _: self._show())
        self.step = QLabel()
        self.step.setMinimumWidth(self.step.fontMetrics().horizontalAdvance("step 000,000"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.sheet)
        layout.addLayout(row(self.slider, self.step))
        self.show_samples(())

    def end(self) -> None:
        """Show nothing more."""
        self._ended = True

    def show_samples(self, samples: Sequence[tuple[int, Path]]) -> None:
        """Show these; the newest, unless the user looks at an earlier one."""
        at_end = self.slider.value() >= len(self._samples) - 1 or tuple(samples[: len(self._samples)]) != self._samples
        self._samples = tuple(samples)
        quietly(self.slider, "setRange", 0, max(0, len(samples) - 1))
        if at_end:
            quietly(self.slider, "setValue", len(samples) - 1)
        self.slider.setEnabled(len(samples) > 1)
        self.setVisible(bool(samples))
        self._show()

    def _show(self) -> None:
        if not self._samples:
            self._shown = None
            self.sheet.show_picture(None, ())
            return
        step, path = self._samples[min(self.slider.value(), len(self._samples) - 1)]
        self.step.setText(f"step {step:,}")
        if path != self._shown:
            self._shown = path
            self._home.runner.start(read_sheet, path, done=lambda found: self._take(path, *found), failed=lambda why: None)

    def _take(self, path: Path, rgb: Any, captions: tuple[str, ...]) -> None:
        if path == self._shown and not self._ended:
            self.sheet.show_picture(pixmap_of(rgb), captions)


class _Sheet(QWidget):
    """A sheet as wide as there is room, with words beside its rows."""

    def __init__(self) -> None:
        super().__init__()
        self._picture: QPixmap | None = None
        self._captions: tuple[str, ...] = ()
        self._margin = 0
        self.setAccessibleName("What the network makes of your images")
        self.setToolTip("Your images, what of them the network is shown, and what it believes to be there.")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_picture(self, picture: QPixmap | None, captions: tuple[str, ...]) -> None:
        """Show a sheet; `captions` say what is in its rows."""
        self._picture, self._captions = picture, captions
        self._margin = max((self.fontMetrics().horizontalAdvance(words) for words in captions), default=0) + _GAP
        self.setAccessibleDescription("Rows: " + ", ".join(captions) if captions else "")
        self._fit()
        self.update()

    def resizeEvent(self, event: Any) -> None:
        """Qt's hook."""
        self._fit()

    def _place(self) -> QRect:
        """Where the sheet is drawn."""
        if self._picture is None:
            return QRect()
        room = QSize(max(self.width() - self._margin, 1), _LARGEST_ROW * len(self._captions))
        size = self._picture.size().scaled(room, Qt.AspectRatioMode.KeepAspectRatio)
        return QRect(self._margin, 0, size.width(), size.height())

    def _fit(self) -> None:
        height = self._place().height()
        if height != self.height():
            self.setFixedHeight(height)

    def paintEvent(self, event: Any) -> None:
        """Qt's hook."""
        if self._picture is None or not self._captions:
            return
        place = self._place()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawPixmap(place, self._picture)
        painter.setPen(self.palette().color(self.foregroundRole()))
        side = place.height() / len(self._captions)
        for number, words in enumerate(self._captions):
            box = QRect(0, round(number * side), self._margin - _GAP, round(side))
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, words)
        painter.end()
