"""Names of processes that outlast them: who wrote a file, and whether that one still lives.

A number alone does not do, because numbers are given again: a name also tells when the process began and on which machine.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
import zlib

_NAME = re.compile(r"(\d{1,10})-(\d{1,19})-([0-9a-f]{8})")
PATTERN = r"\d{1,10}-\d{1,19}-[0-9a-f]{8}"
"""Regular expression of a name, for file names that hold one."""
_UNKNOWN = 0  # the system does not say when it began
_TOLERANCE = 2  # seconds; systems other than Linux tell the time of day, which may be set


def own_name() -> str:
    """Name of this process: its number, its beginning and its machine, of digits, letters and hyphens."""
    return process_name(os.getpid())


def process_name(pid: int) -> str:
    """Name of a living process of this machine."""
    return f"{pid}-{_beginning(pid) or _UNKNOWN}-{_machine()}"


def is_alive(name: str) -> bool | None:
    """Whether the process of this name lives; None if that cannot be known here: another machine's, or no name at all."""
    match = _NAME.fullmatch(name)
    if match is None or match[3] != _machine():
        return None
    pid, told = int(match[1]), int(match[2])
    now = _beginning(pid)
    if now is None:
        return False
    if _UNKNOWN in (told, now):
        return True
    return now == told if sys.platform == "linux" else abs(now - told) <= _TOLERANCE


@functools.cache
def _machine() -> str:
    """Name of the machine, or container: where process numbers mean the same."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return f"{zlib.crc32(f'{platform.node()} {numbers}'.encode(errors='surrogateescape')):08x}"


if sys.platform == "linux":

    def _beginning(pid: int) -> int | None:
        """When a process began, in ticks since the system did, which no clock that is set can change; None if it is gone."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # its name, in brackets, may hold anything
            return None if fields[0] in (b"Z", b"X") else int(fields[19])
        except (OSError, IndexError, ValueError):
            pass
        try:
            os.kill(pid, 0)  # some systems hide the processes of others
        except PermissionError:
            return _UNKNOWN
        except (OSError, OverflowError):
            return None
        return _UNKNOWN

else:

    def _beginning(pid: int) -> int | None:
        """When a process began, in seconds since the epoch; None if it is gone."""
        import psutil  # here: starting a program should not wait for it

        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
        except psutil.AccessDenied:
            return _UNKNOWN
        except (psutil.Error, OverflowError, ValueError):
            return None
