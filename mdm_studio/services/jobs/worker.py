"""The process that drives a job out of sight: ``python -m mdm_studio.services.jobs.worker FOLDER``.

It has a session of its own and lives on when the window closes. It gives way to everything else on the computer: low priority,
and half of the processors at most, with threads that sleep while they wait (two spinning thread pools slow each other
ten-fold).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

from mdm_studio.errors import MDMStudioError, OutputError
from mdm_studio.io.atomic import output_error
from mdm_studio.io.folder_lock import FolderLock
from mdm_studio.io.job_folder import JobFolder, is_ordinary
from mdm_studio.io.paths import real_path
from mdm_studio.io.processes import process_name
from mdm_studio.services.jobs.holding import take

COMMAND = (sys.executable, "-P", "-m", "mdm_studio.services.jobs.worker")
NICE_VARIABLE = "MDM_STUDIO_NICE"
"""Environment variable with the priority of background jobs on Linux and macOS: 0 is that of other programs, 19 the lowest."""
_NICE = {"pretrain": 19, "export": 5}  # hours are left to themselves; masks are what somebody waits for
_OWN_SESSION = "--own-session"
_LOCK = "--lock="
_PATIENCE = 60.0  # seconds for who starts it to let go, where a lock cannot be handed down
_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start_worker(folder: JobFolder, hold: FolderLock) -> None:
    """Start a worker for the job and leave it alone: it outlives this program and leaves no zombie.

    Parameters
    ----------
    hold : FolderLock
        The job's folder, held by this process. The worker inherits it, so that there is no moment at which nobody holds the
        folder, however long a busy machine takes to start it; it is given up here.

    Raises
    ------
    OutputError
        If its log cannot be written or the process cannot be started.
    """
    if not is_ordinary(folder.log):
        raise OutputError(f"cannot write {folder.log}: something that is no file stands there; remove it")
    file = hold.hand_down()
    command = [*COMMAND, str(real_path(folder.root)), _OWN_SESSION, *([] if file is None else [f"{_LOCK}{file}"])]
    try:
        with folder.log.open("ab") as log:
            pid = _spawn(command, log, file)
    except (OSError, subprocess.CalledProcessError) as error:
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise output_error(folder.log, cause) from error
    if file is not None:
        hold.forget()
    elif pid:  # its name stands in for the lock that it does not hold yet
        folder.write_status(**folder.read_status() | {"process": process_name(pid)})
        hold.release()


def _spawn(command: list[str], log: BinaryIO, file: int | None) -> int:
    """Start a process that is nobody's child, and give its number; 0 if that is not known."""
    # its working directory is one that no drive to be unplugged holds
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
        flags |= subprocess.BELOW_NORMAL_PRIORITY_CLASS
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=sys.prefix, creationflags=flags
        )
        process.returncode = 0  # nobody waits for it, and Python shall not complain
        return process.pid
    # the shell starts it and ends: the system, not this program, is its parent and takes note of its end
    started = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=sys.prefix,
        start_new_session=True,
        check=True,
        pass_fds=() if file is None else (file,),
    )
    number = started.stdout.strip()
    return int(number) if number.isdigit() else 0


def thread_count() -> int:
    """Threads of a job in the background: half of the processors, or fewer if the environment says so."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    half = max(1, processors // 2)
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(half, int(said)) if said.isdigit() and int(said) > 0 else half


def give_way(nice: int, *, own_session: bool) -> None:
    """Low priority, few threads; before any library starts its pool. Whose session it is not keeps its own priority."""
    threads = str(thread_count())
    waiting = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    os.environ.update(dict.fromkeys(_POOLS, threads) | waiting)
    if sys.platform == "win32":
        return  # it was started with a lower priority
    said = os.environ.get(NICE_VARIABLE, "")
    nice = int(said) if said.isdigit() else nice
    # not SCHED_IDLE: beside a program that keeps all processors busy such a process never even starts
    with contextlib.suppress(OSError):
        os.nice(nice)
    if own_session and sys.platform == "linux":
        # desktop kernels share the processors among sessions first, whatever the priority of what runs in each
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


def main(arguments: list[str]) -> int:
    """Drive the job in the folder named; 0 if it ended well or was paused."""
    folder = JobFolder(Path(arguments[0]))
    inherited = next((int(word.removeprefix(_LOCK)) for word in arguments if word.startswith(_LOCK)), None)
    try:  # before anything that takes time: nobody else may take the folder
        hold = take(folder.root, inherited=inherited, seconds=_PATIENCE)
    except MDMStudioError as error:
        folder.write_log(str(error))
        return error.exit_code
    faulthandler.enable()
    warnings.simplefilter("ignore")  # nobody reads them in the background
    kind = str(folder.read_job().get("kind", ""))
    give_way(_NICE.get(kind, max(_NICE.values())), own_session=_OWN_SESSION in arguments)
    stop = threading.Event()
    for name in ("SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stop.set())
    for name in ("SIGINT", "SIGHUP"):  # meant for a terminal that this process has left
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    from mdm_studio.services.jobs.driver import drive

    if kind == "pretrain":
        from mdm_studio.engine.freed_memory import keep_freed_memory

        keep_freed_memory()
    try:
        for _ in drive(folder, stop=stop.is_set, background=True, hold=hold):
            pass
    except MDMStudioError as error:
        folder.write_log(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
