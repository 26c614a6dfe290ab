"""Questions that a process of its own answers: it can be ended at any moment, and takes no memory that stays.

The process gets its question as JSON in the standard input, and the last line of its standard output is the answer.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def ask_process(
    command: Sequence[str], question: Mapping[str, Any], stop: Callable[[], bool], longest: float = float("inf")
) -> subprocess.CompletedProcess[str] | None:
    """Run a program until it has answered.

    Parameters
    ----------
    stop : callable
        Asked ten times a second; True ends the process.
    longest : float
        Seconds that it may take.

    Returns
    -------
    subprocess.CompletedProcess or None
        None if `stop` ended it.

    Raises
    ------
    TimeoutError
        If it took longer.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            wanted: str | None = json.dumps(question)
            deadline = time.monotonic() + longest
            while not stop():
                try:
                    output, errors = process.communicate(wanted, timeout=0.1)
                except subprocess.TimeoutExpired:
                    wanted = None  # it was handed over
                else:
                    return subprocess.CompletedProcess(command, process.returncode, output, errors)
                if time.monotonic() > deadline:
                    raise TimeoutError
        finally:
            if process.poll() is None:
                process.kill()
    return None


def read_answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What it answered.

    Raises
    ------
    ValueError
        If it did not; with the last thing that it said.
    """
    try:
        values = json.loads(done.stdout.splitlines()[-1])
        if isinstance(values, dict):
            return values
    except (ValueError, IndexError):
        pass
    raise ValueError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
