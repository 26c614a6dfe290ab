"""``mdm-studio fit``: fit a classifier to a few labels."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdm_studio.cli.common import (
    MAX_SMOOTH,
    Blocks,
    CacheDir,
    Channels,
    Device,
    Filters,
    Images,
    JsonFlag,
    NoCache,
    Noise,
    Precision,
    Scales,
    Timesteps,
    open_cache,
    parse_blocks,
    parse_numbers,
    parse_scales,
    parse_unlabelled,
    print_json,
    progress_bar,
    say,
)
from mdm_studio.config import SMOOTH
from mdm_studio.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from mdm_studio.services.classifier import Classifier
    from mdm_studio.services.fitting import FitStep


def fit(
    images: Images,
    labels: Annotated[
        Path, typer.Argument(help="Folder of label maps named like their images: 0 = unlabelled, 1..K = classes.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The classifier, FILE.mdm.", show_default=False)],
    backbone: Annotated[
        str | None, typer.Option(help="Name or folder of a backbone. Default: the bundled one.", show_default=False)
    ] = None,
    blocks: Blocks = None,
    timesteps: Timesteps = None,
    scales: Scales = None,
    filters: Filters = None,
    noise: Noise = "",
    unlabelled: Annotated[
        str, typer.Option(help="Value that means `no label`, or none: every pixel is labelled (dense masks).")
    ] = "0",
    instances: Annotated[
        bool, typer.Option("--instances", help="The label maps number their objects: 0 is background, the rest is object.")
    ] = False,
    names: Annotated[
        str | None, typer.Option("--classes", help="Class names in order of their values.", show_default=False)
    ] = None,
    head: Annotated[
        str,
        typer.Option(help="ensemble (of MLPs that read features: seconds) or finetune (the whole network learns: minutes)."),
    ] = "ensemble",
    members: Annotated[
        int | None, typer.Option(min=1, help="MLPs in the ensemble.", show_default="10")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of fine-tuning, 8 crops each.", show_default="200")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Fine-tune no longer than this.", show_default="as long as the steps take")
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(
            help="balanced (rare classes count as much) or none. Default: balanced for strokes, none for dense masks.",
            show_default=False,
        ),
    ] = None,
    invert: Annotated[
        bool | None,
        typer.Option(
            "--invert/--no-invert",
            help="Learn from the negatives of the images too. Default: if some are bright on dark and some dark on bright.",
            show_default=False,
        ),
    ] = None,
    smooth: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SMOOTH, help="Let masks keep to edges of the image up to this many pixels away; 0 for none."
        ),
    ] = SMOOTH,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    precision: Precision = "fp32",
    cache: CacheDir = None,
    no_cache: NoCache = False,
    channels: Channels = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Fit a classifier to a few labels.

    Images without a label map of their name are ignored. With `--head finetune` the whole network learns the labels, and the
    file brings it along.

    Example: `mdm-studio fit images/ strokes/ --out nuclei.mdm`
    """
    from mdm_studio.engine.finetune import FinetuneConfig
    from mdm_studio.engine.heads import EnsembleConfig
    from mdm_studio.services.fitting import FitRequest
    from mdm_studio.services.fitting import fit as fit_with

    _check_head(head, {"ensemble": {"--members": members}, "finetune": {"--steps": steps, "--minutes": minutes}})
    if class_weight not in ("balanced", "none", None):
        raise UsageError(f"--class-weight {class_weight!r} is not known; choose balanced or none")
    value = None if instances else parse_unlabelled(unlabelled)
    weight: dict[str, Any] = {"class_weight": class_weight or ("none" if value is None else "balanced")}
    given = _given(members=members, seed=seed) | weight
    request = FitRequest(
        images=tuple(images),
        labels=labels,
        backbone=backbone,
        blocks=parse_blocks(blocks),
        timesteps=parse_numbers(timesteps, "--timesteps"),
        scales=parse_scales(scales),
        filters=filters,
        noise=noise,
        unlabelled=value,
        objects=instances,
        invert=invert,
        smooth=smooth,
        class_names=tuple(name.strip() for name in names.split(",")) if names else (),
        channels=parse_numbers(channels, "--channels"),
        bf16=precision == "bf16",
        device=device,
        ensemble=EnsembleConfig.of(dense=value is None, **given),
        head=head,
        finetune=FinetuneConfig(**_given(steps=steps, minutes=minutes, seed=seed), **weight),
    )
    with progress_bar() as bar:
        classifier = _followed(fit_with(request, open_cache(cache, no_cache)), bar)
    classifier.save(out)
    facts: dict[str, Any] = classifier.info.training
    say(f"{facts['pixels']} labelled pixels of {facts['images']} images, {len(classifier.info.classes)} classes: wrote {out}")
    if invert is None and facts["invert"]:
        say("some images are bright on dark and some dark on bright: negatives were learned from too (--no-invert: not)")
    if json_:
        print_json(
            {
                "classifier": out,
                "head": classifier.info.head,
                "backbone": classifier.info.backbone,
                "blocks": classifier.info.blocks,
                "timesteps": classifier.info.timesteps,
                "scales": classifier.info.scales,
                "filters": classifier.info.filters,
                "classes": [vars(each) for each in classifier.info.classes],
                **facts,
            }
        )


def _followed(progress: Generator[FitStep, None, Classifier], bar: Progress) -> Classifier:
    """The end of a fit, whose steps a bar shows; what the user should know is said."""
    task = bar.add_task("fitting", total=1.0, note="")
    while True:
        try:
            step = next(progress)
        except StopIteration as finished:
            classifier: Classifier = finished.value
            return classifier
        if step.what == "note":
            say(step.note)
        else:
            bar.update(task, description=step.what, completed=step.done, note=step.note)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _check_head(head: str, options: dict[str, dict[str, Any]]) -> None:
    """Refuse what the head does not know; a head of another package knows none of them."""
    for other, known in options.items():
        for name, value in known.items():
            if value is not None and other != head:
                raise UsageError(f"{name} is about --head {other}, and --head {head} was asked for: leave it out")
