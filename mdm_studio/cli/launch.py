"""Several processes of one run on CPUs, started as ``accelerate launch --cpu --num_processes N`` is meant.

Without MPI that command starts a single process and says nothing about the other ones (accelerate 1.15: only a
host file for ``mpirun`` makes it start more). The process that it does start calls `start_all`, which starts them all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import typer

from mdm_studio.cli.common import say

_ONE_OF_SEVERAL = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # torchrun and three kinds of MPI
_OPTIONS = ("--num_processes", "--num-processes")


def processes_wanted(environment: Mapping[str, str], launcher: Sequence[str]) -> int:
    """How many processes the launcher was asked for and has not started.

    Parameters
    ----------
    environment : mapping
        Of this process; accelerate sets an address to meet at when it was asked for more than one process.
    launcher : sequence of str
        Command line of the process that started this one.

    Returns
    -------
    int
        1 if this process is what was asked for, 0 if there should be more and the command line does not say how many.
    """
    if environment.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes") or "MASTER_ADDR" not in environment:
        return 1
    if any(name in environment for name in _ONE_OF_SEVERAL):
        return 1
    for word, following in zip(launcher, [*launcher[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name in _OPTIONS and (value or following).isdigit():
            return int(value or following)
    return 0


def start_all() -> None:
    """Start every process of the run and end with them, if this one was started for all of them; else do nothing."""
    import psutil

    parent = psutil.Process().parent()
    count = processes_wanted(os.environ, parent.cmdline() if parent is not None else [])
    if count == 1:
        return
    if count == 0:
        say(
            "accelerate launch --cpu started one process only; for several give it --num_processes N, "
            "or use: torchrun --nproc-per-node N -m mdm_studio.cli pretrain ..."
        )
        return
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    meet = ["--master_addr", os.environ["MASTER_ADDR"], "--master_port", os.environ.get("MASTER_PORT", "29500")]
    try:
        run.main(["--nproc_per_node", str(count), *meet, "-m", "mdm_studio.cli", *sys.argv[1:]])
    except ChildFailedError as error:  # its own message has been said
        raise typer.Exit(error.get_first_failure()[1].exitcode) from error
    except SignalException as error:  # handed on to all of them, which have saved by now
        raise typer.Exit(128 + error.sigval) from error
    raise typer.Exit
