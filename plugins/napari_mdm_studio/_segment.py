"""The Segment dock: from images and strokes to masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_mdm_studio._actions import with_key
from napari_mdm_studio._backbone_box import BackboneBox
from napari_mdm_studio._classes_box import ClassesBox
from napari_mdm_studio._finetune_box import FinetuneBox
from napari_mdm_studio._images_box import ImagesBox
from napari_mdm_studio._outputs_box import OutputsBox
from napari_mdm_studio._session_home import SEGMENT, home_of
from napari_mdm_studio._status_box import StatusBox
from napari_mdm_studio._widgets import Dock, button, note, row, save_suffix

if TYPE_CHECKING:
    import napari

    from mdm_studio.services.session import Suggestion
    from napari_mdm_studio._session_home import SessionHome

_WIDTH = 340
_CLASSIFIERS = "Classifiers of MDM Studio (*.mdm)"
_LONGEST_SAVE = 60_000  # ms that a window waits for its project before it closes
_ROOM = 2.0  # the canvas shows so many times the suggested window, so that its surroundings are seen


class Segment(Dock):
    """Images, backbone, classes, learning, outputs, files.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose images are labelled.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.home: SessionHome = home_of(viewer)
        self.setMinimumWidth(_WIDTH)
        self.setAccessibleName(SEGMENT)
        self.images = ImagesBox(self.home)
        self.backbone = BackboneBox(self.home)
        self.classes = ClassesBox(self.home)
        self.status = StatusBox(self.home)
        self.finetune = FinetuneBox(self.home)
        self.outputs = OutputsBox(self.home)
        sections = (self.images, self.backbone, self.classes, self.status, self.finetune, self.outputs)
        self.fill(*sections, self._suggestion(), self._files())
        self.home.has_dock(SEGMENT, self)
        self.home.closed.connect(self.end)
        self.home.save = self.save_before_closing
        self.home.relay(self.home.session.suggested, self._go_to, owner=self)

    def end(self) -> None:
        """Let go of the session."""
        self.home.closed.disconnect(self.end, missing_ok=True)
        self.home.lost_dock(self)
        if self.home.save == self.save_before_closing:
            self.home.save = None
        for section in (self.images, self.backbone, self.classes, self.status, self.finetune, self.outputs):
            section.end()

    def _suggestion(self) -> QWidget:
        part = QWidget()
        layout = QVBoxLayout(part)
        layout.setContentsMargins(0, 0, 0, 0)
        tooltip = with_key("Go where a stroke would help most.", "suggest_next")
        self.suggest = button("Su&ggest next", tooltip, self.home.session.suggest_next)
        self.why = note()
        self.why.setAccessibleName("Why this place was suggested")
        self.why.hide()
        layout.addWidget(self.suggest)
        layout.addWidget(self.why)
        return part

    def _files(self) -> Any:
        self.save = button("Save &classifier...", "Write FILE.mdm, for more images or the command line.", self.save_classifier)
        self.load = button("Loa&d classifier...", "Predict with FILE.mdm, until the next stroke.", self.load_classifier)
        self.project = button("Save pro&ject as...", "Keep strokes and classes in a folder of yours.", self.save_project)
        files = QVBoxLayout()
        files.addLayout(row(self.save, self.load))
        files.addWidget(self.project)
        return files

    def save_classifier(self, path: str = "") -> bool:
        """Save the classifier; asks where unless `path` is given. False if it was not saved."""
        path = path or QFileDialog.getSaveFileName(self, "Save classifier", "classifier.mdm", _CLASSIFIERS)[0]
        if not path:
            return False
        target = save_suffix(path, ".mdm")
        if not self.home.attempt(self.home.session.save_classifier, target):
            return False
        self.home.tell(f"Classifier saved to {target}")
        return True

    def load_classifier(self, path: str = "") -> None:
        """Predict with a classifier from a file; asks for it unless `path` is given."""
        path = path or QFileDialog.getOpenFileName(self, "Load classifier", "", _CLASSIFIERS)[0]
        if path:
            self.home.session.load_classifier(Path(path))

    def save_project(self, folder: str = "") -> bool:
        """Keep the work in a new folder from now on; asks which unless `folder` is given. False if that was not begun."""
        folder = folder or QFileDialog.getSaveFileName(self, "Save project as", "project", "Folders (*)")[0]
        return bool(folder) and self.home.attempt(self.home.session.save_project_as, Path(folder))

    def save_before_closing(self) -> bool:
        """Save the project and wait for the outcome; False if nothing was saved."""
        loop, outcome = QEventLoop(), []

        def answer(text: str, saved: bool) -> None:
            outcome.append(saved)
            loop.quit()

        session = self.home.session
        relays = [self.home.relay(session.noticed, lambda text: answer(text, True))]
        relays.append(self.home.relay(session.failed, lambda text: answer(text, False)))
        if self.save_project():
            QTimer.singleShot(_LONGEST_SAVE, loop.quit)
            loop.exec()
        for relay in relays:
            self.home.drop(relay)
        return bool(outcome and outcome[-1])

    def _go_to(self, suggestion: Suggestion) -> None:
        """Show the suggested window and say why."""
        self.why.setText(suggestion.why)
        self.why.show()
        bound = self.home.bridge.images.get(suggestion.plane.image)
        if bound is None:
            if self.home.project is not None:  # it is not shown now
                self.home.project.show(suggestion.plane.image, lambda: self._go_to(suggestion))
            return
        rows, cols = suggestion.window.rows, suggestion.window.cols
        place = np.unravel_index(suggestion.plane.plane, bound.geometry.shape[:-2])
        centre = ((rows.start + rows.stop - 1) / 2, (cols.start + cols.stop - 1) / 2)
        world = np.asarray(bound.strokes.data_to_world((*place, *centre)))
        viewer = self.home.viewer
        viewer.dims.set_point(range(viewer.dims.ndim - len(world), viewer.dims.ndim), world)
        sides = np.array([rows.stop - rows.start, cols.stop - cols.start]) * np.abs(bound.strokes.scale[-2:])
        viewer.scene.camera.center = tuple(world[-2:])
        viewer.scene.camera.zoom = float(np.min(np.asarray(viewer.canvas.size) / (sides * _ROOM)))
        viewer.layers.selection.active = bound.strokes
