"""Every key from every focus, with real events: no stroke and no class is lost, and text fields type."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QColorDialog, QFileDialog

from tests.plugins.gui import FakeWorkspace, canvas, settle, stroke, wait_until

pytestmark = pytest.mark.gui
NONE, CONTROL, SHIFT, ALT = (getattr(Qt.KeyboardModifier, f"{name}Modifier") for name in ("No", "Control", "Shift", "Alt"))
MOVES = ("Up", "Down", "Left", "Right", "Home", "End", "PageUp", "PageDown")
DELETING = ("Delete", "Backspace")
SIGNS = ("BracketLeft", "BracketRight", "Minus", "Equal", "Insert", "Escape", "Space", "Tab", "Return", "Enter")
PLAIN = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", *(f"F{number}" for number in range(1, 13)), *DELETING, *MOVES, *SIGNS]
EVERY = [(key, NONE) for key in PLAIN] + [(key, SHIFT) for key in (*"ABDEFGHIJKLMNPRSTUVXYZ0123456789", *DELETING, *MOVES[:4])]
# not those that open dialogs or close the window
WITH_CONTROL = (*"ABDEGHIJKLRTUVXY0123456789", *DELETING, *MOVES[:4], "BracketLeft", "BracketRight", "Tab")
EVERY += [(key, CONTROL) for key in WITH_CONTROL]
EVERY += [(key, ALT) for key in (*DELETING, *MOVES[:4])]
FEW = [(key, modifier) for key, modifier in EVERY if key in (*"DELMNX012RP", *DELETING, "PageDown")]


class Desk:
    """A window with a labelled project of twelve images, and all docks where keys could do harm."""

    def __init__(self, viewer, home):
        from napari_mdm_studio._browser import ImageBrowser
        from napari_mdm_studio._project import ProjectView
        from napari_mdm_studio._segment import Segment

        self.viewer, self.home, self.session = viewer, home, home.session
        home.project = ProjectView(home, FakeWorkspace(home.session))
        self.browser, self.segment = ImageBrowser(viewer), Segment(viewer)
        viewer.window.add_dock_widget(self.browser, name="Images of the project", area="bottom")
        viewer.window.add_dock_widget(self.segment, name="Segment")
        self.window = viewer.window._qt_window
        self.window.activateWindow()
        wait_until(self.window.isActiveWindow)
        self.show()

    def show(self):
        """Show the first image."""
        self.home.project.show("id0")
        wait_until(lambda: self.home.project.shown == "id0" and not self.home.project.wanted and self.bound)
        self.viewer.reset_view()

    @property
    def bound(self):
        return next(iter(self.home.bridge.images.values()), None)

    def places(self):
        """What can have the focus, by name."""
        qt_viewer, page = self.window._qt_viewer, self.browser.page
        return {
            "canvas": canvas(self.viewer),
            "classes": self.segment.classes.table,
            "images": page.list,
            "layers": qt_viewer.layers,
            "button": self.segment.classes.csv,
            "choice": page.sort,
            "slider": page.slider,
            "controls": qt_viewer.controls.widgets[self.bound.strokes].findChild(QAbstractSpinBox) if self.bound else None,
        }

    def press(self, key, modifier=NONE):
        """As the window system does it: to the window, whoever has the focus in it."""
        QTest.keyClick(self.window.windowHandle(), getattr(Qt.Key, f"Key_{key}"), modifier)
        QApplication.processEvents()
        while QApplication.activePopupWidget() is not None:
            QApplication.activePopupWidget().close()

    def focus(self, widget):
        def has():
            now = QApplication.focusWidget()
            if now is not widget and not (isinstance(widget, QAbstractSpinBox) and widget.isAncestorOf(now)):
                widget.setFocus()  # again where a field that is left gives the focus to the canvas
                return False
            return True

        has() or wait_until(has)

    def work(self):
        """All that must not be lost: strokes, classes, images of the project."""
        strokes = {key: labels.copy() for key, (_, labels) in self.session.images.items() if labels.any()}
        return strokes, self.session.classes, [entry.id for entry in self.home.project.workspace.entries]

    def keeps(self, before):
        strokes, classes, entries = before
        now = self.session.images
        same = all(key in now and np.array_equal(labels, now[key][1]) for key, labels in strokes.items())
        return same and classes == self.session.classes and len(self.home.project.workspace.entries) == len(entries)


@pytest.fixture
def desk(viewer, home, monkeypatch):
    from napari_mdm_studio import _browser_page

    made = Desk(viewer, home)
    made.asked = []
    monkeypatch.setattr(_browser_page, "ask_remove", lambda parent, entries: made.asked.append(entries))
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: made.asked.append("colour") or QColor())
    for name in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(QFileDialog, name, lambda *_: ("", ""))
    made.told = []
    home.bridge.told.connect(made.told.append)
    monkeypatch.setattr(home, "tell", made.told.append)
    monkeypatch.setattr(home, "warn", made.told.append)
    return made


def test_the_first_drag_paints_and_undo_takes_it_back(desk):
    """A project opens with the brush in the hand; Ctrl+Z works from the list of images, too."""
    bound = desk.bound
    assert desk.viewer.layers.selection.active is bound.strokes
    stroke(desk.viewer, bound.strokes, [(10, 10), (20, 30)])
    assert set(np.unique(bound.array)) == {0, 1}
    desk.focus(desk.places()["images"])
    desk.press("Z", CONTROL)
    assert not bound.array.any()
    desk.press("Z", CONTROL | SHIFT)
    assert (bound.array == 1).any()
    desk.press("PageDown")
    wait_until(lambda: desk.home.project.shown == "id1" and not desk.home.project.wanted)
    desk.press("Z", CONTROL)  # of the image that is not shown any more
    assert (bound.array == 1).any()
    assert "nothing to undo" in desk.told[-1]


def test_a_class_that_is_deleted_comes_back_in_its_order(desk):
    bound, table = desk.bound, desk.places()["classes"]
    stroke(desk.viewer, bound.strokes, [(10, 10), (20, 30)])
    desk.session.painted = {1: int((bound.array == 1).sum())}
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualItemRect(table.item(1, 2)).center())
    desk.press("E")
    assert str(bound.strokes.mode) == "erase"
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualItemRect(table.item(0, 2)).center())
    assert (str(bound.strokes.mode), bound.strokes.selected_label) == ("paint", 1)
    before = desk.work()
    QTest.mouseClick(canvas(desk.viewer), Qt.MouseButton.LeftButton, pos=QPoint(5, 5))  # beside the image
    desk.press("Delete")
    assert desk.keeps(before)
    desk.focus(table)
    desk.press("Delete")
    assert [each.value for each in desk.session.classes] == [2]
    assert not bound.array.any()
    assert "painted pixels are removed. Ctrl+Z" in desk.told[-1]
    wait_until(lambda: bound.strokes.selected_label == 2)  # else the next stroke would bring the class back by its number
    stroke(desk.viewer, bound.strokes, [(30, 10), (30, 40)])
    assert (bound.array == 2).any()
    desk.focus(desk.places()["slider"])
    desk.press("Z", CONTROL)
    assert not bound.array.any()  # the stroke first, as it was the last
    desk.press("Z", CONTROL)
    wait_until(lambda: desk.keeps(before))


@pytest.mark.timeout(300)
def test_no_key_from_any_focus_loses_anything(desk):
    for row, value in ((5, 1), (15, 2)):
        desk.bound.strokes.data_setitem((np.full(20, row), np.arange(20)), value)
    settle()
    before = desk.work()
    for name in desk.places():
        for key, modifier in EVERY if name in ("canvas", "classes", "images", "layers") else FEW:
            if desk.bound is None or desk.home.project.shown != "id0" or desk.home.project.wanted:
                desk.show()
            desk.focus(desk.places()[name])
            classes, layers = desk.session.classes, len(desk.viewer.layers)
            desk.press(key, modifier)
            if name == "classes" and (key, modifier) == ("Delete", NONE):
                assert len(desk.session.classes) == len(classes) - 1
                desk.press("Z", CONTROL)
            if len(desk.viewer.layers) < layers:
                settle(0.03)  # strokes come back
            assert desk.keeps(before), (name, key, modifier)
    assert [len(each) for each in desk.asked if each != "colour"] == [1]  # Delete in the list of images
    assert "colour" in desk.asked  # Return in the table of classes


def test_keys_work_wherever_the_focus_is_and_text_fields_type(desk):
    desk.bound.strokes.mode = "pan_zoom"
    for name, place in desk.places().items():
        if name == "controls":
            continue
        desk.focus(place)
        for key, value in (("1", 1), ("2", 2)):
            desk.press(key)
            assert (str(desk.bound.strokes.mode), desk.bound.strokes.selected_label) == ("paint", value), name
        desk.press("E")
        assert str(desk.bound.strokes.mode) == "erase", name
    bound, field = desk.bound, desk.browser.page.text
    live = desk.session.live
    for typed in (field, desk.places()["controls"]):
        desk.focus(typed)
        for key in ("1", "2", "E", "L", "N", "R", "Delete", "Backspace"):
            desk.press(key)
            assert desk.session.live == live, (key, QApplication.focusWidget())
        assert (str(bound.strokes.mode), desk.session.live, desk.home.project.shown) == ("erase", live, "id0")
    assert field.text() == "12eln"
    table = desk.places()["classes"]
    desk.focus(table)
    table.setCurrentCell(0, 2)
    desk.press("F2")
    for key in "E2":
        desk.press(key)
    desk.press("Return")
    assert desk.session.classes[0].name == "e2"


def test_layers_that_are_deleted_lose_no_stroke(desk):
    """Strokes come back as long as their image is there; without it they wait in the project."""
    qt_viewer, layers, bound = desk.window._qt_viewer, desk.viewer.layers, desk.bound
    stroke(desk.viewer, bound.strokes, [(10, 10), (20, 30)])
    before, where = desk.work(), [layer.name for layer in layers]
    layers.selection = {bound.strokes}
    desk.focus(qt_viewer.layers)
    desk.press("Delete")
    wait_until(lambda: bound.strokes in layers)
    assert [layer.name for layer in layers] == where
    assert layers.selection.active is bound.strokes
    assert "is back" in desk.told[-1]
    stroke(desk.viewer, bound.strokes, [(30, 10), (30, 40)])  # and can be painted on
    desk.press("Z", CONTROL)
    assert desk.keeps(before)
    for delete in (lambda: desk.press("Delete"), qt_viewer.layerButtons.deleteButton.click, layers.clear):
        layers.select_all()
        desk.focus(qt_viewer.layers)
        delete()
        wait_until(lambda: not layers and not desk.home.bridge.images)
        assert "No longer labelled" in desk.told[-1]
        assert desk.keeps(before)
        desk.show()
        assert desk.bound.array is desk.session.images["id0"][1]
    layers.selection = {desk.bound.layer, desk.bound.pictures.prediction()}
    desk.focus(qt_viewer.layers)
    desk.press("Delete")
    wait_until(lambda: not layers)
    assert desk.keeps(before)
