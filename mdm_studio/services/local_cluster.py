"""A ``dask.distributed`` cluster of this machine that answers nobody but its owner.

A dask scheduler runs whatever code it is sent, and loopback is open to every user of a machine. So each connection asks for the
certificate of this one run, which lives in memory and travels to the workers through their pipes; no web server is started; and
the workers' folders, which they import from, are the owner's alone.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import dask
from distributed import Nanny, Scheduler, Security, SpecCluster, Worker

_HOST = "127.0.0.1"


class _NoWeb:
    """For a `distributed.node.ServerNode`: dask's web server can be moved, but not be left out."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open no port."""


class _Scheduler(_NoWeb, Scheduler):
    pass


class _Worker(_NoWeb, Worker):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that made us, which ends its workers
        super().__init__(*arguments, **options)


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[tuple[SpecCluster, Security]]:
    """A cluster of `workers` processes of one thread each, and what a client needs to be let in.

    Raises
    ------
    ImportError
        If the package ``cryptography`` is not installed.
    """
    security = Security.temporary()  # type: ignore[no-untyped-call]
    common = {"host": _HOST, "protocol": "tls://", "security": security}
    # one thread each, as dask sets for what they load; a worker that is killed is started again
    mine = {"nthreads": 1, "memory_limit": 0, "worker_class": _Worker, "silence_logs": logging.CRITICAL}
    worker = {"cls": Nanny, "options": common | mine}
    scheduler = {"cls": _Scheduler, "options": common | {"port": 0, "dashboard": False}}
    with (
        tempfile.TemporaryDirectory(prefix="mdm-studio-", ignore_cleanup_errors=True) as folder,
        dask.config.set({"temporary-directory": folder}),
        SpecCluster(  # type: ignore[no-untyped-call]
            scheduler=scheduler,
            worker=worker,
            workers=dict.fromkeys(range(workers), worker),
            security=security,
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster, security
