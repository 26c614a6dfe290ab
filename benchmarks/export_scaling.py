"""Images a second of an export: in one process, and on 1, 2, ... workers of a local dask cluster, in the same run.

    python benchmarks/export_scaling.py --workers 1,2 --images 40

The bundled samples, repeated under other names, with masks, objects and a table of measurements. Every run has one thread a
process and keeps no features, so that all do the same work. What a process takes to start is told apart: the rate is that of
the images after the first one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})  # before NumPy and torch

from mdm_studio.config import DEFAULT_BACKBONE, resource
from mdm_studio.engine.objects import ObjectOptions, finished
from mdm_studio.services.export import export
from mdm_studio.services.export_request import ExportRequest, FileResult, PredictOptions


def fit(folder: Path, backbone: str) -> Path:
    from mdm_studio.services.fitting import FitRequest, fit_classifier

    sample = resource("samples/nuclei")
    request = FitRequest((str(sample / "images"),), sample / "strokes", backbone)
    finished(fit_classifier(request, None)).save(folder / "a.mdm")
    return folder / "a.mdm"


def copies(folder: Path, count: int) -> tuple[Path, ...]:
    originals = sorted((resource("samples/nuclei") / "images").glob("*.png"))
    folder.mkdir()
    made = []
    for number in range(count):
        original = originals[number % len(originals)]
        made.append(Path(shutil.copy(original, folder / f"{number:04d}-{original.name}")))
    return tuple(made)


def timed(request: ExportRequest) -> tuple[float, float]:
    """Seconds from the start to the first image, and images a second after it."""
    begin = time.perf_counter()
    times = []
    for event in export(request):
        if isinstance(event, FileResult):
            if event.state != "done":
                sys.exit(event.message)
            times.append(time.perf_counter())
    return times[0] - begin, (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        classifier, images = fit(folder, args.backbone), copies(folder / "images", args.images)
        print(f"{len(images)} images, {os.cpu_count()} cores")
        for workers in (0, *map(int, args.workers.split(","))):
            options = PredictOptions(folder / f"out-{workers}", objects=ObjectOptions("watershed"), tables=("csv",))
            start, rate = timed(ExportRequest(classifier, images, options, device="cpu", workers=workers))
            name = f"{workers} workers" if workers else "this process"
            print(f"{name:14s} first image after {start:5.1f} s, then {rate:6.2f} images/s", flush=True)


if __name__ == "__main__":
    main()
