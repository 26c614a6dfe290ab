"""The main job on the bundled images: features, a fit from a few strokes, masks, scores, and a page to look at."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdm_studio.config import DEFAULT_BACKBONE, resource
from mdm_studio.engine.metrics import confusion, dice
from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import make_folder, write_json
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import find_images, image_name, open_image
from mdm_studio.io.labels import find_labels, read_labels
from mdm_studio.services.batch import FileResult, PredictOptions, predict_files, raise_failures
from mdm_studio.services.classifier import Classifier
from mdm_studio.services.demo_report import load_image, write_report
from mdm_studio.services.extraction import compute_features, load_for_features
from mdm_studio.services.fitting import FitRequest, fit_classifier

SAMPLE = "samples/nuclei"
NUCLEUS = 2  # its value in the strokes; 1 is the ground
_MARKER = "demo.json"  # tells a folder of ours, which may be written again, from somebody's


@dataclass(frozen=True)
class DemoStep:
    """What the demo is doing and the share of it that is done."""

    what: str
    done: float


@dataclass(frozen=True)
class DemoResult:
    """Scores and times of a demo.

    Attributes
    ----------
    dice : dict
        Dice of nuclei for each image.
    painted : tuple of str
        Images that carry strokes; the others were never seen by the fit.
    labelled_pixels : int
        Pixels under strokes.
    seconds : dict
        Seconds of each stage.
    sheet, page : Path
        What to look at.
    """

    dice: dict[str, float]
    painted: tuple[str, ...]
    labelled_pixels: int
    seconds: dict[str, float]
    sheet: Path
    page: Path

    def mean_dice(self, *, painted: bool) -> tuple[float, float]:
        """Mean and standard deviation over the images with strokes, or over those without."""
        values = [score for name, score in self.dice.items() if (name in self.painted) == painted]
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def run_demo(out: Path, *, backbone: str = DEFAULT_BACKBONE, device: str = "auto") -> Generator[DemoStep, None, DemoResult]:
    """Run the demo into `out`; yields its progress and returns its result.

    Raises
    ------
    OutputError
        If `out` holds something that is not a demo of before.
    InputError
        If the bundled images are missing.
    """
    _check_folder(out)
    sample = resource(SAMPLE)
    for folder in (out, out / "masks"):
        make_folder(folder)
    write_json(out / _MARKER, {"what": "written by mdm-studio demo; safe to delete"})
    paths = find_images([sample / "images"])
    cache = FeatureCache(out / "features")
    seconds: dict[str, float] = {}

    begin = time.perf_counter()
    source = load_for_features(backbone, device=device)
    for event in compute_features(source, paths, cache):
        yield DemoStep("features", event.files_done / len(paths))
    seconds["features"] = time.perf_counter() - begin

    begin = time.perf_counter()
    request = FitRequest(
        (str(sample / "images"),), sample / "strokes", backbone, class_names=("ground", "nucleus"), device=device
    )
    classifier = yield from _fit(request, cache)
    classifier.save(out / "nuclei.mdm")
    seconds["fit"] = time.perf_counter() - begin

    begin = time.perf_counter()
    options = PredictOptions(out / "masks", uncertainty=True, overwrite=True)
    results: list[FileResult] = []
    for progress in predict_files(classifier, paths, options, cache):
        if isinstance(progress, FileResult):
            results.append(progress)
            yield DemoStep("predict", len(results) / len(paths))
    raise_failures(results)
    seconds["predict"] = time.perf_counter() - begin

    yield DemoStep("report", 0.0)
    begin = time.perf_counter()
    result = _report(out, sample, paths, int(classifier.info.training["pixels"]), seconds)
    result.seconds["report"] = time.perf_counter() - begin
    facts = {"dice": result.dice, "painted": result.painted, "seconds": result.seconds}
    write_json(out / _MARKER, facts | {"labelled_pixels": result.labelled_pixels})
    return result


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file and a folder is wanted; choose another --out")
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).exists():
        raise OutputError(f"{out} holds other files and would be written over; choose another --out")


def _fit(request: FitRequest, cache: FeatureCache) -> Generator[DemoStep, None, Classifier]:
    steps = fit_classifier(request, cache)
    while True:
        try:
            yield DemoStep("fit", next(steps).done)
        except StopIteration as finished:
            classifier: Classifier = finished.value
            return classifier


def _report(out: Path, sample: Path, paths: list[Path], pixels: int, seconds: dict[str, float]) -> DemoResult:
    """Score every mask and write the contact sheet and the page."""
    strokes, truths = find_labels(paths, sample / "strokes"), find_labels(paths, sample / "masks")
    ordered = sorted(paths, key=lambda path: (path not in strokes, path.name))  # painted ones first
    images = [load_image(path, strokes.get(path), truths[path], out / "masks", NUCLEUS) for path in ordered]
    scores = {image_name(path): _dice(path, truths[path], out) for path in paths}
    painted = tuple(sorted(image_name(path) for path in strokes))
    result = DemoResult(scores, painted, pixels, seconds, out / "contact-sheet.png", out / "index.html")
    means = [result.mean_dice(painted=each) for each in (True, False)]
    write_report(images, scores, means, pixels, sum(seconds.values()), out)
    return result


def _dice(path: Path, truth_path: Path, out: Path) -> float:
    with open_image(path) as image:
        shape = (image.height, image.width)
    truth = (read_labels(truth_path, shape) > 0).astype(np.uint8)
    found = (read_labels(out / "masks" / f"{image_name(path)}.png", shape) == NUCLEUS).astype(np.uint8)
    return float(dice(confusion(found, truth, [1]))[0])
