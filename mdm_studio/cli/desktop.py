"""``mdm-studio app`` and ``mdm-studio install-desktop``: the program with the window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdm_studio.cli.common import say


def app(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="A project, a folder of images, image files, or a classifier (.mdm).", show_default=False),
    ] = None,
) -> None:
    """Open the window; `mdm-studio` alone does the same.

    Example: `mdm-studio app my-project`

    A folder of images becomes a project when you say where it goes. A project that is open in another window stays there.
    """
    from mdm_studio.desktop.main import run

    code = run(paths or ())
    if code:
        raise typer.Exit(code)


def install_desktop(
    remove: Annotated[bool, typer.Option("--remove", help="Take the entry out again.")] = False,
) -> None:
    """Put MDM Studio into the menus of your desktop, with its icon.

    Example: `mdm-studio install-desktop`

    On Linux a desktop entry, the icons and the file type .mdm go into your own data folder (XDG); nothing needs root. On
    Windows the start menu gets a shortcut. On macOS it says what to do instead.
    """
    from mdm_studio.desktop.install import install_here

    outcome = install_here(remove)
    for path in outcome.files:
        say(f"{'removed' if remove else 'wrote'} {path}")
    if not outcome.files:
        say("There was nothing to remove.")
    for note in outcome.notes:
        say(note)
