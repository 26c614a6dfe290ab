"""Scripted users of the desktop program in a real window, with real mouse and key events; pictures of every step.

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.desktop.tour FOLDER newcomer     # start page to exported masks
    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.desktop.tour FOLDER curves       # then: a job is watched
    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.desktop.tour FOLDER job          # a job is started; ends by kill -9
    xvfb-run -a -s "-screen 0 1600x1000x24" python -m tests.desktop.tour FOLDER many IMAGES MASKS    # hundreds, five labelled

FOLDER gets the pictures (``pictures/``), the user's data and cache (nobody's own are touched), and ``newcomer.json`` etc. with
what the user saw. `test_tour.py` runs the first two and looks at the outcome; the guide's pictures are made by it. MASKS number
their objects and have the images' names: strokes are painted where the objects are.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.plugins.gui import press, settle, stroke, wait_until
from tests.plugins.tour import runs, scroll_to

WINDOW = (1560, 960)


class User:
    """Sits before the program, which is running; `truth` gives classes by an image's name, 1 = ground, 2 = object."""

    def __init__(self, folder: Path, truth: Callable[[str], np.ndarray]) -> None:
        from PySide6.QtWidgets import QApplication

        from mdm_studio.desktop.studio import Studio
        from mdm_studio.desktop.window import MainWindow

        self.folder, self._truth, self.seen = folder, truth, {}
        self.window = next(each for each in QApplication.topLevelWidgets() if isinstance(each, MainWindow))
        self.studio = self.window.findChild(Studio)
        self.window.resize(*WINDOW)
        settle(0.3)

    @property
    def home(self) -> Any:
        return self.studio.desk.home

    @property
    def session(self) -> Any:
        return self.home.session

    @property
    def viewer(self) -> Any:
        return self.studio.desk.viewer

    def truth(self, image_id: str) -> np.ndarray:
        return self._truth(self.home.workspace.entry(image_id).path.stem)

    def dock(self, name: str) -> Any:
        """A dock of ours, brought to the front by its key in the menu."""
        self.studio.desk.open_dock(name)
        settle(0.3)
        dock = self.studio.desk.docks[name]
        return dock.inner_widget() if hasattr(dock, "inner_widget") else dock.widget()

    def click(self, button: Any) -> None:
        """Click a button with the mouse, scrolled into view if need be."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest
        from PySide6.QtWidgets import QScrollArea

        parent = button.parent()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parent()
        if parent is not None:
            parent.ensureWidgetVisible(button)
            settle(0.05)
        assert button.isEnabled(), button.text()
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        settle(0.1)

    def type(self, field: Any, text: str) -> None:
        """Type a text into a field, and Return."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        field.setFocus()
        field.selectAll()
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)
        settle(0.1)

    def wait_shown(self, image_id: str = "", seconds: float = 60) -> str:
        """Wait until an image (any, unless one is named) is shown; its id."""
        project = self.home.project
        wait_until(lambda: project.shown and not project.wanted and image_id in ("", project.shown), seconds)
        settle(0.2)
        return str(self.home.project.shown)

    def show(self, image_id: str) -> None:
        """Open an image from the list by a double click."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        page = self.dock("images").page
        index = page.model.index([entry.id for entry in page.model.entries].index(image_id), 0)
        page.list.scrollTo(index)
        settle(0.1)
        centre = page.list.visualRect(index).center()
        QTest.mouseClick(page.list.viewport(), Qt.MouseButton.LeftButton, pos=centre)
        QTest.mouseDClick(page.list.viewport(), Qt.MouseButton.LeftButton, pos=centre)
        self.wait_shown(image_id)

    def paint(self, key: int, value: int, strokes: int, seed: int) -> None:
        """Choose a class by its key and paint a few short strokes where it is, in the image that is shown."""
        from PySide6.QtCore import Qt

        press(self.viewer, Qt.Key(Qt.Key.Key_0 + key))
        shown = self.home.project.shown
        layer = self.home.bridge.images[shown].strokes
        for row, left, right in runs(self.truth(shown), value, strokes, seed):
            stroke(self.viewer, layer, [(row, left), (row, (left + right) / 2), (row, right)])

    def wait_exact(self, seconds: float = 240) -> None:
        wait_until(lambda: self.session.up_to_date == "exact" and not self.session.status.busy, seconds)
        settle(0.5)

    def dice(self) -> float:
        """Of the objects, in what is shown."""
        shown = self.home.project.shown
        found, truth = self.session.picture(shown, "prediction")[0] == 2, self.truth(shown) == 2
        return float(2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1))

    def shoot(self, name: str) -> None:
        """A picture of the whole window."""
        settle(0.4)
        path = self.folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        assert self.window.screen().grabWindow(self.window.winId()).save(str(path))

    def note(self, **facts: object) -> None:
        self.seen |= facts

    def write(self, name: str) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(self.seen, indent=2))


def label(user: User, ids: Sequence[str], strokes: int) -> None:
    """Paint a few strokes of both classes in some images."""
    for number, image_id in enumerate(ids):
        user.show(image_id)
        user.paint(1, 1, strokes, seed=2 * number)
        user.paint(2, 2, strokes, seed=2 * number + 1)


def export(user: User, out: Path, seconds: float) -> Any:
    """Masks, objects and a table of all images; gives the dock."""
    dock = user.dock("export")
    wait_until(lambda: dock.facts is not None, 30)
    user.type(dock.outputs.out.field, str(out))
    for box in (dock.outputs.objects, dock.outputs.csv):
        if not box.isChecked():
            user.click(box)
    wait_until(lambda: dock.export.isEnabled(), 30)
    user.click(dock.export)
    wait_until(lambda: dock.job.view is not None and dock.job.view.state == "running", 120)
    user.shoot("5-exporting")
    wait_until(lambda: dock.job.view.state not in ("queued", "running"), seconds)
    wait_until(lambda: dock.job.summary.text(), 20)
    user.note(export=dock.job.view.state, summary=dock.job.summary.text())
    return dock


def newcomer(user: User) -> None:
    """From the start page to exported masks, on the samples."""
    user.shoot("1-start-page")
    user.click(user.window.start_page.ways["open_samples"])
    wait_until(lambda: user.studio.open == "project", 60)
    first = user.wait_shown()
    user.note(images=len(user.home.workspace.entries), first=first, docks=list(user.studio.desk.docks))
    user.shoot("2-samples")
    ids = {entry.path.stem: entry.id for entry in user.home.workspace.entries}
    label(user, [ids["tissue-purple"], ids["tissue-white"]], 4)
    user.wait_exact()
    user.note(dice=user.dice(), painted=sum(user.session.painted.values()))
    user.shoot("3-labelled")
    page = user.dock("images").page
    user.click(page.rank)
    wait_until(lambda: all(entry.uncertainty is not None for entry in user.home.workspace.entries), 240)
    page.sort.setCurrentIndex(page.sort.findData("uncertainty"))
    settle(0.5)
    unseen = ids["test-tissue-purple"]
    user.show(unseen)
    user.wait_exact()
    user.click(page.reviewed)
    wait_until(lambda: user.home.workspace.entry(unseen).reviewed, 5)
    user.note(unseen_dice=user.dice(), counts=page.counts.text())
    user.shoot("4-ranked")
    export(user, user.folder / "masks", 300)
    user.shoot("6-exported")
    user.write("newcomer")
    user.window.close()


def job(user: User) -> None:
    """A pretraining of the samples is started; then the power goes."""
    user.click(user.window.start_page.ways["open_samples"])
    wait_until(lambda: user.studio.open == "project", 60)
    user.wait_shown()
    dock = user.dock("pretrain")
    wait_until(lambda: dock.folder.survey is not None and dock.folder.survey.images, 60)
    user.shoot("7-survey")
    dock.training.minutes.setValue(1)
    wait_until(lambda: dock.start_button.isEnabled(), 30)
    user.click(dock.start_button)
    wait_until(lambda: dock.jobs.views and dock.jobs.views[0].step >= 3, 180)
    user.note(id=dock.jobs.views[0].id, step=dock.jobs.views[0].step)
    scroll_to(dock, dock.training)
    user.shoot("8-pretraining")
    user.write("job")
    os.kill(os.getpid(), signal.SIGKILL)


def curves(user: User) -> None:
    """After `newcomer`: a job is watched until its first checkpoint has been judged by the strokes, then cancelled."""
    user.click(user.window.start_page.ways["open_samples"])
    wait_until(lambda: user.studio.open == "project", 60)
    user.wait_shown()
    dock = user.dock("pretrain")
    wait_until(lambda: dock.folder.survey is not None and dock.folder.survey.images, 60)
    dock.training.minutes.setValue(5)
    wait_until(lambda: dock.start_button.isEnabled(), 30)
    user.click(dock.start_button)
    wait_until(lambda: dock.progress.words.text().startswith("Step 50"), 280)
    scroll_to(dock, dock.progress)
    user.shoot("9-curves")
    user.note(words=dock.progress.words.text())
    user.click(dock.jobs.cancel)
    wait_until(lambda: dock.jobs.views[0].state == "cancelled", 60)
    user.write("curves")
    user.window.close()


def many(user: User, images: Path) -> None:
    """A project of hundreds of images: browsed, labelled in five, exported whole."""
    begin = time.perf_counter()
    user.studio._make_project(user.folder / "project", images)
    wait_until(lambda: user.studio.open == "project", 60)
    user.wait_shown()
    user.note(images=len(user.home.workspace.entries), seconds_to_first_image=round(time.perf_counter() - begin, 2))
    from PySide6.QtCore import Qt

    for _ in range(10):  # browse by key
        press(user.viewer, Qt.Key.Key_PageDown)
        user.wait_shown()
    user.shoot("many-1-browsing")
    ids = [entry.id for entry in user.home.workspace.entries]
    label(user, [ids[place] for place in np.linspace(0, len(ids) - 1, 5).astype(int)], 5)
    user.wait_exact()
    user.note(dice=user.dice(), counts=user.dock("images").page.counts.text())
    user.shoot("many-2-labelled")
    begin = time.perf_counter()
    export(user, user.folder / "masks", 3600)
    user.note(export_seconds=round(time.perf_counter() - begin, 1))
    user.shoot("many-3-exported")
    user.write("many")
    user.window.close()


def sample_truth() -> Callable[[str], np.ndarray]:
    """Classes of the bundled images."""
    from mdm_studio.config import resource

    return truth_in(resource("samples/nuclei/masks"))


def truth_in(folder: Path) -> Callable[[str], np.ndarray]:
    """Classes from a folder of masks with the images' names that number their objects."""
    from mdm_studio.io.images import open_image

    def truth(name: str) -> np.ndarray:
        path = next(folder.glob(f"{name}.*"))
        mask = open_image(path, values=True).plane().read(slice(None), slice(None))
        return (mask[0] > 0).astype(np.uint8) + 1

    return truth


def main() -> int:
    folder, part, *rest = Path(sys.argv[1]).absolute(), *sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MDM_STUDIO_DATA"], os.environ["MDM_STUDIO_CACHE"] = str(folder / "data"), str(folder / "cache")
    from PySide6.QtCore import QTimer

    from mdm_studio.desktop.main import _application, run

    def act() -> None:
        user = None
        try:
            user = User(folder, truth_in(Path(rest[1])) if len(rest) > 1 else sample_truth())
            wait_until(lambda: user.studio._loaded, 60)
            settle(0.5)
            parts = {"newcomer": newcomer, "curves": curves, "job": job, "many": lambda user: many(user, Path(rest[0]))}
            parts[part](user)
        except BaseException:  # noqa: BLE001 - pytest's own failures too; nothing may keep the window open
            traceback.print_exc()
            if user is not None:
                user.shoot("failed")
            sys.stderr.flush()
            os._exit(3)

    application = _application()  # timers need it
    QTimer.singleShot(1000, application, act)
    return run()


if __name__ == "__main__":
    sys.exit(main())
