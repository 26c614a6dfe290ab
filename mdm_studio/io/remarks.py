"""What should be known of a file beside its pixels, told once, whoever opens it and however often.

Told on the log ``mdm_studio.images``, as warnings: programs without a logging set-up see them on stderr, a front end shows them
where its user looks (`heard`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger("mdm_studio.images")
_MOST = 100_000  # remarks that are remembered so as not to be repeated


class _Once(logging.Filter):
    """Lets each remark pass once."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[tuple[object, ...]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is new."""
        key = (record.msg, *(record.args if isinstance(record.args, tuple) else ()))
        if key in self.told:
            return False
        if len(self.told) >= _MOST:
            self.told.clear()
        self.told.add(key)
        return True


_once = _Once()
_log.addFilter(_once)


def tell(path: Path, words: str) -> None:
    """Tell what should be known of a file or folder."""
    _log.warning("%s: %s", str(path), words)


def remarks(left_out: Sequence[str], notes: Sequence[str]) -> tuple[str, ...]:
    """What to tell of a file of which parts are not read."""
    return (*(f"left out: {part}" for part in left_out), *notes)


class _Listener(logging.Handler):
    def __init__(self, hear: Callable[[str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        """Pass file and words on."""
        path, words = record.args if isinstance(record.args, tuple) and len(record.args) == 2 else ("", record.getMessage())
        self._hear(str(path), str(words))


@contextmanager
def heard(hear: Callable[[str, str], None]) -> Iterator[None]:
    """Call `hear` with path and words of whatever is told in the ``with`` block, also of what was told before it."""
    _once.told.clear()
    listener, propagate = _Listener(hear), _log.propagate
    _log.addHandler(listener)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(listener)
        _log.propagate = propagate
