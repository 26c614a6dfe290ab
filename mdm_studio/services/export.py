"""Masks of many images, and all that goes with them: what `predict`, the window and the jobs drive.

An export goes on where it was stopped or killed: what is up to date is kept (`mdm_studio.services.export_record` says what is),
and unfinished files are swept. Every image is accounted for in ``export.json``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from mdm_studio.errors import OutputError, ProjectError, UsageError
from mdm_studio.io.classifier_file import classifier_digest, read_classifier
from mdm_studio.io.folder_lock import FolderLock
from mdm_studio.io.images import check_unique_names, image_name
from mdm_studio.io.leftovers import remove_leftovers
from mdm_studio.io.tables import join_tables
from mdm_studio.services.export_pace import Pace
from mdm_studio.services.export_record import REPORT, Record, recipes
from mdm_studio.services.export_report import Report
from mdm_studio.services.export_request import ExportRequest, FileResult, PredictOptions, TileProgress, raise_failures
from mdm_studio.services.jobs.states import JobReport

if TYPE_CHECKING:
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.services.classifier import Classifier

__all__ = ["ExportRequest", "FileResult", "PredictOptions", "TileProgress", "export", "pace_of", "preview", "run", "sweep"]

MEASUREMENTS = "measurements"
"""Name of the table of all images."""
# what `mdm_studio.io.atomic` and its users leave when killed; a name may hold line feeds
_SWEPT = re.compile(r"\..+\.[0-9a-f]{8}\.(part|part\.raw|old)", re.DOTALL)
_FOLDERS = ("", "probabilities", "uncertainty", "objects", "tables")


def _never() -> bool:
    return False


def run(folder: JobFolder, *, stop: Callable[[], bool]) -> Iterator[JobReport]:
    """The job "export": `export` with what ``job.json`` asks for. Resumed, it goes on with what is not done yet.

    An image that fails does not fail the job: its last report and ``export.json`` name it.

    Raises
    ------
    MDMStudioError
        If no image could be predicted, or nothing can be.
    """
    request = ExportRequest.from_json(folder.settings()).resolved()
    pace = pace_of(request)
    results: list[FileResult] = []
    begin = time.perf_counter()
    facts = {"result": str(request.options.out)}
    for event in export(request, stop=stop):
        pace.see(event)
        if isinstance(event, FileResult):
            results.append(event)
        elapsed = time.perf_counter() - begin
        yield JobReport(
            min(pace.share(), 0.999),
            step=sum(result.state != "stopped" for result in results),
            steps=len(request.images),
            eta_s=pace.seconds_left(elapsed),
            rate=pace.pixels / 1e6 / elapsed if elapsed else None,
            unit="Mpixel/s",
            note=image_name(event.image),
            facts=facts | _counts(results),
        )
    if len(results) < len(request.images) or any(result.state == "stopped" for result in results):
        return
    if all(result.state == "failed" for result in results):
        raise_failures(results)
    failed = [result for result in results if result.state == "failed"]
    count, differing = len(results), sum(bool(result.differs) for result in results)
    words = [f"{len(failed)} of {count} images failed"] if failed else []
    words += [f"{differing} of {count} differ from those that the classifier was fitted on"] if differing else []
    note = f"{', '.join(words)}, see {request.options.out / REPORT}" if words else ""
    yield JobReport(1.0, step=count, steps=count, eta_s=0.0, unit="Mpixel/s", note=note, facts=facts | _counts(results))


def _counts(results: Sequence[FileResult]) -> dict[str, int]:
    return {state: sum(result.state == state for result in results) for state in ("done", "skipped", "failed")}


def pace_of(request: ExportRequest) -> Pace:
    """What tells how far the export of a request is; reads the sizes of its files."""
    images = request.resolved().images
    return Pace({path: _bytes(path) for path in images})


def _bytes(path: Path) -> int:
    try:
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def export(request: ExportRequest, *, stop: Callable[[], bool] = _never) -> Iterator[TileProgress | FileResult]:
    """Predict every image of a request; an image that fails is reported, and the others go on.

    Parameters
    ----------
    request : ExportRequest
        What is wanted.
    stop : callable
        Asked after every tile; once it says True, the image on the way is given up and the export ends, and the next one goes
        on there. Closing the generator does the same.

    Yields
    ------
    TileProgress
        After each tile.
    FileResult
        Of each image, once; on several workers not in their order.

    Raises
    ------
    UsageError
        If the options contradict each other, or an image would be replaced by its own mask.
    InputError
        If two images have one name.
    ClassifierError
        If the classifier is damaged or its backbone is not here.
    OutputError
        If the folder cannot be written, or another export is writing there.

    Notes
    -----
    ``export.json`` is written at the end, however it comes. The table of all images has those that are done; closing the
    generator leaves it as it was.
    """
    request = request.resolved()
    check_unique_names(request.images)
    _check_outputs(request)
    info, tensors = read_classifier(request.classifier)
    digest = classifier_digest(info, tensors)
    smooth = info.smooth if request.options.smooth is None else request.options.smooth
    alone = not (request.workers or request.scheduler)
    loaded = _load(request, digest) if alone else None  # before anything is made
    with _held(request.options.out) as lock:
        sweep(request.options.out)
        record = Record(request.options.out)
        _check_ours(request.options, record)
        wanted = recipes(digest, request.options, smooth)
        one = _Export(request, digest, wanted, record, Report(request, info, digest, smooth), stop, loaded, lock)
        yield from one.events()


@dataclass
class _Export:
    """An export that holds its folder."""

    request: ExportRequest
    digest: str
    wanted: dict[str, str]
    record: Record
    report: Report
    stop: Callable[[], bool]
    classifier: Classifier | None
    lock: FolderLock

    def events(self) -> Iterator[TileProgress | FileResult]:
        state: Literal["done", "stopped", "failed"] = "failed"
        message = ""
        made = [folder for folder in _FOLDERS if not (self.request.options.out / folder).exists()]
        try:
            yield from self._images()
            state = "stopped" if len(self._settled()) < len(self.request.images) else "done"
            self._join()
        except (GeneratorExit, KeyboardInterrupt):
            state = "stopped"
            raise
        except BaseException as error:
            state, message = "failed", str(error) or type(error).__name__
            raise
        finally:
            with contextlib.suppress(OutputError) if state == "failed" else contextlib.nullcontext():
                self._check_folder()
                sweep(self.request.options.out)
                self._remove_empty(made)
                self.report.write(self.record, state, message)
                self.record.finish()

    def _check_folder(self) -> None:
        """Stop where the folder of the masks has gone: nothing is written to what is in its place."""
        try:
            self.lock.check()
        except ProjectError as error:
            raise OutputError(f"the folder of the masks has gone: {error}; export again where you want them") from error

    def _remove_empty(self, folders: Sequence[str]) -> None:
        """Remove folders that were made for images all of which failed."""
        for folder in folders:
            with contextlib.suppress(OSError):  # it holds something
                (self.request.options.out / folder).rmdir()

    def _settled(self) -> list[FileResult]:
        return [result for result in self.report.results if result.state != "stopped"]

    def _images(self) -> Iterator[TileProgress | FileResult]:
        to_do: list[Path] = []
        for path in self.request.images:
            outputs = self.request.options.paths(image_name(path))
            verdict, words = self.record.verdict(path, outputs, self.wanted)
            if verdict == "do" or self.request.options.overwrite:
                to_do.append(path)
                continue
            found = FileResult(path, "skipped" if verdict == "keep" else "failed", outputs, message=words)
            left_out, notes = self.record.remarks(outputs)
            found = replace(found, left_out=left_out, notes=notes)
            self.report.add(found)
            yield found
        self.record.begin(to_do, self.request.options)
        with contextlib.closing(self._predicted(to_do)) as events:
            for event in events:
                if isinstance(event, FileResult):
                    self._check_folder()
                    if event.state == "done":
                        self.record.done(event.outputs, self.wanted, event.source, event.written)
                        self.record.remark(event.outputs, event.left_out, event.notes)
                    self.report.add(event)
                yield event

    def _predicted(self, paths: Sequence[Path]) -> Generator[TileProgress | FileResult, None, None]:
        if self.classifier is not None:
            yield from _one_by_one(self.request, self.classifier, paths, self.stop)
        elif paths:
            from mdm_studio.io.feature_cache import FeatureCache
            from mdm_studio.services.cluster import predict_on_cluster

            request = self.request
            if request.workers and request.cache and not FeatureCache(request.cache, optional=True).is_usable():
                request = replace(request, cache=None)  # told once, here, and not by each worker
            yield from predict_on_cluster(request, self.digest, paths, stop=self.stop)

    def _join(self) -> None:
        """The table of all images whose table is of this recipe, those of earlier runs among them."""
        out = self.request.options.out
        for kind in self.request.options.tables:
            tables = [
                out / key
                for key, entry in sorted(self.record.files.items())
                if entry.recipe == self.wanted[kind] and key.startswith("tables/") and key.endswith(f".{kind}")
            ]
            there = [path for path in tables if os.path.exists(path)]
            if there:  # else what an earlier run measured stays, as its masks do
                target = out / f"{MEASUREMENTS}.{kind}"
                join_tables(there, target)
                self.record.done({kind: target}, self.wanted)


def _load(request: ExportRequest, digest: str) -> Classifier:
    from mdm_studio.services.classifier import load_classifier

    return load_classifier(request.classifier, backbone=request.backbone, device=request.device, digest=digest)


def _one_by_one(
    request: ExportRequest, classifier: Classifier, paths: Sequence[Path], stop: Callable[[], bool]
) -> Generator[TileProgress | FileResult, None, None]:
    from mdm_studio.config import CACHE_BYTES
    from mdm_studio.io.feature_cache import FeatureCache
    from mdm_studio.services.batch import predict_file

    cache = FeatureCache(request.cache, max_bytes=CACHE_BYTES, optional=True) if request.cache else None
    for path in paths:
        if stop():
            return
        steps = predict_file(classifier, path, request.options, cache)
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                yield end.value
                break
            yield event
            if stop():
                steps.close()
                yield FileResult(path, "stopped", message="stopped on the way")
                return


def preview(
    classifier: Path, path: Path, options: PredictOptions, *, backbone: str | None = None, device: str = "auto"
) -> dict[str, NDArray[Any]]:
    """What an export would make of an image, in memory: see `mdm_studio.services.export_preview`, which loads PyTorch."""
    from mdm_studio.services import export_preview

    return export_preview.preview(classifier, path, options, backbone=backbone, device=device)


# ---------------------------------------------------------------------------------------------------------- the folder


@contextlib.contextmanager
def _held(out: Path) -> Iterator[FolderLock]:
    try:
        lock = FolderLock(out)
    except ProjectError as error:
        raise OutputError(f"another export is writing into {out}: wait for it, stop it, or choose another folder") from error
    try:
        yield lock
    finally:
        lock.release()


def sweep(out: Path) -> None:
    """Remove what killed exports left unfinished in a folder; call it while holding the folder."""
    for folder in _FOLDERS:
        remove_leftovers(out / folder)
        with contextlib.suppress(OSError):
            for path in list((out / folder).iterdir()):
                if _SWEPT.fullmatch(path.name):
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _check_outputs(request: ExportRequest) -> None:
    """No image may be replaced by a mask of itself or another."""
    images = {Path(os.path.realpath(path)) for path in request.images}  # a link to itself is told of when it is read
    for path in request.images:
        for output in request.options.paths(image_name(path)).values():
            if output in images:
                raise UsageError(f"{output} is one of the images and a mask would replace it: choose another folder")


def _check_ours(options: PredictOptions, record: Record) -> None:
    """What is written once for the whole folder must not replace somebody's file."""
    if options.overwrite:
        return
    names = [f"{MEASUREMENTS}.{kind}" for kind in options.tables if f"{MEASUREMENTS}.{kind}" not in record.files]
    names += [] if record.known else [REPORT]
    for name in names:
        if (options.out / name).exists():
            raise OutputError(
                f"{options.out / name} was not written by an export: pass --overwrite to replace it, or choose another folder"
            )
