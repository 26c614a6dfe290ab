"""Layers and session in step: chosen images and their strokes go in, pictures come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from mdm_studio.errors import InputError
from napari_mdm_studio._bound import BoundImage, fits, image_layer, show_pixels, show_strokes, strokes_layer, views_of
from napari_mdm_studio._brush import BrushFollower, arm, hand_over
from napari_mdm_studio._geometry import ChannelAxis, Geometry
from napari_mdm_studio._pictures import PREDICTION, Look, PictureLayers, class_colormap
from napari_mdm_studio._planes import Channels, planes_of
from napari_mdm_studio._removed import RemovedLayers
from napari_mdm_studio._strokes import StrokesWatcher
from napari_mdm_studio._views import ViewWatcher, plane_shown

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels, Layer

    from mdm_studio.io.classifier_file import LabelClass
    from mdm_studio.services.session import Session
    from mdm_studio.services.workspace import LoadedImage
    from napari_mdm_studio._worker import Relay

_PICTURES_EVERY = 1 / 12  # seconds: more often nobody sees, and each refresh takes from the painting
_GEOMETRY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


class Bridge:
    """Keeps the layers of a viewer and a session in step.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the layers are.
    session : Session
        What learns and predicts.
    relay : callable
        ``relay(signal, callback, every=, key=)``: brings a signal of the session to the GUI thread.

    Attributes
    ----------
    images : dict of str to BoundImage
        The chosen images by their keys in the session.
    images_changed, layers_changed, outputs_changed : Signal
        Images were added or went; layers of theirs did; other outputs are shown, or otherwise.
    class_selected : Signal
        A class to paint with was chosen in napari's own controls.
    painted, unpainted : Signal
        Key of an image with a stroke that can be undone from now on, and whether it had been undone before; with a stroke
        that was undone.
    told : Signal
        Words for the user: what became of strokes that somebody else changed or removed.
    parked : Signal
        Key of an image of a project whose layers were taken away; it is open in the session still.
    """

    images_changed = Signal()
    layers_changed = Signal()
    outputs_changed = Signal()
    class_selected = Signal(int)
    painted = Signal(str, bool)
    unpainted = Signal(str)
    told = Signal(str)
    parked = Signal(str)

    def __init__(self, viewer: Viewer, session: Session, relay: Callable[..., Relay]) -> None:
        self.viewer, self.session = viewer, session
        self.images: dict[str, BoundImage] = {}
        self.outputs: dict[str, None] = {PREDICTION: None}  # an ordered set
        self.look = Look()
        self._views = ViewWatcher(viewer, lambda: session.view_moved(views_of(viewer, self.images.values())))
        self._brush = BrushFollower(viewer, lambda: [bound.strokes for bound in self.images.values()])
        self._removed = RemovedLayers(self)
        relay(session.picture_changed, self._written, every=_PICTURES_EVERY, key=lambda *which: which)
        relay(session.labels_rewritten, self._written)
        relay(session.classes_changed, self._classes_changed, key=lambda *_: None)

    # ------------------------------------------------------------------------------------------------------------- images

    def add(
        self,
        layer: Image,
        channel_axis: ChannelAxis = None,
        channels: Channels = None,
        *,
        key: str = "",
        strokes: Any = None,
    ) -> BoundImage:
        """Choose an image: open it in the session, with strokes to paint and the outputs that are shown.

        Parameters
        ----------
        key, strokes : str, array-like
            Of an image that the session has open already, with this array of labels: it is shown now, until `park`.

        Raises
        ------
        InputError
            If the layer cannot be read as an image.
        """
        planes = None if key else planes_of(layer, channel_axis, channels)
        geometry = Geometry.of(layer, channel_axis)
        first = not self.images
        painted = strokes_layer(self.viewer, layer, geometry, strokes)
        pictures = PictureLayers(self.viewer, lambda: layer.name, geometry, lambda: painted)
        if planes is not None:
            key = layer.name
            while key in self.images:  # a layer that was renamed left its name to another
                key += "'"
            self.session.open_image(key, planes, painted.data)
        array = painted.data if strokes is None else strokes
        bound = self._bind(key, (layer, painted, pictures), array, channel_axis, channels, kept=planes is None)
        if first:
            arm(self.viewer, bound.strokes, [each.value for each in self.session.classes])
        return bound

    def show(self, image: LoadedImage) -> BoundImage:
        """Show an image of a project, open in the session already, in place of the one that is shown now, which is parked.

        Its layers show the new image if they can: napari takes a second or two for new ones.
        """
        former = next((bound for bound in self.images.values() if bound.kept), None)
        if former is None or not fits(former, image):
            layer = image_layer(self.viewer, image)
            bound = self.add(layer, image.channel_axis, image.channels, key=image.id, strokes=image.labels)
            if former is not None:
                hand_over(former.strokes, bound.strokes)
                self.park(former.key)
            self.viewer.layers.selection.active = bound.strokes
            return bound
        self._release(former)
        layer, pictures = show_pixels(self.viewer, former.layer, image), former.pictures
        geometry = Geometry.of(layer, image.channel_axis)
        show_strokes(former.strokes, image, geometry)
        pictures.move_to(lambda: layer.name, geometry)
        for output in list(pictures.layers):
            pictures.refill(output, self.session.picture(image.id, output), self.session.classes)
        layers = (layer, former.strokes, pictures)
        bound = self._bind(image.id, layers, image.labels, image.channel_axis, image.channels, kept=True)
        if former.key != image.id:
            self.parked.emit(former.key)
        return bound

    def _bind(
        self,
        key: str,
        layers: tuple[Image, Labels, PictureLayers],
        array: Any,
        channel_axis: ChannelAxis,
        channels: Channels,
        *,
        kept: bool,
    ) -> BoundImage:
        layer, strokes, pictures = layers
        watcher = StrokesWatcher(
            strokes,
            lambda part: self.session.labels_changed(key, part.plane, part.rows, part.cols),
            lambda: self._strokes_replaced(key),
            partial(QTimer.singleShot, 0),
            partial(self.painted.emit, key),
            partial(self.unpainted.emit, key),
        )
        bound = BoundImage(key, layer, strokes, array, channel_axis, channels, pictures, watcher, kept)
        self.images[key] = bound

        def follow(event: Any) -> None:
            bound.follow()
            self._views.soon()

        for name in _GEOMETRY:
            bound.listen(getattr(layer.events, name), follow)
        bound.listen(layer.events.data, self._image_replaced)
        bound.listen(strokes.events.selected_label, self._label_selected)
        strokes.colormap = class_colormap(self.session.classes, unknown=True)
        for output in self.outputs:
            self._show(bound, output)
        self._tell_changed()
        return bound

    def read_channels(self, key: str, channels: Channels) -> None:
        """Read other channels of an image; its strokes stay.

        Raises
        ------
        ChannelsError
            If it does not have them.
        """
        bound = self.images[key]
        self.session.open_image(key, planes_of(bound.layer, bound.channel_axis, channels), bound.array)
        bound.channels = channels

    def remove(self, key: str) -> None:
        """Choose an image no longer; its strokes stay, its outputs go. An image of a project is parked."""
        if self.images[key].kept:
            self.park(key)
            return
        bound = self.images.pop(key)
        bound.let_go()
        self.session.close_image(key)
        bound.pictures.close()
        self._tell_changed()

    def park(self, key: str) -> None:
        """Take the layers of an image away, and listen to them no longer; the session keeps it as it is."""
        bound = self.images[key]
        self._release(bound)
        bound.pictures.close()
        for layer in (bound.strokes, bound.layer):
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._tell_changed()
        self.parked.emit(key)

    def _release(self, bound: BoundImage) -> None:
        """Show an image of a project no longer; of its outputs the session keeps the prediction."""
        del self.images[bound.key]
        bound.let_go()
        bound.pictures.dismiss()
        for output in bound.pictures.layers:
            self._forget(bound, output)

    def _tell_changed(self) -> None:
        self._views.soon()
        self.images_changed.emit()
        self.layers_changed.emit()

    def bound_to(self, layer: Layer | None) -> BoundImage | None:
        """The chosen image that a layer belongs to."""
        return next((bound for bound in self.images.values() if any(layer is each for each in bound.layers)), None)

    def current(self) -> BoundImage | None:
        """The image of the active layer, or else the first one."""
        active = self.bound_to(self.viewer.layers.selection.active)
        return active or next(iter(self.images.values()), None)

    def plane(self, key: str) -> tuple[int, ...]:
        """Stack position of an image that is shown now."""
        return plane_shown(self.viewer, self.images[key].strokes)

    def _image_replaced(self, event: Any) -> None:
        """The image's array was replaced: close and choose it anew, where its strokes still fit."""
        bound = self.bound_to(event.source)
        if bound is None:
            return
        self.remove(bound.key)
        if bound.kept:  # its pixels are those of a file
            return
        for channels in (bound.channels, None):  # it may have fewer of them now
            try:
                self.add(bound.layer, bound.channel_axis, channels)
            except InputError:
                continue  # or it is no image any more: the list of images shows that it is not chosen
            return

    def _strokes_replaced(self, key: str) -> None:
        """The strokes layer was given other data: they go into the array that the session has, and the layer keeps that."""
        bound = self.images[key]
        if bound.strokes.data is bound.array:
            return
        refused = bound.take_back()
        if refused:
            self.told.emit(refused)
        height, width = bound.geometry.shape[-2:]
        for plane in bound.planes:
            self.session.labels_changed(key, plane, slice(0, height), slice(0, width))

    # ------------------------------------------------------------------------------------------------------------ outputs

    def set_output(self, output: str, on: bool) -> None:
        """Show an output of all images, or remove it."""
        self.outputs.pop(output, None)
        if on:
            self.outputs[output] = None
        for bound in self.images.values():
            if on:
                self._show(bound, output)
            else:
                self.hide_output(bound, output)
        self.layers_changed.emit()
        self.outputs_changed.emit()

    def set_look(self, look: Look) -> None:
        """Show predictions in another way; a prediction layer that was deleted comes back."""
        self.look = look
        came_back = False
        for bound in self.images.values():
            layer: Any = bound.pictures.prediction()
            if layer is None and look.visible and PREDICTION in self.outputs:
                layer, came_back = self._show(bound, PREDICTION), True
            for name, value in look.as_options().items():
                if layer is not None and getattr(layer, name) != value:  # even the same contour would be drawn anew
                    setattr(layer, name, value)
        if came_back:
            self.layers_changed.emit()
        self.outputs_changed.emit()

    def add_output(self, key: str, name: str, data: Any, kind: str, **options: Any) -> Any:
        """Add a layer of one's own over an image; `kind` is "labels" or "image"."""
        return self.images[key].pictures.add(name, data, kind, **options)

    def _show(self, bound: BoundImage, output: str) -> Layer:
        levels = self.session.picture(bound.key, output)
        return bound.pictures.show(output, levels, self.session.classes, self.look)

    def hide_output(self, bound: BoundImage, output: str) -> None:
        """Remove an output of an image; the session draws it no longer."""
        bound.pictures.hide(output)
        self._forget(bound, output)

    def _forget(self, bound: BoundImage, output: str) -> None:
        if output != PREDICTION:
            self.session.forget_picture(bound.key, output)

    def _written(self, key: str, output: str = "") -> None:
        """The session has written into an output of an image, or without one, into its strokes."""
        bound = self.images.get(key)
        if bound is not None and output:
            bound.pictures.refresh(output)
        elif bound is not None:
            bound.strokes.refresh(thumbnail=False, extent=False)

    def _classes_changed(self, classes: Sequence[LabelClass]) -> None:
        values = [each.value for each in classes]
        for bound in self.images.values():
            if values and bound.strokes.selected_label not in (0, *values):  # else the next stroke would bring a class back
                bound.strokes.selected_label = values[0]
            bound.strokes.colormap = class_colormap(classes, unknown=True)
            prediction = bound.pictures.prediction()
            if prediction is not None:
                prediction.colormap = class_colormap(classes, unknown=False)

    # ------------------------------------------------------------------------------------------------------ strokes, views

    def _label_selected(self, event: Any) -> None:
        bound = self.bound_to(event.source)
        if bound is not None and bound.strokes is self.viewer.layers.selection.active:
            self.class_selected.emit(int(bound.strokes.selected_label))

    def take_tool(self, mode: str, value: int | None = None) -> None:
        """Take a tool in hand ("paint", "erase") for the current image, with a class if one is given."""
        self._removed.tidy_up()
        bound = self.current()
        if bound is None:
            return
        active: Any = self.viewer.layers.selection.active
        if bound.strokes is not active and any(active is each.strokes for each in self.images.values()):
            hand_over(active, bound.strokes)
        self.viewer.layers.selection.active = bound.strokes
        if value is not None:
            bound.strokes.selected_label = value
        bound.strokes.mode = mode

    def close(self) -> None:
        """Let go of everything; the layers stay as they are."""
        self._views.close()
        self._brush.close()
        self._removed.close()
        for bound in self.images.values():
            bound.let_go()
        self.images.clear()
