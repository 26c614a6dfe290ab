"""From the stroke to the mask: how long a live session takes, beside the classical recipe, in the same run.

    python benchmarks/live_latency.py [--sizes 1024 4096 16384] [--strokes 20] [--out latency.json]
    python benchmarks/live_latency.py --beside-job 3     1,024 x 1,024 with and without a pretraining job, three times

The image is a mosaic of the bundled tissue samples. What is in view is 1,024 x 1,024 pixels at full resolution (and, from 4,096
pixels on, once the whole image zoomed out). A stroke is a disc of radius 3; classes take turns. After each stroke the script
waits until everything in view is exact, then paints the next one. Measured from the stroke's announcement to

* the preview: everything in view has been drawn again, by few members at every fourth pixel that the screen shows;
* the exact picture: all members, trained to the end, every pixel that the screen shows, smoothed.

"Not cached": strokes are painted in an image that was never seen, from the moment it is opened. The classical recipe is
scikit-image's multiscale_basic_features (sigma 1..16) and a random forest (100 trees, depth 10), its features kept in memory
between strokes, retrained and predicted for what is in view.

"Beside a job": a pretraining job, as the window starts it (low priority, bounded threads), trains on the bundled images all the
while. Rounds with and without it alternate in one run; the job's own speed is given in images/s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from mdm_studio.config import resource
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import open_image
from mdm_studio.services.session import Session, View

VIEW = 1024
RADIUS = 3
TISSUE = ("tissue-purple", "test-tissue-purple", "tissue-white", "test-tissue-white")


def mosaic(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ``(side, side, 3)`` uint8 and classes ``(side, side)``, 1 = ground, 2 = nucleus."""
    folder = resource("samples/nuclei")
    pixels, truth = [], []
    for name in TISSUE:
        plane = open_image(folder / "images" / f"{name}.png").plane().read(slice(None), slice(None))
        mask = open_image(folder / "masks" / f"{name}.png", values=True).plane().read(slice(None), slice(None))[0]
        pixels.append(np.moveaxis(np.broadcast_to(plane, (3, *plane.shape[1:])), 0, -1)[:256, :256])
        truth.append((mask > 0)[:256, :256].astype(np.uint8) + 1)
    pair = [np.concatenate([np.concatenate(p[:2], 1), np.concatenate(p[2:], 1)]) for p in (pixels, truth)]
    times = -(-side // pair[0].shape[0])
    image, classes = np.tile(pair[0], (times, times, 1)), np.tile(pair[1], (times, times))
    return np.ascontiguousarray(image[:side, :side]), np.ascontiguousarray(classes[:side, :side])


class Painter:
    """Paints discs, classes in turn, inside a window."""

    def __init__(self, truth: np.ndarray, labels: np.ndarray, top: int, seed: int = 0) -> None:
        self.truth, self.labels, self.top = truth, labels, top
        self.rng, self.value = np.random.default_rng(seed), 0

    def stroke(self) -> tuple[slice, slice]:
        self.value = self.value % 2 + 1
        while True:
            row, col = self.rng.integers(self.top + RADIUS, self.top + VIEW - RADIUS, 2)
            if self.truth[row, col] == self.value:
                break
        rows, cols = slice(row - RADIUS, row + RADIUS + 1), slice(col - RADIUS, col + RADIUS + 1)
        y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
        disc = (y * y + x * x <= RADIUS * RADIUS) & (self.truth[rows, cols] == self.value)
        self.labels[rows, cols][disc] = self.value
        return rows, cols


class Live:
    """A session with one image, and the news it sends."""

    def __init__(self, cache: Path) -> None:
        self.session = Session(FeatureCache(cache))
        self.news: queue.Queue[tuple[str, float]] = queue.Queue()
        self.session.updated.connect(lambda kind, _: self.news.put((kind, time.perf_counter())))
        self.session.failed.connect(lambda message: self.news.put((message, time.perf_counter())))

    def ready(self) -> None:
        while self.session.bench is None:
            time.sleep(0.01)

    def open(self, image: np.ndarray, labels: np.ndarray, view: View) -> None:
        self.session.open_image("a", ArrayImage(image, rgb=True, name="mosaic"), labels)
        self.session.picture("a", "prediction")
        self.session.view_moved({("a", ()): view})

    def settled(self) -> None:
        """Wait until nothing is being computed any more."""
        while self.session.status.busy or self.session.up_to_date != "exact":
            time.sleep(0.05)
        while not self.news.empty():
            self.news.get()

    def until(self, wanted: str) -> float:
        """The time of the first news of a kind."""
        while True:
            kind, moment = self.news.get(timeout=900)
            if kind == wanted:
                return moment
            if kind not in ("preview", "exact"):
                raise RuntimeError(kind)

    def stroke(self, painter: Painter) -> tuple[float, float]:
        region = painter.stroke()
        begin = time.perf_counter()
        self.session.labels_changed("a", (), *region)
        return self.until("preview") - begin, self.until("exact") - begin


def cached(side: int, strokes: int, cache: Path, *, whole: bool = False) -> dict[str, float]:
    image, truth = mosaic(side)
    labels = np.zeros((side, side), np.uint8)
    top = (side - VIEW) // 2 if side > VIEW else 0
    painter = Painter(truth, labels, top)
    for _ in range(6):
        painter.stroke()
    live = Live(cache)
    live.ready()
    span = slice(0, side) if whole else slice(top, top + VIEW)
    live.open(image, labels, View(span, span, side / VIEW if whole else 1.0))
    live.until("exact")
    live.settled()
    times = np.array([live.stroke(painter) for _ in range(strokes)])
    live.session.close()
    return summary(times)


def summary(times: np.ndarray) -> dict[str, float]:
    names = ("preview", "exact")
    return {f"{name} p{q}": float(np.percentile(times[:, i], q)) for i, name in enumerate(names) for q in (50, 95)}


def unseen(side: int, runs: int) -> dict[str, float]:
    """From opening an image with strokes of two classes to its first picture, and to the exact one."""
    image, truth = mosaic(side)
    times = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            labels = np.zeros((side, side), np.uint8)
            top = (side - VIEW) // 2 if side > VIEW else 0
            painter = Painter(truth, labels, top, seed)
            for _ in range(4):
                painter.stroke()
            live = Live(Path(folder))
            live.ready()
            begin = time.perf_counter()
            live.open(image, labels, View(slice(top, top + VIEW), slice(top, top + VIEW)))
            times.append((live.until("preview") - begin, live.until("exact") - begin))
            live.session.close()
    return summary(np.array(times))


def classical(strokes: int) -> dict[str, float]:
    image, truth = mosaic(VIEW)
    labels = np.zeros((VIEW, VIEW), np.uint8)
    painter = Painter(truth, labels, 0)
    begin = time.perf_counter()
    features = multiscale_basic_features(image, sigma_min=1, sigma_max=16, channel_axis=-1)
    computed = time.perf_counter() - begin
    for _ in range(6):
        painter.stroke()
    times = []
    for _ in range(strokes):
        painter.stroke()
        begin = time.perf_counter()
        forest = RandomForestClassifier(100, max_depth=10, max_samples=0.05, n_jobs=-1, random_state=0)
        forest.fit(features[labels > 0], labels[labels > 0])
        forest.predict(features.reshape(-1, features.shape[-1]))
        times.append(time.perf_counter() - begin)
    return {"features": computed, "exact p50": float(np.median(times)), "exact p95": float(np.percentile(times, 95))}


@contextlib.contextmanager
def pretraining(folder: Path) -> Iterator[list[float]]:
    """A job that is running, and a list that gets its images/s at the end."""
    from mdm_studio.config import DATA_VARIABLE
    from mdm_studio.engine.pretrain import PretrainConfig
    from mdm_studio.io.images import find_images
    from mdm_studio.services.jobs.board import JobBoard
    from mdm_studio.services.pretraining import plan

    os.environ[DATA_VARIABLE] = str(folder)  # the user's own jobs are left alone
    board, speed = JobBoard(), []
    job, _ = plan(
        find_images([str(resource("samples/nuclei") / "images")]), name="beside", config=PretrainConfig(), minutes=600.0
    )
    made = board.add("pretrain", job.to_json(), "beside")
    while board.find(made.id).step < 2:
        time.sleep(0.2)
    begin, first = time.perf_counter(), board.find(made.id).step
    yield speed
    steps = board.find(made.id).step - first
    speed.append(steps * job.config.batch / (time.perf_counter() - begin))
    board.cancel(made.id)
    while board.find(made.id).state == "running":
        time.sleep(0.2)
    board.close()


def beside_job(rounds: int, strokes: int, note: Callable[[str, dict[str, float]], None]) -> None:
    """Rounds without and with a job, one after the other."""
    with tempfile.TemporaryDirectory() as place:
        for number in range(1, rounds + 1):
            note(f"live, alone, round {number}", cached(VIEW, strokes, Path(place) / "cache"))
            with pretraining(Path(place) / f"data-{number}") as speed:
                values = cached(VIEW, strokes, Path(place) / "cache")
            note(f"live, a pretraining job beside, round {number}", values)
            print(f"the job: {speed[0]:.2f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="of images never seen")
    parser.add_argument("--beside-job", type=int, default=0, metavar="ROUNDS", help="this comparison only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}

    def note(name: str, values: dict[str, float]) -> None:
        results[name] = values
        print(f"{name:42s}", "  ".join(f"{key} {value:6.2f} s" for key, value in values.items()), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=2) + "\n")

    if options.beside_job:
        beside_job(options.beside_job, options.strokes, note)
        return
    note("classical, 1024 x 1024", classical(options.strokes))
    with tempfile.TemporaryDirectory() as folder:
        for side in options.sizes:
            note(f"live, {side} x {side}, cached", cached(side, options.strokes, Path(folder)))
        if 4096 in options.sizes:
            note("live, 4096 x 4096 zoomed out, cached", cached(4096, options.strokes, Path(folder), whole=True))
    for side in options.sizes:
        note(f"live, {side} x {side}, never seen", unseen(side, options.runs))


if __name__ == "__main__":
    main()
