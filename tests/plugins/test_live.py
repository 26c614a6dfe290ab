"""The whole way with a real session: paint in a window, and the mask follows."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.plugins.gui import press, settle, stroke, wait_until

pytestmark = pytest.mark.gui


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
    live.undo_class_change()
    wait_until(lambda: (bound.strokes.data == 1).any(), 10)
