"""What is going on: live or not, what is computed, how far, and what went wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QProgressBar, QVBoxLayout

from napari_mdm_studio._actions import with_key
from napari_mdm_studio._widgets import Section, button, note, row

if TYPE_CHECKING:
    from mdm_studio.services.session import Status
    from napari_mdm_studio._session_home import SessionHome

_ERROR = "QFrame#error { border: 1px solid #d55e00; border-radius: 4px; background: rgba(213, 94, 0, 45); }"
_BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"


class StatusBox(Section):
    """Live, Update once, Cancel; the status line with its bar; an error with Retry."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__("Learning")
        self._home = home
        session = home.session
        self.live = button("L&ive", with_key("Learn every stroke at once.", "toggle_live"), self._toggle_live)
        self.live.setCheckable(True)
        self.once = button("Update &once", "Learn the strokes painted so far and update the prediction.", session.update_once)
        self.cancel = button("Canc&el", "Stop what is running; the next stroke, or Update once, goes on.", session.cancel)
        self.body.addLayout(row(self.live, self.once, self.cancel))
        self.text = note()
        self.text.setAccessibleName("Status")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(_BAR)
        self.bar.setAccessibleName("Tiles done of tiles in view")
        self.facts = note()
        self.facts.setAccessibleName("Painted pixels, loss, time of the last update")
        self.error = ErrorBanner(home)
        for part in (self.text, self.bar, self.facts, self.error):
            self.body.addWidget(part)
        self._clock = QTimer(self, interval=1000)
        self._clock.timeout.connect(lambda: self._show_facts(session.status))
        self._clock.start()
        home.relay(session.status_changed, self.show_status, every=0.1, key=lambda *_: None, owner=self)
        self.show_status(session.status)

    def _toggle_live(self) -> None:
        self._home.session.set_live(self.live.isChecked())

    def show_status(self, status: Status) -> None:
        """Show what the session says."""
        self.live.setChecked(self._home.session.live)
        self.cancel.setEnabled(status.busy)
        if self.text.text() != status.text:
            self.text.setText(status.text[:1].upper() + status.text[1:])
        total = status.tiles_in_view
        if status.busy and not total:
            self.bar.setRange(0, 0)  # moves to and fro
        else:
            self.bar.setRange(0, max(total, 1))
            self.bar.setValue(status.tiles_done if status.busy else 0)
        self.bar.setEnabled(status.busy)
        self.bar.setToolTip(f"{status.tiles_done} of {total} tiles in view")
        self._show_facts(status)
        self.error.show_error(status.error)

    def _show_facts(self, status: Status) -> None:
        facts = [f"{status.painted:,} px painted"]
        if status.loss is not None:
            facts.append(f"loss {status.loss:.3f}")
        if status.updated_at is not None:
            facts.append(f"updated {_ago(time.perf_counter() - status.updated_at)}")
        text = "  ·  ".join(facts)
        if text != self.facts.text():
            self.facts.setText(text)

    def end(self) -> None:
        """Count the seconds no longer."""
        self._clock.stop()


class ErrorBanner(QFrame):
    """What went wrong, in words, with Retry; hidden while all is well."""

    def __init__(self, home: SessionHome) -> None:
        super().__init__()
        self.setObjectName("error")
        self.setStyleSheet(_ERROR)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setAccessibleName("Error")
        self.retry = button("Retr&y", "Try again; the last good prediction stays until then.", home.session.retry, small=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.text)
        bottom = QHBoxLayout()
        bottom.addStretch(1)
        bottom.addWidget(self.retry)
        layout.addLayout(bottom)
        self.hide()

    def show_error(self, error: str | None) -> None:
        """Show an error, or nothing."""
        if error:
            self.text.setText(error)
        self.setVisible(bool(error))


def _ago(seconds: float) -> str:
    if seconds < 1.5:
        return "just now"
    if seconds < 90:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago"
