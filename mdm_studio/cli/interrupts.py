"""Ctrl-C, a plain ``kill`` and a closed terminal: the command unwinds, cleans up and says one line.

The standard library alone: signals are seen to before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_GENTLE = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Windows' own
_DEBUG = "MDM_STUDIO_DEBUG"
_WORDS = "what is done is kept. Go on with the same command"
_received: list[int] = []
_words = [_WORDS]


class _Interrupt(KeyboardInterrupt):
    """Ours, because Python ends itself by SIGINT, whatever exit code it is given, once a plain one has left an ``exec``."""


def run_interruptible(command: Callable[[], None]) -> None:
    """Run the command line; a signal that asks it to end makes it unwind as Ctrl-C does, and gives 128 + its number back.

    Signals that whoever started the program has switched off (``nohup``, ``&``) stay so.
    """
    for name in _GENTLE:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    try:
        command()
    except SystemExit:
        if _received:
            _end()
        raise
    except KeyboardInterrupt:
        _end()
    except BaseException:
        if _received:  # a library that was being imported has made something else of it
            _end()
        raise


def interrupted() -> bool:
    """Whether this program has been asked to end; what fails from then on fails because of it."""
    return bool(_received)


def say_at_interrupt(words: str) -> None:
    """What to say instead of the usual words, should the program be interrupted from now on."""
    _words[:] = [words]


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise _Interrupt


def _end() -> NoReturn:
    number = _received[0] if _received else signal.SIGINT
    for name in _GENTLE:  # whoever asks again does not want to wait
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is _interrupt:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        sys.stderr.write(f"mdm-studio: stopped; {_words[0]}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        if not os.environ.get(_DEBUG):  # what libraries say of the threads and processes they lose is for nobody
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    except (OSError, ValueError):  # the terminal is gone, and what is said is heard by nobody
        sys.stdout = sys.stderr = open(os.devnull, "w")
    sys.exit(128 + number)
