"""The command line: one file a command, put together in `mdm_studio.cli.app`."""

from __future__ import annotations


def main() -> None:
    """Entry point of ``mdm-studio``."""
    from mdm_studio.cli.app import run

    run()
