"""A session that only writes down what it is asked, and ways to wait for a GUI."""

import contextlib
import dataclasses
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from psygnal import Signal

from mdm_studio.errors import UnreadableImageError, UsageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.masks import class_palette
from mdm_studio.services.image_list import ImageEntry
from mdm_studio.services.live_core import LiveSettings
from mdm_studio.services.live_finetune import FinetuneState
from mdm_studio.services.live_plan import PlaneKey, Window
from mdm_studio.services.live_status import Status
from mdm_studio.services.suggestions import Suggestion
from mdm_studio.services.workspace import LoadedImage

READY = Status("ready: paint a few strokes of at least two classes", device="cpu")


class FakeSession:
    """Has the face of `mdm_studio.services.session.Session`; `calls` tells what was asked of it."""

    status_changed = Signal(object)
    classes_changed = Signal(tuple)
    class_change_made = Signal(str)
    settings_changed = Signal(object)
    picture_changed = Signal(str, str)
    labels_rewritten = Signal(str)
    suggested = Signal(object)
    failed = Signal(str)
    noticed = Signal(str)
    jobs_changed = Signal(frozenset)
    finetune_changed = Signal(object)

    def __init__(self):
        self.finetuning = FinetuneState()
        colors = class_palette(9)
        self.colors = colors
        self.classes = (LabelClass(1, "background", colors[1]), LabelClass(2, "nucleus", colors[2]))
        self.settings, self.status, self.live = LiveSettings(), READY, True
        self.painted = {}
        self.images, self.pictures, self.calls = {}, {}, []
        self.unsaved_words = None
        self.closed = False
        self._undo = []

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]

    def open_image(self, key, source, labels):
        self.calls.append(("open_image", key))
        self.images[key] = (source, labels)

    def close_image(self, key):
        self.calls.append(("close_image", key))
        self.images.pop(key)
        self.pictures = {which: levels for which, levels in self.pictures.items() if which[0] != key}

    def labels_changed(self, key, plane, rows, cols):
        self.calls.append(("labels_changed", key, plane, rows, cols))

    def view_moved(self, views):
        self.calls.append(("view_moved", dict(views)))

    def picture(self, key, output):
        source, _ = self.images[key]
        if (key, output) not in self.pictures:
            dtype = np.uint8 if output == "prediction" else np.float32
            levels, step = [], 1
            while True:
                shape = (*source.stack_shape, -(-source.height // step), -(-source.width // step))
                levels.append(np.zeros(shape, dtype))
                if max(source.height, source.width) <= 2048 or max(shape[-2:]) <= 512:
                    break
                step *= 2
            self.pictures[key, output] = levels
        return self.pictures[key, output]

    def forget_picture(self, key, output):
        self.calls.append(("forget_picture", key, output))
        self.pictures.pop((key, output), None)

    def _set(self, classes):
        self.classes = tuple(classes)
        self.classes_changed.emit(self.classes)

    def add_class(self, name=None, color=None):
        value = next(v for v in itertools.count(1) if v not in {each.value for each in self.classes})
        added = LabelClass(value, name or f"class {value}", color or self.colors[value])
        self._set((*self.classes, added))
        return added

    def _with(self, value, **changes):
        self._set(dataclasses.replace(each, **changes) if each.value == value else each for each in self.classes)

    def rename_class(self, value, name):
        if any(each.name == name and each.value != value for each in self.classes):
            raise UsageError(f"there is a class {name!r} already; choose another name")
        self._with(value, name=name)

    def recolor_class(self, value, color):
        self._with(value, color=color)

    def remove_class(self, value):
        self._edit("removal", value, 0)

    def merge_classes(self, source, target):
        self._edit("merge", source, target)

    def _edit(self, what, value, new):
        self._undo.append((what, self.classes, {key: np.array(labels) for key, (_, labels) in self.images.items()}))
        for key, (_, labels) in self.images.items():
            labels[labels == value] = new
            self.labels_rewritten.emit(key)
        self._set(each for each in self.classes if each.value != value)
        self.class_change_made.emit(what)

    def undo_class_change(self):
        if not self._undo:
            return None
        what, classes, before = self._undo.pop()
        for key, labels in before.items():
            self.images[key][1][:] = labels
            self.labels_rewritten.emit(key)
        self._set(classes)
        return what

    def set_classes(self, classes):
        self._set(classes)

    def import_classes(self, classes):
        self._undo.append(("import", self.classes, {}))
        self._set(classes)
        self.class_change_made.emit("import")

    def choose(self, **changes):
        self.calls.append(("choose", changes))
        self.settings = dataclasses.replace(self.settings, **changes)
        self.settings_changed.emit(self.settings)

    def set_live(self, live):
        self.live = live
        self.say()

    def say(self, **changes):
        self.status = dataclasses.replace(self.status, **changes)
        self.status_changed.emit(self.status)

    def update_once(self):
        self.calls.append(("update_once",))

    def cancel(self):
        self.calls.append(("cancel",))

    def retry(self):
        self.calls.append(("retry",))

    def finetune(self, *, steps):
        if not self.painted:
            raise UsageError("nothing is painted yet; paint two classes at least")
        self.calls.append(("finetune", steps))
        self.say_finetune(phase="running", note="step 1 of 20")

    def cancel_finetune(self):
        self.say_finetune(phase="none", shown=False)

    def show_finetuned(self, shown):
        self.say_finetune(shown=shown)

    def say_finetune(self, **changes):
        self.finetuning = dataclasses.replace(self.finetuning, **changes)
        self.finetune_changed.emit(self.finetuning)

    def suggest_next(self):
        key = next(iter(self.images))
        window = Window(100, 128, 200, 228)
        self.suggested.emit(Suggestion(PlaneKey(key, 0), window, "The members disagree most here."))

    def save_classifier(self, path):
        Path(path).write_bytes(b"classifier")

    def load_classifier(self, path):
        self.calls.append(("load_classifier", path))

    def save_project_as(self, folder):
        self.calls.append(("save_project_as", folder))
        self.noticed.emit("the project is kept elsewhere from now on")

    def unsaved(self):
        return self.unsaved_words

    def close(self, *, timeout=5.0):
        self.closed = True


class FakeWorkspace:
    """Has the face of `mdm_studio.services.workspace.Workspace`: grey images of one size, made up."""

    entries_changed = Signal()
    ranked = Signal(int, int)

    def __init__(self, session, count=12, folder=Path("/nowhere/cells")):
        self.session, self.folder, self.calls = session, folder, []
        self._entries = {f"id{n}": ImageEntry(f"id{n}", folder.parent / f"img{n}.png") for n in range(count)}
        self.gate = threading.Event()  # cleared, it holds up whoever reads an image
        self.gate.set()
        self.thumbnails, self.lost = [], ()

    @property
    def entries(self):
        return tuple(self._entries.values())

    def entry(self, image_id):
        return self._entries[image_id]

    def change(self, image_id, **changes):
        self._entries[image_id] = dataclasses.replace(self._entries[image_id], **changes)
        self.entries_changed.emit()

    def load(self, image_id):
        self.calls.append(("load", image_id))
        self.gate.wait(10)
        if self._entries[image_id].problem:
            raise UnreadableImageError(f"{image_id} cannot be read: it is made up")
        pixels = np.full((40, 50), len(image_id), np.uint8)
        if image_id not in self.session.images:
            self.session.images[image_id] = (ArrayImage(pixels), np.zeros((40, 50), np.uint8))
        labels = self.session.images[image_id][1]
        return LoadedImage(image_id, self._entries[image_id].name, [pixels], False, None, (1.0, 1.0), None, labels)

    def release(self, image_id):
        self.calls.append(("release", image_id))
        if image_id in self.session.images and not self.session.images[image_id][1].any():
            self.session.images.pop(image_id)

    def thumbnail(self, image_id, size=128):
        self.thumbnails.append(image_id)
        return np.full((size // 2, size, 3), 128, np.uint8)

    def set_reviewed(self, image_id, reviewed):
        self.change(image_id, reviewed=reviewed)

    def add_images(self, paths):
        new = {f"new{n}": ImageEntry(f"new{n}", Path(path)) for n, path in enumerate(paths)}
        self._entries |= new
        self.entries_changed.emit()
        return tuple(new)

    def remove_images(self, ids):
        self._entries = {key: entry for key, entry in self._entries.items() if key not in ids}
        self.entries_changed.emit()

    def missing(self):
        return self.lost

    def relocate(self, old, new):
        self.calls.append(("relocate", old, new))
        found, self.lost = len(self.lost), ()
        return found

    def rank(self):
        self.session.jobs_changed.emit(frozenset({"ranking"}))

    def stop_ranking(self):
        self.session.jobs_changed.emit(frozenset())

    def suggest(self):
        return list(self._entries)[-1]

    def close(self):
        self.session.close()


def running_threads():
    """Python's threads, and the threads that Qt has named after a QThread (Linux tells their names).

    Those that zarr starts with the first array, and keeps for the rest of the program, are left out.
    """
    tasks, names = Path("/proc/self/task"), []
    for task in tasks.iterdir() if tasks.is_dir() else ():
        with contextlib.suppress(OSError):  # it has ended just now
            names.append((task / "comm").read_text().strip())
    ours = [thread.name for thread in threading.enumerate() if not thread.name.startswith(("zarr_io", "asyncio_"))]
    return ours, [name for name in names if "QThread" in name or "Pooled" in name]


def wait_until(true, seconds=5.0):
    """Run the event loop until `true()` holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not true():
        QApplication.processEvents()
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain")
        time.sleep(0.002)


def settle(seconds=0.12):
    """Run the event loop for a while."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.002)


def canvas_point(viewer, layer, row, col):
    """Where a data point of a layer is on the canvas widget."""
    from qtpy.QtCore import QPoint

    place = (*np.zeros(len(layer.data.shape) - 2), row, col)
    world = np.asarray(layer.data_to_world(place))[-2:]
    centre, size = np.asarray(viewer.scene.camera.center)[-2:], np.asarray(viewer.canvas.size)
    y, x = (world - centre) * viewer.scene.camera.zoom + size / 2
    return QPoint(round(x), round(y))


def canvas(viewer):
    from napari_mdm_studio._session_home import canvas_widget

    return canvas_widget(viewer)


def stroke(viewer, layer, points, modifier=None):
    """Press the mouse, drag it over data points of a layer, release it."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    widget = canvas(viewer)
    places = [canvas_point(viewer, layer, *point) for point in points]
    QTest.mouseMove(widget, places[0])
    settle(0.03)
    QTest.mousePress(widget, Qt.MouseButton.LeftButton, pos=places[0])
    for place in places[1:]:
        QTest.mouseMove(widget, place)
        settle(0.01)
    QTest.mouseRelease(widget, Qt.MouseButton.LeftButton, pos=places[-1])
    settle(0.03)


def press(viewer, key, modifier=None):
    """Press a key in the canvas."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    QTest.keyClick(canvas(viewer), key, modifier or Qt.KeyboardModifier.NoModifier)
    settle(0.03)
