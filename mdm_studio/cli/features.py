"""``mdm-studio features``: compute the features of a folder of images into the cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mdm_studio.cli.common import (
    Blocks,
    CacheDir,
    Channels,
    Device,
    Filters,
    Images,
    JsonFlag,
    Noise,
    Precision,
    Scales,
    Timesteps,
    open_cache,
    parse_blocks,
    parse_numbers,
    parse_scales,
    print_json,
    progress_bar,
    say,
)
from mdm_studio.config import DEFAULT_BACKBONE


def features(
    images: Images,
    backbone: Annotated[str, typer.Option(help="Name or folder of a backbone.")] = DEFAULT_BACKBONE,
    blocks: Blocks = None,
    timesteps: Timesteps = None,
    scales: Scales = None,
    filters: Filters = None,
    noise: Noise = "",
    precision: Precision = "fp32",
    cache: CacheDir = None,
    channels: Channels = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Compute the features of a folder of images into the cache, so that fitting and predicting need not wait.

    Run again after an interruption: tiles that are there are not computed again.

    Example: `mdm-studio features images/ --cache features/`
    """
    from mdm_studio.services.extraction import PlaneDone, compute_features, load_for_features

    store = open_cache(cache, no_cache=False, needed=True)
    assert store is not None
    source = load_for_features(
        backbone,
        blocks=parse_blocks(blocks),
        timesteps=parse_numbers(timesteps, "--timesteps"),
        scales=parse_scales(scales),
        filters=filters,
        noise=noise,
        bf16=precision == "bf16",
        device=device,
    )
    from mdm_studio.io.images import find_images

    begin = time.perf_counter()
    paths = find_images(images)
    rows: list[PlaneDone] = []
    with progress_bar() as bar:
        task = bar.add_task("features", total=len(paths), note="")
        for event in compute_features(source, paths, store, parse_numbers(channels, "--channels")):
            bar.update(task, completed=event.files_done, note=event.name)
            if isinstance(event, PlaneDone):
                rows.append(event)
                if event.message:
                    say(f"failed: {event.message}")
    _report(rows, store.root, time.perf_counter() - begin, json_)


def _report(rows: list[Any], root: Path, seconds: float, json_: bool) -> None:
    from mdm_studio.errors import InputError

    failed = [row for row in rows if row.message]
    computed, tiles = sum(row.computed for row in rows), sum(row.tiles for row in rows)
    say(
        f"{computed} of {tiles} tiles computed, the others were there, {len(failed)} images failed, "
        f"{seconds:.1f} s; cache {root}"
    )
    if json_:
        print_json(
            {
                "cache": root,
                "tiles": tiles,
                "computed": computed,
                "seconds": round(seconds, 3),
                "images": [vars(row) for row in rows],
            }
        )
    if failed:
        raise InputError(f"{len(failed)} images failed, the first: {failed[0].message}")
