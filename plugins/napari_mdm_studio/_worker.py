"""The one place where threads and the GUI meet: signals come in, blocking functions go out.

A `Relay` brings the emissions of a psygnal signal, from whatever thread, to the GUI thread. A `Runner` runs a blocking
function on a thread of its own and brings back what it returned. Both end with their owner and leave nothing behind; Qt's
own thread pool would keep its threads for half a minute more.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from psygnal import SignalInstance
from qtpy.QtCore import QObject, Qt, QTimer, Signal

from mdm_studio.errors import MDMStudioError


class Relay(QObject):
    """Calls `callback` on the GUI thread for the emissions of `signal`, in their order.

    Parameters
    ----------
    signal : psygnal.SignalInstance
        Emitted from any thread.
    callback : callable
        Takes what the signal carries. Called from the event loop, never from within the emission.
    every : float
        Least time between two deliveries in seconds; what comes in between waits. Where a delivery and the drawing after it
        take long, the pause is twice as long as they took, so that the mouse is served in between.
    key : callable, optional
        Of the waiting emissions with equal ``key(*values)`` only the latest is delivered; without it, all are.
    """

    _arrived = Signal()

    def __init__(
        self,
        signal: SignalInstance,
        callback: Callable[..., object],
        *,
        every: float = 0.0,
        key: Callable[..., Hashable] | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._signal, self._callback, self._every = signal, callback, every
        number = itertools.count()
        self._key = key or (lambda *_: next(number))
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, tuple[Any, ...]] = {}
        self._called = False  # a delivery is on its way
        self._next = 0.0
        self._timer = QTimer(self, singleShot=True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._deliver)
        self._arrived.connect(self._schedule, Qt.ConnectionType.QueuedConnection)
        signal.connect(self._receive)

    def _receive(self, *values: Any) -> None:
        """Runs on the emitting thread."""
        with self._lock:
            name = self._key(*values)
            self._waiting.pop(name, None)  # so that the order is that of the latest emissions
            self._waiting[name] = values
            called, self._called = self._called, True
        if not called:
            self._arrived.emit()

    def _schedule(self) -> None:
        wait = self._next - time.monotonic()
        if wait > 0:
            self._timer.start(int(wait * 1000) + 1)
        else:
            self._deliver()

    def _deliver(self) -> None:
        with self._lock:
            batch, self._waiting, self._called = list(self._waiting.values()), {}, False
        start = time.monotonic()
        for values in batch:
            self._callback(*values)
        if self._every:
            self._next = start + self._every
            QTimer.singleShot(0, self, lambda: self._breathe(start))  # comes after the drawing

    def _breathe(self, start: float) -> None:
        now = time.monotonic()
        self._next = max(start + self._every, now + 2 * (now - start))

    def close(self) -> None:
        """Deliver nothing more, not even what is waiting."""
        self._signal.disconnect(self._receive, missing_ok=True)
        with contextlib.suppress(RuntimeError):  # at the end of the program Qt may have deleted it already
            self._timer.stop()
        with self._lock:
            self._waiting, self._called = {}, True
        self._callback = _nothing


def _nothing(*_: Any) -> None:
    """What a closed relay calls: it keeps nobody alive."""


class Runner(QObject):
    """Runs blocking functions one after another on a thread of its own.

    The thread starts with the first function and ends with `close`.
    """

    _finished = Signal(object, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mdm-studio-gui-helper")
        self._closed = False
        self._finished.connect(self._answer, Qt.ConnectionType.QueuedConnection)

    def start(
        self,
        function: Callable[..., Any],
        *args: Any,
        done: Callable[[Any], object],
        failed: Callable[[str], object],
    ) -> None:
        """Run ``function(*args)``.

        Parameters
        ----------
        done : callable
            Gets the result, on the GUI thread.
        failed : callable
            Gets the words of an expected error, on the GUI thread. Others are raised from the event loop, where napari
            shows them.
        """
        future = self._pool.submit(function, *args)
        future.add_done_callback(lambda finished: self._finished.emit(finished, done, failed))

    def _answer(self, future: Future[Any], done: Callable[[Any], object], failed: Callable[[str], object]) -> None:
        if self._closed or future.cancelled():
            return
        error = future.exception()
        if error is None:
            done(future.result())
        elif isinstance(error, MDMStudioError | OSError):
            failed(str(error))
        else:
            raise error

    def close(self) -> None:
        """Drop what waits, wait for what runs, and answer nothing more."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
