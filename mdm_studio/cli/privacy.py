"""``mdm-studio privacy``: what a shared checkpoint reveals of the images that trained it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from mdm_studio.cli.common import Channels, Device, Images, JsonFlag, Precision, parse_numbers, print_json, progress_bar, say
from mdm_studio.errors import UsageError


def privacy(
    backbone: Annotated[str, typer.Argument(help="Name or folder of a backbone.", show_default=False)],
    images: Images,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out",
            help="Images of the same kind that did not train it; repeatable. Default: those of IMAGES not in its card.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report. Default: NAME-privacy.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Pictures to make from noise, where the backbone can.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps to make a picture.")] = 50,
    max_images: Annotated[int, typer.Option("--max-images", min=2, help="Images of each kind at most, at random.")] = 200,
    crops: Annotated[int, typer.Option(min=1, help="Crops of an image, whose errors are averaged.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that is there already.")] = False,
    channels: Channels = None,
    precision: Precision = "fp32",
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Measure what a backbone reveals of its training images, before you share it.

    Does it restore them better than images it has never seen? Do its pictures resemble them? Writes privacy.md in plain words,
    with what it proves and what not, privacy.json, and pictures of the worst cases. The folder shows training images.

    Example: `mdm-studio privacy my-backbone images/ --held-out others/ --out report/`
    """
    from mdm_studio.engine.backbones import find_backbone, load_backbone
    from mdm_studio.engine.devices import pick_device
    from mdm_studio.io.images import find_images
    from mdm_studio.services.privacy import REPORT, Findings, PrivacyProgress, PrivacyRequest, measure_privacy
    from mdm_studio.services.privacy_report import summary, summary_lines

    if precision not in ("fp32", "bf16"):
        raise UsageError(f"--precision {precision!r} is not known; choose fp32 or bf16")
    paths = find_images(images)
    others = find_images(held_out) if held_out else []
    loaded = load_backbone(find_backbone(backbone), device=pick_device(device), bf16=precision == "bf16")
    folder = out or Path(f"{loaded.card.name}-privacy")
    numbers = parse_numbers(channels, "--channels")
    request = PrivacyRequest(folder, samples, max_images, crops, steps, seed, numbers, overwrite)
    findings: Findings | None = None
    with progress_bar() as bar, closing(measure_privacy(loaded, paths, others, request)) as events:  # type: ignore[type-var]
        task = bar.add_task("privacy", total=1.0, note="")
        for event in events:
            if isinstance(event, PrivacyProgress):
                bar.update(task, description=event.stage, completed=event.done)
            else:
                findings = event
    assert findings is not None
    for line in summary_lines(findings):
        say(line)
    say(f"the report: {folder / REPORT}; it shows training images, so do not share it with the checkpoint")
    if json_:
        print_json({"report": folder / REPORT, **summary(findings)})
