"""Projects of many images in a real window, with the real session: opened, labelled, left, and found again."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage
from qtpy.QtCore import Qt

from mdm_studio.errors import ProjectError
from mdm_studio.services.live_core import LiveSettings
from mdm_studio.services.session import Session
from mdm_studio.services.workspace import Workspace
from tests.plugins.gui import FakeSession, press, settle, stroke, wait_until

pytestmark = pytest.mark.gui
PLUGIN = "mdm-studio"


@pytest.fixture
def images(tmp_path):
    """Five images whose right halves are bright."""
    rng, paths = np.random.default_rng(0), []
    (tmp_path / "images").mkdir()
    for number in range(5):
        pixels = rng.integers(0, 60, (64, 96), np.uint8)
        pixels[:, 48:] += 150
        paths.append(tmp_path / "images" / f"img{number}.png")
        PILImage.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def make(tiny_backbone):
    """Makes sessions on a tiny backbone that keep their work in a folder."""

    def session(preferences, folder):
        made = Session(None, settings=LiveSettings(backbone=str(tiny_backbone), smooth=0, device="cpu"), keep=folder)
        for name in ("dark", "bright"):
            made.add_class(name)
        return made

    return session


def wait_shown(home, number):
    def there():
        shown = home.project.shown
        return shown and not home.project.wanted and home.workspace.entry(shown).name == f"img{number}"

    wait_until(there, 20)
    settle(0.05)
    return home.bridge.images[home.project.shown]


def test_a_project_is_labelled_left_and_found_again(viewer, images, make, tmp_path):
    from napari_mdm_studio._project import create_project, open_project

    folder = tmp_path / "project"
    home = create_project(viewer, folder, images, session=make)
    session = home.session
    first = wait_shown(home, 0)
    press(viewer, Qt.Key.Key_1)
    first.strokes.brush_size = 5
    stroke(viewer, first.strokes, [(10, 10), (50, 20)])
    press(viewer, Qt.Key.Key_PageDown)
    second = wait_shown(home, 1)
    assert not second.strokes.data.any()
    press(viewer, Qt.Key.Key_2)
    stroke(viewer, second.strokes, [(10, 60), (50, 80)])
    wait_until(lambda: len(session.painted) == 2 and session.up_to_date == "exact", 60)
    wanted = np.where(np.arange(96) < 48, 1, 2)
    assert (second.pictures.prediction().data == wanted).mean() > 0.95  # learnt from both images, though one is shown
    press(viewer, Qt.Key.Key_R)
    press(viewer, Qt.Key.Key_PageDown)
    third = wait_shown(home, 2)
    wait_until(lambda: session.up_to_date == "exact", 60)
    wait_until(lambda: (third.pictures.prediction().data == wanted).mean() > 0.95, 20)
    assert len(session.images) == 3
    press(viewer, Qt.Key.Key_PageDown)
    wait_shown(home, 3)
    assert len(session.images) == 3  # what has no strokes is closed once it is out of sight
    painted = dict(session.painted)
    assert home.workspace.rank() is None
    wait_until(lambda: all(entry.uncertainty is not None for entry in home.workspace.entries), 60)

    again = open_project(viewer, folder, session=make)
    assert again is home  # it is open
    other = create_project(viewer, tmp_path / "other", images[:1], session=make)  # in its place
    assert other is not home
    wait_shown(other, 0)
    wait_until(lambda: len(viewer.layers) == 3)
    home = open_project(viewer, folder, session=make)
    bound = wait_shown(home, 1)  # the one with the most strokes comes first
    wait_until(lambda: dict(home.session.painted) == painted, 20)
    assert (bound.strokes.data == 2).any()
    assert [entry.reviewed for entry in home.workspace.entries] == [False, True, False, False, False]
    assert [entry.painted > 0 for entry in home.workspace.entries] == [True, True, False, False, False]
    assert [each.name for each in home.session.classes] == ["dark", "bright"]


def test_docks_start_anew_with_the_project_that_is_dropped(viewer, home, session, images, make, tmp_path, monkeypatch):
    from napari_mdm_studio import _project, _session_home
    from napari_mdm_studio._segment import Segment

    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "project.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ProjectError, match="update MDM Studio"):
        _project.open_project(viewer, tmp_path / "strange", session=make)
    assert _session_home.present_home(viewer) is home
    loose = viewer.add_image(np.zeros((20, 30), np.uint8), name="loose")
    viewer.window.add_dock_widget(Segment(viewer), name="Segment (MDM Studio)", area="left")
    settle()
    assert list(home.bridge.images) == ["loose"]
    Workspace.create(tmp_path / "project", images)
    with pytest.raises(ProjectError, match="is a project already"):
        _project.create_project(viewer, tmp_path / "project", images, session=make)
    monkeypatch.setitem(_project.open_project.__kwdefaults__, "session", make)
    monkeypatch.setattr(_session_home, "ask_about_unsaved", lambda parent, words: "cancel")
    session.unsaved_words = "Strokes are not saved."
    opener = viewer.open(str(tmp_path / "project"), plugin=PLUGIN)
    assert opener == []
    assert not session.closed  # the user would rather not
    session.unsaved_words = None
    viewer.open(str(tmp_path / "project"), plugin=PLUGIN)
    assert session.closed
    now = _session_home.present_home(viewer)
    wait_shown(now, 0)
    assert set(now.docks) == {"Segment", "Images of the project"}
    assert now.docks["Segment"].home is now
    assert len(viewer.window.dock_widgets) == 2
    assert not loose.visible  # out of sight, not gone
    assert isinstance(session, FakeSession)
