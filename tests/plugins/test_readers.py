"""Files of all kinds through napari's own doors, with our plugin among others: what is not ours stays as it was."""

import numpy as np
import pytest
import tifffile
from PIL import Image as PILImage
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from tests.plugins.gui import FakeSession, settle, wait_until

pytestmark = pytest.mark.gui
PLUGIN = "mdm-studio"


@pytest.fixture
def files(tmp_path):
    """One file or folder of each kind, by kind."""
    import zarr

    grey = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    folder, project, other = tmp_path / "images", tmp_path / "project", tmp_path / "a.zarr"
    for each in (folder, project, tmp_path / "nothing"):
        each.mkdir()
    for name in ("one.png", "two.png"):
        PILImage.fromarray(grey).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    PILImage.fromarray(grey).save(tmp_path / "a.PNG")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([grey] * 3), photometric="minisblack")
    (project / "project.json").write_text("{}")
    (tmp_path / "c.MDM").write_bytes(b"no classifier")
    group = zarr.open_group(str(other), mode="w", zarr_format=2)
    group.create_array("0", data=grey)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    (tmp_path / "a.strange").write_text("of another plugin")
    (tmp_path / "a.nobody").write_text("of nobody")
    return tmp_path


@pytest.fixture
def strange():
    """Another plugin that reads files of its own."""
    from npe2 import DynamicPlugin

    with DynamicPlugin("strange-plugin") as plugin:

        @plugin.contribute.reader(filename_patterns=["*.strange"])
        def read(path):
            return lambda path: [(np.ones((7, 9)), {"name": "strange"}, "image")]

        yield plugin


@pytest.fixture
def asked(viewer, monkeypatch):
    """What was opened as a project, and what classifier."""
    from napari_mdm_studio import _commands, _session_home

    opened = []
    monkeypatch.setattr(_commands, "open_project_folder", opened.append)
    session = FakeSession()
    session.opened = opened
    monkeypatch.setattr(_session_home, "new_session", lambda chosen: session)
    return session


def test_every_kind_of_file_opens_as_its_user_expects(viewer, files, strange, asked, capfd):
    import dask
    from napari.errors import MultipleReaderError, NoAvailableReaderError
    from napari.settings import get_settings

    dask.config.set(scheduler="synchronous")  # its threads would live on

    def opened(name, plugin=None):
        return [(layer.name, layer.data.shape) for layer in viewer.open(str(files / name), plugin=plugin)]

    assert opened("a.PNG") == [("a", (40, 50))]
    assert opened("stack.tif") == [("stack", (3, 40, 50))]
    assert opened("a.strange") == [("strange", (7, 9))]
    assert opened("c.MDM") == []
    assert asked.named("load_classifier") == [(files / "c.MDM",)]
    with pytest.raises(NoAvailableReaderError, match=r"a\.nobody"):
        opened("a.nobody")
    for folder in ("images", "project", "a.zarr"):  # napari's own reader takes all of them, too: the user says who is to
        with pytest.raises(MultipleReaderError, match="mdm-studio"):
            opened(folder)
    said = capfd.readouterr()
    assert len((said.out + said.err).strip().splitlines()) <= 1, said
    assert opened("images", PLUGIN) == [("images (2 images)", (2, 40, 50))]
    assert opened("project", PLUGIN) == []
    assert asked.opened == [files / "project"]
    said = capfd.readouterr()
    lines = (said.out + said.err).strip().splitlines()
    assert len(lines) <= 1, lines
    assert all("broken.png" in line for line in lines)
    for nothing in ("nothing", "a.zarr"):
        with pytest.raises(ValueError, match="refused"):
            opened(nothing, PLUGIN)
    get_settings().plugins.extension2reader = {"*.zarr*": "napari-ome-zarr"}  # as the dialog remembers it
    try:
        assert [shape for _, shape in opened("a.zarr")] == [(40, 50)]
    finally:
        get_settings().plugins.extension2reader = {}


def test_what_is_dropped_on_the_canvas_opens_as_in_napari(viewer, files, strange, asked, capfd, monkeypatch):
    from napari._qt import qt_viewer

    dialogs = []
    monkeypatch.setattr(qt_viewer, "handle_gui_reading", lambda paths, *_, **__: dialogs.extend(paths))

    def drop(*names):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(files / name)) for name in names])
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        viewer.window._qt_viewer.dropEvent(QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, left, none))
        settle(0.02)

    drop("a.PNG", "a.strange")
    assert [layer.name for layer in viewer.layers] == ["a", "strange"]
    drop("c.MDM")
    wait_until(lambda: asked.named("load_classifier"))
    assert dialogs == []
    drop("images")
    assert dialogs == [str(files / "images")]  # napari asks who is to read the folder
    said = capfd.readouterr()
    assert len((said.out + said.err).strip().splitlines()) <= 1, said
