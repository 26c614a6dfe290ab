"""``mdm-studio pretrain``: train a backbone on unlabelled images."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdm_studio.cli.common import (
    Channels,
    Device,
    Images,
    JsonFlag,
    parse_numbers,
    parse_scales,
    parse_settings,
    print_json,
    progress_bar,
    say,
)
from mdm_studio.cli.jobs import say_started
from mdm_studio.cli.launch import start_all
from mdm_studio.errors import JobError, OutputError, UsageError
from mdm_studio.io.paths import real_path
from mdm_studio.io.plain_names import check_plain_name

if TYPE_CHECKING:
    from mdm_studio.io.folder_lock import FolderLock
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.services.jobs.states import JobReport
    from mdm_studio.services.pretraining import Job

_LAUNCH_SECONDS = 120  # a survey of some thousand images takes less


def pretrain(
    images: Images,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the job; its `backbone/` is the result.", show_default=False)
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="What is hidden and how the loss is taken: mdm, ddpm, maskdm, mae, dep or ddep.")
    ] = "mdm",
    size: Annotated[
        str, typer.Option(help="Size of the recipe's network: small, base, mdm-192... Default: its first.", show_default=False)
    ] = "",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the recipe, like patch=4 or schedule=cosine; repeatable.", show_default=False),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Encoder of dep and ddep: a model of Hugging Face or a folder with one.", show_default=False),
    ] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this many minutes.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the job in --out.")] = False,
    background: Annotated[
        bool,
        typer.Option("--background", help="Start it in the background; without --out its backbone joins the user's backbones."),
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the backbone. Default: the folder's.", show_default=False)] = None,
    crop: Annotated[
        int | None,
        typer.Option(min=16, help="Side of the random crops in pixels. Default: the recipe's, mostly 128.", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 16,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate. Default: the recipe's.", show_default=False)] = None,
    decay_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps over which the learning rate falls to 0 along a cosine. Default: the recipe's.",
            show_default=False,
        ),
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=1, help="Side of a hidden patch in pixels, short for --set patch=N.", show_default=False)
    ] = None,
    intensity: Annotated[
        str, typer.Option(help="percentile (of each image) or range (of the file's data type).")
    ] = "percentile",
    scales: Annotated[
        str, typer.Option(help="Working scales: crops are drawn from the images binned by these, for example 4 or 1,2,4.")
    ] = "1",
    jitter: Annotated[
        bool, typer.Option("--jitter", help="Vary colours and polarity, for features that depend less on them.")
    ] = False,
    start_from: Annotated[
        str | None,
        typer.Option(help="Backbone whose weights training begins with. Default: random weights.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="Use torch.compile (pays on GPUs).")] = False,
    channels: Channels = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Train a backbone on a folder of unlabelled images.

    Ctrl-C saves and stops; `--resume` goes on exactly where it stopped, also after a crash. With `--background` the command
    returns at once with the job's ID, and `mdm-studio jobs` shows and steers it.

    Example: `mdm-studio pretrain images/ --out my-backbone --minutes 60`
    """
    from mdm_studio.io.job_folder import JobFolder

    start_all()
    if out is None and (resume or not background):
        raise UsageError("where shall the job be? Give --out DIR (with --background alone it goes among the user's jobs)")
    if resume and out is not None:
        _go_on(JobFolder(out), steps, minutes, background, json_)
        return
    if name is not None:
        check_plain_name(name, "backbone")
    if intensity not in ("percentile", "range"):
        raise UsageError(f"--intensity {intensity!r} is not known; choose percentile or range")
    config = {key: value for key, value in (("lr", lr), ("crop", crop), ("decay_steps", decay_steps)) if value is not None} | {
        "batch": batch, "seed": seed, "precision": precision,
        "device": device, "compile": compile_, "intensity": intensity,
        "scales": parse_scales(scales), "jitter": jitter,
    }  # fmt: skip
    job = _plan(
        images,
        config,
        name=name or (real_path(out).name if out is not None else ""),
        recipe=recipe,
        recipe_settings=parse_settings(setting or [], "--set") | ({} if patch is None else {"patch": patch}),
        size=size,
        encoder=encoder,
        channels=parse_numbers(channels, "--channels"),
        steps=steps,
        minutes=minutes,
        checkpoint_every=checkpoint_every,
        start_from=start_from,
    )
    if out is None:
        from mdm_studio.services.jobs.board import JobBoard

        say_started(JobBoard().add("pretrain", job.to_json(), job.name), json_)
        return
    folder = JobFolder(out)
    _create(folder, job)
    if background or not _first_process():
        _run(folder, background, json_)
    else:
        from mdm_studio.services.jobs.holding import take

        _run(folder, background, json_, take(folder.root))  # at once: a window may look at it


def _plan(images: list[str], config: dict[str, Any], *, name: str, **settings: Any) -> Job:
    from mdm_studio.io.images import find_images
    from mdm_studio.services.pretraining import plan, recipe_config
    from mdm_studio.services.pretraining_plan import caution

    if config["precision"] not in ("auto", "bf16", "fp32"):
        raise UsageError(f"--precision {config['precision']!r} is not known; choose auto, bf16 or fp32")
    paths = find_images(images)
    name = name or real_path(paths[0]).parent.name or "backbone"
    job, unreadable = plan(paths, name=name, config=recipe_config(settings["recipe"], **config), **settings)
    if _first_process():
        for line in unreadable:
            say(f"left out: {line}")
        if against := caution(job):
            say(f"note: {against}")
    return job


def _first_process() -> bool:
    """Of several processes (accelerate launch) the first one makes the folder and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def _create(folder: JobFolder, job: Job) -> None:
    if _first_process():
        folder.create(job.to_json() | {"created": time.time()})
        say(f"{len(job.images)} images; the job is in {folder.root}")
    else:
        _await(folder, {})


def _await(folder: JobFolder, budget: dict[str, Any]) -> None:
    """Wait for the first process to make the job's folder, or to give it another budget."""
    deadline = time.monotonic() + _LAUNCH_SECONDS
    while not folder.exists() or not budget.items() <= folder.read_job().items():
        if time.monotonic() > deadline:
            raise JobError(f"the first process made no job in {folder.root}; its own message says why")
        time.sleep(0.1)


def _go_on(folder: JobFolder, steps: int | None, minutes: float | None, background: bool, json_: bool) -> None:
    """Resume a job, with another budget if one is given; everything else stays as it was."""
    from mdm_studio.services.jobs.board import JobBoard, prepare
    from mdm_studio.services.jobs.holding import held

    settings, extended = folder.settings(), steps is not None or minutes is not None
    if settings.get("kind") != "pretrain":
        raise JobError(f"the job in {folder.root} is no pretraining; go on with it by `mdm-studio jobs resume`")
    if folder.read_status().get("state") == "done" and not extended:
        _report(folder, None, json_)
    elif background:
        say_started(JobBoard().start(folder, steps=steps, minutes=minutes), json_)
    elif _first_process():
        with held(folder) as hold:
            prepare(folder, steps=steps, minutes=minutes)
            _run(folder, background, json_, hold)
    else:
        _await(folder, {"steps": steps, "minutes": minutes} if extended else {})
        _run(folder, background, json_)


def _run(folder: JobFolder, background: bool, json_: bool, hold: FolderLock | None = None) -> None:
    """Drive the job here, or leave it to a worker; `hold` is the folder's lock if it has been taken."""
    from mdm_studio.services.jobs.board import JobBoard
    from mdm_studio.services.jobs.places import register

    if background:
        say_started(JobBoard().start(folder), json_)
        return
    if _first_process():
        with suppress(OutputError):  # on a machine without a home the job runs all the same, only no window sees it
            register(folder.root)
    last, signalled = _drive(folder, hold)
    _report(folder, last, json_)
    finished = last is not None and last.done >= 1
    if signalled and not finished and "WORLD_SIZE" not in os.environ:  # torchrun would take it for a failure of one of several
        raise typer.Exit(128 + signalled)


class _Stop:
    """Whether a signal has asked the command to end, and which one."""

    number = 0

    def __call__(self) -> bool:
        return bool(self.number)

    def take(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Ctrl-C, SIGTERM and a closed terminal are taken note of instead of interrupting a step half-way."""
    stop = _Stop()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    old = {number: signal.signal(number, stop.take) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _drive(folder: JobFolder, hold: FolderLock | None) -> tuple[JobReport | None, int]:
    """Drive the job; its last report, and the signal that stopped it."""
    from mdm_studio.engine.devices import keep_freed_memory
    from mdm_studio.services.jobs.driver import drive

    keep_freed_memory()
    last: JobReport | None = None
    waits = warning = ""
    with _stoppable() as stop, progress_bar() as bar:
        task = bar.add_task("pretraining", total=1.0, note="")
        for report in drive(folder, stop=stop, hold=hold):
            if not report.step and report.note != waits:  # another job has the device
                waits = report.note
                say(f"this job {waits}; Ctrl-C leaves the queue")
            if (said := report.facts.get("warning", "")) != warning:
                warning = said
                say(f"note: {warning}")
            last = report
            bar.update(task, completed=report.done, note=_note(report))
    return last, stop.number


def _note(report: JobReport) -> str:
    loss = report.facts.get("loss")
    if loss is None:
        return report.note
    return f"step {report.step}  loss {loss:.4f}  {report.rate or 0:.1f} images/s  {report.note}"


def _report(folder: JobFolder, last: JobReport | None, json_: bool) -> None:
    if not _first_process():
        return
    finished = folder.backbone.is_dir() and (last is None or last.done >= 1)
    state = "done" if finished else folder.read_status().get("state", "paused")
    if finished:
        say(f"the backbone is in {folder.backbone}; use it with --backbone {folder.backbone}")
    else:
        word = "stopped" if state == "paused" else state
        say(f"{word} and saved; go on with: mdm-studio pretrain {folder.root} --out {folder.root} --resume")
    if json_:
        values: dict[str, Any] = {"job": folder.root, "state": state}
        if last is not None:
            values |= {"step": last.step, "loss": last.facts.get("loss"), "images_per_s": last.rate}
        print_json(values | ({"backbone": folder.backbone} if finished else {}))
