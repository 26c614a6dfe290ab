"""``mdm-studio demo``: the main job on bundled images with the bundled backbone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdm_studio.cli.common import Device, JsonFlag, print_json, progress_bar, say
from mdm_studio.config import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from mdm_studio.services.demo import DemoResult


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("demo-out"),
    headless: Annotated[bool, typer.Option("--headless", help="Say nothing about windows.")] = False,
    backbone: Annotated[str, typer.Option(help="Name or folder of a backbone.")] = DEFAULT_BACKBONE,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Run the main job on bundled images: features, a fit from a few strokes, masks, scores, a page to look at.

    Example: `mdm-studio demo --out demo-out`
    """
    from mdm_studio.services.demo import run_demo

    steps = run_demo(out, backbone=backbone, device=device)
    with progress_bar() as bar:
        task = bar.add_task("demo", total=1.0, note="")
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                result: DemoResult = finished.value
                break
            bar.update(task, description=step.what, completed=step.done)
    if json_:
        print_json(
            {
                "dice": result.dice,
                "painted": result.painted,
                "mean_dice_painted": result.mean_dice(painted=True)[0],
                "mean_dice_never_seen": result.mean_dice(painted=False)[0],
                "labelled_pixels": result.labelled_pixels,
                "seconds": result.seconds,
                "sheet": result.sheet,
                "page": result.page,
            }
        )
        return
    _show(result)
    if not headless and _has_display():
        say("to look at the images and strokes in napari: run napari, then File > Open Sample > MDM Studio")


def _show(result: DemoResult) -> None:
    for painted, what in ((True, "images with strokes"), (False, "images never seen")):
        mean, spread = result.mean_dice(painted=painted)
        typer.echo(f"Dice on {what}: {mean:.3f} ± {spread:.3f}")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    typer.echo(f"{result.labelled_pixels} labelled pixels; {stages}; {sum(result.seconds.values()):.1f} s in all")
    typer.echo(f"look at {result.sheet} or {result.page}")


def _has_display() -> bool:
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
