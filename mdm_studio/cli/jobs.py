"""``mdm-studio jobs``: list, show, pause, resume, cancel and remove background jobs."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdm_studio.cli.common import JsonFlag, print_json, progress_bar, say
from mdm_studio.cli.interrupts import say_at_interrupt
from mdm_studio.errors import JobError

if TYPE_CHECKING:
    from mdm_studio.services.jobs.board import JobBoard
    from mdm_studio.services.jobs.states import JobView

app = typer.Typer(
    help="List, show and steer background jobs; windows and command lines see the same.\n\nExample: `mdm-studio jobs`",
    no_args_is_help=False,
)
_PATIENCE = 60.0  # seconds: a step of a large network on a busy computer
_Id = Annotated[str, typer.Argument(help="ID of a job, its first letters, or its folder.", show_default=False)]


@app.callback(invoke_without_command=True)
def _default(context: typer.Context, json_: JsonFlag = False) -> None:
    if context.invoked_subcommand is None:
        list_(json_)


@app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """List all jobs, newest first.

    Example: `mdm-studio jobs list --json`
    """
    from mdm_studio.services.jobs.board import JobBoard

    views = JobBoard().jobs()
    if json_:
        print_json([_values(view) for view in views])
        return
    if not views:
        say("there are no jobs; start one with: mdm-studio pretrain IMAGES --minutes 60 --background")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in ("ID", "kind", "state", "done", "speed", "left", "device"):
        table.add_column(title, no_wrap=True)
    for view in views:
        table.add_row(view.id, view.kind, view.state, f"{view.done:.0%}", _speed(view), _time(view.eta_s), view.device)
    console = Console()
    console.print(table)
    for view in views:
        if view.message:
            console.print(f"{view.id}: {view.message}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def show(job_id: _Id, json_: JsonFlag = False) -> None:
    """Show what is known about a job.

    Example: `mdm-studio jobs show nuclei`
    """
    from mdm_studio.services.jobs.board import JobBoard

    view = JobBoard().find(job_id)
    if json_:
        print_json(_values(view))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    steps = f"{view.step} of {view.steps}" if view.steps else str(view.step)
    rows = {
        "ID": view.id, "name": view.name, "kind": view.kind, "state": view.state, "message": view.message,
        "done": f"{view.done:.1%}, step {steps}", "speed": _speed(view), "left": _time(view.eta_s), "device": view.device,
        "folder": str(view.folder), "result": str(view.result or ""),
    }  # fmt: skip
    rows |= {key: str(value) for key, value in view.facts.items() if value is not None}
    for key, value in rows.items():
        if value:
            table.add_row(key, value)
    Console().print(table)


@app.command()
def pause(job_id: _Id, json_: JsonFlag = False) -> None:
    """Let a job save and stop, and wait until it has; it can be resumed.

    Example: `mdm-studio jobs pause nuclei`
    """
    from mdm_studio.services.jobs.board import JobBoard

    board = JobBoard()
    view = _stopped(board, board.pause(job_id))
    _tell(view, json_, "is asked to pause: it saves after its present step; go on with: jobs resume")


@app.command()
def resume(
    job_id: _Id,
    steps: Annotated[int | None, typer.Option(min=1, help="New budget: steps in all.", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="New budget: minutes in all.", show_default=False)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end; Ctrl-C ends the following, not the job.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Go on with a paused, interrupted, failed or cancelled job, in the background.

    Example: `mdm-studio jobs resume nuclei --wait`
    """
    from mdm_studio.services.jobs.board import JobBoard

    view = JobBoard().resume(job_id, steps=steps, minutes=minutes)
    if wait:
        follow(view.id, json_)
    else:
        say_started(view, json_)


@app.command()
def cancel(job_id: _Id, json_: JsonFlag = False) -> None:
    """Give a job up; what it saved stays until it is removed.

    Example: `mdm-studio jobs cancel nuclei`
    """
    from mdm_studio.services.jobs.board import JobBoard

    board = JobBoard()
    view = _stopped(board, board.cancel(job_id))
    _tell(view, json_, "is asked to end after its present step; delete what it has saved with: jobs remove")


@app.command()
def logs(job_id: _Id) -> None:
    """Print the log of a job.

    Example: `mdm-studio jobs logs nuclei`
    """
    from mdm_studio.services.jobs.board import JobBoard

    typer.echo(JobBoard().log(job_id), nl=False)


@app.command()
def remove(job_id: _Id) -> None:
    """Delete a job that is over with its folder; its published backbone stays, and so does a folder given with `--out`.

    Example: `mdm-studio jobs remove nuclei`
    """
    from mdm_studio.services.jobs.board import JobBoard

    board = JobBoard()
    view = board.find(job_id)
    board.remove(view.id)
    say(f"removed {view.id}" + (f"; its folder {view.folder} is still there" if view.folder.exists() else ""))


def follow(job_id: str, json_: bool) -> None:
    """Show a job's progress until it is over.

    Raises
    ------
    JobError
        If it fails, or is interrupted.
    """
    from mdm_studio.services.jobs.board import JobBoard

    say_at_interrupt(f"the job goes on; see it with: mdm-studio jobs show {job_id}")
    with progress_bar() as bar:
        task = bar.add_task(job_id, total=1.0, note="")
        for view in JobBoard().follow(job_id):
            bar.update(task, completed=view.done, note=f"{view.state}  step {view.step}  {_speed(view)}  {view.message}")
    if view.state in ("failed", "interrupted"):
        raise JobError(f"job {view.id} {'failed' if view.state == 'failed' else 'was interrupted'}: {view.message}")
    say(f"job {view.id} is {view.state}" + (f"; its result is in {view.result}" if view.result else ""))
    if json_:
        print_json(_values(view))


def say_started(view: JobView, json_: bool) -> None:
    """Say that a job has been started in the background, and how to see it."""
    _tell(view, json_, "runs in the background; see it with: mdm-studio jobs")
    if not json_:
        typer.echo(view.id)  # what a script wants


def _stopped(board: JobBoard, view: JobView) -> JobView:
    """The job when it has stopped, or when that takes longer than anybody waits; Ctrl-C ends the waiting."""
    until = time.monotonic() + _PATIENCE
    for now in board.follow(view.id, every=0.2):
        view = now
        if time.monotonic() > until:
            break
    return view


def _tell(view: JobView, json_: bool, text: str) -> None:
    say(f"job {view.id} " + (text if view.living else f"is {view.state}"))
    if json_:
        print_json(_values(view))


def _values(view: JobView) -> dict[str, Any]:
    return dataclasses.asdict(view) | {"facts": dict(view.facts)}


def _speed(view: JobView) -> str:
    return "" if view.rate is None else f"{view.rate:.1f} {view.unit}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(minutes, 1)} min"
