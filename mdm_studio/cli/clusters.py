"""``mdm-studio clusters``: what the features see without any label."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

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
    print_json,
    progress_bar,
    say,
)
from mdm_studio.config import DEFAULT_BACKBONE


def clusters(
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="Folder of the panels and label maps.", show_default=False)],
    k: Annotated[int, typer.Option("-k", "--clusters", min=1, help="Clusters of each block and timestep.")] = 5,
    backbone: Annotated[str, typer.Option(help="Name or folder of a backbone.")] = DEFAULT_BACKBONE,
    blocks: Annotated[
        str | None, typer.Option("--blocks", help="Decoder blocks, for example 4-7. Default: all.", show_default=False)
    ] = None,
    timesteps: Annotated[
        str | None,
        typer.Option(
            "--timesteps", help="Timesteps, for example 50,150. Default: 10,50,150, if it has any.", show_default=False
        ),
    ] = None,
    scales: Scales = None,
    pca: Annotated[
        bool, typer.Option("--pca", help="Write NAME-pca.png too: the first three principal components as colours.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of where the clusters begin.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do images again that are done already.")] = False,
    cache: CacheDir = None,
    no_cache: NoCache = False,
    channels: Channels = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Show what the features see without any label: k-means clusters of every block at every timestep.

    For each image, NAME.png shows them side by side, and NAME/bBB-tTTTT.png are label maps of the image's size with the values
    1 to k. The clusters are exact at every pixel, and the same thing has the same colour in all of an image.

    Example: `mdm-studio clusters images/ --out clusters/ -k 5 --blocks 4-7 --timesteps 50`
    """
    from mdm_studio.io.images import check_unique_names, find_images
    from mdm_studio.services.batch import FileResult, raise_failures
    from mdm_studio.services.clustering import ClusterOptions, cluster_files
    from mdm_studio.services.extraction import load_for_features

    begin = time.perf_counter()
    paths = find_images(images)
    check_unique_names(paths)
    store, numbers = open_cache(cache, no_cache), parse_numbers(channels, "--channels")
    source = load_for_features(
        backbone,
        blocks=parse_numbers(blocks, "--blocks") or "all",
        timesteps=parse_numbers(timesteps, "--timesteps") or "several",
        scales=parse_scales(scales),
        filters=False,
        device=device,
    )
    results: list[FileResult] = []
    with progress_bar() as bar:
        task = bar.add_task("clusters", total=len(paths), note="")
        for event in cluster_files(source, paths, ClusterOptions(out, k, seed, pca, overwrite), store, numbers):
            if not isinstance(event, FileResult):
                bar.update(task, completed=len(results) + event.done, note=f"{event.image.name} {event.what}")
                continue
            results.append(event)
            bar.update(task, completed=len(results))
            if event.state == "failed":
                say(f"failed: {event.message}")
    counts = {state: sum(result.state == state for result in results) for state in ("done", "skipped", "failed")}
    seconds = time.perf_counter() - begin
    say(f"{counts['done']} images done, {counts['skipped']} there already, {counts['failed']} failed, {seconds:.1f} s; {out}")
    if json_:
        print_json({"out": out, **counts, "seconds": round(seconds, 3), "images": [vars(result) for result in results]})
    raise_failures(results)
