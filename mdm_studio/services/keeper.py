"""Keeps a live session on disk as it goes on, and brings back what was there when its images are opened again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.config import user_data_dir
from mdm_studio.errors import MDMStudioError, ProjectError
from mdm_studio.io.array_planes import usual_channels
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.services.autosave import Autosave
from mdm_studio.services.live_core import LiveImage, LiveSettings
from mdm_studio.services.live_plan import Window
from mdm_studio.services.project import ImageFacts, Project, ProjectState, image_key

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
    on_problem, on_recovery : callable
        As for `Autosave`.

    Notes
    -----
    `opened` and `forget` are called on one thread, the one that takes strokes over; `mark` on any.
    """

    def __init__(self, folder: Path | None, on_problem: Callable[[str], object], on_recovery: Callable[[], object]) -> None:
        self._folder = folder
        self._on_problem, self._on_recovery = on_problem, on_recovery
        self._project: Project | None = None
        self._autosave: Autosave | None = None
        self._keys: dict[str, str] = {}  # session's keys of images to the project's
        self._images: dict[str, LiveImage] = {}  # by the project's keys
        self._facts: dict[str, ImageFacts] = {}

    @property
    def folder(self) -> Path | None:
        """Where the work is kept; None before the first image."""
        return self._project.folder if self._project else None

    @property
    def automatic(self) -> bool:
        """Whether it is a recovery project, which the user has not named."""
        return self._folder is None

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
            self._images[self._keys[image.key]] = image
            return None, []
        facts, key = _known_by(image)
        restored = None
        if self._project is None:
            self._project = self._choose_project(key)
            self._autosave = Autosave(self._project, self._read, on_problem=self._on_problem, on_recovery=self._on_recovery)
            state = self._project.state
            if state.classes or state.settings:
                restored = Restored(state.classes, {k: _tuples(v) for k, v in state.settings.items() if k in _SETTINGS})
        stored = self._project.open_labels(key, facts)
        self._images[key], self._facts[key] = image, facts
        self._keys[image.key] = key  # last: from now on another thread may mark it
        chunks = [
            (image.number(index), rows, cols, stored.read(index, rows, cols)) for index, rows, cols in stored.painted_chunks()
        ]
        return restored, [(plane, Window(y.start, y.stop, x.start, x.stop), labels) for plane, y, x, labels in chunks]

    def mark(self, image: str, plane: int, window: Window) -> None:
        """Labels of a window have changed."""
        if self._autosave is not None and image in self._keys:
            key = self._keys[image]
            self._autosave.mark(key, self._images[key].index(plane), window.rows, window.cols)

    def mark_state(self, classes: tuple[LabelClass, ...], settings: LiveSettings) -> None:
        """Classes or settings have changed."""
        if self._autosave is not None:
            chosen = {name: value for name, value in asdict(settings).items() if name in _SETTINGS}
            assert self._project is not None
            self._autosave.mark_state(ProjectState(classes, chosen, dict(self._project.state.images) | self._facts))

    def forget(self, image: str) -> None:
        """Save and let go of an image."""
        key = self._keys.pop(image, None)
        if key is not None and self._autosave is not None:
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
        """Copy the project and go on in the copy.

        Raises
        ------
        ProjectError, OutputError
            If it cannot be written; the session then goes on where it was.
        """
        if self._project is None or self._autosave is None:
            raise ProjectError("there is nothing to save yet: choose an image first")
        self._autosave.flush()
        self._project.copy_to(folder)
        project = Project.open(folder)
        for key in self._images:
            project.open_labels(key, self._facts[key])
        old, saving = self._project, self._autosave
        self._folder, self._project = folder, project
        self._autosave = Autosave(project, self._read, on_problem=self._on_problem, on_recovery=self._on_recovery)
        for key in self._images:  # what was painted while it was copied
            for index, rows, cols in project.labels(key).painted_chunks():
                self._autosave.mark(key, index, rows, cols)
        saving.close()
        old.close()

    def close(self) -> None:
        """Save what is pending and end; a failure is told to `on_problem`."""
        if self._autosave is not None:
            try:
                self._autosave.close()
            except MDMStudioError:
                pass  # told to on_problem, and asked about by whoever closes the window
        if self._project is not None:
            self._project.close()
        self._autosave = self._project = None

    def _read(self, key: str, index: tuple[int, ...], rows: slice, cols: slice) -> NDArray[np.uint8]:
        image = self._images[key]
        labels = image.read_labels(image.number(index), Window(rows.start, rows.stop, cols.start, cols.stop))
        return labels.astype(np.uint8)

    def _choose_project(self, key: str) -> Project:
        if self._folder is not None:
            return Project.open(self._folder)
        for folder in _recovery_folders(key):
            try:
                return Project.open(folder)
            except ProjectError:
                continue  # another window has it open
        return Project.automatic(f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}")


def _recovery_folders(key: str) -> list[Path]:
    """Recovery projects that hold strokes of an image, the newest first."""
    found = []
    for labels in (user_data_dir() / "projects").glob(f"*/labels/{key}.zarr"):
        folder = labels.parent.parent
        state = folder / "project.json"
        found.append(((state if state.exists() else folder).stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def _known_by(image: LiveImage) -> tuple[ImageFacts, str]:
    source = image.source
    path = str(source.source) if source.source else None
    facts = ImageFacts(source.name, path, source.stack_shape, (source.height, source.width), np.dtype(source.dtype).str)
    usual = source.reading(usual_channels(source.available))  # whatever is chosen now: it is the same image
    return facts, image_key(facts, usual.plane(image.index(0)).sample(_SAMPLE))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
