"""``mdm-studio pretrain``: train a backbone on unlabelled images."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdm_studio.cli.common import Channels, Device, Images, JsonFlag, parse_numbers, parse_scales, print_json, progress_bar, say
from mdm_studio.errors import JobError, UsageError

if TYPE_CHECKING:
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.services.pretraining import Progress

_LAUNCH_SECONDS = 120  # a survey of some thousand images takes less


def pretrain(
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="Folder of the job; its `backbone/` is the result.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="What is hidden and how the loss is taken.")] = "mdm",
    size: Annotated[str, typer.Option(help="small, base, mdm-192 or adm-256.")] = "small",
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this many minutes.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the job in --out.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the backbone. Default: the folder's.", show_default=False)] = None,
    crop: Annotated[int, typer.Option(min=16, help="Side of the random crops in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 16,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 3e-4,
    patch: Annotated[int, typer.Option(min=1, help="Side of a hidden patch in pixels.")] = 8,
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

    Ctrl-C saves and stops; `--resume` goes on exactly where it stopped, also after a crash.

    Example: `mdm-studio pretrain images/ --out my-backbone --minutes 60`
    """
    from mdm_studio.io.job_folder import JobFolder

    folder = JobFolder(out)
    if resume:
        _extend(folder, steps, minutes)
    else:
        if intensity not in ("percentile", "range"):
            raise UsageError(f"--intensity {intensity!r} is not known; choose percentile or range")
        config = {
            "crop": crop, "batch": batch, "lr": lr, "seed": seed, "precision": precision,
            "device": device, "compile": compile_, "intensity": intensity,
            "scales": parse_scales(scales), "jitter": jitter,
        }  # fmt: skip
        _create(
            folder,
            images,
            config,
            name=name or out.resolve().name,
            recipe=recipe,
            recipe_settings={"patch": patch} if recipe == "mdm" else {},
            size=size,
            channels=parse_numbers(channels, "--channels"),
            steps=steps,
            minutes=minutes,
            checkpoint_every=checkpoint_every,
            start_from=start_from,
        )
    last = _drive(folder)
    _report(folder, last, json_)


def _create(folder: JobFolder, images: list[str], config: dict[str, Any], **settings: Any) -> None:
    from mdm_studio.engine.pretrain import PretrainConfig
    from mdm_studio.io.images import find_images
    from mdm_studio.nn.unet import SIZES
    from mdm_studio.services.pretraining import plan

    if settings["size"] not in SIZES:
        raise UsageError(f"--size {settings['size']!r} is not known; choose one of {', '.join(SIZES)}")
    if config["precision"] not in ("auto", "bf16", "fp32"):
        raise UsageError(f"--precision {config['precision']!r} is not known; choose auto, bf16 or fp32")
    job, unreadable = plan(find_images(images), config=PretrainConfig(**config), **settings)
    if int(os.environ.get("RANK", "0")) > 0:  # of several processes (accelerate launch) the first one makes the folder
        _await(folder)
        return
    for line in unreadable:
        say(f"left out: {line}")
    folder.create(job.to_json())
    say(f"{len(job.images)} images; the job is in {folder.root}")


def _await(folder: JobFolder) -> None:
    """Wait for the first process to make the job's folder."""
    deadline = time.monotonic() + _LAUNCH_SECONDS
    while not folder.exists():
        if time.monotonic() > deadline:
            raise JobError(f"the first process made no job in {folder.root}; its own message says why")
        time.sleep(0.1)


def _extend(folder: JobFolder, steps: int | None, minutes: float | None) -> None:
    """A resumed job may be given more time; everything else stays as it was."""
    from mdm_studio.io.atomic import write_json

    settings = folder.settings()
    given = {key: value for key, value in (("steps", steps), ("minutes", minutes)) if value is not None}
    if given:  # the new budget replaces the old one as a whole
        write_json(folder.job, settings | {"steps": None, "minutes": None} | given)


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event instead of interrupting a step half-way."""
    stop = threading.Event()
    old = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _drive(folder: JobFolder) -> Progress | None:
    from mdm_studio.services.pretraining import run

    last: Progress | None = None
    with _stoppable() as stop, progress_bar() as bar:
        task = bar.add_task("pretraining", total=1.0, note="")
        for last in run(folder, stop=stop.is_set):
            note = f"step {last.step.step}  loss {last.step.loss:.4f}  {last.images_per_s:.1f} images/s"
            bar.update(task, completed=last.done, note=note)
    return last


def _report(folder: JobFolder, last: Progress | None, json_: bool) -> None:
    finished = folder.backbone.is_dir() and (last is None or last.done >= 1)
    if finished:
        say(f"the backbone is in {folder.backbone}; use it with --backbone {folder.backbone}")
    else:
        say(f"stopped and saved; go on with: mdm-studio pretrain {folder.root} --out {folder.root} --resume")
    if json_:
        values: dict[str, Any] = {"job": folder.root, "state": "done" if finished else "paused"}
        if last is not None:
            values |= {"step": last.step.step, "loss": last.step.loss, "images_per_s": last.images_per_s}
        print_json(values | ({"backbone": folder.backbone} if finished else {}))
