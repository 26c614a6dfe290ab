"""A thread for what may wait: files that are read in the background, and what is done when things have come to rest."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from mdm_studio.errors import MDMStudioError

log = logging.getLogger(__name__)

REST = 3.0
"""Seconds without news after which things have come to rest."""

Errand = Callable[[], None]


class Clerk:
    """Does errands one after the other, on a thread of its own.

    Parameters
    ----------
    rested : callable
        Called, on that thread, `rest` seconds after the last call of `stir`.
    failed : callable
        Told in words what went wrong in an errand; the next ones are done all the same.
    rest : float
        Seconds.
    """

    def __init__(self, rested: Errand, failed: Callable[[str], object], rest: float = REST) -> None:
        self._rested, self._failed, self._rest = rested, failed, rest
        self._news = threading.Condition()
        self._errands: deque[Errand] = deque()
        self._due: float | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="mdm-studio clerk", daemon=True)
        self._thread.start()

    @property
    def closing(self) -> bool:
        """Whether long errands should end."""
        return self._closing

    def do(self, errand: Errand) -> None:
        """Do an errand soon."""
        with self._news:
            self._errands.append(errand)
            self._news.notify()

    def stir(self) -> None:
        """Something happened: rest begins anew."""
        with self._news:
            self._due = time.monotonic() + self._rest
            self._news.notify()

    def close(self) -> None:
        """End after the errand that is being done; the others are dropped."""
        with self._news:
            self._closing = True
            self._errands.clear()
            self._news.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        while (errand := self._next()) is not None:
            try:
                errand()
            except MDMStudioError as error:
                self._failed(str(error))
            except Exception as error:  # this drives jobs: the next one is done whatever became of the last
                log.exception("an errand failed")
                self._failed(f"{type(error).__name__}: {error}")

    def _next(self) -> Errand | None:
        with self._news:
            while not self._closing:
                if self._errands:
                    return self._errands.popleft()
                wait = None if self._due is None else self._due - time.monotonic()
                if wait is not None and wait <= 0:
                    self._due = None
                    return self._rested
                self._news.wait(wait)
        return None
