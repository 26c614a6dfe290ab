"""The whole way with a real session: paint in a window, and the mask follows."""

import gc
from collections import Counter

import numpy as np
import psutil
import pytest
from qtpy.QtCore import Qt

from mdm_studio.engine.heads import Prediction
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble
from mdm_studio.services.live_heads import LiveHead
from mdm_studio.services.tile_memory import TileMaps
from mdm_studio.testing import blobs
from tests.plugins.gui import press, settle, stroke, wait_until

pytestmark = pytest.mark.gui
KINDS = (LiveHead, PixelMLPEnsemble, TileMaps, Prediction)


@pytest.fixture
def live(viewer, tiny_backbone):
    """A home with a real session on a tiny backbone, and the Segment dock."""
    from mdm_studio.services.session import LiveSettings, Session
    from napari_mdm_studio._segment import Segment
    from napari_mdm_studio._session_home import home_of

    def make(preferences):
        session = Session(None, settings=LiveSettings(backbone=str(tiny_backbone), smooth=0, device="cpu"))
        for name in ("dark", "bright"):
            session.add_class(name)
        return session

    home = home_of(viewer, session=make)
    dock = Segment(viewer)
    viewer.window.add_dock_widget(dock, name="Segment")
    return home


def test_painting_two_classes_gives_a_mask_and_undo_takes_it_back(viewer, live):
    picture = np.random.default_rng(0).integers(0, 60, (128, 160), np.uint8)
    picture[:, 80:] += 150
    viewer.add_image(picture, name="halves", scale=(0.5, 0.5), units=("micrometer",) * 2)
    viewer.reset_view()
    settle()
    bound = live.bridge.images["halves"]
    exact = []
    live.session.updated.connect(lambda kind, seconds: exact.append(kind))
    press(viewer, Qt.Key.Key_1)
    bound.strokes.brush_size = 6
    stroke(viewer, bound.strokes, [(20, 10), (100, 60)])
    press(viewer, Qt.Key.Key_2)
    stroke(viewer, bound.strokes, [(20, 100), (100, 150)])
    wait_until(lambda: "exact" in exact, 60)
    prediction = bound.pictures.prediction()
    wanted = np.where(np.arange(160) < 80, 1, 2)
    assert (prediction.data == wanted).mean() > 0.95
    assert tuple(prediction.scale) == (0.5, 0.5)
    assert live.session.painted.keys() == {1, 2}
    press(viewer, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    wait_until(lambda: set(live.session.painted) == {1}, 10)
    live.session.set_live(False)
    live.session.remove_class(1)
    wait_until(lambda: not bound.strokes.data.any(), 10)
    live.history.undo_classes()
    wait_until(lambda: (bound.strokes.data == 1).any(), 10)


def test_other_channels_are_learnt_from_the_same_strokes(viewer, live):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 60, (5, 64, 96), np.uint8)
    picture[3:, :, 48:] += 150  # only the last two channels tell the halves apart
    viewer.add_image(picture, name="five", axis_labels=("c", "y", "x"))
    viewer.reset_view()
    settle()
    bound, session = live.bridge.images["five"], live.session
    assert session.images["five"].source.chosen == (0, 1, 2)
    for value, col in ((1, 10), (2, 70)):
        rows, cols = np.mgrid[5:60, col : col + 5]
        bound.strokes.data_setitem((rows.ravel(), cols.ravel()), value)
    wait_until(lambda: session.painted == {1: 275, 2: 275} and session.up_to_date == "exact", 30)
    live.bridge.read_channels("five", (3, 4, 0))
    wait_until(lambda: session.images["five"].source.chosen == (3, 4, 0) and session.up_to_date == "exact", 30)
    wanted = np.where(np.arange(96) < 48, 1, 2)
    assert (bound.pictures.prediction().data == wanted).mean() > 0.95
    assert session.painted == {1: 275, 2: 275}
    assert session.status.error is None


@pytest.mark.slow
def test_two_hundred_updates_leave_nothing_behind(viewer, live):
    viewer.add_image(blobs(64, 64)[0], name="field", rgb=True)  # one tile
    viewer.reset_view()
    settle()
    session, strokes = live.session, live.bridge.images["field"].strokes

    def update(number, kind):
        """Paint a spot with the other class than last time, and wait for its picture."""
        generation, place = session.strokes.generation, number % 40
        rows, cols = np.mgrid[: 3 + place // 20, :3]
        where = (rows.ravel() + place // 8 * 12, cols.ravel() + place % 8 * 8)
        strokes.data_setitem(where, 1 + (number + number // 40) % 2)
        wait_until(lambda: session.strokes.generation > generation and session.up_to_date in kind, 30)

    def count():
        wait_until(lambda: session.up_to_date == "exact" and not session.status.busy, 30)
        settle(0.3)
        gc.collect()
        live_now = Counter(type(each).__name__ for each in gc.get_objects() if type(each) in KINDS)
        return live_now, psutil.Process().memory_info().rss

    strokes.data_setitem((np.array([62]), np.array([62])), 2)  # the first update has two classes, too
    for number in range(200):
        update(number, ("exact",) if number % 25 == 24 else ("preview", "exact"))
        if number == 49:
            objects, memory = count()
    objects_now, memory_now = count()
    assert objects["LiveHead"] == 1
    assert objects_now == objects
    assert memory_now < memory + (20 << 20)
