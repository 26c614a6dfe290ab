"""``mdm-studio probe``: how well features tell classes of whole images apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdm_studio.cli.common import (
    Blocks,
    CacheDir,
    Channels,
    Device,
    Filters,
    Images,
    JsonFlag,
    NoCache,
    Precision,
    Scales,
    Timesteps,
    cell,
    open_cache,
    parse_blocks,
    parse_numbers,
    parse_scales,
    print_json,
    progress_bar,
    say,
)
from mdm_studio.config import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from mdm_studio.services.probe import ProbeResult

_SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


def probe(
    images: Images,
    labels: Annotated[Path, typer.Argument(help="CSV file with the columns image,label[,group].", metavar="LABELS.csv")],
    backbone: Annotated[str, typer.Option(help="Name or folder of a backbone.")] = DEFAULT_BACKBONE,
    blocks: Blocks = None,
    timesteps: Timesteps = None,
    scales: Scales = None,
    filters: Filters = None,
    spread: Annotated[
        bool, typer.Option("--spread", help="Read each channel's standard deviation over an image too, not its mean alone.")
    ] = False,
    folds: Annotated[int, typer.Option(min=2, help="Parts that the images are dealt into.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="How often they are dealt anew.")] = 5,
    strength: Annotated[
        float, typer.Option(min=1e-9, help="Inverse strength of the L2 penalty; smaller is smoother.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the dealing.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write FILE.csv: a prediction for each image, also without a label.", show_default=False),
    ] = None,
    image_column: Annotated[str, typer.Option(help="Column of the image names.")] = "image",
    label_column: Annotated[str, typer.Option(help="Column of the classes.")] = "label",
    group_column: Annotated[
        str, typer.Option(help="Column of what must not be split, for example patients. Default: group, if there.")
    ] = "",
    precision: Precision = "fp32",
    cache: CacheDir = None,
    no_cache: NoCache = False,
    channels: Channels = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Measure how well features tell classes of whole images apart: a linear probe, cross-validated.

    Each image's features are averaged over the image, standardised (as the batch norm without affine parameters of MAE's linear
    probe does), and given to a logistic regression. Every image is predicted by a model that has not seen it; images of one
    group (tiles of a field, a patient) stay together. Scores are mean and spread over the repeats.

    Example: `mdm-studio probe images/ classes.csv --folds 5 --out predictions.csv`
    """
    from mdm_studio.engine.linear_probe import ProbeConfig
    from mdm_studio.services.probe import ProbeRequest, probe_images

    request = ProbeRequest(
        images=tuple(images),
        labels=labels,
        backbone=backbone,
        blocks=parse_blocks(blocks),
        timesteps=parse_numbers(timesteps, "--timesteps"),
        scales=parse_scales(scales),
        filters=filters,
        pooling="mean-std" if spread else "mean",
        predict=out is not None,
        image_column=image_column,
        label_column=label_column,
        group_column=group_column,
        channels=parse_numbers(channels, "--channels"),
        bf16=precision == "bf16",
        device=device,
        config=ProbeConfig(folds, repeats, strength, seed),
    )
    with progress_bar() as bar:
        task = bar.add_task("probing", total=1.0, note="")
        steps = probe_images(request, open_cache(cache, no_cache))
        try:
            while True:
                step = next(steps)
                bar.update(task, description=step.what, completed=step.done, note=step.note)
        except StopIteration as finished:
            found: ProbeResult = finished.value
    _report(found, out, json_)


def _report(found: ProbeResult, out: Path | None, json_: bool) -> None:
    from mdm_studio.errors import InputError
    from mdm_studio.io.tables import write_rows

    if out is not None:
        write_rows(out, _rows(found))
        say(f"{len(found.predictions)} predictions in {out}")
    for message in found.failed.values():
        say(f"failed: {message}")
    scores = found.scores
    if json_:
        values = {name: vars(getattr(scores, name)) for name in _SCORES}
        facts: dict[str, Any] = {"classes": found.images, "groups": found.groups, "channels": found.channels}
        print_json(values | {"chance": scores.chance, "confusion": scores.confusion.tolist(), **facts, "failed": found.failed})
    else:
        _show(found)
    if found.failed:
        first = next(iter(found.failed.values()))
        total = len(found.failed) + len(found.predictions)
        raise InputError(f"{len(found.failed)} of {total} images failed, the first: {first}")


def _rows(found: ProbeResult) -> list[dict[str, object]]:
    """One row an image; an empty label means that the table had none."""
    return [
        {"image": each.image, "label": each.label, "predicted": each.predicted}
        | {f"p {name}": round(p, 4) for name, p in zip(found.scores.classes, each.probabilities, strict=True)}
        for each in found.predictions
    ]


def _show(found: ProbeResult) -> None:
    from rich.console import Console
    from rich.table import Table

    scores, console = found.scores, Console()
    table = Table("score", "mean", "std", "by chance")
    for name, title in _SCORES.items():
        score = getattr(scores, name)
        chance = {"accuracy": f"{scores.chance:.4f}", "balanced_accuracy": f"{1 / len(scores.classes):.4f}"}.get(name, "")
        table.add_row(title, f"{score.mean:.4f}", f"{score.std:.4f}", chance)
    console.print(table)
    repeats = scores.confusion.sum() / sum(found.images.values())
    confusion = Table("true \\ predicted", *map(cell, scores.classes), title="images, mean over the repeats")
    for name, row in zip(scores.classes, scores.confusion, strict=True):
        confusion.add_row(cell(name), *(f"{count / repeats:.1f}" for count in row))
    console.print(confusion)
    groups = f" in {found.groups} groups" if found.groups else ""
    say(f"{sum(found.images.values())} labelled images{groups}, {found.channels} features each")
