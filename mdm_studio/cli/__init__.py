"""The command line: one file a command, put together in `mdm_studio.cli.app`."""

from __future__ import annotations


def main() -> None:
    """Entry point of ``mdm-studio``."""
    from mdm_studio.cli.interrupts import run_interruptible

    run_interruptible(_run)


def _run() -> None:
    import sys

    for stream in (sys.stdout, sys.stderr):  # a name of a file may hold what no text can
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    from mdm_studio.cli.app import run

    run()
