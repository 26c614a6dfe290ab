"""What an export would give for the image in view, over that image and on no disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from mdm_studio.services.export_form import counted
from napari_mdm_studio._export_image import ShownImage, image_shown, placed
from napari_mdm_studio._pictures import class_colormap
from napari_mdm_studio._widgets import Section, button, note, row

if TYPE_CHECKING:
    from mdm_studio.io.classifier_file import LabelClass
    from mdm_studio.services.export_request import PredictOptions
    from napari_mdm_studio._session_home import SessionHome
    from napari_mdm_studio._worker import Runner

_OPACITY = {"mask": 0.5, "objects": 0.7}


@dataclass(frozen=True)
class Order:
    """What is to be previewed.

    Attributes
    ----------
    classifier : callable
        Gives FILE.mdm; called on a thread, with a folder that it may write to.
    stop : callable
        Whether the preview is wanted no longer.
    """

    options: PredictOptions
    device: str
    classifier: Callable[[Path], Path]
    stop: Callable[[], bool]


@dataclass(frozen=True)
class Seen:
    """A preview: the part of a plane that was looked at, and what was found there."""

    shown: ShownImage
    found: dict[str, NDArray[Any]]
    classes: tuple[LabelClass, ...]

    @property
    def objects(self) -> int | None:
        """How many there are; None if none were looked for."""
        return int(np.max(self.found["objects"], initial=0)) if "objects" in self.found else None

    def words(self) -> str:
        """What was found, in words."""
        mask = self.found["mask"]
        height, width = mask.shape
        whole = (self.shown.planes.height, self.shown.planes.width) == mask.shape
        where = self.shown.name if whole else f"{width:,} x {height:,} px of {self.shown.name}"
        shares = ", ".join(f"{each.name} {np.mean(mask == each.value):.0%}" for each in self.classes)
        objects = "" if self.objects is None else f"{counted(self.objects, 'object')} in "
        return f"{objects}{where}: {shares}."


def look(shown: ShownImage, order: Order) -> Seen:
    """Compute a preview; takes seconds."""
    from mdm_studio.config import CACHE_BYTES, default_cache_dir
    from mdm_studio.io.classifier_file import read_classifier
    from mdm_studio.io.feature_cache import FeatureCache
    from mdm_studio.services.export_preview import preview

    with tempfile.TemporaryDirectory(prefix="mdm-studio-") as folder:
        classifier = order.classifier(Path(folder))
        info, _ = read_classifier(classifier)
        # of an image in view features are there already
        cache = FeatureCache(default_cache_dir(), max_bytes=CACHE_BYTES, optional=True)
        path = shown.as_file(Path(folder))
        found = preview(classifier, path, order.options, device=order.device, centre=shown.centre, cache=cache, stop=order.stop)
    return Seen(shown, found, info.classes)


class PreviewBox(Section):
    """Preview on the image in view.

    Parameters
    ----------
    order : callable
        Gives what is to be previewed, for a function that says whether it is wanted no longer.
    """

    def __init__(self, home: SessionHome, runner: Runner, order: Callable[[Callable[[], bool]], Order]) -> None:
        super().__init__("Try")
        self._home, self._runner, self._order = home, runner, order
        self._layers: list[Any] = []
        self._key, self._hid = "", False
        self._number, self.running = 0, False  # of the preview that is wanted; an answer to an earlier one is dropped
        tooltip = "Show masks and objects as they would be written, over the image in view; nothing is written."
        self.start = button("Preview on this ima&ge", tooltip, self.toggle)
        self.remove = button("Re&move", "Take the preview off the image.", self.clear, small=True)
        self.remove.setEnabled(False)
        self.text = note()
        self.text.setAccessibleName("What the preview found")
        self.text.hide()
        self.body.addLayout(row(self.start, self.remove))
        self.body.addWidget(self.text)
        self._soon = QTimer(self, singleShot=True, interval=0)  # the bridge is in the middle of changing layers
        self._soon.timeout.connect(self.clear)
        home.bridge.images_changed.connect(self._images_changed)

    def toggle(self) -> None:
        """Begin a preview, or stop the one that is running."""
        if self.running:
            self._done("Stopped.")
            return
        shown = image_shown(self._home)
        if shown is None:
            self._say("Open an image to preview on.")
            return
        self._number += 1
        self.running, number = True, self._number
        self.start.setText("Stop previewin&g")
        self._say(f"Looking at {shown.name}...")
        self._runner.start(
            look,
            shown,
            self._order(lambda: number != self._number),
            done=lambda seen: self._show(number, seen),
            failed=lambda why: self._done(why[:1].upper() + why[1:], number),
        )

    def _show(self, number: int, seen: Seen) -> None:
        if number != self._number:
            return
        self._done(seen.words(), number)
        self.clear(keep_words=True)
        bound = self._home.bridge.images.get(seen.shown.key)
        if bound is None:
            return
        self._key = seen.shown.key
        top, left = seen.found["corner"].tolist()
        for kind, opacity in _OPACITY.items():
            if kind not in seen.found:
                continue
            data, options = placed(bound.geometry, seen.shown.place, (top, left), seen.found[kind])
            if kind == "mask":
                options["colormap"] = class_colormap(seen.classes, unknown=False)
            name = f"{seen.shown.name} preview of {kind}"
            layer = self._home.bridge.add_output(self._key, name, data, "labels", opacity=opacity, **options)
            layer.editable = False
            layer.visible = kind == "objects" or "objects" not in seen.found  # one over the other would hide the image
            self._layers.append(layer)
        self._hide_prediction(hidden=True)
        self.remove.setEnabled(True)

    def _hide_prediction(self, *, hidden: bool) -> None:
        """Hide the live prediction while a preview is shown in its place."""
        bridge = self._home.bridge
        if hidden and bridge.look.visible:
            self._hid = True
            bridge.set_look(replace(bridge.look, visible=False))
        elif not hidden and self._hid:
            self._hid = False
            bridge.set_look(replace(bridge.look, visible=True))

    def _done(self, words: str, number: int | None = None) -> None:
        if number is not None and number != self._number:
            return
        self._number += 1
        self.running = False
        self.start.setText("Preview on this ima&ge")
        self._say(words)

    def _say(self, words: str) -> None:
        self.text.setText(words)
        self.text.setVisible(bool(words))

    def _images_changed(self) -> None:
        if self._key and self._key not in self._home.bridge.images:
            self._soon.start()

    def clear(self, *, keep_words: bool = False) -> None:
        """Take the layers of the preview away."""
        layers, self._layers, self._key = self._layers, [], ""
        for layer in layers:
            if layer in self._home.viewer.layers:
                self._home.viewer.layers.remove(layer)
        self._hide_prediction(hidden=False)
        self.remove.setEnabled(False)
        if not keep_words:
            self._say("")

    def end(self) -> None:
        """Drop what is computed, and take the layers away."""
        self._number += 1
        self._home.bridge.images_changed.disconnect(self._images_changed, missing_ok=True)
        self._soon.stop()
        self.clear()
