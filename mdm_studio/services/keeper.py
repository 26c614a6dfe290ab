"""Keeps a live session on disk as it goes on, and brings back what was there when its images are opened again."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.config import user_data_dir
from mdm_studio.errors import FolderLostError, MDMStudioError, ProjectError
from mdm_studio.io.array_planes import ArrayImage, usual_channels
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.label_record import RECORD_SUFFIX
from mdm_studio.io.label_store import SUFFIX
from mdm_studio.services.autosave import Autosave, Region
from mdm_studio.services.live_core import LiveImage, LiveSettings
from mdm_studio.services.live_plan import Window
from mdm_studio.services.project import ImageFacts, Project, ProjectState, image_key
from mdm_studio.services.strokes import StrokeIndex

_SAMPLE = 1 << 14  # pixels that an image is known by, beside its name and shape
_SETTINGS = tuple(name for name in LiveSettings.__dataclass_fields__ if name not in ("device", "n_blocks"))


@dataclass(frozen=True)
class Restored:
    """What was found of an earlier session when the first image was opened."""

    classes: tuple[LabelClass, ...]
    settings: dict[str, Any]


class Keeper:
    """A session's project.

    Parameters
    ----------
    folder : Path or None
        The project; None chooses the recovery project that knows the first image, or begins one.
    strokes : StrokeIndex
        What is painted now, by the session's keys.
    on_problem, on_recovery : callable
        As for `Autosave`.

    Attributes
    ----------
    lost_changed : Signal
        Why the folder is not the project any more, in words, or an empty text: see `lost`.

    Notes
    -----
    `opened` and `forget` are called on one thread, the one that takes strokes over; all else on any.
    """

    lost_changed = Signal(str)

    def __init__(
        self,
        folder: Path | None,
        strokes: StrokeIndex,
        on_problem: Callable[[str], object],
        on_recovery: Callable[[], object],
    ) -> None:
        self._folder = folder
        self._strokes = strokes
        self._on_problem, self._on_recovery = on_problem, on_recovery
        self._project: Project | None = None
        self._autosave: Autosave | None = None
        self._state = ProjectState()
        self._changing = threading.RLock()  # of the state, and of which project it is
        self._keys: dict[str, str] = {}  # session's keys of images to the project's
        self._images: dict[str, LiveImage] = {}  # by the project's keys
        self._named: set[str] = set()  # what was told of damage

    @property
    def folder(self) -> Path | None:
        """Where the work is kept; None before the first image of a recovery project."""
        return self._project.folder if self._project else self._folder

    @property
    def lost(self) -> str:
        """Why nothing is saved, in words, while the folder is not the project any more; empty if it is.

        It was moved, removed or replaced, or its drive is gone. All strokes are in memory, and saving is tried again every few
        seconds; `relocate` and `save_as` are the other ways out.
        """
        problem = self._autosave.problem if self._autosave is not None else None
        return str(problem) if isinstance(problem, FolderLostError) else ""

    @property
    def found(self) -> Path | None:
        """Where the lost project is now, as far as the system tells."""
        return self._project.place() if self._project is not None and self.lost else None

    @property
    def automatic(self) -> bool:
        """Whether it is a recovery project, which the user has not named."""
        return self._folder is None

    @property
    def project(self) -> Project:
        """The open project; ProjectError before `begin` and after `close`."""
        if self._project is None:
            raise ProjectError("the project is not open: open it again")
        return self._project

    @property
    def state(self) -> ProjectState:
        """What the project holds, with the pixels that are painted now."""
        with self._changing:
            images = dict(self._state.images)
            for image, key in list(self._keys.items()):
                painted = _painted_in(image, key, self._strokes, self._state, self._project)
                if key in images and images[key].painted != painted and self._strokes.knows(image):
                    images[key] = replace(images[key], painted=painted)
            return replace(self._state, images=images)

    def change(self, change: Callable[[ProjectState], ProjectState]) -> None:
        """Put another state in the place of the present one; it is saved soon."""
        with self._changing:
            self._state = change(self._state)
            if self._autosave is not None:
                self._autosave.mark_state(lambda: self.state)

    def change_image(self, key: str, **facts: Any) -> None:
        """Put other facts of an image, where the project has it, in the place of the present ones."""
        self.change(lambda state: _with_image(state, key, facts))

    def begin(self) -> Restored | None:
        """Open the project that was named; classes and settings that it holds, the first time, if there are any.

        Raises
        ------
        ProjectError, OutputError
            If the project cannot be used; the session then keeps nothing.
        """
        return self._begin("") if self._folder is not None else None

    def _begin(self, key: str) -> Restored | None:
        with self._changing:
            if self._project is not None:
                return None
            self._project = _choose_project(self._folder, key)
            self._autosave = self._saving(self._project)
            self._state = state = self._project.state
        if not (state.classes or state.settings):
            return None
        return Restored(state.classes, {k: _tuples(v) for k, v in state.settings.items() if k in _SETTINGS})

    def opened(self, image: LiveImage) -> tuple[Restored | None, list[tuple[int, Window, NDArray[np.uint8]]]]:
        """Take an image in.

        Returns
        -------
        Restored or None
            Classes and settings, the first time, if there are any.
        list of (plane, window, labels)
            Strokes as they were left, chunk by chunk; none of an image that is open already.

        Raises
        ------
        ProjectError, OutputError
            If the project cannot be used; the session then keeps nothing.
        """
        if image.key in self._keys:  # other channels of the same image: what is painted is newer than what is on disk
            key = self._keys[image.key]
            self._images[key] = image
            self.change_image(key, channels=_chosen(image.source))
            return None, []
        key, facts, restored = self._know(image)
        if other := self.opened_as(key):
            raise ProjectError(f"{image.source.name} is open already, as {other}: what is painted on this copy is not kept")
        stored = self.project.open_labels(key, facts)
        self._images[key] = image
        self.change(lambda state: replace(state, images={**state.images, key: facts}))
        self._keys[image.key] = key  # last: from now on another thread may mark it
        chunks = [
            (image.number(index), rows, cols, stored.read(index, rows, cols)) for index, rows, cols in stored.painted_chunks()
        ]
        self.tell_damage()
        return restored, [(plane, Window(y.start, y.stop, x.start, x.stop), labels) for plane, y, x, labels in chunks]

    def _know(self, image: LiveImage) -> tuple[str, ImageFacts, Restored | None]:
        """The project's key of an image, what is known of it now, and what the project brought if it was opened just now."""
        restored = self.begin()
        facts, key = _facts(image), image.key
        if key not in self._state.images:
            key = _key_of(image, facts)
            restored = restored or self._begin(key)
            if key not in self._state.images:  # it may be known by its place alone
                places = {facts.source: key for key, facts in self._state.images.items() if facts.source}
                key = places.get(facts.source or "", key)
        known = self._state.images.get(key)
        if known is not None:
            seen = {name: getattr(facts, name) for name in ("stack_shape", "shape", "dtype", "channels")}
            facts = replace(known, **seen, source=facts.source or known.source)
        return key, facts, restored

    def tell_damage(self) -> None:
        """Tell, once each, what was found damaged in the project so far."""
        for warning in self.project.warnings:
            if warning not in self._named:
                self._named.add(warning)
                self._on_problem(warning)

    def opened_as(self, key: str) -> str:
        """The session's key of an image that is open; empty if it is not."""
        return next((image for image, known in list(self._keys.items()) if known == key), "")

    def mark(self, image: str, plane: int, window: Window) -> None:
        """Labels of a window have changed."""
        if self._autosave is not None and image in self._keys:
            key = self._keys[image]
            self._autosave.mark(key, self._images[key].index(plane), window.rows, window.cols)

    def mark_state(self, classes: tuple[LabelClass, ...], settings: LiveSettings) -> None:
        """Classes or settings have changed."""
        if self._autosave is not None:
            chosen = {name: value for name, value in asdict(settings).items() if name in _SETTINGS}
            self.change(lambda state: replace(state, classes=classes, settings=chosen))

    def forget(self, image: str) -> None:
        """Save and let go of an image; its strokes are still painted."""
        key = self._keys.get(image)
        if key is not None and self._autosave is not None:
            if self._strokes.knows(image):
                self.change_image(key, painted=_painted_in(image, key, self._strokes, self._state, self._project))
            del self._keys[image]
            self._autosave.flush()
            self._images.pop(key, None)

    def unsaved(self) -> str | None:
        """What is not on disk yet, in words; tries to save it first."""
        if self._autosave is None:
            return None
        try:
            self._autosave.flush()
        except MDMStudioError as error:
            return f"{self._autosave.pending} changes are not saved: {error}"
        return None

    def save_as(self, folder: Path) -> None:
        """Copy the project and go on in the copy, also where the project can be written no longer.

        Of a project whose folder is lost the copy has what is in memory: the strokes of all open images.

        Raises
        ------
        ProjectError, OutputError
            If it cannot be written; the session then goes on where it was.
        """
        if self._project is None or self._autosave is None:
            raise ProjectError("there is nothing to save yet: choose an image first")
        with contextlib.suppress(MDMStudioError):  # what is not written there is written to the copy
            self._autosave.flush()
        self._project.copy_to(folder)
        project = Project.open(folder)
        try:
            for key in self._images:
                project.open_labels(key, self._state.images[key])
        except BaseException:
            project.close()
            raise
        old, saving = self._project, self._autosave
        with self._changing:
            self._folder, self._project = folder, project
            self._autosave = self._saving(project)
            self.change(lambda state: state)
        saving.stop()
        self._autosave.mark_everything()
        self._autosave.flush()
        old.close()
        self.lost_changed.emit("")
        if left_behind := _left_behind(self.state, project):
            self._on_problem(left_behind)

    def relocate(self, folder: Path) -> None:
        """Go on where the project's folder is now.

        Raises
        ------
        ProjectError, OutputError
            If it is not this project, or cannot be written; the session goes on as it was.
        """
        if self._autosave is None:
            raise ProjectError("the project is not open: open it again")
        with self._changing:
            before = self.project.folder
            self.project.relocate(folder)
            if self._folder is not None:
                self._folder = self.project.folder
            # images that were moved with it are found along their paths from the project
            near = ProjectState.from_json(self._state.to_json(before), self.project.folder, []).images
            self.change(lambda state: replace(state, images={**state.images, **near}))
        self._autosave.mark_everything()
        self._autosave.flush()

    def retry(self) -> None:
        """Save now, for example when the drive is back.

        Raises
        ------
        ProjectError, OutputError
            If it cannot be saved yet.
        """
        if self._autosave is not None:
            self._autosave.flush()

    def _saving(self, project: Project) -> Autosave:
        return Autosave(
            project,
            partial(_read_labels, self._images),
            on_problem=self._told,
            on_recovery=partial(self._told, ""),
            everything=lambda: _everything(dict(self._keys), dict(self._images), self._strokes, self.project),
        )

    def _told(self, problem: str) -> None:
        if problem:
            self._on_problem(problem)
        else:
            self._on_recovery()
        if self.lost or not problem:
            self.lost_changed.emit(problem)

    def close(self) -> None:
        """Save what is pending and end; a failure is told to `on_problem`."""
        if self._autosave is not None:
            if self.state != self._state:  # pixels were painted since it was saved last
                self._autosave.mark_state(lambda: self.state)
            try:
                self._autosave.close()
            except MDMStudioError:
                pass  # told to on_problem, and asked about by whoever closes the window
        if self._project is not None:
            self._project.close()
        self._autosave = self._project = None


def _read_labels(
    images: Mapping[str, LiveImage], key: str, index: tuple[int, ...], rows: slice, cols: slice
) -> NDArray[np.uint8]:
    image = images[key]
    labels = image.read_labels(image.number(index), Window(rows.start, rows.stop, cols.start, cols.stop))
    return labels.astype(np.uint8)


def _painted_in(image: str, key: str, strokes: StrokeIndex, state: ProjectState, project: Project | None) -> int:
    """Painted pixels of an image; while strokes of it are missing, no fewer than there were: the loss is not forgotten."""
    painted = strokes.painted_in(image)
    if project is not None and key in state.images and project.lacks_strokes(key):
        return max(painted, state.images[key].painted)
    return painted


def _choose_project(folder: Path | None, key: str) -> Project:
    if folder is not None:
        return Project.open(folder)
    for recovery in _recovery_folders(key):
        try:
            return Project.open(recovery)
        except ProjectError:
            continue  # another window has it open
    return Project.automatic(f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}")


def _everything(
    keys: Mapping[str, str], images: Mapping[str, LiveImage], strokes: StrokeIndex, project: Project
) -> Iterator[Region]:
    """Whatever is painted in open images, and what is on disk of them."""
    for block, _ in strokes:
        key = keys.get(block.plane.image, "")
        if key in images:
            yield key, images[key].index(block.plane.plane), *block.pixels
    for name, key in keys.items():
        image, labels = images[key], project.labels(key)
        for index, rows, cols in labels.painted_chunks():
            yield key, index, rows, cols
        if not strokes.knows(name):  # it is being looked through
            for index in np.ndindex(*image.source.stack_shape):
                yield key, index, slice(0, image.source.height), slice(0, image.source.width)


def _left_behind(state: ProjectState, project: Project) -> str:
    """Names images that were painted and are not open: their strokes were in the lost folder alone."""
    kept = set(project.labelled())
    gone = [facts.name for key, facts in state.images.items() if facts.painted and key not in kept]
    if not gone:
        return ""
    more = f" and {len(gone) - 1} more images" if len(gone) > 1 else ""
    return f"the strokes of {gone[0]}{more} are not in the copy: they are in the folder that was lost"


def _recovery_folders(key: str) -> list[Path]:
    """Recovery projects that hold strokes of an image, the newest first."""
    found = []
    projects = user_data_dir() / "projects"
    names = (f"*-{key}{RECORD_SUFFIX}", f"*-{key}{SUFFIX}", f"{key}.zarr")  # the last one of version 1
    for folder in {labels.parent.parent for name in names for labels in projects.glob(f"*/labels/{name}")}:
        state = folder / "project.json"
        found.append(((state if state.exists() else folder).stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def _facts(image: LiveImage) -> ImageFacts:
    source = image.source
    path = str(source.source.absolute()) if source.source else None
    shape, dtype = (source.height, source.width), np.dtype(source.dtype).str
    return ImageFacts(source.name, path, source.stack_shape, shape, dtype, channels=_chosen(source))


def _chosen(source: ArrayImage) -> tuple[int, ...]:
    """The channels that are read, where it is not the usual ones."""
    return () if source.rgb or source.chosen == usual_channels(source.available) else source.chosen


def _key_of(image: LiveImage, facts: ImageFacts) -> str:
    source = image.source
    usual = source.reading(usual_channels(source.available))  # whatever is chosen now: it is the same image
    return image_key(facts, usual.plane(image.index(0)).sample(_SAMPLE))


def _with_image(state: ProjectState, key: str, facts: dict[str, Any]) -> ProjectState:
    known = state.images.get(key)
    return state if known is None else replace(state, images={**state.images, key: replace(known, **facts)})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
