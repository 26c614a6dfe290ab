"""The folder of the open project is renamed in a real window: that is told, nothing is lost, and the ways out work."""

import os

import numpy as np
import pytest
from PIL import Image as PILImage
from qtpy.QtCore import Qt

from mdm_studio.services.live_core import LiveSettings
from mdm_studio.services.project import Project
from mdm_studio.services.session import Session
from tests.plugins.gui import press, stroke, wait_until

pytestmark = [pytest.mark.gui, pytest.mark.skipif(os.name != "posix", reason="an open folder cannot be moved there")]


@pytest.fixture
def opened(viewer, tmp_path, tiny_backbone):
    """A project of one image with a stroke that is saved."""
    from napari_mdm_studio._project import create_project

    def session(_, folder):
        chosen = LiveSettings(backbone=str(tiny_backbone), smooth=0, device="cpu")
        made = Session(None, settings=chosen, keep=folder, live=False)
        for name in ("dark", "bright"):
            made.add_class(name)
        return made

    (tmp_path / "images").mkdir()
    PILImage.fromarray(np.arange(64 * 96, dtype=np.uint8).reshape(64, 96)).save(tmp_path / "images" / "one.png")
    home = create_project(viewer, tmp_path / "project", [tmp_path / "images" / "one.png"], session=session)
    wait_until(lambda: home.project.shown and not home.project.wanted, 30)
    paint(viewer, home, 10)
    wait_until(lambda: any((tmp_path / "project" / "labels").glob("*/0/c/0/0")), 30)
    return home


def paint(viewer, home, row):
    press(viewer, Qt.Key.Key_1)
    strokes = home.bridge.images[home.project.shown].strokes
    strokes.brush_size = 3
    stroke(viewer, strokes, [(row, 10), (row, 50)])
    assert strokes.data[row, 30]


def painted(folder):
    with Project.open(folder) as project:
        (key,) = project.state.images
        labels = project.open_labels(key, project.state.images[key])
        return np.flatnonzero(labels.read((), slice(None), slice(30, 31)))


def lose(viewer, home, tmp_path):
    (tmp_path / "project").rename(tmp_path / "renamed")
    paint(viewer, home, 30)
    wait_until(lambda: home.lost.dialog is not None and home.lost.dialog.isVisible(), 30)
    assert "moved or removed" in home.lost.dialog.text.text()
    assert home.lost.dialog.follow.isVisibleTo(home.lost.dialog) == home.lost.dialog.text.text().count("It is in ")
    paint(viewer, home, 50)
    assert not (tmp_path / "project").exists()


def test_a_renamed_project_is_gone_on_with(viewer, opened, tmp_path):
    lose(viewer, opened, tmp_path)
    opened.lost.dialog.choose_place(str(tmp_path / "renamed"))
    wait_until(lambda: not opened.lost.dialog.isVisible(), 30)
    assert opened.workspace.folder == tmp_path / "renamed"
    opened.close()
    assert {10, 30, 50} <= set(painted(tmp_path / "renamed"))
    assert not (tmp_path / "project").exists()


def test_a_copy_is_saved(viewer, opened, tmp_path):
    lose(viewer, opened, tmp_path)
    opened.lost.dialog.save_copy(str(tmp_path / "copy"))
    wait_until(lambda: not opened.lost.dialog.isVisible(), 30)
    opened.close()
    assert {10, 30, 50} <= set(painted(tmp_path / "copy"))
    assert not (tmp_path / "project").exists()
