"""A live session: images are opened, strokes are painted, and the mask follows. No Qt, no napari.

`Session` holds what the user wants (images, views, classes, choices) and says what became of it by signals. Its verbs return at
once, from any thread; the work is done by two threads of its own, one for the head, which must answer a stroke within
moments, and one for features, which takes seconds a tile. What each does next is decided by `mdm_studio.services.live_plan`.

Signals are emitted from those threads; a front end brings them to its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import ClassifierError, ProjectError, UsageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.labels import MAX_CLASSES
from mdm_studio.services.keeper import Keeper
from mdm_studio.services.live_core import MEMORY, LiveImage, LiveSettings
from mdm_studio.services.live_finetune import JOB as FINETUNE
from mdm_studio.services.live_finetune import FinetuneState, FineTuning
from mdm_studio.services.live_plan import PlaneKey, View, Window
from mdm_studio.services.live_status import Status
from mdm_studio.services.pictures import Picture
from mdm_studio.services.strokes import block_window
from mdm_studio.services.suggestions import Suggestion

if TYPE_CHECKING:
    from mdm_studio.services.classifier import Classifier

__all__ = ["FinetuneState", "LiveImage", "LiveSettings", "Session", "Status", "Suggestion", "View", "Window"]


class Session(FineTuning):
    """See the module.

    Parameters
    ----------
    cache : FeatureCache or None
        Features on disk, so that a second opening is instant.
    memory : int
        Bytes of features in memory.
    settings : LiveSettings, optional
        Backbone and features to begin with.
    live : bool
        Learn every stroke at once; else when `update_once` is called.
    keep : {"nothing", "automatic"} or Path
        Keep strokes, classes and settings on disk, and bring them back when the same images are opened again: in a
        recovery project of the user's own, or in the project in a folder.

    Attributes
    ----------
    keeper : Keeper or None
        Keeps it on disk.
    status_changed, settings_changed, classes_changed : Signal
        With the new `Status`, `LiveSettings`, tuple of `LabelClass`.
    class_change_made : Signal
        Classes were changed in a way that `undo_class_change` takes back; with what it was, in words.
    picture_changed : Signal
        Image and output whose arrays were written.
    labels_rewritten : Signal
        Image whose labels the session has written (classes merged, strokes restored).
    suggested, failed, noticed : Signal
        A `Suggestion`; what went wrong; what is worth knowing (strokes were restored).
    updated : Signal
        ``"preview"`` or ``"exact"``: everything in view shows the last stroke; and the seconds since that stroke.
    jobs_changed : Signal
        Names of the jobs beside (see `run_job`) that are running or waiting.
    """

    def __init__(
        self,
        cache: FeatureCache | None = None,
        *,
        memory: int = MEMORY,
        settings: LiveSettings | None = None,
        live: bool = True,
        keep: Literal["nothing", "automatic"] | Path = "nothing",
    ) -> None:
        super().__init__(cache, memory, settings or LiveSettings(), live)
        self.keeper: Keeper | None = None
        if keep != "nothing":
            folder = keep if isinstance(keep, Path) else None
            self.keeper = Keeper(folder, self.strokes, self.failed.emit, lambda: self.noticed.emit("everything is saved again"))
            self.labels_absorbed.connect(self.keeper.mark)
            self.classes_changed.connect(self._keep_state)
            self.settings_changed.connect(self._keep_state)
        self._send("features", self._load_backbone)

    # ---- images ------------------------------------------------------------------------------------------------------

    def open_image(self, key: str, source: ArrayImage, labels: Any) -> None:
        """Take an image in, or another choice of its channels.

        Parameters
        ----------
        key : str
            Names the image from now on.
        source : ArrayImage
            Its pixels.
        labels : array-like
            ``stack_shape + (H, W)``, unsigned integers, 0 = unlabelled; read and, when classes are merged, written.

        Raises
        ------
        UsageError
            If the labels do not have the shape of the image.
        """
        wanted = (*source.stack_shape, source.height, source.width)
        if tuple(labels.shape) != wanted:
            raise UsageError(f"the labels have the shape {tuple(labels.shape)} and {source.name} {wanted}; make them alike")
        with self._lock:
            old = self.images.get(key)
            self.images[key] = LiveImage(key, source, labels, old.pictures if old else {})
            if old is not None:
                self._drop_features(key)
        if old is not None:
            self._send("head", lambda: self.strokes.forget(key))  # so that they are learnt anew
        self._send("head", lambda: self._scan(key))

    def close_image(self, key: str) -> None:
        """Let an image go; its strokes are not learnt from any more."""
        with self._lock:
            self.images.pop(key, None)
            self._views = {plane: view for plane, view in self._views.items() if plane.image != key}

        def errand() -> None:
            if self.keeper is not None:
                self.keeper.forget(key)
            self.strokes.forget(key)
            self._drop_features(key)

        self._send("head", errand)

    def after_strokes(self, callback: Callable[[], None]) -> None:
        """Call back, on a thread of the session's, when everything that was painted so far is taken over."""
        self._send("head", callback)

    def labels_changed(self, key: str, plane: Sequence[int], rows: slice, cols: slice) -> None:
        """Strokes were painted or erased in a region of a plane."""
        image = self.images.get(key)
        if image is not None:
            self._stroke_at, self._paused = time.perf_counter(), False
            window, number = block_window(rows, cols, image.source.height, image.source.width), image.number(plane)
            if self.keeper is not None:  # at once: a window that closes now waits for what is marked, not for what is learnt
                self.keeper.mark(key, number, window)
            self._send("head", lambda: self._absorb(image, number, window))

    def view_moved(self, views: Mapping[tuple[str, tuple[int, ...]], View]) -> None:
        """The screen shows something else: all that it shows, by image and place in the stack."""
        with self._lock:
            known = {(key, place): view for (key, place), view in views.items() if key in self.images}
            self._views = {PlaneKey(key, self.images[key].number(place)): view for (key, place), view in known.items()}
        self._crew.wake()

    def picture(self, key: str, output: str) -> list[NDArray[Any]]:
        """Levels of an output of an image, see `mdm_studio.services.pictures.Picture`; the same arrays at every call.

        Parameters
        ----------
        output : str
            ``prediction`` (uint8 class values), ``uncertainty`` (float32, nats) or ``probability:VALUE`` (float32). It is
            drawn from now on.
        """
        with self._lock:
            image = self.images[key]
            if output not in image.pictures:
                dtype = np.uint8 if output == "prediction" else np.float32
                image.pictures[output] = Picture(image.source.stack_shape, image.source.height, image.source.width, dtype)
                if self.bench is not None:
                    self.bench.redraw(key)
            levels = image.pictures[output].levels
        self._crew.wake()
        return levels

    def forget_picture(self, key: str, output: str) -> None:
        """Stop drawing an output."""
        with self._lock:
            if key in self.images:
                self.images[key].pictures.pop(output, None)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def choose(self, **changes: Any) -> None:
        """Read other features: any fields of `LiveSettings`; the next picture replaces what is shown tile by tile.

        Raises
        ------
        UsageError
            If there is no such field.
        """
        unknown = changes.keys() - LiveSettings.__dataclass_fields__.keys()
        if unknown:
            known = ", ".join(LiveSettings.__dataclass_fields__)
            raise UsageError(f"there is nothing called {sorted(unknown)} to choose; there are {known}")
        with self._lock:
            old = self.settings
            if changes.get("backbone", old.backbone) != old.backbone:  # what was read of another network means nothing here
                read = dict.fromkeys(("blocks", "timesteps", "scales", "filters", "n_blocks"))
                changes = read | {"noise": ""} | changes
            self.settings = replace(old, **changes)
            loaded = [(each.backbone, each.device, each.noise) for each in (old, self.settings)]
        self._send("features", self._load_backbone if loaded[0] != loaded[1] else self._new_bench)

    def set_live(self, live: bool) -> None:
        """Learn every stroke at once, or only when asked to."""
        self.live = live
        self._go_on()

    def update_once(self) -> None:
        """Learn the strokes there are, live or not."""
        self._once = True
        self._go_on()

    def cancel(self) -> None:
        """Stop what is being computed; the next stroke, or `update_once`, goes on."""
        self._paused, self._once = True, False
        self.cancel_finetune()
        self.stop_jobs()
        self._tell(always=True)

    def retry(self) -> None:
        """Try again what failed."""
        with self._lock:
            self._unlearnable, self._error = -1, ""
            if self.bench is not None:
                self.bench.broken.clear()
        if self._backbone is None:
            self._send("features", self._load_backbone)
        self._go_on()

    def suggest_next(self) -> None:
        """Ask for the window that would help most; the answer comes by `suggested`, or by `failed` if there is none yet."""
        self._send("head", self._suggest)

    def save_classifier(self, path: Path) -> None:
        """Write ``FILE.mdm``: the classifier that the exact picture shows.

        Raises
        ------
        ClassifierError
            If nothing is trained to the end yet.
        OutputError
            If it cannot be written.
        """
        channels = _channels(dict(self.images))
        classifier = self.bench.classifier(self.class_table(), self.settings.backbone, channels) if self.bench else None
        if classifier is None:
            raise ClassifierError("there is no classifier to save yet; paint two classes and wait for the exact picture")
        classifier.save(path)

    def load_classifier(self, path: Path) -> None:
        """Predict with a classifier from a file until the next stroke; its classes are taken over.

        So are its backbone and features, unless it brings a fine-tuned network: then the ensemble goes on reading what it read.
        """
        self._send("features", lambda: self._take_classifier(path))

    # ---- jobs beside -------------------------------------------------------------------------------------------------

    def stop_jobs(self) -> None:
        """Stop the explorer and the advisor; fine-tuning goes on, see `cancel_finetune`."""
        with self._lock:
            self._jobs = {name: steps for name, steps in self._jobs.items() if name == FINETUNE}
        self.jobs_changed.emit(frozenset(self._jobs))
        self._crew.wake()

    # ---- the end -----------------------------------------------------------------------------------------------------

    def unsaved(self) -> str | None:
        """What is not on disk, in words, after trying once more; None if everything is. It may take the time of a write."""
        return self.keeper.unsaved() if self.keeper else None

    def save_project_as(self, folder: Path) -> None:
        """Copy the project into a new folder and go on there; the outcome comes by `noticed` or `failed`."""
        keeper = self.keeper
        if keeper is None:
            raise ProjectError("this session keeps nothing on disk; open it with a project")

        def errand() -> None:
            keeper.save_as(folder)
            self.noticed.emit(f"the project is kept in {folder} from now on")

        self._send("head", errand)

    def close(self, *, timeout: float = 5.0) -> bool:
        """Save what is pending and end all threads; whether they ended in time. Nothing is emitted after it."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            for errands in self._errands.values():
                errands.clear()
        ended = self._crew.close(timeout)
        if self.keeper is not None:
            self.keeper.close()
        return ended

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _drop_features(self, key: str) -> None:
        """Forget the features of an image, and what went wrong with it."""
        for bench in self._benches():
            bench.forget(key)
        if self.bench is not None and not self.bench.broken:
            self._error = ""

    def _keep_state(self, *_: object) -> None:
        if self.keeper is not None:
            self.keeper.mark_state(self.classes, self.settings)

    def _keep_finetuned(self, classifier: Classifier) -> None:
        if self.keeper is not None:
            self.keeper.project.check()
            classifier.save(self.keeper.project.finetuned)

    def _bring_back(self, image: LiveImage) -> None:
        if self.keeper is None:
            return
        restored, chunks = self.keeper.opened(image)
        self._offer_finetuned(self.keeper.project.finetuned)
        for plane, window, labels in chunks:
            image.write_labels(plane, window, labels)
        if restored is not None and restored.classes:
            self.set_classes(restored.classes)
        if restored is not None and restored.settings:
            self.choose(**restored.settings)
        if chunks:
            self.labels_rewritten.emit(image.key)
        if chunks and self.keeper.automatic:  # of a project that was opened by its name nobody wonders
            count = sum(int(np.count_nonzero(labels)) for *_, labels in chunks)
            self.noticed.emit(f"{count:,} painted pixels of {image.source.name} were restored")
        self._keep_state()

    def _take_classifier(self, path: Path) -> None:
        from mdm_studio.services import live_work
        from mdm_studio.services.classifier import load_classifier

        classifier = load_classifier(path, device=self.settings.device)
        info = classifier.info
        if max(each.value for each in info.classes) > MAX_CLASSES:
            raise ClassifierError(
                f"{path} has classes of values beyond {MAX_CLASSES}, which cannot be painted: predict with it on the command "
                "line (mdm-studio predict)"
            )
        others = [image.source.name for image in self.images.values() if info.channels not in (None, image.source.chosen)]
        if others:
            read = ", ".join(map(str, info.channels or ()))
            self.noticed.emit(f"the classifier was fitted on the channels {read}, and others are read of {others[0]}")
        if classifier.embedded is not None:
            self._take_finetuned(classifier)
            return
        with self._lock:
            self.settings = LiveSettings(
                live_work.named(info.backbone, info.backbone_digest), info.blocks, info.timesteps, info.scales, info.filters,
                info.smooth, self.settings.device,
                noise=info.noise,
            )  # fmt: skip
        self._load_backbone()
        assert self.bench is not None
        self.set_classes(info.classes)
        self.bench.take(classifier, self.strokes.generation)
        self._crew.wake()


def _channels(images: Mapping[str, LiveImage]) -> tuple[int, ...] | None:
    """Channels that the command line is to read too; None if they are all of an image's, or not the same everywhere."""
    sources = [image.source for image in images.values()]
    chosen = {None if source.rgb or source.chosen == tuple(range(source.available)) else source.chosen for source in sources}
    return chosen.pop() if len(chosen) == 1 else None
