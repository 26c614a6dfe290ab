"""A project on disk: classes, settings, the images that were labelled, and their strokes.

::

    FOLDER/
      project.json           version, classes, settings, images, view
      labels/KEY.zarr        strokes of the image KEY, see `mdm_studio.io.label_store`
      classifier.mdm         the fitted classifier, once there is one
      .lock                  while it is open

Labels are found by the key of their image, so that strokes outlive a lost ``project.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mdm_studio.arrays import Pixels
from mdm_studio.config import user_data_dir
from mdm_studio.errors import ProjectError
from mdm_studio.io.atomic import UNFINISHED_SUFFIX, output_error, replacing, write_text
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.folder_lock import LOCK_FILE, FolderLock
from mdm_studio.io.label_store import StoredLabels

VERSION = 1
_PROJECT, _LABELS, _CLASSIFIER, _DAMAGED = "project.json", "labels", "classifier.mdm", "project.damaged.json"


@dataclass(frozen=True)
class ImageFacts:
    """What a project knows of an image.

    Attributes
    ----------
    name : str
        For people.
    source : str or None
        Path of its file.
    stack_shape, shape : tuple of int, (int, int)
        Lengths of the stack axes, and height and width of a plane.
    dtype : str
        NumPy's name of the type of its pixels.
    """

    name: str
    source: str | None
    stack_shape: tuple[int, ...]
    shape: tuple[int, int]
    dtype: str


@dataclass(frozen=True)
class ProjectState:
    """What ``project.json`` holds. The mappings are never changed: make a new state.

    Attributes
    ----------
    classes : tuple of LabelClass
        In the order in which they are shown.
    settings : mapping
        Choices that make the prediction (backbone, blocks, timesteps, ...); JSON values, so that tuples come back as lists.
    images : mapping of str to ImageFacts
        By their keys, see `image_key`.
    view : mapping
        Whatever a window wants to find again; JSON values.
    """

    classes: tuple[LabelClass, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, ImageFacts] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of ``project.json``; TypeError for values that JSON does not have."""
        # ASCII, because the path of a file may hold bytes that are no text, which UTF-8 refuses
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The state in the text of a ``project.json``.

        Raises
        ------
        ValueError, TypeError, KeyError, AttributeError
            If it is damaged.
        ProjectError
            If it belongs to a newer program, or to another one.
        """
        facts = json.loads(text)
        version = facts.get("version") if isinstance(facts, dict) else None
        if not isinstance(version, int):
            raise ProjectError("it is no project of MDM Studio: choose another folder")
        if version > VERSION:
            raise ProjectError(f"it has version {version} and this program reads up to {VERSION}: update MDM Studio")
        images = {
            key: ImageFacts(**facts | {"stack_shape": tuple(facts["stack_shape"]), "shape": tuple(facts["shape"])})
            for key, facts in facts["images"].items()
        }
        classes = tuple(LabelClass(**each) for each in facts["classes"])
        return cls(classes, dict(facts["settings"]), images, dict(facts["view"]))


class Project:
    """An open project; made by `Project.open`, closed by `close` or the end of a ``with`` block.

    Attributes
    ----------
    folder : Path
        Where it is.
    classifier : Path
        Where its classifier belongs; not made here.
    state : ProjectState
        As it was read or saved last.
    """

    def __init__(self, folder: Path, lock: FolderLock, state: ProjectState) -> None:
        self.folder, self.state = folder, state
        self.classifier = folder / _CLASSIFIER
        self._lock = lock
        self._warnings: list[str] = []
        self._labels: dict[str, StoredLabels] = {}
        self._saving = threading.Lock()  # of the state, and of the list of labels

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the project in a folder, or begin one there.

        Parameters
        ----------
        folder : str or Path
            A project, an empty folder, or one that is still to be made.

        Raises
        ------
        ProjectError
            If it is open elsewhere (naming the process), belongs to a newer version, or holds something else.
        OutputError
            If nothing can be written there.
        """
        folder = Path(folder).absolute()
        _refuse_strangers(folder)
        lock = FolderLock(folder)
        try:
            project = cls(folder, lock, ProjectState())
            project._read()
        except BaseException:
            lock.release()
            raise
        if not lock.supported:
            project._warnings.append(f"the drive of {folder} knows no locks: do not open the project twice at a time")
        return project

    @classmethod
    def automatic(cls, key: str) -> Self:
        """The recovery project `key`, where work goes that the user has not saved anywhere; see `open`."""
        return cls.open(user_data_dir() / "projects" / _checked(key))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was found damaged so far, in words, and what became of it."""
        return (*self._warnings, *(each for labels in tuple(self._labels.values()) for each in labels.damaged))

    def save_state(self, state: ProjectState) -> None:
        """Replace ``project.json``, whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with self._saving:
            write_text(self.folder / _PROJECT, state.to_json())
            self.state = state

    def open_labels(self, key: str, facts: ImageFacts) -> StoredLabels:
        """The strokes of an image, as they were left; opened once, the same object ever after.

        Raises
        ------
        ProjectError
            If they were painted on an image of another shape, or cannot be read.
        """
        with self._saving:
            labels = self._labels.get(key)
            if labels is None or (labels.stack_shape, labels.shape) != (tuple(facts.stack_shape), tuple(facts.shape)):
                folder = self.folder / _LABELS / f"{_checked(key)}.zarr"
                labels = self._labels[key] = StoredLabels(folder, facts.stack_shape, facts.shape)
            return labels

    def labels(self, key: str) -> StoredLabels:
        """The strokes that `open_labels` opened; KeyError if it did not."""
        return self._labels[key]

    def copy_to(self, folder: str | Path) -> None:
        """Copy everything that is saved into a new folder ("Save project as"). This project stays open.

        Flush the autosave before. Strokes that are saved meanwhile may be in the copy or not.

        Raises
        ------
        ProjectError
            If the folder holds something, or lies within the project.
        OutputError
            If it cannot be written; nothing is left behind then.
        """
        folder = Path(folder).absolute()
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ProjectError(f"{folder} exists already and is not an empty folder: choose a new name")
        if folder.is_relative_to(self.folder):
            raise ProjectError(f"{folder} lies within the project itself: choose a folder outside {self.folder}")
        left_out = shutil.ignore_patterns(LOCK_FILE, "*.partial", f"*{UNFINISHED_SUFFIX}", _PROJECT)
        with replacing(folder) as unfinished:
            shutil.copytree(self.folder, unfinished, ignore=left_out, copy_function=_copy_if_there)
            write_text(unfinished / _PROJECT, self.state.to_json())

    def close(self) -> None:
        """Let other processes open it; a recovery project into which nothing was saved leaves no folder."""
        self._lock.release()
        if self.folder.parent == (user_data_dir() / "projects").absolute():
            _remove_if_empty(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        path = self.folder / _PROJECT
        try:
            self.state = ProjectState.from_json(path.read_text("utf-8"))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ProjectError(f"cannot read {path} ({error.strerror or error}); check the permissions") from error
        except ProjectError as error:
            raise ProjectError(f"cannot open {path}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            try:
                os.replace(path, self.folder / _DAMAGED)  # kept for whoever wants to mend it
            except OSError as refused:
                raise output_error(path, refused) from refused
            self._warnings.append(
                f"{path} is damaged ({type(error).__name__}: {error}): it was set aside as {_DAMAGED}; classes and settings "
                "start anew, strokes are kept"
            )


def image_key(facts: ImageFacts, sample: Pixels) -> str:
    """Stable key of an image, 16 hexadecimal characters; where its file lies does not matter.

    Parameters
    ----------
    facts : ImageFacts
        Name, shapes and dtype count.
    sample : array
        Some of its pixels, chosen the same way at each opening and whatever the settings: for example the first plane's
        ``sample(1 << 14)`` of all channels.
    """
    known = json.dumps([facts.name, facts.stack_shape, facts.shape, facts.dtype, sample.shape])
    digest = hashlib.blake2b(known.encode(), digest_size=8)
    digest.update(np.ascontiguousarray(sample, sample.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def _checked(key: str) -> str:
    """`key`, if it is a plain file name; a project file from elsewhere must not lead out of its folder."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,100}", key):
        raise ProjectError(f"{key!r} is no key of an image: letters, digits, - and _ are wanted")
    return key


def _refuse_strangers(folder: Path) -> None:
    """Make sure that a folder of the user's own files does not become a project by mistake."""
    if not folder.is_dir() or (folder / _PROJECT).exists():
        return
    ours = {_LABELS, _CLASSIFIER, _DAMAGED}
    try:
        other = [path.name for path in folder.iterdir() if path.name not in ours and not path.name.startswith(".")]
    except OSError as error:
        raise ProjectError(f"cannot look into {folder} ({error.strerror or error}); check the permissions") from error
    if other:
        raise ProjectError(f"{folder} holds no project but other files, for example {min(other)}: choose an empty folder")


def _copy_if_there(source: str, target: str) -> None:
    try:
        shutil.copy2(source, target)
    except FileNotFoundError:
        if os.path.exists(source):
            raise
        # a chunk that was erased since the folder was listed


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
