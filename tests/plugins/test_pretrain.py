"""The Pretrain dock in a real window, with a board whose jobs are folders that nobody works on."""

import dataclasses
import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from psygnal import Signal
from qtpy.QtCore import QCoreApplication, QEvent, QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from mdm_studio.errors import JobError
from mdm_studio.services import estimates
from mdm_studio.services.backbone_list import BackboneFacts
from mdm_studio.services.checkpoint_scores import CheckpointScore
from mdm_studio.services.estimates import Speed
from mdm_studio.services.jobs.states import JobView
from mdm_studio.services.recipe_list import RecipeFacts, SettingFacts
from tests.plugins.gui import settle, wait_until

pytestmark = pytest.mark.gui


_STAGE_ONE = {"name": "maskdm", "ratio": 0.9, "patch": 4}
BACKBONES = (
    BackboneFacts("mdm-nuclei", good_at="nuclei", in_channels=3, kind="unet", recipe={"name": "mdm"}),
    BackboneFacts("stage-one", in_channels=3, kind="uvit", recipe=_STAGE_ONE, crop=96),
    BackboneFacts("broken", kind="unet", problem="its card is damaged"),
)
RECIPES = (
    RecipeFacts("mdm", "masked diffusion", "Hides patches.", "unet", {"small": "small", "base": "base"}, t_max=1000),
    RecipeFacts(
        "maskdm", "masked denoising", "A transformer.", "uvit", {"tiny": "tiny", "base": "base"},
        (
            SettingFacts("patch", "int", 8),
            SettingFacts("masking", "choice", "patch", "How patches are hidden.", ("patch", "block")),
            SettingFacts("ratio", "float", 0.9),
            SettingFacts("wavelet", "bool", False),
        ),
    ),
    RecipeFacts(
        "ddep", "denoising", "The decoder alone.", "denoiser", {"1x": "1x"}, wants_encoder=True,
        freezes_encoder=True,
    ),
)  # fmt: skip


class FakeBoard:
    """Has the face of `mdm_studio.services.jobs.board.JobBoard`."""

    changed = Signal(tuple)

    def __init__(self, root):
        self.root, self.views, self.calls, self.watching = root, [], [], False
        self.revived = ()

    def jobs(self):
        return tuple(self.views)

    def put(self, view):
        self.views = [view, *(each for each in self.views if each.id != view.id)]
        self.changed.emit(self.jobs())

    def add(self, kind, settings, name):
        self.calls.append((kind, dict(settings), name))
        folder = self.root / name
        folder.mkdir()
        view = JobView(name, folder, kind, name, "queued", message="starts")
        self.views.insert(0, view)
        return view

    def _to(self, job_id, state):
        self.calls.append((state, job_id))
        self.put(dataclasses.replace(next(view for view in self.views if view.id == job_id), state=state, message=""))

    def pause(self, job_id):
        self._to(job_id, "paused")

    def resume(self, job_id):
        self._to(job_id, "running")

    def cancel(self, job_id):
        raise JobError(f"{job_id} is done: there is nothing to cancel")

    def remove(self, job_id):
        self.views = [view for view in self.views if view.id != job_id]

    def log(self, job_id):
        return "12:00 started"

    def revive(self):
        return self.revived

    def watch(self, every=1.0):
        self.watching = True

    def close(self):
        self.watching = False


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        PILImage.fromarray(rng.integers(0, 255, (80, 100, 3), np.uint8)).save(folder / f"img{number}.png")
    (folder / "broken.png").write_bytes(b"")
    return folder


@pytest.fixture
def board(tmp_path):
    (tmp_path / "jobs").mkdir()
    return FakeBoard(tmp_path / "jobs")


@pytest.fixture
def dock(viewer, home, board, monkeypatch):
    from napari_mdm_studio import _pretrain_form
    from napari_mdm_studio._pretrain import Pretrain

    monkeypatch.setattr(_pretrain_form, "list_backbones", lambda: BACKBONES)
    monkeypatch.setattr(_pretrain_form, "list_recipes", lambda: RECIPES)
    monkeypatch.setattr(_pretrain_form, "measure_speed", lambda request, stop: Speed(8.0, "this CPU", 2e9))
    made = Pretrain(viewer, board)
    viewer.window.add_dock_widget(made, name="Pretrain")
    wait_until(lambda: board.watching and made.training.recipe.start_from.count() == 2)
    return made


def look_at(dock, folder):
    dock.folder.place.setFocus()
    dock.folder.place.selectAll()
    QTest.keyClicks(dock.folder.place, str(folder))
    QTest.keyClick(dock.folder.place, Qt.Key.Key_Return)
    wait_until(lambda: not dock.folder.bar.isVisibleTo(dock) and dock.folder.summary.text() != "Looking...")


def write_job(folder, step=400):
    """What a job leaves in its folder."""
    for name in ("samples", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"step": n, "loss": 1 / n}) + "\n" for n in range(1, step + 1)]
    (folder / "metrics.jsonl").write_text("".join(rows))
    for number in (200, step):
        PILImage.new("RGB", (96, 112), (number % 255, 0, 0)).save(folder / "samples" / f"step-{number:08d}.png")
        (folder / "checkpoints" / f"step-{number:08d}.safetensors").touch()


def click(button):
    assert button.isEnabled(), button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def test_a_folder_is_surveyed_timed_and_started(dock, board, images):
    assert not dock.start_button.isEnabled()
    look_at(dock, images)
    assert "4 images" in dock.folder.summary.text()
    assert dock.folder.strip.count() == 3
    assert "Unreadable: broken.png" in dock.folder.unreadable.text()
    assert "smaller than a crop of 128 px" in dock.folder.warnings.text()
    wait_until(lambda: dock.training.speed is not None)
    assert dock.training.minutes.value() == 90
    assert "2,000 steps) takes about 1 h 7 min (8.0 images/s on this CPU" in dock.training.estimate.text()
    dock.training.crop.setValue(64)
    assert "smaller than a crop" not in dock.folder.warnings.text()
    assert dock.training.name.text() == "fields"
    assert not dock.training.recipe.network_size.isEnabled()
    click(dock.start_button)
    wait_until(lambda: board.calls, 60)
    ((kind, settings, name),) = board.calls
    assert (kind, name, settings["config"]["crop"]) == ("pretrain", "fields", 64)
    assert [Path(path).name for path in settings["images"]] == ["img0.png", "img1.png", "img2.png"]
    wait_until(lambda: dock.jobs.view is not None)
    assert "trains in the background" in dock.said.text()
    assert dock.jobs.message.text() == "Starts"
    assert dock.progress.heading.text() == "<b>fields</b>"


def test_what_cannot_work_is_said_in_place(dock, board, images, tmp_path):
    look_at(dock, tmp_path / "nowhere")
    assert "does not exist" in dock.folder.summary.text()
    assert not dock.start_button.isEnabled()
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(images / "img0.png"))])
    event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    dock.folder.dropEvent(event)
    wait_until(lambda: dock.folder.survey is not None)
    assert dock.folder.place.text() == str(images)
    dock.training.name.clear()
    click(dock.start_button)
    wait_until(lambda: "no name" in dock.said.text(), 60)
    assert dock.start_button.isEnabled()
    assert not board.calls
    dock.training.channels.setText("x")
    dock.training.channels.editingFinished.emit()
    assert "border" in dock.training.channels.styleSheet()


def choose(box, data):
    """Choose an entry of a list with the keyboard."""
    box.setFocus()
    for _ in range(abs(steps := box.findData(data) - box.currentIndex())):
        QTest.keyClick(box, Qt.Key.Key_Down if steps > 0 else Qt.Key.Key_Up)
    box.activated.emit(box.currentIndex())
    assert box.currentData() == data


def entries(box):
    return [box.itemData(row) for row in range(box.count())]


def test_the_form_follows_the_recipe(dock, images):
    look_at(dock, images)
    rows, wanted = dock.training.recipe, dock.training.wanted
    assert entries(rows.recipe) == ["mdm", "maskdm", "ddep"]
    assert entries(rows.start_from) == ["mdm-nuclei", ""]  # no other network, nothing that cannot be read
    assert not rows.advanced.isVisibleTo(dock)
    choose(rows.recipe, "maskdm")
    assert rows.about.text() == "A transformer."
    assert entries(rows.start_from) == ["stage-one", ""]
    assert (wanted().recipe, wanted().start_from, wanted().size) == ("maskdm", "", "tiny")
    assert not rows.stage_two.isVisibleTo(dock)
    choose(rows.network_size, "base")
    choose(rows.settings.fields["masking"], "block")
    rows.advanced.toggleButton().click()
    assert rows.settings.fields["wavelet"].isVisibleTo(dock)
    rows.settings.fields["wavelet"].click()
    assert wanted().recipe_settings == {"masking": "block", "wavelet": True}
    choose(rows.start_from, "stage-one")
    assert rows.stage_two.isVisibleTo(dock)
    assert (wanted().recipe_settings, wanted().crop) == ({"patch": 4, "ratio": 0.0}, 96)
    assert not rows.settings.isEnabled()
    rows.stage_two.click()
    assert wanted().recipe_settings == {"patch": 4}
    choose(rows.recipe, "ddep")
    assert rows.encoder.isVisibleTo(dock)
    assert "Without a trained encoder" in rows.about.text()
    rows.encoder.setFocus()
    QTest.keyClicks(rows.encoder, "microsoft/resnet-50")
    QTest.keyClick(rows.encoder, Qt.Key.Key_Return)
    assert rows.about.text() == "The decoder alone."
    assert (wanted().encoder, wanted().size, wanted().crop) == ("microsoft/resnet-50", "1x", 128)
    choose(rows.recipe, "mdm")
    assert (wanted().encoder, wanted().start_from) == ("", "")  # it is what was chosen last, where there is such
    assert not rows.encoder.isVisibleTo(dock)


def test_jobs_are_steered_from_the_table(dock, board):
    (board.root / "a").mkdir()
    view = JobView("a", board.root / "a", "pretrain", "glands", "running", 40, 100, 0.4, 600.0, 3.14, "images/s", "slow step")
    other = JobView("x", board.root, "export", "masks", "running")
    board.views = [other]
    board.put(view)
    table = dock.jobs.table
    wait_until(lambda: table.rowCount() == 1)
    shown = [table.item(0, column).text() for column in range(5)]
    assert shown == ["glands", "running", "40%", "3.1/s", "10 min"]
    assert "step 40 of 100" in table.item(0, 0).toolTip()
    assert dock.jobs.message.text() == "Slow step"
    assert not dock.jobs.remove.isEnabled()
    click(dock.jobs.pause)
    wait_until(lambda: table.item(0, 1).text() == "paused")
    click(dock.jobs.cancel)
    wait_until(lambda: "nothing to cancel" in dock.jobs.message.text())
    click(dock.jobs.log)
    wait_until(lambda: any(each.windowTitle() == "Log of glands" for each in QApplication.topLevelWidgets()))
    for each in QApplication.topLevelWidgets():
        if each.windowTitle() == "Log of glands":
            each.close()
    click(dock.jobs.resume)
    wait_until(lambda: table.item(0, 1).text() == "running")
    board.pause("a")
    wait_until(dock.jobs.remove.isEnabled)
    click(dock.jobs.remove)
    wait_until(lambda: not table.rowCount())
    assert not dock.progress.isVisibleTo(dock)
    assert [call[0] for call in board.calls] == ["paused", "running", "paused"]


def test_curves_pictures_scores_and_use_now(dock, board, home, session, monkeypatch):
    from napari_mdm_studio import _pretrain_progress

    folder = board.root / "a"
    write_job(folder)
    score = CheckpointScore(200, 0.9, 0.01, 0.8, 0.01, "mdm-nuclei", 100, 12, "")
    (folder / "scores.json").write_text(json.dumps({"version": 1, "scores": [dataclasses.asdict(score)]}))
    judged = []
    session.run_job = lambda name, steps: judged.append(name)
    session.painted = {1: 10, 2: 10}
    board.put(JobView("a", folder, "pretrain", "glands", "running", 400))
    progress = dock.progress
    wait_until(lambda: judged)  # the newest checkpoint, which has no score yet
    assert judged == ["checkpoint scores"]
    assert len(progress.loss._mean.xData) > 300
    assert progress.sheet.step.text() == "step 400"
    wait_until(lambda: progress.sheet.sheet._picture is not None)
    progress.sheet.slider.setFocus()
    QTest.keyClick(progress.sheet.slider, Qt.Key.Key_Left)
    assert progress.sheet.step.text() == "step 200"
    assert "better than mdm-nuclei" in progress.words.text()
    np.testing.assert_allclose(progress.scores._new.yData, [90])
    later = dataclasses.replace(score, step=400, score=0.95)
    progress._scorer.scored.emit(folder, (score, later))
    wait_until(lambda: "Step 400" in progress.words.text())
    progress.log.click()
    monkeypatch.setattr(_pretrain_progress, "usable_backbone", lambda view: f"{view.name}-step-400")
    click(progress.use)
    wait_until(lambda: session.settings.backbone == "glands-step-400")
    assert "glands-step-400 is read from now on" in progress.outcome.text()
    write_job(folder, 600)
    board.put(JobView("a", folder, "pretrain", "glands", "done", 600, result=folder))
    (folder / "README.md").write_text("# glands\n")
    wait_until(lambda: "glands is finished" in dock.said.text())
    wait_until(lambda: progress.sheet.slider.maximum() == 2)
    assert progress.sheet.step.text() == "step 200"  # the user looks at an earlier one
    click(progress.card)
    wait_until(lambda: any(each.windowTitle() == "Model card of glands" for each in QApplication.topLevelWidgets()))
    for each in QApplication.topLevelWidgets():
        if each.windowTitle() == "Model card of glands":
            each.close()


def test_every_control_has_a_name_and_a_tooltip(dock):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QSlider

    for kind in (QAbstractButton, QComboBox, QLineEdit, QSlider, QAbstractSpinBox):
        for widget in dock.findChildren(kind):
            if isinstance(widget.parent(), QAbstractSpinBox) or widget.objectName().startswith("qt_"):
                continue
            text = widget.text() if isinstance(widget, QAbstractButton) else ""
            assert widget.accessibleName() or text, widget
            assert widget.toolTip(), (widget, text)


def test_closing_the_dock_stops_what_runs_and_leaves_nothing_behind(viewer, home, board, images, monkeypatch):
    from napari_mdm_studio import _pretrain_form
    from napari_mdm_studio._pretrain import Pretrain

    monkeypatch.setattr(estimates, "_COMMAND", (estimates.sys.executable, "-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(_pretrain_form, "list_backbones", lambda: ())
    monkeypatch.setattr(_pretrain_form, "list_recipes", lambda: ())
    board.revived = (JobView("a", board.root, "pretrain", "glands", "queued"),)
    kept = len(home._kept)
    made = Pretrain(viewer, board)
    viewer.window.add_dock_widget(made, name="Pretrain")
    wait_until(lambda: board.watching)
    assert "Interrupted jobs go on from their last checkpoint: glands" in made.said.text()
    look_at(made, images)
    made.training.measure()
    assert "Timing" in made.training.estimate.text()
    settle(0.3)
    gone = weakref.ref(made)
    viewer.window.remove_dock_widget(made)
    assert not board.watching
    assert len(home._kept) == kept
    del made
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    assert gone() is None
