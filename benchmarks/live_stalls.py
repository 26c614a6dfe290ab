"""Does the window stay free? Stalls of the event loop while a scripted user paints, pans and trains at once.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/live_stalls.py [--side 1024] [--strokes 100] [--out stalls.json]

The user paints strokes of ten mouse moves with real mouse events, classes in turn, pulls the canvas after every tenth stroke,
and does not wait for anything. A timer that fires as often as it can notes when the event loop let it: the time between two
beats is a stall, whoever caused it. The same is done twice in one run: in a viewer with the image and an empty Labels layer
alone, and with the Segment dock, its network, its training and its prediction at work. Where there is no GPU all drawing is
done by software (llvmpipe), in both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

os.environ.setdefault("NAPARI_CONFIG", str(Path(tempfile.mkdtemp()) / "settings.yaml"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

PAUSE, BETWEEN, BEAT = 15, 150, 5  # ms between mouse events, between strokes, between beats


class Heart:
    """Beats every 5 ms when the event loop lets it; a stall is what a beat comes late."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.beats: list[float] = []
        self._timer = QTimer(interval=BEAT, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(lambda: self.beats.append(time.perf_counter()))
        self._timer.start()

    def stop(self) -> dict[str, float]:
        self._timer.stop()
        late = np.maximum(np.diff(self.beats) * 1000 - BEAT, 0)
        return {
            "longest": float(late.max()),
            "p99": float(np.percentile(late, 99)),
            "p50": float(np.percentile(late, 50)),
            "over 50": int((late > 50).sum()),
            "beats": len(late),
            "seconds": float(self.beats[-1] - self.beats[0]),
        }


def act(steps: Iterator[int], done: Callable[[], None]) -> None:
    """Carry out a script: each step gives the milliseconds to wait before the next; the event loop goes on between."""
    from qtpy.QtCore import QTimer

    try:
        pause = next(steps)
    except StopIteration:
        done()
        return
    QTimer.singleShot(pause, lambda: act(steps, done))


def paint(viewer: object, layer: object, strokes: int, truth: np.ndarray) -> Iterator[int]:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    from napari_mdm_studio._session_home import canvas_widget

    widget = canvas_widget(viewer)
    rng = np.random.default_rng(0)
    height, width = (int(size) for size in viewer.canvas.size)
    for number in range(strokes):
        value = number % 2 + 1
        layer.selected_label = value
        while True:
            start = QPoint(int(rng.integers(40, width - 100)), int(rng.integers(40, height - 40)))
            world = (
                np.asarray(viewer.scene.camera.center)[-2:]
                + (np.array([start.y(), start.x()]) - np.asarray(viewer.canvas.size) / 2) / viewer.scene.camera.zoom
            )
            row, col = (int(v) for v in world)
            if 0 <= row < truth.shape[0] and 0 <= col < truth.shape[1] - 12 and truth[row, col] == value:
                break
        QTest.mouseMove(widget, start)
        yield PAUSE
        QTest.mousePress(widget, Qt.MouseButton.LeftButton, pos=start)
        for move in range(1, 11):
            QTest.mouseMove(widget, start + QPoint(move, 0))
            yield PAUSE
        QTest.mouseRelease(widget, Qt.MouseButton.LeftButton, pos=start + QPoint(10, 0))
        if number % 10 == 9:
            centre = np.asarray(viewer.scene.camera.center)
            for part in range(10):
                viewer.scene.camera.center = tuple(centre + np.array([0, *rng.normal(0, 4, 2)])[-len(centre) :] * (part + 1))
                yield PAUSE
        yield BETWEEN


def measure(side: int, strokes: int, window: tuple[int, int], *, live: bool, cache: Path) -> dict[str, float]:
    import napari
    from live_latency import mosaic
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    os.environ["MDM_STUDIO_CACHE"] = os.environ["MDM_STUDIO_DATA"] = str(cache)
    image, truth = mosaic(side)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*window)
    layer = viewer.add_image(image, name="mosaic", rgb=True)
    home = None
    if live:
        _, dock = viewer.window.add_plugin_dock_widget("mdm-studio", "Segment")
        home = dock.home
        wait(lambda: "mosaic" in home.bridge.images)
        strokes_layer = home.bridge.images["mosaic"].strokes
    else:
        strokes_layer = viewer.add_labels(np.zeros((side, side), np.uint8), name="strokes")
        strokes_layer.brush_size = 10
    viewer.scene.camera.center, viewer.scene.camera.zoom = (side / 2, side / 2), 1.0
    viewer.layers.selection.active = strokes_layer
    strokes_layer.mode = "paint"
    loop = QEventLoop()
    act(paint(viewer, strokes_layer, 4, truth), loop.quit)  # warm up: first imports, first drawing
    loop.exec()
    if home:
        wait(lambda: home.session.up_to_date == "exact" and not home.session.status.busy)
    updates: list[str] = []
    if home:
        home.session.updated.connect(lambda kind, _: updates.append(kind))
    heart = Heart()
    act(paint(viewer, strokes_layer, strokes, truth), loop.quit)
    loop.exec()
    result = heart.stop() | {"previews": updates.count("preview"), "exact": updates.count("exact")}
    viewer.close()
    QApplication.processEvents()
    assert layer is not None
    return result


def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not condition():
        QApplication.processEvents()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs="+", default=[1024])
    parser.add_argument("--strokes", type=int, default=100)
    parser.add_argument("--window", type=int, nargs=2, default=[1600, 1000], help="width and height in pixels")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, live in itertools.product(options.side, (False, True)):
            name = f"{side} x {side}, " + ("Segment dock, live" if live else "napari alone")
            results[name] = measure(side, options.strokes, tuple(options.window), live=live, cache=Path(folder))
            print(f"{name:36s}", "  ".join(f"{key} {value:.1f}" for key, value in results[name].items()), flush=True)
            if options.out:
                options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
