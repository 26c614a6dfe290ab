"""A scripted user in a real window, with real mouse and key events; pictures of every step.

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.plugins.tour FOLDER begin    # ends by kill -9
    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.plugins.tour FOLDER go-on

FOLDER gets the pictures (``pictures/``), the user's data and cache (so that nobody's own are touched), the classifier, and
``begin.json`` and ``go-on.json`` with what the user saw. `test_tour.py` runs both and looks at the outcome; the README's
pictures are made by it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from tests.plugins.gui import canvas, canvas_point, press, settle, stroke, wait_until

PLUGIN = "mdm-studio"
IMAGE = "test-tissue-purple"  # one of the bundled images that come without strokes
FILE = "classifier.mdm"


class User:
    """Sits before a window of 1,600 x 1,000."""

    def __init__(self, folder: Path) -> None:
        import napari

        self.folder, self.seen, self.shots = folder, {}, 0
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1600, 1000)
        settle(0.3)

    def open_sample(self) -> None:
        """File > Open Sample > MDM Studio, then the Segment dock; the image of the tour alone is chosen."""
        self.viewer.open_sample(PLUGIN, "nuclei")
        self.segment, self.dock = self.viewer.window.add_plugin_dock_widget(PLUGIN, "Segment")
        self.home = self.dock.home
        self.session, self.said, self.news = self.home.session, [], []
        self.session.failed.connect(self.said.append)
        self.session.updated.connect(lambda kind, seconds: self.news.append((kind, seconds)))
        wait_until(lambda: self.home.bridge.images, 60)  # PyTorch is imported
        self.viewer.reset_view()
        settle(0.5)

    def choose_only(self, *names: str) -> None:
        """Untick all other images in the dock's list."""
        from qtpy.QtCore import Qt

        table = self.dock.images.table
        for row in range(table.rowCount()):
            item = table.item(row, 0)
            item.setCheckState(Qt.CheckState.Checked if item.text() in names else Qt.CheckState.Unchecked)
            settle(0.02)
        assert set(self.home.bridge.images) == set(names)
        self.viewer.layers.selection.active = self.home.bridge.images[names[0]].strokes

    def look_at(self, name: str) -> None:
        """Fill the canvas with an image."""
        layer = self.viewer.layers[name]
        height, width = layer.data.shape[:2]
        centre = np.asarray(layer.data_to_world((height / 2, width / 2)))
        self.viewer.scene.camera.center = tuple(centre)
        self.viewer.scene.camera.zoom = 0.95 * min(self.viewer.canvas.size[0] / height, self.viewer.canvas.size[1] / width)
        settle(0.3)

    def click(self, button: object) -> None:
        """Click a button with the mouse."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        assert button.isEnabled(), button.text()
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        settle(0.1)

    def paint(self, key: str, value: int, strokes: int, seed: int) -> None:
        """Choose a class by its key and paint a few short strokes where it is."""
        from qtpy.QtCore import Qt

        press(self.viewer, getattr(Qt.Key, f"Key_{key}"))
        layer = self.home.bridge.images[IMAGE].strokes
        assert layer.selected_label == value
        assert str(layer.mode) == "paint"
        for row, left, right in runs(self.truth(), value, strokes, seed):
            stroke(self.viewer, layer, [(row, left), (row, (left + right) / 2), (row, right)])

    def truth(self) -> np.ndarray:
        """Classes of the tour's image, 1 = ground, 2 = nucleus."""
        from mdm_studio.config import resource
        from mdm_studio.io.images import open_image

        mask = open_image(resource(f"samples/nuclei/masks/{IMAGE}.png"), values=True).plane().read(slice(None), slice(None))
        return (mask[0] > 0).astype(np.uint8) + 1

    def dice(self) -> float:
        """Of the nuclei, in what is shown."""
        shown, truth = self.session.picture(IMAGE, "prediction")[0] == 2, self.truth() == 2
        return float(2 * (shown & truth).sum() / (shown.sum() + truth.sum()))

    def wait_exact(self, seconds: float = 180) -> None:
        wait_until(lambda: self.session.up_to_date == "exact" and not self.session.status.busy, seconds)
        settle(0.6)

    def shoot(self, name: str) -> None:
        """A picture of the whole window."""
        settle(0.2)
        self.shots += 1
        path = self.folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)

    def note(self, **facts: object) -> None:
        self.seen |= facts

    def write(self, name: str) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(self.seen, indent=2))


def runs(truth: np.ndarray, value: int, count: int, seed: int) -> list[tuple[int, int, int]]:
    """Rows, first and last columns of horizontal strokes that stay within a class."""
    rng, found = np.random.default_rng(seed), []
    height, width = truth.shape
    while len(found) < count:
        row, left = int(rng.integers(8, height - 8)), int(rng.integers(8, width - 24))
        right = left + 12
        if (truth[row - 1 : row + 2, left - 1 : right + 2] == value).all():
            found.append((row, left, right))
    return found


def drag_canvas(user: User, by: tuple[int, int]) -> None:
    """Hold Space and pull the canvas, as napari has it."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    widget, layer = canvas(user.viewer), user.home.bridge.images[IMAGE].strokes
    start = canvas_point(user.viewer, layer, 100, 100)
    QTest.keyPress(widget, Qt.Key.Key_Space)
    settle(0.05)
    QTest.mousePress(widget, Qt.MouseButton.LeftButton, pos=start)
    for part in range(1, 6):
        QTest.mouseMove(widget, start + QPoint(by[0] * part // 5, by[1] * part // 5))
        settle(0.03)
    QTest.mouseRelease(widget, Qt.MouseButton.LeftButton, pos=start + QPoint(*by))
    QTest.keyRelease(widget, Qt.Key.Key_Space)
    settle(0.2)


def begin(user: User) -> None:
    """From the sample to a saved classifier; then the power goes."""
    user.open_sample()
    user.shoot("1-sample")
    user.choose_only(IMAGE)
    user.look_at(IMAGE)
    classes = user.dock.classes
    while user.session.classes:  # from nothing
        classes.table.selectRow(0)
        settle(0.05)
        user.click(classes.remove)
    for row, name in enumerate(("ground", "nucleus")):
        user.click(classes.add)
        item = next(
            classes.table.item(row, c)
            for c in range(classes.table.columnCount())
            if classes.table.item(row, c).text() == f"class {row + 1}"
        )
        item.setText(name)
        settle(0.05)
    user.note(classes=[each.name for each in user.session.classes])
    user.paint("1", 1, 2, seed=0)
    user.paint("2", 2, 2, seed=1)
    wait_until(lambda: user.news, 120)
    user.note(first_news=user.news[0])
    user.wait_exact()
    user.note(first_dice=user.dice(), painted=sum(user.session.painted.values()))
    user.shoot("2-first-strokes")
    before = user.session.picture(IMAGE, "prediction")[0].copy()
    user.paint("1", 1, 4, seed=2)
    user.paint("2", 2, 4, seed=3)
    user.wait_exact()
    changed = float((user.session.picture(IMAGE, "prediction")[0] != before).mean())
    user.note(dice=user.dice(), changed=changed)
    user.home.bridge.set_output("uncertainty", True)
    user.wait_exact()
    user.shoot("3-uncertainty")
    user.home.bridge.set_output("uncertainty", False)
    centre = tuple(user.viewer.scene.camera.center)
    drag_canvas(user, (120, 60))
    user.note(moved=centre != tuple(user.viewer.scene.camera.center))
    user.click(user.dock.suggest)
    wait_until(lambda: user.dock.why.isVisible() and user.dock.why.text(), 20)
    user.note(why=user.dock.why.text())
    user.wait_exact()
    user.shoot("4-suggest-next")
    user.look_at(IMAGE)
    explore(user)
    user.dock.save_classifier(str(user.folder / FILE))
    user.note(saved=(user.folder / FILE).exists(), failures=user.said)
    user.paint("2", 2, 1, seed=9)
    user.note(last_painted=sum(wait_painted(user).values()), killed_at=time.time() + 2)
    user.write("begin")
    settle(2.0)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_painted(user: User) -> dict[int, int]:
    """Painted pixels by class, once the last stroke was taken over."""
    layer = user.home.bridge.images[IMAGE].strokes
    wait_until(lambda: sum(user.session.painted.values()) == int((layer.data > 0).sum()), 20)
    return user.session.painted


def explore(user: User) -> None:
    """The explorer: a cluster becomes a class and back again; the advisor's set is applied."""
    frame, dock = user.viewer.window.add_plugin_dock_widget(PLUGIN, "Feature explorer", tabify=True)
    frame.raise_()
    settle(0.3)
    blocks, times = dock.choice.cells()
    cells = [(block, t) for block in blocks for t in times]
    wait_until(lambda: all(dock.matrix.has_picture(*cell) for cell in cells), 240)
    dock.open_cell(*cells[-1])
    wait_until(lambda: dock.clusters.shows(*cells[-1]), 60)
    settle(1.0)
    user.shoot("5-explorer")
    del user.viewer.layers[next(layer.name for layer in user.viewer.layers if layer.name.startswith("clusters"))]
    painted = sum(user.session.painted.values())
    dock.clusters.cluster.setCurrentIndex(1)
    user.click(dock.clusters.make)
    wait_until(lambda: sum(user.session.painted.values()) > painted, 30)
    user.note(
        cluster_class=[each.name for each in user.session.classes], cluster_pixels=sum(user.session.painted.values()) - painted
    )
    user.wait_exact()
    user.shoot("6-cluster-to-class")
    user.click(dock.clusters.undo)
    wait_until(lambda: sum(user.session.painted.values()) == painted, 30)
    user.click(dock.advisor.score)
    wait_until(lambda: dock.advisor.apply.isVisibleTo(dock), 240)
    user.wait_exact()
    user.note(advice=dock.advisor.words.text(), reason=dock.advisor.reason.text())
    scroll_to(dock, dock.advisor)
    user.shoot("7-advisor")
    user.click(dock.advisor.apply)
    user.wait_exact()
    user.note(
        read=[user.session.settings.blocks, user.session.settings.timesteps, user.session.settings.filters],
        advised_dice=user.dice(),
    )
    user.segment.raise_()


def scroll_to(dock: object, part: object) -> None:
    """Scroll a dock until a part of it is seen whole."""
    from qtpy.QtWidgets import QScrollArea

    area = dock.findChild(QScrollArea)
    area.verticalScrollBar().setValue(part.mapTo(area.widget(), part.rect().topLeft()).y() - 20)
    settle(0.2)


def go_on(user: User) -> None:
    """After the crash: everything is there, and the work goes on."""
    user.open_sample()
    user.choose_only(IMAGE)
    user.look_at(IMAGE)
    wait_until(lambda: len(user.session.painted) > 1, 60)
    user.wait_exact()
    user.note(
        painted=sum(user.session.painted.values()),
        classes=[each.name for each in user.session.classes],
        read=[user.session.settings.blocks, user.session.settings.timesteps, user.session.settings.filters],
        dice=user.dice(),
        failures=user.said,
    )
    user.shoot("8-restored")
    user.paint("1", 1, 2, seed=20)
    user.wait_exact()
    user.note(painted_on=sum(user.session.painted.values()), unsaved=user.session.unsaved())
    user.viewer.close()
    settle(0.5)
    user.write("go-on")


def main() -> None:
    folder, part = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MDM_STUDIO_DATA"], os.environ["MDM_STUDIO_CACHE"] = str(folder / "data"), str(folder / "cache")
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    user = User(folder)
    {"begin": begin, "go-on": go_on}[part](user)


if __name__ == "__main__":
    main()
