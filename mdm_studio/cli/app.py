"""Puts the commands together and turns expected errors into one line and an exit code.

Every command's module imports nothing heavy at its top, so that ``--help`` is quick.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from mdm_studio.cli import backbones
from mdm_studio.cli.advise import advise
from mdm_studio.cli.cache import app as cache
from mdm_studio.cli.clusters import clusters
from mdm_studio.cli.common import forget_remarks, hear
from mdm_studio.cli.demo import demo
from mdm_studio.cli.desktop import app as desktop
from mdm_studio.cli.desktop import install_desktop
from mdm_studio.cli.evaluate import evaluate
from mdm_studio.cli.features import features
from mdm_studio.cli.fit import fit
from mdm_studio.cli.interrupts import interrupted
from mdm_studio.cli.jobs import app as jobs
from mdm_studio.cli.predict import predict
from mdm_studio.cli.pretrain import pretrain
from mdm_studio.cli.privacy import privacy
from mdm_studio.cli.probe import probe
from mdm_studio.cli.sample import sample
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.names import one_line
from mdm_studio.io.remarks import heard

DEBUG_VARIABLE = "MDM_STUDIO_DEBUG"

app = typer.Typer(
    name="mdm-studio",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.command("app")(desktop)
app.command("demo")(demo)
app.command("pretrain")(pretrain)
app.add_typer(backbones.app, name="backbones")
app.add_typer(jobs, name="jobs")
app.command("features")(features)
app.command("fit")(fit)
app.command("predict")(predict)
app.command("evaluate")(evaluate)
app.command("clusters")(clusters)
app.command("advise")(advise)
app.command("probe")(probe)
app.command("sample")(sample)
app.command("privacy")(privacy)
app.add_typer(cache, name="cache")
app.command("install-desktop")(install_desktop)


def _version(wanted: bool) -> None:
    if wanted:
        from mdm_studio import __version__

        typer.echo(f"mdm-studio {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", envvar=DEBUG_VARIABLE)] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """From unlabelled images and a few brush strokes to segmentation masks. Without a command the window opens."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    forget_remarks()
    context.with_resource(heard(hear))
    if context.invoked_subcommand is None:
        desktop()


def run() -> None:
    """Run the command line: exit code 0 on success, 2 for wrong usage, 1 for a failure, with one clear line on stderr.

    Ctrl-C and other signals are seen to by `mdm_studio.cli.interrupts`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter of a name ends nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MDMStudioError as error:
        if interrupted():
            raise KeyboardInterrupt from error
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"mdm-studio: {one_line(str(error))}", file=sys.stderr)  # noqa: T201 - the one place that prints an error
        sys.exit(error.exit_code)
    except (OSError, MemoryError) as error:
        if os.environ.get(DEBUG_VARIABLE) or interrupted():
            raise
        words = str(error) if isinstance(error, OSError) else "there is not enough memory for this"
        print(f"mdm-studio: {' '.join(words.split())}", file=sys.stderr)  # noqa: T201
        sys.exit(MDMStudioError.exit_code)
