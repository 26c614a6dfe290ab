"""Layers and session in step, in a real window: strokes, views, outputs, stacks, pyramids."""

import gc
import time
import weakref

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication, QEvent, Qt

from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.services.workspace import LoadedImage
from tests.plugins.gui import canvas, canvas_point, press, settle, stroke, wait_until

pytestmark = pytest.mark.gui


@pytest.fixture
def two_images(viewer, home):
    """Two images side by side, both chosen."""
    rng = np.random.default_rng(0)
    left = viewer.add_image(rng.integers(0, 255, (200, 300), np.uint8), name="left")
    right = viewer.add_image(rng.integers(0, 255, (200, 300, 3), np.uint8), name="right", translate=(0, 320), rgb=True)
    for layer in (left, right):
        assert home.choose_image(layer)
    viewer.reset_view()
    viewer.layers.selection.active = left
    settle()
    return home.bridge.images["left"], home.bridge.images["right"]


def test_a_stroke_of_the_mouse_is_told_and_undone(viewer, home, session, two_images):
    left, _ = two_images
    press(viewer, Qt.Key.Key_2)
    assert viewer.layers.selection.active is left.strokes
    assert str(left.strokes.mode) == "paint"
    assert left.strokes.selected_label == 2
    stroke(viewer, left.strokes, [(50, 40), (60, 80), (70, 120)])
    rows, cols = np.nonzero(left.strokes.data == 2)
    assert len(rows) > 100
    ((key, plane, told_rows, told_cols),) = session.named("labels_changed")
    assert (key, plane) == ("left", ())
    assert (told_rows.start, told_rows.stop) == (rows.min(), rows.max() + 1)
    assert (told_cols.start, told_cols.stop) == (cols.min(), cols.max() + 1)
    press(viewer, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not left.strokes.data.any()
    press(viewer, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert (left.strokes.data == 2).sum() == len(rows)
    assert session.named("labels_changed") == [(key, plane, told_rows, told_cols)] * 3


def test_filling_and_erasing_are_told(viewer, home, session, two_images):
    left, _ = two_images
    left.strokes.data[20:40, 20:60] = 1
    left.strokes.refresh()
    viewer.layers.selection.active = left.strokes
    left.strokes.mode, left.strokes.selected_label = "fill", 2
    stroke(viewer, left.strokes, [(30, 30)])
    assert (left.strokes.data[20:40, 20:60] == 2).all()
    assert session.named("labels_changed") == [("left", (), slice(20, 40), slice(20, 60))]
    press(viewer, Qt.Key.Key_E)
    assert str(left.strokes.mode) == "erase"
    stroke(viewer, left.strokes, [(30, 30), (30, 40)])
    assert (left.strokes.data == 0).sum() > left.strokes.data.size - 800
    assert len(session.named("labels_changed")) == 2


def test_the_brush_paints_in_the_image_it_is_over(viewer, home, session, two_images):
    from qtpy.QtTest import QTest

    left, right = two_images
    press(viewer, Qt.Key.Key_1)
    left.strokes.brush_size = 14
    QTest.mouseMove(canvas(viewer), canvas_point(viewer, left.strokes, 100, 100))
    settle(0.03)
    assert viewer.layers.selection.active is left.strokes
    QTest.mouseMove(canvas(viewer), canvas_point(viewer, right.strokes, 100, 100))
    settle(0.03)
    assert viewer.layers.selection.active is right.strokes
    assert (str(right.strokes.mode), right.strokes.brush_size, right.strokes.selected_label) == ("paint", 14, 1)
    stroke(viewer, right.strokes, [(100, 100), (110, 120)])
    assert session.named("labels_changed")[-1][0] == "right"
    assert not left.strokes.data.any()
    press(viewer, Qt.Key.Key_2)  # stays with the image
    assert viewer.layers.selection.active is right.strokes
    assert right.strokes.selected_label == 2


def test_a_drag_does_not_jump_to_another_image(viewer, home, session, two_images):
    left, right = two_images
    press(viewer, Qt.Key.Key_1)
    stroke(viewer, left.strokes, [(100, 280), (100, 330), (100, 380)])
    assert viewer.layers.selection.active is left.strokes
    assert not right.strokes.data.any()


def test_the_view_is_told_once_the_camera_moved(viewer, home, session, two_images):
    session.calls.clear()
    viewer.scene.camera.center = (100, 150)
    for zoom in (3.0, 3.5, 4.0):
        viewer.scene.camera.zoom = zoom
    wait_until(lambda: session.named("view_moved"))
    (views,) = session.named("view_moved")[-1]
    assert len(session.named("view_moved")) <= 2
    assert set(views) == {("left", ())}
    height, width = viewer.canvas.size
    view = views["left", ()]
    assert view.pixel == pytest.approx(0.25, rel=0.01)
    assert view.cols.stop - view.cols.start == pytest.approx(min(width / 4, 300), abs=2)
    assert (
        view.rows == slice(max(0, round(100 - height / 8)), min(200, round(100 + height / 8) + 1))
        or abs(view.rows.stop - view.rows.start - height / 4) < 3
    )
    session.calls.clear()
    settle(0.2)
    assert not session.named("view_moved")  # nothing moves, nothing is told


def test_pictures_show_what_the_session_writes(viewer, home, session, two_images):
    left, _ = two_images
    prediction = left.pictures.prediction()
    assert prediction.name == "left prediction"
    assert viewer.layers.index(prediction) < viewer.layers.index(left.strokes)
    assert not prediction.editable
    shown = []
    prediction.events.set_data.connect(lambda event: shown.append(time.monotonic()))
    session.picture("left", "prediction")[0][:] = 2
    start = time.monotonic()
    for _ in range(60):
        session.picture_changed.emit("left", "prediction")
        settle(0.005)
    settle(0.15)
    assert 2 <= len(shown) <= 13 * (time.monotonic() - start)
    assert prediction.get_value((50, 50)) == 2
    wanted = [int(session.colors[2][place : place + 2], 16) / 255 for place in (1, 3, 5)]
    np.testing.assert_allclose(prediction.get_color(2)[:3], wanted, atol=0.01)
    press(viewer, Qt.Key.Key_Tab)
    assert not prediction.visible
    shown.clear()
    session.picture_changed.emit("left", "prediction")
    settle()
    assert not shown  # nobody sees it
    press(viewer, Qt.Key.Key_Tab)
    assert prediction.visible


def test_a_deleted_prediction_comes_back_on_demand(viewer, home, session, two_images):
    left, _ = two_images
    viewer.layers.remove(left.pictures.prediction())
    assert left.pictures.prediction() is None
    press(viewer, Qt.Key.Key_Tab)
    press(viewer, Qt.Key.Key_Tab)
    assert left.pictures.prediction() in viewer.layers


def test_outputs_on_demand(viewer, home, session, two_images):
    home.bridge.set_output("uncertainty", on=True)
    home.bridge.set_output("probability:2", on=True)
    names = {layer.name for layer in viewer.layers}
    assert {"left uncertainty", "right uncertainty", "left probability of nucleus"} <= names
    home.bridge.set_output("uncertainty", on=False)
    assert "left uncertainty" not in {layer.name for layer in viewer.layers}
    assert ("left", "uncertainty") in session.named("forget_picture")


def test_removed_layers_close_the_image_and_renamed_ones_keep_working(viewer, home, session, two_images):
    left, right = two_images
    left.layer.name, left.strokes.name = "another name", "my labels"
    press(viewer, Qt.Key.Key_1)
    stroke(viewer, left.strokes, [(50, 40), (60, 80)])
    assert session.named("labels_changed")[-1][0] == "left"
    viewer.layers.remove(right.layer)
    settle()
    assert session.named("close_image") == [("right",)]
    assert list(home.bridge.images) == ["left"]
    assert "right prediction" not in viewer.layers
    assert "right strokes" in viewer.layers  # the user's work stays


def test_strokes_of_a_sample_are_taken_over(viewer, home, session):
    image = viewer.add_image(np.zeros((50, 60), np.uint8), name="a")
    given = viewer.add_labels(np.ones((50, 60), np.uint8), name="a strokes")
    assert home.choose_image(image)
    assert home.bridge.images["a"].strokes is given
    assert session.images["a"][1] is given.data


@pytest.mark.parametrize(("value", "taken"), [(5, True), (-1, False), (300, False)])
def test_signed_strokes_are_taken_over_if_they_are_classes(viewer, home, session, value, taken):
    image = viewer.add_image(np.zeros((50, 60), np.uint8), name="a")
    given = viewer.add_labels(np.full((50, 60), value, np.int32), name="a strokes")
    assert home.choose_image(image)
    assert (home.bridge.images["a"].strokes is given) is taken
    assert session.images["a"][1].dtype == np.uint8
    assert (session.images["a"][1] == (value if taken else 0)).all()


def test_other_data_in_the_strokes_goes_into_the_array_of_the_session(viewer, home, session, two_images):
    left, _ = two_images
    left.strokes.data = np.full((200, 300), 2, np.int32)
    assert session.images["left"][1] is left.strokes.data
    assert (left.strokes.data == 2).all()
    assert session.named("labels_changed") == [("left", (), slice(0, 200), slice(0, 300))]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_values_that_are_no_classes_are_refused_and_the_strokes_stay(viewer, home, session, two_images, dtype):
    left, _ = two_images
    told = []
    home.bridge.told.connect(told.append)
    left.strokes.data_setitem((np.array([3, 7]), np.array([4, 4])), 2)
    pasted = np.zeros((200, 300), dtype)
    pasted[5:9], pasted[20:30] = (-1 if np.iinfo(dtype).min else 40_000), 300
    pasted[50:60] = 1
    left.strokes.data = pasted
    assert left.strokes.data is session.images["left"][1]
    assert (left.strokes.data[7, 4], left.strokes.data[3, 4]) == (2, 0)
    assert set(np.unique(left.strokes.data)) == {0, 1, 2}
    assert "4,200 pixels" in told[-1]
    for shape in ((20, 30), (3, 200, 300)):
        left.strokes.data = np.zeros(shape, np.uint8)
        assert left.strokes.data is session.images["left"][1]
        assert str(shape) in told[-1]
        assert tuple(left.strokes.scale) == (1, 1)
    with pytest.raises(ValueError, match="0 to 255"):
        left.strokes.data_setitem((np.array([1]), np.array([1])), np.array([300]))
    settle()  # it is drawn
    assert list(home.bridge.images) == ["left", "right"]
    assert set(np.unique(left.strokes.data)) == {0, 1, 2}


@pytest.mark.parametrize("kind", ["stack", "channels"])
def test_stacks_and_channels(viewer, home, session, kind):
    data = np.random.default_rng(0).integers(0, 255, (4, 120, 160), np.uint8)
    placing = {"scale": (3, 2, 2), "translate": (0, 10, 20), "units": ("micrometer",) * 3, "axis_labels": ("z", "y", "x")}
    image = viewer.add_image(data, name="s", **placing)
    assert home.choose_image(image, 0 if kind == "channels" else None)
    bound = home.bridge.images["s"]
    for layer in bound.layers[1:]:
        assert layer.data.shape == ((120, 160) if kind == "channels" else (4, 120, 160))
        assert tuple(layer.scale[-2:]) == (2, 2)
        assert tuple(layer.translate[-2:]) == (10, 20)
        assert layer.axis_labels[-2:] == ("y", "x")
        assert str(layer.units[-1]) == "micrometer"
    viewer.reset_view()
    viewer.dims.set_current_step(0, 2)
    settle()
    place = () if kind == "channels" else (2,)
    assert home.bridge.plane("s") == place
    (views,) = session.named("view_moved")[-1]
    assert set(views) == {("s", place)}
    assert (views["s", place].rows, views["s", place].cols) == (slice(0, 120), slice(0, 160))
    press(viewer, Qt.Key.Key_1)
    stroke(viewer, bound.strokes, [(50, 40), (60, 80)])
    assert session.named("labels_changed")[-1][:2] == ("s", place)
    viewer.dims.ndisplay = 3
    settle()
    assert session.named("view_moved")[-1] == ({},)


def test_a_dask_pyramid(viewer, home, session):
    import dask.array

    dask.config.set(scheduler="synchronous")  # its threads would live on
    full = dask.array.random.default_rng(0).integers(0, 255, (4096, 4096), dtype="uint8", chunks=512)
    levels = [full, full[::2, ::2], full[::4, ::4]]
    image = viewer.add_image(levels, multiscale=True, name="slide", contrast_limits=(0, 255))
    assert home.choose_image(image)
    bound = home.bridge.images["slide"]
    assert bound.strokes.data.shape == (4096, 4096)
    assert bound.strokes.editable
    prediction = bound.pictures.prediction()
    assert prediction.multiscale
    assert [level.shape for level in prediction.data][:2] == [(4096, 4096), (2048, 2048)]
    viewer.reset_view()
    settle()
    press(viewer, Qt.Key.Key_1)
    stroke(viewer, bound.strokes, [(1000, 1000), (1200, 1400)])
    assert (bound.strokes.data == 1).sum() > 1000
    for level in session.picture("slide", "prediction"):
        level[:] = 2
    times = []
    for _ in range(9):
        start = time.thread_time()  # other programs do not count
        bound.pictures.refresh("prediction")
        times.append(time.thread_time() - start)
    assert sorted(times)[4] < 0.05


def test_an_image_that_moves_takes_its_layers_along(viewer, home, two_images):
    left, _ = two_images
    left.layer.scale, left.layer.translate = (2, 3), (7, 8)
    for layer in left.layers[1:]:
        assert tuple(layer.scale) == (2, 3)
        assert tuple(layer.translate) == (7, 8)


def test_class_changes_reach_the_layers(viewer, home, session, two_images):
    left, _ = two_images
    left.strokes.data[5:10, 5:10] = 2
    refreshed = []
    left.strokes.events.set_data.connect(lambda event: refreshed.append(1))
    session.merge_classes(2, 1)
    wait_until(lambda: refreshed)
    settle()
    assert (left.strokes.data[5:10, 5:10] == 1).all()
    assert tuple(left.strokes.get_color(2)[:3]) == pytest.approx((0.604, 0.604, 0.604), abs=0.01)  # grey: no class


def test_keys_work_while_the_image_layer_is_active(viewer, home, session, two_images):
    _, right = two_images
    viewer.layers.selection.active = right.layer
    press(viewer, Qt.Key.Key_2)
    assert viewer.layers.selection.active is right.strokes
    press(viewer, Qt.Key.Key_L)
    assert not session.live
    press(viewer, Qt.Key.Key_9)
    assert right.strokes.selected_label == 2


def test_closing_lets_go_of_everything(session):
    import napari

    from napari_mdm_studio._session_home import home_of

    viewer = napari.Viewer(show=True)
    home = home_of(viewer, session=lambda preferences: session)
    image = viewer.add_image(np.zeros((64, 64), np.uint8), name="a")
    home.choose_image(image)
    settle()
    bound = home.bridge.images["a"]
    held = [weakref.ref(each) for each in (viewer, home, home.bridge, image, bound.strokes, bound.pictures.prediction())]
    viewer.close()
    assert session.closed
    session.calls.clear()
    session.images.clear()
    session.pictures.clear()
    del image, home, viewer, bound
    settle()
    gc.collect()
    assert [each() for each in held] == [None] * len(held)


def connections(*groups):
    """How many callbacks listen to the events of these, all together."""
    return sum(len(emitter.callbacks) for group in groups for emitter in group.emitters.values())


def loaded(session, key, pixels, rgb=False):
    """An image of a project, open in the session."""
    shape = pixels.shape[:2]
    labels = np.zeros(shape, np.uint8)
    session.images[key] = (ArrayImage(pixels, rgb=rgb), labels)
    return LoadedImage(key, f"name of {key}", [pixels], rgb, None, (0.5, 0.5), "micrometer", labels)


def test_images_of_a_project_follow_one_another_and_leave_nothing(viewer, home, session):
    parked = []
    home.bridge.parked.connect(parked.append)
    home.bridge.set_output("uncertainty", on=True)
    assert not viewer.layers

    def show(number):
        image = loaded(session, f"id{number}", np.full((40 + number, 50), number, np.uint8))
        bound = home.bridge.show(image)
        assert list(home.bridge.images) == [f"id{number}"]
        assert bound.array is image.labels
        bound.strokes.data_setitem((np.array([number, 3]), np.array([4, 5])), 2)
        assert (image.labels == 2).sum() == 2  # the session's own array is painted into
        return bound

    bound = show(0)
    bound.strokes.mode, bound.strokes.selected_label = "paint", 2
    settle()
    groups = (viewer.layers.events, viewer.dims.events, viewer.scene.camera.events, viewer.events)
    groups += tuple(layer.events for layer in viewer.layers)
    before = list(viewer.layers), connections(*groups), len(home._kept)
    for number in range(1, 30):
        bound = show(number)
    settle()
    assert (list(viewer.layers), connections(*groups), len(home._kept)) == before
    assert parked == [f"id{number}" for number in range(29)]
    assert not session.named("open_image")
    assert not session.named("close_image")  # the project decides
    assert session.named("labels_changed")[-1] == ("id29", (), slice(3, 30), slice(4, 6))
    assert len(session.named("labels_changed")) == 30  # each told, though another came at once
    assert {output for _, output in session.named("forget_picture")} == {"uncertainty"}
    assert [layer.name.partition("id29 ")[2] for layer in bound.layers[1:]] == ["strokes", "prediction", "uncertainty"]
    assert {layer.data.shape for layer in bound.layers} == {(69, 50)}
    assert (str(bound.strokes.mode), bound.strokes.selected_label, bound.strokes.scale[0]) == ("paint", 2, 0.5)
    assert bound.pictures.prediction().data is session.picture("id29", "prediction")[0]
    assert not bound.pictures.prediction().editable
    bound.strokes.undo()
    assert not session.images["id29"][1].any()
    bound.strokes.undo()  # what was painted in the image before is not undone in this one
    assert session.images["id28"][1].any()


def test_an_image_of_another_kind_gets_a_layer_of_its_own(viewer, home, session):
    first = home.bridge.show(loaded(session, "a", np.zeros((40, 50), np.uint8)))
    clusters = home.bridge.add_output("a", "clusters", np.zeros((40, 50), np.uint8), "labels")
    gone, stay = [weakref.ref(first.layer), weakref.ref(clusters)], [first.pictures.prediction(), first.strokes]
    del first, clusters
    bound = home.bridge.show(loaded(session, "b", np.zeros((40, 50, 3), np.uint8), rgb=True))
    assert list(viewer.layers) == [bound.layer, *stay]
    assert bound.layer.rgb
    assert viewer.layers.selection.active is bound.strokes
    settle()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # napari's controls of the layers that went
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_an_image_of_a_project_that_the_user_removes_is_parked(viewer, home, session):
    array = np.ones((40, 50), np.uint8)
    session.images["id"] = (ArrayImage(np.zeros((40, 50), np.uint8)), array)
    viewer.add_labels(np.zeros((40, 50), np.uint8), name="a strokes")  # the user's own
    bound = home.bridge.add(viewer.add_image(np.zeros((40, 50), np.uint8), name="a"), key="id", strokes=array)
    bound.strokes.data = np.full((40, 50), 2, np.int32)
    assert (array == 2).all()
    viewer.layers.remove(bound.strokes)
    settle()
    assert bound.strokes in viewer.layers  # they are the labels
    viewer.layers.remove(bound.layer)
    settle()
    assert [layer.name for layer in viewer.layers] == ["a strokes"]
    assert not home.bridge.images
    assert not session.named("close_image")
