"""The dock with the images of a project in a real window: what it lists, keys, thumbnails, ranking, missing images."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication, QEvent, Qt

from mdm_studio.services.browser_choices import BrowserChoices
from mdm_studio.services.image_list import ImageEntry
from tests.plugins.gui import FakeWorkspace, press, settle, wait_until

pytestmark = pytest.mark.gui


@pytest.fixture
def workspace(session):
    return FakeWorkspace(session)


@pytest.fixture
def page(viewer, home, workspace):
    """The list of a project of twelve images, the first of them shown."""
    return open_page(viewer, home, workspace)


def open_page(viewer, home, workspace):
    from napari_mdm_studio._browser import ImageBrowser
    from napari_mdm_studio._project import ProjectView

    home.project = ProjectView(home, workspace)
    dock = ImageBrowser(viewer)
    viewer.window.add_dock_widget(dock, name="Images of the project", area="bottom")
    home.project.begin()
    wait_until(lambda: home.project.shown == "id0")
    rest(home)
    return dock.page


def rest(home):
    """Wait until the thread beside has done all it was asked."""
    done = []
    home.runner.start(list, done=done.append, failed=done.append)
    wait_until(lambda: done)


def listed(page):
    return [entry.id for entry in page.model.entries]


def choose(combo, value):
    combo.setCurrentIndex(combo.findData(value))


def test_the_list_is_filtered_and_sorted_and_counted(page, home, workspace):
    assert listed(page) == [f"id{n}" for n in range(12)]  # in natural order
    workspace.change("id3", painted=1234, shares={1: 0.25, 2: 0.75}, uncertainty=0.125)
    workspace.change("id5", reviewed=True, uncertainty=0.5)
    workspace.change("id7", problem="it is not there")
    wait_until(lambda: "1 with a problem" in page.counts.text())
    assert page.counts.text() == "1 labelled, 2 predicted, 1 reviewed of 12; 1 with a problem"
    role = Qt.ItemDataRole
    texts = [page.model.data(page.model.index(n), role.AccessibleTextRole) for n in (3, 5, 7)]
    assert texts == [
        "img3, \u270e labelled, \u25d4 uncertainty 0.12",
        "img5, \u2714 reviewed, \u25d4 uncertainty 0.50",
        "img7, \u26a0 cannot be read",
    ]
    assert "1,234 labelled pixels" in page.model.data(page.model.index(3), role.ToolTipRole)
    assert "background 25%, nucleus 75%" in page.model.data(page.model.index(3), role.ToolTipRole)
    choose(page.sort, "uncertainty")
    assert listed(page)[:3] == ["id5", "id3", "id0"]
    assert home.project.order()[:2] == ("id5", "id3")
    choose(page.state, "labelled")
    assert listed(page) == ["id3"]
    choose(page.state, "all")
    page.text.setText("IMG1")
    assert listed(page) == ["id1", "id10", "id11"]
    page.slider.setValue(3)
    wait_until(lambda: BrowserChoices.load() == BrowserChoices(192, "uncertainty"))  # remembered


def test_images_are_browsed_with_keys_and_mouse(page, viewer, home, workspace, session):
    from qtpy.QtTest import QTest

    press(viewer, Qt.Key.Key_PageDown)
    wait_until(lambda: home.project.shown == "id1")
    assert workspace.calls[-1] == ("release", "id0")
    assert list(session.images) == ["id1"]
    assert page.list.currentIndex().row() == 1
    assert [layer.name for layer in viewer.layers] == ["img1", "img1 prediction", "img1 strokes"]
    press(viewer, Qt.Key.Key_R)
    wait_until(page.reviewed.isChecked)
    assert workspace.entry("id1").reviewed
    press(viewer, Qt.Key.Key_PageUp)
    wait_until(lambda: home.project.shown == "id0")
    assert not page.reviewed.isChecked()
    page.list.setFocus()
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Return):
        QTest.keyClick(page.list, key)
    wait_until(lambda: home.project.shown == "id2")
    place = page.list.visualRect(page.model.index(4)).center()
    QTest.mouseClick(page.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    QTest.mouseDClick(page.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    wait_until(lambda: home.project.shown == "id4")
    page.suggest.click()
    wait_until(lambda: home.project.shown == "id11")
    page.next.click()
    settle()
    assert home.project.shown == "id11"  # the last one

    home.show_image("id0")
    wait_until(lambda: home.project.shown == "id0")  # in a hurry only the last image asked for is read
    workspace.gate.clear()
    workspace.calls.clear()
    for _ in range(6):
        press(viewer, Qt.Key.Key_PageDown)
    assert home.project.shown == "id0"  # as long as the next one is being read
    assert list(home.bridge.images) == ["id0"]
    assert page.reading.text() == "Reading img6..."
    workspace.gate.set()
    wait_until(lambda: home.project.shown == "id6")
    assert workspace.calls == [("load", "id1"), ("release", "id1"), ("load", "id6"), ("release", "id0")]
    assert page.reading.text() == ""


def test_problems_are_passed_over_and_strokes_stay_with_their_image(page, viewer, home, workspace, session, monkeypatch):
    told = []
    monkeypatch.setattr(home, "warn", told.append)
    workspace.change("id1", problem="made up")
    press(viewer, Qt.Key.Key_PageDown)
    wait_until(lambda: home.project.shown == "id2")
    home.show_image("id1")
    wait_until(lambda: told)
    assert told == ["id1 cannot be read: it is made up"]
    assert (home.project.shown, home.project.wanted, list(home.bridge.images)) == ("id2", "", ["id2"])

    workspace.change("id1", problem="")
    home.show_image("id0")
    wait_until(lambda: home.project.shown == "id0")
    press(viewer, Qt.Key.Key_2)
    home.bridge.images["id0"].strokes.data_setitem((np.array([1]), np.array([2])), 2)
    home.next_image()
    wait_until(lambda: home.project.shown == "id1")
    strokes = home.bridge.images["id1"].strokes
    assert (str(strokes.mode), strokes.selected_label, strokes.data.any()) == ("paint", 2, False)
    assert viewer.layers.selection.active is strokes
    assert set(session.images) == {"id0", "id1"}  # labelled: it goes on to be learnt from
    home.next_image(-1)
    wait_until(lambda: home.project.shown == "id0")
    assert home.bridge.images["id0"].strokes.data[1, 2] == 2

    from napari_mdm_studio._segment import Segment

    dock = Segment(viewer)
    viewer.window.add_dock_widget(dock, name="Segment")
    assert dock.images.isHidden()  # the project has its own list
    session.images = {"id5": session.images["id0"], **session.images}
    session.suggest_next()
    wait_until(lambda: home.project.shown == "id5")
    assert viewer.layers.selection.active is home.bridge.images["id5"].strokes
    assert dock.why.text() == "The members disagree most here."


def test_ten_thousand_images_are_no_burden(viewer, home, session):
    page = open_page(viewer, home, FakeWorkspace(session, 10_000))
    workspace = home.workspace
    wait_until(lambda: not page.list.thumbnails._asked and not page.list.thumbnails._busy)
    seen = set(workspace.thumbnails)
    assert 4 <= len(seen) < 100  # what is in sight
    page.list.verticalScrollBar().setValue(page.list.verticalScrollBar().maximum())
    wait_until(lambda: "id9999" in workspace.thumbnails)
    wait_until(lambda: not page.list.thumbnails._asked and not page.list.thumbnails._busy)
    assert len(set(workspace.thumbnails)) < 200
    assert page.list.thumbnails.get("id9999", 128) is not None
    home.show_image("id5000")
    wait_until(lambda: home.project.shown == "id5000")
    assert page.list.is_seen("id5000")


def test_the_newest_thumbnail_comes_first_and_nobody_waits_for_what_is_out_of_sight():
    from qtpy.QtWidgets import QApplication

    from napari_mdm_studio._browser_list import Thumbnails

    app = QApplication.instance() or QApplication([])
    made, came = [], []
    thumbnails = Thumbnails(lambda image_id, size: made.append(image_id) or np.zeros((4, 4, 3), np.uint8), lambda i: i != "b")
    thumbnails.came.connect(came.append)
    for image_id in ("a", "b", "c", "d"):
        assert thumbnails.get(image_id, 128) is None
    wait_until(lambda: len(came) == 3)
    assert made == ["a", "d", "c"]  # the first was begun at once
    assert thumbnails.get("a", 128) is not None
    thumbnails.close()
    assert app is not None


def test_ranking_and_missing_images_are_told_of_and_all_is_named(page, viewer, home, workspace, session):
    page.rank.click()
    wait_until(lambda: page.rank.text() == "Stop ran&king")
    workspace.ranked.emit(3, 12)
    wait_until(lambda: page.reading.text() == "Ranking: 3 of 12 images")
    assert (page.bar.isVisible(), page.bar.value(), page.bar.maximum()) == (True, 3, 12)
    page.rank.click()
    wait_until(lambda: page.rank.text() == "Ran&k images")
    assert not page.bar.isVisible()
    assert page.reading.text() == ""

    workspace.lost = tuple(ImageEntry(f"id{n}", Path(f"/old/img{n}.png"), problem="gone") for n in (2, 3))
    page.missing.look()
    wait_until(page.missing.isVisible)
    assert page.missing.words.text().startswith("2 images are not where they were, for example /old/img2.png.")
    page.missing.relocate("/new")
    wait_until(lambda: not page.missing.isVisible())
    assert workspace.calls[-1] == ("relocate", Path("/old"), Path("/new"))

    # everything has a name and is reached by keyboard, also beside the Segment dock
    from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QComboBox, QLineEdit, QListView

    from napari_mdm_studio._segment import Segment

    kinds = (QAbstractButton, QComboBox, QLineEdit, QListView, QAbstractSlider)
    widgets = [each for kind in kinds for each in page.findChildren(kind)]
    widgets = [each for each in widgets if each.isVisible() and each.parent().objectName() != "qt_scrollarea_vcontainer"]
    widgets = [each for each in widgets if not isinstance(each.parent(), QLineEdit)]
    assert len(widgets) >= 10
    assert not [each for each in widgets if not each.accessibleName()]
    assert not [each for each in widgets if not each.focusPolicy() & Qt.FocusPolicy.TabFocus]
    dock = Segment(viewer)
    viewer.window.add_dock_widget(dock, name="Segment")
    texts = [each.text() for part in (page, dock) for each in part.findChildren(QAbstractButton)]
    letters = [text[text.index("&") + 1].upper() for text in texts if "&" in text] + list("FVLPWH")  # napari's menus
    assert not {letter for letter in letters if letters.count(letter) > 1}, texts


def test_images_are_added_reviewed_and_removed(page, home, workspace, session, tmp_path, monkeypatch):
    from PIL import Image

    from napari_mdm_studio import _browser_page

    asked = []
    monkeypatch.setattr(_browser_page, "ask_remove", lambda parent, entries: asked.append(len(entries)) or len(asked) > 1)

    actions = {action.text(): action for action in page.menu_of(("id0", "id1")).actions()}
    actions["Mark as reviewed"].trigger()
    assert [workspace.entry(f"id{n}").reviewed for n in range(3)] == [True, True, False]
    for answer in (12, 10):  # the first time the user would rather not
        actions["Remove from the project (2 images)..."].trigger()
        wait_until(lambda wanted=answer: len(listed(page)) == wanted)
    assert asked == [2, 2]
    wait_until(lambda: home.project.shown == "id2")  # the one that was shown is gone
    wait_until(lambda: len(listed(page)) == 10)
    assert "id0" not in session.images
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    home.docks["Images of the project"].add_images([str(tmp_path)])
    wait_until(lambda: len(listed(page)) == 12)


def test_without_a_project_there_are_ways_to_one(viewer, home, monkeypatch):
    from napari_mdm_studio._browser import ImageBrowser

    told = []
    monkeypatch.setattr(home, "warn", told.append)
    monkeypatch.setattr(home, "tell", told.append)
    dock = ImageBrowser(viewer)
    viewer.window.add_dock_widget(dock, name="Images of the project")
    settle()
    assert dock.new.isVisible()
    dock.open_project("/tmp")
    assert "is no project" in told[0]
    press(viewer, Qt.Key.Key_PageDown)
    assert told[1] == "No project is open: create or open one first."


def test_a_closed_browser_is_freed_and_the_project_goes_on(viewer, home, workspace):
    gone = weakref.ref(open_page(viewer, home, workspace))
    dock = home.docks["Images of the project"]
    viewer.window.remove_dock_widget(dock)
    assert home.docks == {}
    del dock
    rest(home)
    settle()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    assert gone() is None
    home.next_image()
    wait_until(lambda: home.project.shown == "id1")
