"""Threads that work for a live session: each asks for a job, does it, and asks again.

They keep the priority of the program. With a lower one they would be put aside while they hold Python's lock, and a window that
waits for it would wait longer (measured with ``benchmarks/live_stalls.py``: late beats of 33 ms in the median against 4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

Job = Callable[[], None]


class Crew:
    """A few threads, one for each role.

    Parameters
    ----------
    roles : sequence of str
        A thread works for each; the threads are named after them.
    ask : callable
        ``ask(role)`` gives the next job for a role, or None if there is nothing to do until somebody calls `wake`.
    """

    def __init__(self, roles: Sequence[str], ask: Callable[[str], Job | None]) -> None:
        self._ask = ask
        self._news = threading.Condition()
        self._count = 0  # of calls to `wake`: one between asking and waiting must not be missed
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, args=(role,), name=f"mdm-studio {role}", daemon=True) for role in roles
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There may be something to do."""
        with self._news:
            self._count += 1
            self._news.notify_all()

    def close(self, timeout: float) -> bool:
        """End all threads after the job each is doing; whether they ended in time."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, role: str) -> None:
        while True:
            with self._news:
                seen = self._count
                if self._closing:
                    return
            job = self._ask(role)
            if job is not None:
                job()
                continue
            with self._news:
                while self._count == seen and not self._closing:
                    self._news.wait()
