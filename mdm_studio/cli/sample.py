"""``mdm-studio sample``: new pictures from pure noise."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from mdm_studio.cli.common import Device, JsonFlag, Precision, print_json, progress_bar, say
from mdm_studio.errors import UsageError

_STEPS = {"ddim": 50, "ancestral": 250}


def sample(
    backbone: Annotated[str, typer.Argument(help="Name or folder of a backbone.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the pictures.", show_default=False)],
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="Pictures to make.")] = 16,
    sampler: Annotated[str, typer.Option(help="ddim (few steps), or ancestral (as DDPM was published).")] = "ddim",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps a picture. Default: 50 of ddim, 250 of ancestral.", show_default=False),
    ] = None,
    eta: Annotated[
        float, typer.Option(help="Noise that ddim adds on the way: 0 (none) to 1 (as much as ancestral sampling).")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed; picture 7 of a seed is the same however many are made.")] = 0,
    size: Annotated[
        str | None,
        typer.Option(help="Height and width, for example 128,256. Default: the crops of training.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that are there already.")] = False,
    precision: Precision = "fp32",
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Make pictures from pure noise, by a backbone that was trained to take noise away (ddpm; maskdm with nothing hidden).

    They show what such a backbone has learned, and look like its training images at best: they are not data. Writes
    sample-0001.png and so on, all of them on sheet.png, and sampling.json, which tells how to make them again.

    Example: `mdm-studio sample my-ddpm -n 16 --out samples/`
    """
    from mdm_studio.engine.backbones import find_backbone, load_backbone
    from mdm_studio.engine.devices import pick_device
    from mdm_studio.engine.generation import Sampler
    from mdm_studio.services.sampling import SHEET, SampleRequest, sample_files, warnings

    if precision not in ("fp32", "bf16"):
        raise UsageError(f"--precision {precision!r} is not known; choose fp32 or bf16")
    if sampler not in _STEPS:
        raise UsageError(f"--sampler {sampler!r} is not known; choose {' or '.join(_STEPS)}")
    how = Sampler(sampler, steps or _STEPS[sampler], eta)  # type: ignore[arg-type]
    request = SampleRequest(out, n, how, seed, _parse_size(size), overwrite)
    loaded = load_backbone(find_backbone(backbone), device=pick_device(device), bf16=precision == "bf16")
    for line in warnings(loaded):
        say(f"warning: {line}")
    files: list[Path] = []
    with progress_bar() as bar, closing(sample_files(loaded, request)) as events:  # type: ignore[type-var]
        task = bar.add_task("pictures", total=n, note="")
        for event in events:
            files += event.finished
            bar.update(task, completed=event.done, note=f"{len(files)} of {n}, step {event.step} of {event.steps}")
    say(f"{len(files)} pictures in {out}; all of them: {out / SHEET}")
    if json_:
        print_json({"out": out, "sheet": out / SHEET, "files": files})


def _parse_size(text: str | None) -> tuple[int, int]:
    """Value of ``--size``: ``height,width``, or one number for a square."""
    if text is None:
        return 0, 0
    parts = text.split(",")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--size {text!r} is no size; write height,width, for example 128,256")
    return int(parts[0]), int(parts[-1])
