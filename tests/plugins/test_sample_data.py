"""The sample data of the napari plugin: what it gives, and that a real napari shows it and closes cleanly."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdm_studio import config
from mdm_studio.errors import InputError

PLUGIN = "mdm-studio"


def running_threads():
    """Python's threads, and the threads that Qt has named after a QThread (Linux tells their names)."""
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.is_dir() else []
    return [thread.name for thread in threading.enumerate()], [name for name in names if "QThread" in name or "Pooled" in name]


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """A bundled sample of two images, grey with strokes and RGB without."""
    folder = tmp_path / "resources" / "samples" / "nuclei"
    for name in ("images", "strokes"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (40, 60), dtype=np.uint8)
    colour = rng.integers(0, 255, (50, 30, 3), dtype=np.uint8)
    strokes = np.zeros((40, 60), np.uint8)
    strokes[5:9, 5:25] = 1
    strokes[20:24, 5:25] = 2
    Image.fromarray(grey).save(folder / "images" / "a.png")
    Image.fromarray(colour).save(folder / "images" / "b.png")
    Image.fromarray(strokes).save(folder / "strokes" / "a.png")
    monkeypatch.setattr(config, "resource_roots", lambda: (tmp_path / "resources",))
    return folder, grey, colour, strokes


def test_every_image_with_its_strokes_in_one_row(samples):
    from napari_mdm_studio._sample_data import nuclei

    _, grey, colour, strokes = samples
    layers = nuclei()
    assert [kind for _, _, kind in layers] == ["image", "image", "labels", "labels"]
    for (data, _, _), wanted in zip(layers, (grey, colour, strokes, np.zeros((50, 30))), strict=True):
        np.testing.assert_array_equal(data, wanted)
    assert [attributes["name"] for _, attributes, _ in layers] == ["a", "b", "a strokes", "b strokes"]
    assert [attributes["translate"] for _, attributes, _ in layers] == [(0, 0), (0, 76), (0, 0), (0, 76)]
    assert [attributes["rgb"] for _, attributes, _ in layers[:2]] == [False, True]


@pytest.mark.parametrize("lost", ["images", "nuclei"])
def test_a_sample_that_did_not_come_along_is_a_clear_error(samples, lost, tmp_path):
    from napari_mdm_studio._sample_data import nuclei

    folder = samples[0]
    lost_folder = folder / "images" if lost == "images" else folder
    lost_folder.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="this installation is incomplete"):
        nuclei()


def test_the_manifest_is_complete():
    """npe2 finds the plugin by the entry point of the installed package, and its commands can be imported."""
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution(PLUGIN)
    assert manifest.display_name == "MDM Studio"
    manifest.validate_imports()


@pytest.mark.gui
def test_napari_opens_the_sample_and_closes_cleanly(samples):
    import napari
    from qtpy.QtCore import QThreadPool
    from qtpy.QtWidgets import QApplication

    before = running_threads()
    viewer = napari.Viewer(show=True)
    try:
        viewer.open_sample(PLUGIN, "nuclei")
        names = [(layer.name, type(layer).__name__) for layer in viewer.layers]
        assert names == [("a", "Image"), ("b", "Image"), ("a strokes", "Labels"), ("b strokes", "Labels")]
        QApplication.processEvents()
        canvas = viewer.screenshot(canvas_only=True, flash=False)[..., :3]  # (H, W, 3)
        assert len(np.unique(canvas.reshape(-1, 3), axis=0)) > 100  # noise in grey and in colour; a blank canvas has one
        window = viewer.screenshot(canvas_only=False, flash=False)
        assert window.shape[0] > canvas.shape[0]
    finally:
        viewer.close()
    QApplication.processEvents()
    gc.collect()
    assert not [widget for widget in QApplication.topLevelWidgets() if widget.isVisible()]
    assert QThreadPool.globalInstance().activeThreadCount() == 0
    assert running_threads() == before
