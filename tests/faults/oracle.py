"""One judge of all faults: whatever the input, the program ends as it promises.

An entry (a command or a call) runs in a child that is forked from a process which has imported everything, so that thousands
can be tried, each is alone, and none can take the campaign with it. Judged are the exit code, what was printed, time, memory,
and every file that was touched.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from mdm_studio.errors import MDMStudioError

SECONDS = 120.0  # for an input that takes a fraction of a second, on a machine that is a hundred times as busy
MEMORY = 2 << 30  # bytes at most, whatever the input
WRONG = 70  # exit code of a check that found a wrong result
_LEAK = re.compile(
    r"^Traceback|\b\w*Warning: |^  File \"|^<tifffile|^(libpng|libtiff|TIFF\w+|corrupt)\b.*:|object at 0x|Fatal Python", re.M
)
_UNFINISHED = re.compile(r"\.(part|partial|tmp|old)$|^\.tmp")

Entry = Callable[[], object]


class Wrong(Exception):
    """A result that differs from what it must be."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int  # exit code, or minus the signal
    stdout: str
    stderr: str
    seconds: float
    memory: int  # bytes, at its peak
    hung: bool = False


def command(*arguments: object) -> Entry:
    """The program's own entry with arguments, as a shell calls it."""

    def call() -> None:
        from mdm_studio.cli import main

        sys.argv = ["mdm-studio", *map(str, arguments)]
        main()

    return call


def service(call: Entry) -> Entry:
    """A call of a service, whose errors become what the program prints for them."""

    def wrapped() -> None:
        try:
            call()
        except MDMStudioError as error:
            sys.stderr.write(f"mdm-studio: {error}\n")
            sys.exit(error.exit_code)

    return wrapped


def start(entry: Entry, log: Path, **environment: str) -> int:
    """Run an entry in a child of its own session, with what it prints in two files; its process."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        os.environ.update(environment)
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(log.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout = open(1, "w", encoding="utf-8", errors="strict", closefd=False)  # as Python makes them for a terminal
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        code = _code_of(entry)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code_of(entry: Entry) -> int:
    try:
        entry()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except Wrong as error:
        sys.stderr.write(f"WRONG {error}\n")
        return WRONG
    except BaseException:  # noqa: BLE001 - whatever comes out is what is looked for
        traceback.print_exc()
        return 1
    return 0


def finish(pid: int, log: Path, seconds: float = SECONDS) -> Ended:
    """Wait for a child, or end it and whatever it started when it takes too long or too much memory."""
    begin, hung, size = time.monotonic(), False, 0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        size = max(size, _resident(pid))
        if not hung and (time.monotonic() - begin > seconds or size > 2 * MEMORY):
            hung = size <= 2 * MEMORY
            kill(pid)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    texts = [log.with_suffix(f".{name}").read_text("utf-8", "replace") for name in ("out", "err")]
    return Ended(code, *texts, time.monotonic() - begin, max(size, usage.ru_maxrss << 10), hung)


def kill(pid: int) -> None:
    """SIGKILL to a child and all of its session, as a power cut comes to all."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # it may not have its session yet


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def run(entry: Entry, log: Path, seconds: float = SECONDS, **environment: str) -> Ended:
    """Start and finish."""
    return finish(start(entry, log, **environment), log, seconds)


def problems(ended: Ended, *, codes: tuple[int, ...] = (0, 1, 2)) -> Iterator[str]:
    """What is wrong with the way a child ended; nothing if all is well."""
    if ended.hung:
        yield f"hang: not done after {ended.seconds:.0f} s"
    elif ended.code < 0:
        yield f"crash: ended by {signal.Signals(-ended.code).name}"
    elif ended.code == WRONG:
        yield "silently wrong: " + ended.stderr.strip().splitlines()[-1]
    elif leak := _LEAK.search(ended.stdout + "\n" + ended.stderr):
        kind = "traceback" if "Traceback" in ended.stderr else "leak"
        last = ended.stderr.strip().splitlines()[-1] if kind == "traceback" else leak[0]
        yield f"{kind}: {last[:300]}"
    elif ended.code not in codes:
        yield f"exit code {ended.code}: {ended.stderr.strip()[-200:]}"
    elif ended.code and not _one_line(ended.stderr):
        yield f"exit code {ended.code} without one line: {ended.stderr.strip()[-200:]!r}"
    if ended.memory > MEMORY:
        yield f"memory: {ended.memory / 2**30:.1f} GB"


def _one_line(stderr: str) -> bool:
    """Whether one line says what failed; typer's own box for unknown options counts."""
    said = [line for line in stderr.splitlines() if line.startswith("mdm-studio: ")]
    return (len(said) == 1 and len(said[0]) > 20) or "Usage:" in stderr


def snapshot(folder: Path) -> dict[str, str]:
    """Path -> digest of every file below a folder; links are not followed."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in names + [each for each in folders if os.path.islink(os.path.join(root, each))]:
            path = os.path.join(root, name)
            digest = os.readlink(path) if os.path.islink(path) else hashlib.blake2b(Path(path).read_bytes()).hexdigest()
            found[os.path.relpath(path, folder)] = digest
    return found


def touched(before: dict[str, str], after: dict[str, str], allowed: tuple[str, ...]) -> Iterator[str]:
    """Files that were written, changed or removed outside of what is allowed, and hidden ones left there."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        if not any(path == each or path.startswith(each + "/") for each in allowed):
            yield f"{'changed' if path in before and path in after else 'written' if path in after else 'removed'}: {path}"
        elif path in after and _UNFINISHED.search(os.path.basename(path)):
            yield f"left behind: {path}"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Pass over what libraries in C print in the ``with`` block: the judge's own decoders, not the program."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
