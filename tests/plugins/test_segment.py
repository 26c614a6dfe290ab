"""The Segment dock in a real window: classes, status, outputs, files, keys, closing."""

import dataclasses
import gc
import weakref

import numpy as np
import psutil
import pytest
from qtpy.QtCore import QCoreApplication, QEvent, Qt

from mdm_studio.errors import BackboneError
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.services.backbone_adding import Addition
from mdm_studio.services.backbone_list import BackboneFacts
from tests.plugins.gui import READY, press, settle, wait_until

pytestmark = pytest.mark.gui
KEY, COLOR, NAME, PAINTED = range(4)  # columns of the classes
AXIS, CHANNELS = 1, 2  # of the images


@pytest.fixture
def dock(viewer, home):
    """The dock beside two images."""
    from napari_mdm_studio._segment import Segment

    viewer.add_image(np.zeros((200, 300), np.uint8), name="left")
    viewer.add_image(np.zeros((200, 300), np.uint8), name="right", translate=(0, 320))
    made = Segment(viewer)
    viewer.window.add_dock_widget(made, name="Segment")
    viewer.reset_view()
    settle()
    return made


def texts(table, column):
    return [table.item(number, column).text() for number in range(table.rowCount())]


def test_images_that_do_not_overlap_are_chosen(viewer, home, session, dock):
    assert list(home.bridge.images) == ["left", "right"]
    viewer.add_image(np.zeros((200, 300), np.uint8), name="over the left")
    viewer.add_image(np.zeros((200, 300), np.uint8), name="below", translate=(220, 0))
    settle()
    assert list(home.bridge.images) == ["left", "right", "below"]
    table = dock.images.table
    assert texts(table, 0) == ["left", "right", "over the left", "below"]
    table.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    table.item(2, 0).setCheckState(Qt.CheckState.Checked)
    settle()
    assert list(home.bridge.images) == ["right", "below", "over the left"]
    assert session.named("close_image") == [("left",)]
    viewer.layers.remove(viewer.layers["below"])
    wait_until(lambda: texts(table, 0) == ["left", "right", "over the left"])


def test_the_channel_axis_is_a_choice(viewer, home, session, dock):
    viewer.add_image(np.zeros((3, 100, 120), np.uint8), name="c", translate=(0, 300, 0))
    settle()
    assert session.images["c"][0].channels == 1
    combo = dock.images.table.cellWidget(2, 1)
    combo.setCurrentIndex(1)
    settle()
    assert session.images["c"][0].channels == 3
    assert home.bridge.images["c"].strokes.data.shape == (100, 120)


def type_into(field, text):
    field.setText(text)
    field.setModified(True)  # as a user's key does
    field.editingFinished.emit()


@pytest.mark.parametrize(("shape", "axis", "count"), [((5, 100, 120), 1, 5), ((100, 120, 4), 2, 4)])
def test_channels_are_chosen(viewer, home, session, dock, monkeypatch, shape, axis, count):
    told = []
    monkeypatch.setattr(home, "warn", told.append)
    viewer.add_image(np.zeros(shape, np.uint8), name="c", translate=(0, 300, 0), rgb=False)
    settle()
    table = dock.images.table
    assert table.cellWidget(2, CHANNELS) is None
    table.cellWidget(2, AXIS).setCurrentIndex(axis)
    settle()
    field = table.cellWidget(2, CHANNELS)
    assert field.text() == "0,1,2"
    assert f"of the {count} that there are (0 to {count - 1})" in field.toolTip()
    assert session.images["c"][0].chosen == (0, 1, 2)
    strokes = home.bridge.images["c"].strokes
    strokes.data_setitem((np.array([5, 6]), np.array([7, 7])), 1)
    type_into(field, "3, 0-1")
    source, labels = session.images["c"]
    assert (source.chosen, source.stack_shape, source.height, source.width) == ((3, 0, 1), (), 100, 120)
    assert session.named("open_image")[-2:] == [("c",), ("c",)]
    assert session.named("close_image") == [("c",)]  # as a stack
    assert labels is strokes.data
    assert labels[5, 7] == 1
    for wrong in ("5", "", "x"):
        type_into(field, wrong)
        assert field.styleSheet()
        assert f"it has {count}, counted from 0 to {count - 1}; type for example 0,1,2" in told[-1]
    assert session.images["c"][0].chosen == (3, 0, 1)
    table.item(2, 0).setCheckState(Qt.CheckState.Unchecked)
    settle()
    type_into(table.cellWidget(2, CHANNELS), "2")
    table.item(2, 0).setCheckState(Qt.CheckState.Checked)
    settle()
    assert session.images["c"][0].chosen == (2,)
    assert table.cellWidget(2, CHANNELS).text() == "2"
    viewer.layers["c"].data = np.zeros([min(side, 2) if side == count else side for side in shape], np.uint8)
    settle()
    assert session.images["c"][0].chosen == (0, 1)  # there is no channel 2 any more
    assert table.cellWidget(2, CHANNELS).text() == "0,1"


def test_layers_that_napari_split_are_images_of_their_own(viewer, home, session, dock):
    viewer.add_image(np.zeros((3, 100, 120), np.uint8), channel_axis=0, name="c", translate=(300, 0))
    settle()
    assert list(home.bridge.images) == ["left", "right", "c"]
    table = dock.images.table
    assert texts(table, 0) == ["left", "right", "c", "c [1]", "c [2]"]
    assert table.item(2, 0).toolTip() == "c"
    assert table.item(3, 0).toolTip().startswith("c [1] lies over c. ")
    assert "Merge to Stack" in table.item(4, 0).toolTip()


def test_classes_are_added_named_coloured_and_counted(viewer, home, session, dock, monkeypatch):
    from qtpy.QtGui import QColor
    from qtpy.QtWidgets import QColorDialog

    table = dock.classes.table
    assert texts(table, NAME) == ["background", "nucleus"]
    dock.classes.add.click()
    wait_until(lambda: table.rowCount() == 3)
    assert texts(table, KEY) == ["1", "2", "3"]
    table.item(2, NAME).setText("  cell  wall ")
    wait_until(lambda: session.classes[2].name == "cell wall")
    table.item(2, NAME).setText("nucleus")  # taken
    settle()
    assert texts(table, NAME) == ["background", "nucleus", "cell wall"]
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#123456"))
    table.selectRow(2)
    table.cellDoubleClicked.emit(2, COLOR)
    wait_until(lambda: session.classes[2].color == "#123456")
    session.painted = {1: 12345}
    session.say(painted=12345)
    wait_until(lambda: texts(table, PAINTED)[0] == "12,345 px")


def test_removing_merging_and_undoing(viewer, home, session, dock):
    strokes = home.bridge.images["left"].strokes
    strokes.data[:10] = 2
    table = dock.classes.table
    table.selectRow(1)
    merge = dock.classes._targets.actions()[0]
    assert merge.text() == "background"
    merge.trigger()
    wait_until(lambda: table.rowCount() == 1)
    assert (strokes.data[:10] == 1).all()
    dock.classes.undo.click()
    wait_until(lambda: table.rowCount() == 2)
    assert (strokes.data[:10] == 2).all()
    table.selectRow(1)
    dock.classes.remove.click()
    wait_until(lambda: table.rowCount() == 1)
    assert not strokes.data.any()


def test_a_selected_class_is_painted_with_and_the_other_way_round(viewer, home, session, dock):
    dock.classes.table.selectRow(1)
    strokes = viewer.layers.selection.active
    assert (str(strokes.mode), strokes.selected_label) == ("paint", 2)
    press(viewer, Qt.Key.Key_1)
    assert dock.classes.table.currentRow() == 0


def test_class_tables(viewer, home, session, dock, tmp_path):
    path = tmp_path / "classes.csv"
    dock.classes.export_csv(str(path))
    wait_until(path.exists)
    path.write_text("value,name,color\n3,red,#ff0000\n")
    dock.classes.import_csv(str(path))
    wait_until(lambda: session.classes == (LabelClass(3, "red", "#ff0000"),))
    path.write_text("nonsense")
    dock.classes.import_csv(str(path))
    settle()
    assert len(session.classes) == 1


def test_the_status_in_words(viewer, home, session, dock):
    session.say(text="computing features: 3 of 9 tiles in view", busy=True, tiles_done=3, tiles_in_view=9, loss=0.5, painted=7)
    wait_until(lambda: dock.status.bar.value() == 3)
    assert dock.status.text.text() == "Computing features: 3 of 9 tiles in view"
    assert dock.status.bar.maximum() == 9
    assert dock.status.cancel.isEnabled()
    assert "loss 0.500" in dock.status.facts.text()
    assert not dock.status.error.isVisible()
    session.say(error="the disk is full", busy=False)
    wait_until(dock.status.error.isVisible)
    dock.status.error.retry.click()
    assert session.named("retry") == [()]
    dock.status.live.click()
    assert not session.live
    dock.status.once.click()
    assert session.named("update_once") == [()]
    session.status = READY
    session.say()
    wait_until(lambda: not dock.status.error.isVisible())


def test_features_are_chosen(viewer, home, session, dock):
    wait_until(lambda: dock.backbone.summary.text() != "", 20)
    assert "nuclei" in dock.backbone.summary.text()
    form = dock.backbone.features
    assert form.blocks.text() == "7"
    form.blocks.setText("")
    form.blocks.insert("5-7")
    form.blocks.setModified(True)
    form.blocks.editingFinished.emit()
    assert session.settings.blocks == (5, 6, 7)
    calls = len(session.named("choose"))
    form.blocks.setText("99")
    form.blocks.setModified(True)
    form.blocks.editingFinished.emit()
    assert len(session.named("choose")) == calls
    assert form.blocks.styleSheet()
    form.scales[1].click()
    assert session.settings.scales == (1, 2)
    form.smooth.setValue(0)
    assert session.settings.smooth == 0
    form.filters.click()
    assert session.settings.filters is False


def test_a_backbone_of_others_is_added_from_a_folder(viewer, home, session, dock, tmp_path, monkeypatch):
    from qtpy.QtTest import QTest

    from napari_mdm_studio import _add_backbone, _backbone_box

    wait_until(lambda: dock.backbone.summary.text() != "", 20)
    facts = (
        BackboneFacts("convnext", kind="hub", family="convnext", blocks=((8, 4), (16, 8)), default_blocks=(1,), t_max=0),
        BackboneFacts("spoilt", problem="its card is damaged"),
    )
    monkeypatch.setattr(_backbone_box, "list_backbones", lambda: facts)
    asked = []

    def add_backbone(addition, stop):
        asked.append(addition)
        if len(asked) == 1:
            raise BackboneError("there is no network")
        return addition.name

    monkeypatch.setattr(_add_backbone, "add_backbone", add_backbone)
    (tmp_path / "convnext").mkdir()
    (tmp_path / "convnext" / "config.json").touch()
    dock.backbone.from_folder.trigger()
    dialog = dock.backbone.dialog
    assert not dialog.add.isEnabled()
    QTest.keyClicks(dialog.source, str(tmp_path / "convnext"))
    assert "A model in a folder" in dialog.what.text()
    assert not dialog.network.isVisible()
    QTest.mouseClick(dialog.add, Qt.MouseButton.LeftButton)
    wait_until(lambda: "no network" in dialog.said.text())
    assert dialog.add.isEnabled()
    QTest.mouseClick(dialog.add, Qt.MouseButton.LeftButton)
    wait_until(lambda: session.settings.backbone == "convnext")
    wait_until(lambda: dock.backbone.backbone.count() == 2)
    assert dock.backbone.dialog is None
    assert asked[1] == Addition(str(tmp_path / "convnext"), "convnext")
    assert dock.backbone.backbone.currentText() == "convnext \N{EN DASH} Hugging Face convnext"
    assert not dock.backbone.backbone.model().item(1).isEnabled()
    form = dock.backbone.features
    assert not form.timesteps.isVisibleTo(form)
    assert form.blocks.toolTip().startswith("Feature maps, from 0 (finest).")
    dock.backbone.from_hub.trigger()
    dock.backbone.dialog.reject()
    assert dock.backbone.dialog is None


def test_the_network_is_fine_tuned_watched_and_compared(viewer, home, session, dock, monkeypatch):
    box = dock.finetune
    warned = []
    monkeypatch.setattr(home, "warn", warned.append)
    box.start.click()
    assert "nothing is painted" in warned[0]
    assert not box.shown.isVisibleTo(dock)
    session.painted = {1: 10, 2: 10}
    box.steps.setValue(20)
    box.start.click()
    assert session.named("finetune") == [(20,)]
    wait_until(lambda: box.text.text() == "Step 1 of 20.")
    assert not box.start.isEnabled()
    session.say_finetune(done=0.5, shown=True)
    wait_until(box.network.isChecked)
    assert box.bar.value() == 500
    box.ensemble.click()
    assert not session.finetuning.shown
    session.say_finetune(phase="ready", outdated=True)
    wait_until(lambda: "fine-tune again" in box.text.text())
    assert box.start.isEnabled()
    assert not box.stop.isVisibleTo(dock)
    box.start.click()
    wait_until(lambda: box.stop.isVisibleTo(dock))
    box.stop.click()
    wait_until(lambda: not box.shown.isVisibleTo(dock))


def test_outputs(viewer, home, session, dock):
    dock.outputs.uncertainty.click()
    assert "left uncertainty" in viewer.layers
    dock.outputs._probabilities.actions()[1].trigger()
    assert "right probability of nucleus" in viewer.layers
    dock.outputs.opacity.setValue(80)
    dock.outputs.contour.click()
    prediction = home.bridge.images["left"].pictures.prediction()
    assert (prediction.opacity, prediction.contour) == (0.8, 1)
    press(viewer, Qt.Key.Key_Tab)
    assert not dock.outputs.prediction.isChecked()
    session.remove_class(2)
    wait_until(lambda: "right probability of nucleus" not in viewer.layers)


def test_the_camera_goes_where_a_stroke_helps(viewer, home, session, dock):
    press(viewer, Qt.Key.Key_N)
    wait_until(lambda: dock.why.text() == "The members disagree most here.")
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (113.5, 213.5))
    assert viewer.layers.selection.active is home.bridge.images["left"].strokes


def test_classifiers_are_saved_and_loaded(viewer, home, session, dock, tmp_path):
    assert dock.save_classifier(str(tmp_path / "a"))
    assert (tmp_path / "a.mdm").exists()
    dock.load_classifier(str(tmp_path / "a.mdm"))
    assert session.named("load_classifier") == [(tmp_path / "a.mdm",)]


def test_everything_is_reached_by_keyboard_and_has_a_name(viewer, dock):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QComboBox, QLineEdit, QSpinBox, QTableWidget

    kinds = (QAbstractButton, QComboBox, QLineEdit, QSpinBox, QTableWidget, QAbstractSlider)
    for kind in kinds:
        for widget in dock.findChildren(kind):
            if widget.isVisible() and widget.parent().metaObject().className() not in ("QScrollArea", "QTableWidget"):
                assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus or kind is QAbstractSlider, widget
    named = [widget for widget in dock.findChildren(QAbstractButton) if widget.isVisible() and not widget.accessibleName()]
    assert not [widget for widget in named if not widget.text()]


def test_no_mnemonic_stands_for_two_things(viewer, dock):
    from qtpy.QtWidgets import QAbstractButton, QLabel

    dock.backbone.fold.expand(animate=False)
    dock.status.error.show_error("something")
    texts = [widget.text() for kind in (QAbstractButton, QLabel) for widget in dock.findChildren(kind)]
    letters = [text[text.index("&") + 1].upper() for text in texts if "&" in text]
    letters += list("FVLPWH")  # napari's menus
    assert len(letters) > 15
    assert sorted(set(letters)) == sorted(letters)


@pytest.mark.parametrize(("answer", "closes"), [("cancel", False), ("discard", True), ("save", True)])
def test_closing_asks_about_unsaved_work(viewer, home, session, dock, monkeypatch, answer, closes):
    from napari_mdm_studio import _session_home

    asked = []

    def ask(parent, words):
        asked.append(words)
        return answer

    monkeypatch.setattr(_session_home, "ask_about_unsaved", ask)
    home.save = lambda: True
    session.unsaved_words = "Strokes of 2 images are not saved."
    window = _session_home.main_window(viewer)
    window.close()
    settle()
    assert asked == [session.unsaved_words]
    assert session.closed is closes
    session.unsaved_words = None
    if closes:
        del viewer.window._qt_window  # napari's own word for a window that is closed
    else:
        assert window.isVisible()


def test_a_closed_dock_leaves_the_session_alone(viewer, home, session, dock):
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    settle()
    gc.collect()
    session.say(text="still there", busy=True)
    session.add_class()
    viewer.add_image(np.zeros((20, 30), np.uint8), translate=(500, 0))
    settle()
    assert not session.closed


def test_a_dock_that_was_closed_is_freed_and_a_new_one_works(viewer, home, session):
    from napari_mdm_studio._segment import Segment

    viewer.add_image(np.zeros((200, 300), np.uint8), name="left")
    kept, gone = len(home._kept), []
    for number in range(3):
        made = Segment(viewer)
        gone.append(weakref.ref(made))
        viewer.window.add_dock_widget(made, name="Segment")
        settle(0.05)  # closed before the list of backbones came, and after it
        if number == 1:
            wait_until(lambda made=made: made.backbone.summary.text() != "", 20)
        assert home.docks == {"Segment": made}
        viewer.window.remove_dock_widget(made)
        assert home.docks == {}
        assert home.save is None
        assert len(home._kept) == kept
        del made
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    wait_until(lambda: not home.runner._pool._work_queue.qsize(), 20)
    settle()
    gc.collect()
    assert [each() for each in gone] == [None] * 3
    dock = Segment(viewer)
    viewer.window.add_dock_widget(dock, name="Segment")
    session.say(text="still there", busy=True)
    wait_until(lambda: dock.status.text.text() == "Still there")
    assert texts(dock.images.table, 0) == ["left"]


def test_preferences_have_defaults(viewer):
    from napari_mdm_studio._preferences import Preferences, preferences

    assert preferences() == Preferences()
    assert dataclasses.asdict(preferences())["backbone"] == "mdm-nuclei"


def test_two_hundred_updates_leave_nothing_behind(viewer, home, session, dock):
    bound = home.bridge.images["left"]

    def update(number):
        session.picture("left", "prediction")[0][number % 100] = 1 + number % 2
        session.picture_changed.emit("left", "prediction")
        session.say(text=f"drawing: {number}", busy=bool(number % 2), tiles_done=number % 9, tiles_in_view=9)
        home.runner.start(np.ones, 1 << 20, done=lambda _: None, failed=home.warn)
        bound.pictures.refresh("prediction")
        settle(0.004)

    wait_until(lambda: dock.backbone.summary.text() != "", 20)  # PyTorch is loaded
    for number in range(20):
        update(number)
    settle()
    gc.collect()
    objects, memory = len(gc.get_objects()), psutil.Process().memory_info().rss
    for number in range(200):
        update(number)
    settle()
    gc.collect()
    assert len(gc.get_objects()) < objects + 400  # two for each update would be a leak
    assert psutil.Process().memory_info().rss < memory + (200 << 20)  # each answer of the runner has 8 MB
