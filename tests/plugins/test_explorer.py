"""The Feature explorer in a real window, with a real session on a tiny backbone."""

import gc
import weakref

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication, QEvent, QPoint, Qt
from qtpy.QtTest import QTest

from mdm_studio.services.session import LiveSettings, Session
from mdm_studio.testing import blobs
from tests.plugins.gui import settle, wait_until

pytestmark = pytest.mark.gui
CHECKED, UNCHECKED = Qt.CheckState.Checked, Qt.CheckState.Unchecked


@pytest.fixture
def session(tiny_backbone):
    settings = LiveSettings(backbone=str(tiny_backbone), blocks=(3,), device="cpu", smooth=0, filters=False)
    return Session(settings=settings, live=False)


@pytest.fixture
def dock(viewer, home):
    """The dock beside an image of six tiles, shown with a transform of its own."""
    from napari_mdm_studio._explorer import FeatureExplorer

    image, _ = blobs(120, 180, seed=3)
    layer = viewer.add_image(image, name="field", rgb=True, scale=(2, 3), translate=(10, 20), rotate=15)
    assert home.choose_image(layer)
    viewer.reset_view()
    made = FeatureExplorer(viewer)
    viewer.window.add_dock_widget(made, name="Feature explorer")
    wait_until(lambda: len(made._cells) == 6 and not made._jobs, 20)
    return made


def quiet(dock):
    """Until nothing is computed and everything is shown."""
    wait_until(lambda: not dock.home.session._jobs and not dock._jobs, 60)
    settle(0.25)


def click_cell(dock, block, timestep):
    matrix = dock.matrix
    index = matrix.model().index(matrix.blocks.index(block) + 1, matrix.timesteps.index(timestep) + 1)
    QTest.mouseClick(matrix.viewport(), Qt.MouseButton.LeftButton, pos=matrix.visualRect(index).center())


def ticks(matrix):
    blocks = [block for row, block in enumerate(matrix.blocks, start=1) if matrix.item(row, 0).checkState() == CHECKED]
    times = [t for column, t in enumerate(matrix.timesteps, start=1) if matrix.item(0, column).checkState() == CHECKED]
    return blocks, times


def paint(home, value, *places):
    strokes = home.bridge.images["field"].strokes
    for row, col in places:
        strokes.data[row : row + 4, col : col + 4] = value
        home.session.labels_changed("field", (), slice(row, row + 4), slice(col, col + 4))


def test_a_first_look_needs_no_click(dock):
    matrix = dock.matrix
    assert (matrix.blocks, matrix.timesteps) == ([2, 3], [50, 150, 250])
    assert all(matrix.has_picture(block, t) for block in matrix.blocks for t in matrix.timesteps)
    assert ticks(matrix) == ([3], [50])
    assert "32 channels at stride 2" in matrix.item(len(matrix.blocks), 0).toolTip()
    assert "64 x 64 px of field" in dock.text.text()
    assert "block 3 at t 50" in dock.read.text()
    assert not dock.cancel.isEnabled()
    words = matrix.item(len(matrix.blocks), 1).data(Qt.ItemDataRole.AccessibleTextRole)
    assert "Block 3, t 50" in words
    assert "read by the classifier" in words


def test_a_network_without_timesteps_is_not_asked_for_any(viewer, dock, tokens_backbone):
    assert dock.choice.timesteps.isVisibleTo(dock)
    dock.home.session.choose(backbone=str(tokens_backbone))
    wait_until(lambda: dock.matrix.timesteps == [0] and not dock._jobs and len(dock._cells) == 7, 60)
    quiet(dock)
    matrix = dock.matrix
    assert matrix.blocks == [6, 7, 8, 9, 10, 11, 12]
    assert not dock.choice.timesteps.isVisibleTo(dock)
    assert matrix.item(0, 1).text() == ""
    assert ticks(matrix)[0] == [8, 12]
    assert dock.read.text() == "The classifier reads every ticked block (framed): block 8, 12."
    assert matrix.item(1, 1).toolTip().startswith("Block 6\n")
    click_cell(dock, 12, 0)
    wait_until(lambda: "clusters block 12" in viewer.layers)
    quiet(dock)
    assert dock.clusters.caption.text().startswith("Block 12. ")


def test_a_click_shows_the_cell_over_the_image_in_one_layer(viewer, dock):
    image = viewer.layers["field"]
    active = viewer.layers.selection.active
    click_cell(dock, 3, 50)
    quiet(dock)
    layer = viewer.layers["clusters block 3, t 50"]
    assert viewer.layers.selection.active is active
    assert viewer.layers.index(layer) < viewer.layers.index(viewer.layers["field strokes"])
    assert layer.data.shape == (120, 180)
    assert set(np.unique(layer.data)) <= set(range(1, 6))
    for point in ((0, 0), (50, 70), (119, 179)):
        np.testing.assert_allclose(layer.data_to_world(point), image.data_to_world(point))
    thumbnail = dock._cells[3, 50]
    window = thumbnail.window
    np.testing.assert_array_equal(layer.data[window.rows, window.cols][::2, ::2], thumbnail.picture)
    layer.opacity = 0.4
    dock.matrix.setFocus()
    QTest.keyClick(dock.matrix, Qt.Key.Key_Right)
    QTest.keyClick(dock.matrix, Qt.Key.Key_Return)
    quiet(dock)
    assert (layer.name, layer.opacity) == ("clusters block 3, t 150", 0.4)
    assert sum(each.name.startswith("clusters") for each in viewer.layers) == 1


def test_part_of_a_view_lies_where_it_belongs(viewer, dock):
    image = viewer.layers["field"]
    viewer.scene.camera.center = tuple(image.data_to_world((100, 160)))
    viewer.scene.camera.zoom = 30
    settle(0.2)
    dock.refresh_button.click()
    quiet(dock)
    click_cell(dock, 3, 50)
    quiet(dock)
    layer = viewer.layers["clusters block 3, t 50"]
    assert layer.data.shape == (56, 52)
    np.testing.assert_allclose(layer.data_to_world((0, 0)), image.data_to_world((64, 128)))
    np.testing.assert_allclose(layer.data_to_world((55, 51)), image.data_to_world((119, 179)))


def test_components_are_an_image_and_have_no_clusters(viewer, dock):
    click_cell(dock, 3, 50)
    quiet(dock)
    dock.choice.components.click()
    quiet(dock)
    click_cell(dock, 3, 50)
    quiet(dock)
    layer = viewer.layers["components block 3, t 50"]
    assert layer.data.shape == (120, 180, 4)
    assert (layer.data[..., 3] == 255).all()
    assert not dock.choice.k.isEnabled()
    assert not dock.clusters.make.isEnabled()
    assert "no clusters" in dock.clusters.caption.text()
    assert not [each for each in viewer.layers if each.name.startswith("clusters")]


def test_ticks_choose_what_the_classifier_reads(home, dock):
    matrix = dock.matrix
    matrix.item(matrix.blocks.index(2) + 1, 0).setCheckState(CHECKED)
    matrix.item(0, matrix.timesteps.index(150) + 1).setCheckState(CHECKED)
    wait_until(lambda: (home.session.settings.blocks, home.session.settings.timesteps) == ((2, 3), (50, 150)))
    settle()
    assert ticks(matrix) == ([2, 3], [50, 150])
    assert "block 2-3 at t 50, 150" in dock.read.text()
    matrix.item(matrix.blocks.index(3) + 1, 0).setCheckState(UNCHECKED)
    matrix.item(matrix.blocks.index(2) + 1, 0).setCheckState(UNCHECKED)
    settle(0.2)
    assert home.session.settings.blocks == (2,)  # one at least
    assert ticks(matrix)[0] == [2]


def test_a_tick_can_be_set_with_the_keyboard(home, dock):
    matrix = dock.matrix
    matrix.setFocus()
    matrix.setCurrentCell(matrix.blocks.index(2) + 1, 0)
    QTest.keyClick(matrix, Qt.Key.Key_Space)
    wait_until(lambda: home.session.settings.blocks == (2, 3))


def test_other_blocks_timesteps_and_numbers_of_clusters(dock):
    for field, text in ((dock.choice.blocks, "0, 3"), (dock.choice.timesteps, "400")):
        field.selectAll()
        QTest.keyClicks(field, text)
    QTest.keyClick(dock.choice.timesteps, Qt.Key.Key_Return)
    quiet(dock)
    assert (dock.matrix.blocks, dock.matrix.timesteps) == ([0, 3], [400])
    assert dock.matrix.has_picture(0, 400)
    dock.choice.k.setFocus()
    QTest.keyClick(dock.choice.k, Qt.Key.Key_Left)
    wait_until(lambda: dock._cells[0, 400].k == 4, 30)
    dock.choice.blocks.selectAll()
    QTest.keyClicks(dock.choice.blocks, "0-9")
    assert "border" in dock.choice.blocks.styleSheet()
    dock.refresh_button.click()
    assert "marked field" in dock.text.text()


def test_a_cluster_becomes_a_class_and_back(viewer, home, dock):
    click_cell(dock, 3, 50)
    quiet(dock)
    box, strokes = dock.clusters, viewer.layers["field strokes"]
    cell = dock._cells[3, 50]
    place = box.picture._place()
    row, col = np.argwhere(cell.picture == 2)[0]
    height, width = cell.picture.shape
    point = QPoint(
        place.left() + int((col + 0.5) * place.width() / width), place.top() + int((row + 0.5) * place.height() / height)
    )
    QTest.mouseClick(box.picture, Qt.MouseButton.LeftButton, pos=point)
    assert box.chosen() == 2
    assert box.into.currentText() == "new class"
    before = [each.name for each in home.session.classes]
    box.make.click()
    wait_until(lambda: strokes.data.any())
    quiet(dock)
    inside = strokes.data[cell.window.rows, cell.window.cols]
    np.testing.assert_array_equal(inside[::2, ::2] > 0, cell.picture == 2)
    assert strokes.data.astype(bool).sum() == inside.astype(bool).sum()
    assert "Cluster 2" in box.said.text()
    assert len(home.session.classes) == len(before) + 1
    box.undo.click()
    wait_until(lambda: not strokes.data.any())
    assert [each.name for each in home.session.classes] == before


def test_advice_is_shown_and_applied_with_one_click(home, dock):
    _, mask = blobs(120, 180, seed=3)
    rng = np.random.default_rng(1)
    for value in (1, 2):
        inside = np.argwhere(mask[:-4, :-4] == value)
        paint(home, value, *inside[rng.integers(len(inside), size=6)])
    wait_until(lambda: len(home.session.painted) == 2)
    dock.advisor.score.click()
    wait_until(lambda: dock.advisor._advice is not None, 60)
    quiet(dock)
    advice, matrix = dock.advisor._advice, dock.advisor.matrix
    assert matrix.isVisibleTo(dock)
    assert "\N{PLUS-MINUS SIGN}" in matrix.item(1, 1).toolTip()
    assert dock.advisor.words.text().startswith("Read ")
    assert dock.advisor.reason.text()
    assert not dock.advisor.bar.isVisibleTo(dock)
    dock.advisor.apply.click()
    wait_until(lambda: home.session.settings.filters == advice.with_filters)
    settle(0.2)
    assert dock.advisor.apply.text() == "Applied"
    if advice.blocks:
        assert ticks(dock.matrix) == (list(advice.blocks), list(advice.timesteps))


def test_too_few_strokes_are_told_in_the_dock(home, dock):
    for places, words in (((), "Nothing is painted"), ([(5, 5), (50, 50)], "one class")):
        paint(home, 1, *places)
        wait_until(lambda places=places: bool(home.session.painted) == bool(places))
        dock.advisor.score.click()
        wait_until(lambda words=words: words in dock.advisor.text.text(), 30)
        quiet(dock)
        assert words in dock.advisor.text.text()
        assert not dock.advisor.bar.isVisibleTo(dock)
        assert not dock.advisor.matrix.isVisibleTo(dock)
    assert home.session.status.error is None


def test_cancel_stops_everything(dock):
    dock.choice.k.setValue(9)
    dock.refresh_button.click()
    dock.advisor.score.click()
    wait_until(lambda: dock.cancel.isEnabled())
    dock.cancel.click()
    quiet(dock)
    assert not dock.cancel.isEnabled()
    assert not dock.bar.isEnabled()
    assert dock.advisor.text.text() in ("Stopped.", "Nothing is painted yet; paint two strokes at least of each of two classes "
                                        "for the advisor")  # fmt: skip


def test_every_control_has_a_name_and_a_tooltip(dock):
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QSlider, QTableWidget

    for kind in (QAbstractButton, QComboBox, QLineEdit, QSlider):
        for widget in dock.findChildren(kind):
            if widget.isVisibleTo(dock) and not widget.objectName().startswith("qt_"):
                text = widget.text() if isinstance(widget, QAbstractButton) else ""
                assert widget.accessibleName() or text, widget
                assert widget.toolTip() or not widget.isEnabled(), (widget, text)
    assert all(table.accessibleName() for table in dock.findChildren(QTableWidget))


def test_closing_the_dock_ends_its_jobs_and_leaves_nothing_behind(viewer, home):
    from napari_mdm_studio._explorer import FeatureExplorer

    assert home.choose_image(viewer.add_image(blobs(120, 180, seed=3)[0], name="field", rgb=True))
    kept, gone = len(home._kept), []
    for _ in range(2):
        made = FeatureExplorer(viewer)
        gone.append(weakref.ref(made))
        viewer.window.add_dock_widget(made, name="Feature explorer")
        wait_until(lambda made=made: made._jobs, 20)
        viewer.window.remove_dock_widget(made)
        assert not home.session._jobs
        assert len(home._kept) == kept
        del made
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_the_layer_that_the_user_deleted_comes_back(viewer, dock):
    for _ in range(2):
        click_cell(dock, 3, 50)
        quiet(dock)
        viewer.layers.remove("clusters block 3, t 50")
    click_cell(dock, 2, 50)
    quiet(dock)
    assert "clusters block 2, t 50" in viewer.layers


@pytest.mark.parametrize(
    ("fill", "ink"), [("#440154", "white"), ("#21918c", "black"), ("#fde725", "black"), ("#3b528b", "white")]
)
def test_scores_are_readable(fill, ink):
    from qtpy.QtGui import QColor

    from napari_mdm_studio._explorer_matrix import readable_on

    assert readable_on(QColor(fill)) == QColor(ink)
