"""``mdm-studio predict``: write the masks of a folder of images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdm_studio.cli.common import MAX_SMOOTH, CacheDir, Device, Images, JsonFlag, NoCache, print_json, progress_bar, say
from mdm_studio.errors import UsageError
from mdm_studio.io.paths import user_path

if TYPE_CHECKING:
    from mdm_studio.engine.objects import ObjectOptions
    from mdm_studio.services.export_request import ExportRequest, FileResult, TableFormat, TileProgress

_FORMATS = ("png", "tiff", "ome-zarr", "npy")
_TABLES = ("csv", "parquet")
_NAMED = 5  # files named in a message


def predict(
    classifier: Annotated[Path, typer.Argument(help="A classifier of `mdm-studio fit`, FILE.mdm.")],
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="Folder of the masks.", show_default=False)],
    format_: Annotated[
        str, typer.Option("--format", help="png, tiff, ome-zarr or npy. With png, what is no mask is written as tiff.")
    ] = "png",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the probability of each class.")] = False,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="Write how much the ensemble disagrees, or how unsure a fine-tuned network is."),
    ] = False,
    objects: Annotated[bool, typer.Option("--objects", help="Number the objects, pixels of a class that touch.")] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Measure the objects: a table of each image, and one of the whole folder.")
    ] = False,
    table_format: Annotated[
        str, typer.Option("--table-format", help="csv, parquet, or both: csv,parquet. Asks for --table.", show_default="csv")
    ] = "",
    watershed: Annotated[
        bool, typer.Option("--watershed", help="Cut touching objects apart where they are narrow and improbable.")
    ] = False,
    distance: Annotated[int, typer.Option(min=1, help="For --watershed: pixels between the middles of two objects.")] = 8,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Background inside an object becomes part of it.")] = False,
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
        bool, typer.Option("--overwrite", help="Replace whatever is there, up to date or somebody else's.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Share the images among so many processes of this machine, of one thread each.")
    ] = 0,
    scheduler: Annotated[
        str,
        typer.Option(
            help="Share the images among the workers of a dask scheduler, for example tls://10.0.0.1:8786. They need MDM "
            "Studio, and to see the files under the same paths. Whoever reaches a tcp:// scheduler runs code there.",
            show_default=False,
        ),
    ] = "",
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca-file",
            help="For --scheduler tls://: certificate of the cluster's authority, PEM. Default: dask's configuration.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", help="For --scheduler tls://: your certificate, PEM. Default: dask's.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", help="For --scheduler tls://: the key of --tls-cert, PEM.", show_default=False),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Folder of the backbone, if it moved.", show_default=False)] = None,
    cache: CacheDir = None,
    no_cache: NoCache = False,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Write the masks of a folder of images: same name, same height and width, same values as the labels.

    Run again after an interruption, a new fit or new images: what this classifier wrote with these settings from these images
    is kept, its older files are written anew, and what somebody else put there or changed is reported, not replaced. The
    folder's export.json says what became of every image.

    Example: `mdm-studio predict nuclei.mdm images/ --out masks/ --objects --watershed --table`
    """
    from mdm_studio.io.images import find_images
    from mdm_studio.services.export import export
    from mdm_studio.services.export_request import ExportRequest, PredictOptions, TlsFiles, raise_failures

    if format_ not in _FORMATS:
        raise UsageError(f"--format {format_!r} is not known; choose png, tiff, ome-zarr or npy")
    tables = _tables(table, table_format)
    options = PredictOptions(
        out=out,
        format=format_,  # type: ignore[arg-type]
        probabilities=probabilities,
        uncertainty=uncertainty,
        objects=_objects(objects or bool(tables), watershed, min_size, fill_holes, background, distance),
        object_maps=objects,
        tables=tables,
        smooth=smooth,
        overwrite=overwrite,
    )
    kept = _cache(cache, no_cache)
    tls = TlsFiles(tls_ca_file, tls_cert, tls_key)
    request = ExportRequest(classifier, tuple(find_images(images)), options, backbone, device, kept, workers, scheduler, tls)
    _name_others(images)
    if scheduler and not request.encrypted:
        say(f"the connection to {scheduler} is not encrypted, and whoever reaches it can run code there: prefer tls://")
    begin = time.perf_counter()
    results = list(_followed(export(request), request))
    counts = {state: sum(result.state == state for result in results) for state in ("done", "skipped", "failed")}
    seconds = time.perf_counter() - begin
    say(f"{counts['done']} masks in {out}, {counts['skipped']} skipped, {counts['failed']} failed, {seconds:.1f} s")
    if json_:
        rows = [_facts(result) for result in sorted(results, key=lambda result: result.image)]
        print_json({"out": out, **counts, "seconds": round(seconds, 3), "images": rows})
    raise_failures(results)


def _facts(result: FileResult) -> dict[str, object]:
    """A result for programs: all but what the next run needs to know."""
    return {name: value for name, value in vars(result).items() if name not in ("source", "written")}


def _name_others(inputs: list[str]) -> None:
    """Say which files of the folders are no images, so that nobody misses their masks later."""
    from mdm_studio.io.images.finding import not_images
    from mdm_studio.io.images.zarr_groups import is_zarr

    for folder in (user_path(each) for each in inputs):
        if not folder.is_dir() or is_zarr(folder):
            continue
        others = not_images(folder)
        if others:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            say(f"passed over in {folder}, no images that can be read: {', '.join(others[:_NAMED])}{more}")


def _tables(wanted: bool, formats: str) -> tuple[TableFormat, ...]:
    chosen = tuple(dict.fromkeys(part.strip().lower() for part in formats.split(",") if part.strip()))
    if not set(chosen) <= set(_TABLES):
        raise UsageError(f"--table-format {formats!r} is not known; choose csv, parquet or csv,parquet")
    return chosen or (("csv",) if wanted else ())  # type: ignore[return-value]


def _objects(
    wanted: bool, watershed: bool, min_size: int, fill_holes: bool, background: int | None, distance: int
) -> ObjectOptions | None:
    from mdm_studio.engine.objects import ObjectOptions

    if not wanted:
        for option, given in (("--watershed", watershed), ("--fill-holes", fill_holes)):
            if given:
                raise UsageError(f"{option} is about objects: add --objects or --table, or both")
        return None
    return ObjectOptions("watershed" if watershed else "components", min_size, fill_holes, background, distance)


def _cache(folder: Path | None, no_cache: bool) -> Path | None:
    from mdm_studio.config import default_cache_dir

    if no_cache and folder is not None:
        raise UsageError("--cache and --no-cache contradict each other; give one of them")
    return None if no_cache else folder or default_cache_dir()


def _followed(events: Iterator[FileResult | TileProgress], request: ExportRequest) -> Iterator[FileResult]:
    """Pass the results on while a progress bar shows them; name each failure, and what should be known, as it happens."""
    from mdm_studio.io.remarks import tell
    from mdm_studio.services.export import pace_of
    from mdm_studio.services.export_request import FileResult

    pace = pace_of(request)
    told: set[str] = set()
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=1.0, note="")
        for event in events:
            pace.see(event)
            bar.update(task, completed=pace.share(), note=event.image.name)
            if isinstance(event, FileResult):
                for words in event.remarks:  # told already, unless another process has opened it
                    tell(event.image, words)
                if event.state == "failed":
                    say(f"failed: {event.failure}")
                elif event.state == "done" and event.message:
                    say(f"{event.image.name}: {event.message}")
                if event.differs and event.differs not in told:
                    told.add(event.differs)
                    what = "differs from the images that the classifier was fitted on"
                    say(f"warning: {event.image.name} {what}: {event.differs}")
                yield event
