"""``mdm-studio advise``: which blocks and timesteps tell the classes apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdm_studio.cli.common import (
    CacheDir,
    Channels,
    Device,
    Images,
    JsonFlag,
    NoCache,
    Scales,
    open_cache,
    parse_numbers,
    parse_scales,
    parse_unlabelled,
    print_json,
    progress_bar,
    say,
)
from mdm_studio.config import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from mdm_studio.engine.advisor import Advice, Score


def advise(
    images: Images,
    labels: Annotated[
        Path, typer.Argument(help="Folder of label maps named like their images: 0 = unlabelled, 1..K = classes.")
    ],
    backbone: Annotated[str, typer.Option(help="Name or folder of a backbone.")] = DEFAULT_BACKBONE,
    blocks: Annotated[
        str | None, typer.Option("--blocks", help="Decoder blocks to score, for example 4-7. Default: all.", show_default=False)
    ] = None,
    timesteps: Annotated[
        str | None,
        typer.Option(
            "--timesteps", help="Timesteps to score, for example 50,150. Default: 10,50,150, if it has any.", show_default=False
        ),
    ] = None,
    scales: Scales = None,
    filters: Annotated[bool, typer.Option("--filters/--no-filters", help="Score the classical filters too.")] = True,
    unlabelled: Annotated[
        str, typer.Option(help="Value that means `no label`, or none: every pixel is labelled (dense masks).")
    ] = "0",
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a heat map, FILE.png.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of how strokes are dealt out.")] = 0,
    cache: CacheDir = None,
    no_cache: NoCache = False,
    channels: Channels = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Score every block at every timestep by the labels so far, and say which ones `fit` should read.

    Scores are cross-validated: balanced accuracy on strokes that were held out, mean and spread over the folds. Every class
    needs two strokes at least, and ten say more. Only images with a label map are read.

    Example: `mdm-studio advise images/ strokes/ --timesteps 50,150 --plot scores.png`
    """
    from mdm_studio.services.advising import AdviceRequest, advise_folder, write_heat_map

    request = AdviceRequest(
        images=tuple(images),
        labels=labels,
        backbone=backbone,
        blocks=parse_numbers(blocks, "--blocks"),
        timesteps=parse_numbers(timesteps, "--timesteps"),
        scales=parse_scales(scales),
        filters=filters,
        unlabelled=parse_unlabelled(unlabelled),
        channels=parse_numbers(channels, "--channels"),
        device=device,
        seed=seed,
    )
    with progress_bar() as bar:
        task = bar.add_task("advising", total=1.0, note="")
        steps = advise_folder(request, open_cache(cache, no_cache))
        try:
            while True:
                step = next(steps)
                if step.what == "note":
                    say(step.note)
                    continue
                bar.update(task, description=step.what, completed=step.done, note=step.note)
        except StopIteration as finished:
            found = finished.value
    advice: Advice = found.advice
    if plot is not None:
        write_heat_map(advice, plot)
    counts = ", ".join(f"{count} of class {value}" for value, count in found.strokes.items())
    say(f"{found.pixels} pixels of {found.images} images; strokes: {counts}")
    if json_:
        print_json(
            {
                "scores": [{"block": b, "timestep": t, **_numbers(score)} for (b, t), score in advice.scores.items()],
                "filters": _numbers(advice.filters) if advice.filters else None,
                "recommended": {
                    "blocks": advice.blocks,
                    "timesteps": advice.timesteps,
                    "filters": advice.with_filters,
                    "options": advice.options,
                    **_numbers(advice.expected),
                    "reason": advice.reason,
                },
                "images": found.images,
                "pixels": found.pixels,
                "strokes": found.strokes,
            }
        )
    else:
        _show(advice)


def _numbers(score: Score) -> dict[str, object]:
    return {"mean": score.mean, "std": score.spread, "folds": score.folds}


def _show(advice: Advice) -> None:
    from rich.console import Console
    from rich.table import Table

    times = list(dict.fromkeys(timestep for _, timestep in advice.scores))
    table = Table("", *(f"t = {timestep}" for timestep in times), title="balanced accuracy on strokes held out")
    for block in dict.fromkeys(block for block, _ in advice.scores):
        table.add_row(f"block {block}", *(_text(advice.scores[block, timestep]) for timestep in times))
    if advice.filters:
        table.add_row("filters", *[_text(advice.filters)][: len(times)])
    console = Console()
    console.print(table)
    console.print(f"{advice.reason}.", highlight=False, soft_wrap=True)
    expected = f"expected {_text(advice.expected)}"
    console.print(
        f"mdm-studio fit IMAGES LABELS --out FILE.mdm {advice.options}   ({expected})", highlight=False, soft_wrap=True
    )


def _text(score: Score) -> str:
    return f"{score.mean:.3f} ± {score.spread:.3f}"
