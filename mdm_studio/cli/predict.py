"""``mdm-studio predict``: write the masks of a folder of images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdm_studio.cli.common import (
    MAX_SMOOTH,
    CacheDir,
    Device,
    Images,
    JsonFlag,
    NoCache,
    open_cache,
    print_json,
    progress_bar,
    say,
)
from mdm_studio.config import CACHE_BYTES
from mdm_studio.errors import UsageError

if TYPE_CHECKING:
    from mdm_studio.services.batch import FileResult, PredictOptions, TileProgress


def predict(
    classifier: Annotated[Path, typer.Argument(help="A classifier of `mdm-studio fit`, FILE.mdm.")],
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="Folder of the masks.", show_default=False)],
    format_: Annotated[str, typer.Option("--format", help="png, tiff, ome-zarr or npy.")] = "png",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the probability of each class.")] = False,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Write how much the ensemble disagrees.")] = False,
    objects: Annotated[bool, typer.Option("--objects", help="Write connected components, numbered.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Write a CSV of the objects of each image.")] = False,
    background: Annotated[
        int | None, typer.Option(help="Class value that is no object. Default: the lowest class.", show_default=False)
    ] = None,
    min_size: Annotated[int, typer.Option(min=0, help="Drop objects of fewer pixels.")] = 0,
    smooth: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_SMOOTH,
            help="Let masks keep to edges of the image up to this many pixels away; 0 for none. Default: the classifier's.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace masks that are there; otherwise they are skipped.")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler, for example tcp://127.0.0.1:8786.", show_default=False)
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Folder of the backbone, if it moved.", show_default=False)] = None,
    cache: CacheDir = None,
    no_cache: NoCache = False,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Write the masks of a folder of images: same name, same height and width, same values as the labels.

    Run again after an interruption: masks that are there, and whole, are skipped.

    Example: `mdm-studio predict nuclei.mdm images/ --out masks/ --uncertainty`
    """
    from mdm_studio.io.images import check_unique_names, find_images
    from mdm_studio.services.batch import PredictOptions, predict_files, raise_failures

    if format_ not in ("png", "tiff", "ome-zarr", "npy"):
        raise UsageError(f"--format {format_!r} is not known; choose png, tiff, ome-zarr or npy")
    paths = find_images(images)
    check_unique_names(paths)
    options = PredictOptions(
        out=out,
        format=format_,  # type: ignore[arg-type]
        probabilities=probabilities,
        uncertainty=uncertainty,
        objects=objects,
        table=table,
        background=background,
        min_size=min_size,
        smooth=smooth,
        overwrite=overwrite,
    )
    begin = time.perf_counter()
    events: Iterator[FileResult | TileProgress]
    if scheduler:
        events = _on_cluster(scheduler, classifier, backbone, device, paths, options, cache, no_cache)
    else:
        from mdm_studio.services.classifier import load_classifier

        loaded = load_classifier(classifier, backbone=backbone, device=device)
        events = predict_files(loaded, paths, options, open_cache(cache, no_cache))
    results = list(_followed(events, len(paths)))
    counts = {state: sum(result.state == state for result in results) for state in ("done", "skipped", "failed")}
    seconds = time.perf_counter() - begin
    say(f"{counts['done']} masks in {out}, {counts['skipped']} skipped, {counts['failed']} failed, {seconds:.1f} s")
    if json_:
        rows = [vars(result) for result in sorted(results, key=lambda result: result.image)]
        print_json({"out": out, **counts, "seconds": round(seconds, 3), "images": rows})
    raise_failures(results)


def _on_cluster(
    address: str,
    classifier: Path,
    backbone: str | None,
    device: str,
    paths: list[Path],
    options: PredictOptions,
    cache: Path | None,
    no_cache: bool,
) -> Iterator[FileResult]:
    """The same on the workers of a cluster, which see this machine's files under the same paths."""
    from dataclasses import replace

    from mdm_studio.config import default_cache_dir
    from mdm_studio.services.cluster import RemoteClassifier, predict_on_cluster

    folder = None if no_cache else (cache or default_cache_dir()).resolve()
    remote = RemoteClassifier(classifier.resolve(), backbone, device, folder, CACHE_BYTES)
    absolute = replace(options, out=options.out.resolve())
    return predict_on_cluster(address, remote, [path.resolve() for path in paths], absolute)


def _followed(events: Iterator[FileResult | TileProgress], total: int) -> Iterator[FileResult]:
    """Pass the results on while a progress bar shows them; name each failure as it happens."""
    from mdm_studio.services.batch import FileResult

    with progress_bar() as bar:
        task = bar.add_task("predicting", total=total, note="")
        finished = 0
        for event in events:
            if not isinstance(event, FileResult):
                bar.update(task, completed=finished + event.done / event.total, note=event.image.name)
                continue
            finished += 1
            bar.update(task, completed=finished, note=event.image.name)
            if event.state == "failed":
                say(f"failed: {event.message}")
            yield event
