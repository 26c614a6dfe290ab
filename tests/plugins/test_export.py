"""The Export dock in a real window: what it says, the preview over the image, and a job from start to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl

from mdm_studio.io.atomic import write_bytes
from mdm_studio.io.classifier_file import ClassifierInfo, LabelClass
from mdm_studio.services.export_memory import read_memory
from mdm_studio.services.export_request import ExportRequest
from mdm_studio.services.jobs.states import JobView
from tests.plugins.gui import settle, wait_until

pytestmark = pytest.mark.gui
CLASSES = (LabelClass(1, "ground", "#e69f00"), LabelClass(2, "cell", "#56b4e9"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "cells"
    made.mkdir()
    for number in range(3):
        PILImage.fromarray(np.full((40, 50), number, np.uint8)).save(made / f"c{number}.png")
    return made


@pytest.fixture
def dock(viewer, home, session, monkeypatch):
    """The dock beside an image; jobs are written down and not started."""
    from mdm_studio.services.jobs import board
    from napari_mdm_studio._export import Export

    monkeypatch.setattr(board, "start_worker", lambda folder, hold: None)
    session.save_classifier = lambda path: write_bytes(path, b"classifier")
    viewer.add_image(np.zeros((200, 300), np.uint8), name="left", scale=(0.5, 0.5), translate=(10, 20))
    home.choose_image(viewer.layers["left"])
    made = Export(viewer)
    viewer.window.add_dock_widget(made, name="Export masks")
    wait_until(lambda: made.facts is not None)
    return made


def drop(widget, path):
    from qtpy.QtGui import QDropEvent

    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    no = Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, no))


def drop_folder(dock, folder):
    drop(dock.images, folder)
    wait_until(lambda: dock.export.isEnabled())


def test_what_is_in_the_way_is_said_until_nothing_is(dock, folder):
    assert not dock.export.isEnabled()
    assert dock.said.stopping.text() == "Choose the folder of the images, or drop it here."
    drop_folder(dock, folder)
    assert dock.images.count.text() == "3 images"
    assert dock.outputs.out.field.placeholderText() == str(folder / "masks")
    assert dock.said.notes.text().startswith("3 images, about ")
    assert not dock.outputs.rules.isVisible()
    dock.outputs.csv.click()
    assert dock.outputs.rules.isVisible()
    dock.outputs.rules.unit.setCurrentIndex(1)
    dock.outputs.rules.smallest.setValue(2.5)
    dock.outputs.rules.smallest.editingFinished.emit()
    wait_until(lambda: not dock.export.isEnabled())
    assert "say how large a pixel is" in dock.said.stopping.text()
    drop(dock.images, folder / "none.mdm")
    wait_until(lambda: "there is no classifier" in dock.said.stopping.text())


def test_a_preview_lies_over_its_image_and_goes(viewer, home, dock, monkeypatch):
    seen = []

    def preview(classifier, path, options, *, device, centre, cache, stop):
        assert Path(classifier).exists()
        seen.append((np.load(path).shape, options.objects.min_size, device, centre))
        mask = np.ones((100, 120), np.uint8)
        mask[:50] = 2
        return {"mask": mask, "objects": (mask == 2).astype(np.uint32), "corner": np.array([50, 90])}

    monkeypatch.setattr("mdm_studio.services.export_preview.preview", preview)
    info = ClassifierInfo(CLASSES, "b", "d", (7,), (50,), 512, 64, "fp32")
    monkeypatch.setattr("mdm_studio.io.classifier_file.read_classifier", lambda path: (info, {}))
    layers = set(viewer.layers)
    dock.outputs.objects.click()
    dock.preview.start.click()
    wait_until(lambda: not dock.preview.running, 20)  # SciPy is imported
    words = "1 object in 120 x 100 px of left: ground 50%, cell 50%."
    assert dock.preview.text.text() == words
    assert seen == [((200, 300), 0, "auto", (100, 150))]
    shown = viewer.layers["left preview of objects"]
    assert tuple(shown.translate) == (10 + 50 * 0.5, 20 + 90 * 0.5)
    assert shown.visible
    assert not viewer.layers["left preview of mask"].visible
    assert not home.bridge.look.visible
    dock.preview.remove.click()
    assert set(viewer.layers) == layers
    assert home.bridge.look.visible

    dock.preview.start.click()
    dock.preview.start.click()  # stopped: what comes is dropped
    settle(0.3)
    assert dock.preview.text.text() == "Stopped."
    assert set(viewer.layers) == layers
    dock.preview.start.click()
    wait_until(lambda: not dock.preview.running)
    home.bridge.remove("left")
    settle(0.05)
    assert not [layer for layer in viewer.layers if "preview" in layer.name]
    home.choose_image(viewer.layers["left"])
    layers = set(viewer.layers)
    dock.preview.start.click()
    wait_until(lambda: not dock.preview.running)
    assert set(viewer.layers) != layers
    viewer.window.remove_dock_widget(dock)
    settle()
    assert set(viewer.layers) == layers


def test_an_export_from_start_to_end(viewer, home, session, dock, folder, monkeypatch):
    drop_folder(dock, folder)
    dock.outputs.uncertainty.click()
    dock.export.click()
    wait_until(lambda: dock.job.view is not None)
    assert dock.job.heading.text() == "<b>Waiting for its turn</b>"
    assert not dock.export.isEnabled()
    view = dock.job.view
    request = ExportRequest.from_json(json.loads((view.folder / "job.json").read_text()))
    assert [path.name for path in request.images] == ["c0.png", "c1.png", "c2.png"]
    assert request.options.uncertainty
    assert request.classifier == folder / "masks" / "export.mdm"
    assert request.classifier.exists()
    assert (read_memory().choices.folder, read_memory().job) == (str(folder), view.id)

    dock.board.close()  # what the job says is said by this test
    says = lambda **facts: dock.board.changed.emit((JobView(view.id, view.folder, "export", view.name, **facts),))  # noqa: E731
    says(state="running", step=1, steps=3, done=0.4, eta_s=100, facts={"failed": 1})
    wait_until(lambda: dock.job.bar.value() == 400)
    assert "1 of 3 images  ·  1 failed" in dock.job.text.text()
    assert dock.job.cancel.isVisible()
    assert not dock.job.resume.isVisible()
    dock.job.cancel.click()
    wait_until(lambda: dock.job.view.state == "queued")  # the job's own words again
    assert (view.folder / "request.json").exists()
    report = {
        "ended": "2999-01-01T00:00:00+00:00",
        "seconds": 61,
        "counts": {"done": 2, "failed": 1},
        "settings": {"tables": ["csv"]},
        "images": [{"objects": 5}, {"objects": 7}, {}],
        "failures": {str(folder / "c1.png"): f"cannot read {folder / 'c1.png'}: it is no picture"},
    }
    (folder / "masks" / "export.json").write_text(json.dumps(report))
    says(state="done", step=3, steps=3, done=1.0)
    wait_until(lambda: dock.job.failures.count() == 1)
    assert dock.job.failures.item(0).text() == "c1.png: it is no picture"
    assert dock.job.summary.text().startswith("2 written, 1 failed, in 61 s.\n12 objects, measured in measurements.csv.")
    wait_until(dock.export.isEnabled)
    opened = []
    monkeypatch.setattr("napari_mdm_studio._export_job.QDesktopServices.openUrl", lambda url: opened.append(url.toLocalFile()))
    dock.job.open.click()
    assert opened == [str(folder / "masks")]

    says(state="interrupted", step=2, steps=3, done=0.6)
    wait_until(dock.job.resume.isVisible)
    dock.job.dismiss.click()
    assert not dock.job.isVisible()


def test_what_was_chosen_is_there_again_with_its_job(viewer, home, dock, folder):
    from napari_mdm_studio._export import Export

    drop_folder(dock, folder)
    dock.outputs.format.setCurrentIndex(2)
    dock.outputs.format.activated.emit(2)
    dock.outputs.more.workers.setValue(1)
    settle(0.3)
    dock.export.click()
    wait_until(lambda: dock.job.view is not None)
    job = dock.job.view.id
    viewer.window.remove_dock_widget(dock)
    again = Export(viewer)
    viewer.window.add_dock_widget(again, name="Export masks")
    wait_until(lambda: again.facts is not None and again.images.count.text() == "3 images")
    assert again.job.view.id == job
    assert again.outputs.good_for.text().startswith("napari")
    assert again.images.folder.path == str(folder)


def test_no_classifier_is_said_in_words(home, session, dock, folder, monkeypatch):
    from mdm_studio.errors import ClassifierError

    def refuse(path):
        raise ClassifierError("there is no classifier to save yet; paint two classes")

    session.save_classifier = refuse
    drop_folder(dock, folder)
    dock.export.click()
    wait_until(lambda: dock.said.stopping.text().startswith("There is no classifier"))
    assert dock.export.isEnabled()
    assert dock.job.view is None
    dock.preview.start.click()
    wait_until(lambda: not dock.preview.running)
    assert dock.preview.text.text().startswith("There is no classifier")


def test_every_field_has_a_name_and_mnemonics_are_single(dock):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLabel, QLineEdit, QListWidget

    named = [each for kind in (QAbstractButton, QComboBox, QListWidget) for each in dock.findChildren(kind)]
    named += [each for each in dock.findChildren(QLineEdit) if not isinstance(each.parent(), QAbstractSpinBox)]
    named += dock.findChildren(QAbstractSpinBox)
    assert not [each for each in named if not (each.accessibleName() or getattr(each, "text", str)())]
    assert not [each for each in named if not each.toolTip() and each is not dock.outputs.more.toggleButton()]
    texts = [each.text() for kind in (QAbstractButton, QLabel) for each in dock.findChildren(kind)]
    letters = [text[text.index("&") + 1].upper() for text in texts if "&" in text] + list("FVLPWH")  # napari's menus
    assert len(letters) > 20
    assert "".join(sorted(set(letters))) == "".join(sorted(letters))
