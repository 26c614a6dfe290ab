"""A project on disk: classes, settings, the images, and their strokes; a folder that anyone can read.

::

    FOLDER/
      project.json                  version, classes, settings, images, ranking, view
      labels/NAME-KEY.ome.zarr/     strokes of the image KEY, an OME-Zarr label image; see `mdm_studio.io.label_store`
      labels/NAME-KEY.painted.json  which files hold them; see `mdm_studio.io.label_record`
      classifier.mdm                the fitted classifier, once there is one
      finetuned.mdm                 the network that was fine-tuned last, whichever of the two is in classifier.mdm
      .lock                         while it is open

``project.json``, version 2 (`mdm_studio.services.project_migrations` mends older ones)::

    "classes"   [{"value", "name", "color"}, ...] in the order in which they are shown
    "settings"  backbone, blocks, timesteps, ...: what makes the prediction
    "images"    by key: "name"; "path", from the project's folder (null if there is no way), and "absolute", where the file was
                when it was saved, so that project and images may move together or apart; "stack_shape", "shape", "dtype" of
                an image that was opened once (0 x 0 before); "pixel_size", "unit"; "channels" that are read ([]: the usual
                ones); "painted" pixels; "reviewed"; "uncertainty" and "shares" (class value: share) of the ranking "ranked"
    "ranking"   which ranking is the newest, and what it rests on
    "view"      whatever a window wants to find again
    "id"        tells this project from any other, a copy among them

Labels are found by the key of their image, so that strokes outlive a lost ``project.json``. Images stay where they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mdm_studio.arrays import Pixels
from mdm_studio.config import user_data_dir
from mdm_studio.errors import FolderLostError, OutputError, ProjectError
from mdm_studio.io.atomic import UNFINISHED_SUFFIX, make_folder, output_error, replacing, write_bytes, write_text
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.folder_lock import LOCK_FILE, FolderLock
from mdm_studio.io.json_files import MAX_JSON_BYTES, parse_json, read_json
from mdm_studio.io.label_record import RECORD_SUFFIX, missing_strokes, recorded_folder
from mdm_studio.io.label_store import LEVEL, SUFFIX, StoredLabels, label_image
from mdm_studio.services.project_checks import check_project
from mdm_studio.services.project_migrations import folder_name, migrate, move_labels

VERSION = 2
_PROJECT, _LABELS, _CLASSIFIER = "project.json", "labels", "classifier.mdm"
_DAMAGED = "project.damaged{}.json"
_FINETUNED = "finetuned.mdm"
_BACKUP = "project.v{}.json"
_MAX_BYTES = 4 * MAX_JSON_BYTES  # some hundred bytes an image
_NAMED = 5  # damaged entries that are named one by one
_WAYS_OUT = "nothing is written there: put it back, or save the project in another folder"
_Stamp = tuple[int, int, int]


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
        Lengths of the stack axes, and height and width of a plane; (0, 0) of an image that was never opened.
    dtype : str
        NumPy's name of the type of its pixels.
    pixel_size, unit : (float, float), str
        Height and width of a pixel, and the unit as OME-Zarr spells it; empty if it is not known.
    channels : tuple of int
        Those that are read; empty leaves it to `mdm_studio.io.array_planes.usual_channels`.
    painted : int
        Labelled pixels when it was saved.
    reviewed : bool
        Somebody has found it well.
    uncertainty, shares : float or None, mapping of int to float
        Of the ranking number `ranked`, which is 0 where nothing was predicted yet; see `mdm_studio.services.ranking`.
    """

    name: str
    source: str | None
    stack_shape: tuple[int, ...] = ()
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""
    pixel_size: tuple[float, float] = (1.0, 1.0)
    unit: str = ""
    channels: tuple[int, ...] = ()
    painted: int = 0
    reviewed: bool = False
    uncertainty: float | None = None
    shares: Mapping[int, float] = field(default_factory=dict)
    ranked: int = 0


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
    ranking : mapping
        Which ranking is the newest, and what it rests on; JSON values.
    """

    classes: tuple[LabelClass, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, ImageFacts] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)
    ranking: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, folder: Path | None = None, project_id: str = "") -> str:
        """The text of ``project.json``; TypeError for values that JSON does not have.

        Parameters
        ----------
        folder : Path, optional
            Where it will lie; paths are told from there, too.
        project_id : str
            Of the project; empty leaves it out.
        """
        ways: dict[str, str | None] = {}  # from the project to the folders of images
        images = {key: _image_to_json(facts, folder, ways) for key, facts in self.images.items()}
        # an image a line, so that people find their way in it, and several hundred are written within milliseconds
        lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(image)}" for key, image in images.items())
        # ASCII, because the path of a file may hold bytes that are no text, which UTF-8 refuses
        named = self._rest() | ({"id": project_id} if project_id else {})
        rest = {name: json.dumps(value, indent=2).replace("\n", "\n  ") for name, value in named.items()}
        rest["images"] = f"{{\n{lines}\n  }}" if lines else "{}"
        return "{\n" + ",\n".join(f"  {json.dumps(name)}: {text}" for name, text in rest.items()) + "\n}\n"

    def _rest(self) -> dict[str, Any]:
        classes = [asdict(each) for each in self.classes]
        others = {name: dict(getattr(self, name)) for name in ("settings", "ranking", "view")}
        return {"version": VERSION, "classes": classes, **others}

    @classmethod
    def from_json(cls, text: str | bytes, folder: Path | None = None, problems: list[str] | None = None) -> Self:
        """The state in the text of a ``project.json``, of this version or an earlier one.

        Parameters
        ----------
        folder : Path, optional
            Where it lies: images that are where the path from there leads are taken from there.
        problems : list of str, optional
            Takes, in words, what is wrong with single entries, which are left out. Without it they raise.

        Raises
        ------
        ValueError
            If it is damaged.
        ProjectError
            If it belongs to a newer program, or to another one.
        """
        facts = parse_json(text, dict[str, Any])
        facts, found = check_project(migrate(facts, checked_version(facts)))
        if problems is None and found:
            raise ValueError(found[0])
        (problems if problems is not None else []).extend(found)
        places = _Places(folder)
        images = {key: _image_from_json(image, places) for key, image in facts["images"].items()}
        classes = tuple(LabelClass(**each) for each in facts["classes"])
        return cls(classes, dict(facts["settings"]), images, dict(facts["view"]), dict(facts["ranking"]))


def checked_version(facts: Any) -> int:
    """Version of what a ``project.json`` holds.

    Raises
    ------
    ProjectError
        If it belongs to a newer program, or to another one.
    """
    version = facts.get("version") if isinstance(facts, dict) else None
    if not isinstance(version, int) or version < 1:
        raise ProjectError("it is no project of MDM Studio: choose another folder")
    if version > VERSION:
        raise ProjectError(f"it has version {version} and this program reads up to {VERSION}: update MDM Studio")
    return version


class _Places:
    """Where images are: along the path from the project or, if nothing is there, where they were. One look a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._near: dict[tuple[str, str], bool] = {}

    def find(self, path: str | None, absolute: str | None) -> str | None:
        if self._folder is None or path is None or absolute is None:
            return absolute
        near = os.path.normpath(os.path.join(self._folder, path))
        folders = (os.path.dirname(near), os.path.dirname(absolute))
        if folders not in self._near:  # the first image of a folder tells of the others
            self._near[folders] = near != os.path.normpath(absolute) and os.path.exists(near)
        return near if self._near[folders] else absolute


def _image_to_json(facts: ImageFacts, folder: Path | None, ways: dict[str, str | None]) -> dict[str, Any]:
    path = None
    if folder is not None and facts.source is not None and os.path.isabs(facts.source):
        place, name = os.path.split(facts.source)
        if place not in ways:
            ways[place] = _way(folder, place)
        way = ways[place]
        path = None if way is None else name if way == "." else f"{way}/{name}"
    values = dict(vars(facts))
    del values["name"], values["source"]
    return {"name": facts.name, "path": path, "absolute": facts.source, **values}


def _way(folder: Path, place: str) -> str | None:
    try:
        return Path(os.path.relpath(place, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return None


def _image_from_json(image: Mapping[str, Any], places: _Places) -> ImageFacts:
    values = dict(image)
    values["source"] = places.find(values.pop("path"), values.pop("absolute"))
    values |= {name: tuple(values[name]) for name in ("stack_shape", "shape", "pixel_size", "channels") if name in values}
    if "shares" in values:
        values["shares"] = {int(value): share for value, share in values["shares"].items()}
    return ImageFacts(**values)


class Project:
    """An open project; made by `Project.open`, closed by `close` or the end of a ``with`` block.

    Attributes
    ----------
    folder : Path
        Where it is.
    state : ProjectState
        As it was read or saved last.
    """

    def __init__(self, folder: Path, lock: FolderLock, state: ProjectState) -> None:
        self.folder, self.state = folder, state
        self._lock = lock
        self._id = uuid.uuid4().hex
        self._texts: tuple[bytes, ...] = ()  # digests of what project.json may hold: what was read or written last
        self._saved = False  # whether there is one
        self._seen: _Stamp | None = None  # of a project.json that holds it
        self._warnings: list[str] = []
        self._labels: dict[str, StoredLabels] = {}
        self._folders: dict[str, str] = {}  # names of the folders of labels on disk, by key
        self._incomplete: frozenset[str] = frozenset()  # keys of images whose strokes were not all there
        self._saving = threading.RLock()  # of the state, of the list of labels, and of where it is

    @property
    def classifier(self) -> Path:
        """Where its classifier belongs; not made here."""
        return self.folder / _CLASSIFIER

    @property
    def finetuned(self) -> Path:
        """Where the network belongs that was fine-tuned last; not made here."""
        return self.folder / _FINETUNED

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
        FolderLostError
            If the folder is this project no longer, see `check`.
        OutputError
            If it cannot be written.
        """
        with self._saving:
            self.check()
            text = state.to_json(self.folder, self._id)
            digest = _digest(text.encode())
            self._texts = (*self._texts[-1:], digest)  # should it fail half-way, either may be there
            write_text(self.folder / _PROJECT, text)
            self._texts, self._saved = (digest,), True
            old, self.state = self.state, state
            if old.classes != state.classes:  # other programs are to see the colours as they are now
                for key, labels in self._labels.items():
                    self._describe(key, labels)

    def check(self) -> bool:
        """Make sure that the folder is still this very project, before anything is written to it.

        Returns
        -------
        bool
            True if the folder had gone and is back, on a drive that was connected again for example: what was written last may
            be missing there.

        Raises
        ------
        FolderLostError
            If it was moved, removed, emptied or replaced, its drive is gone, or another program has written to it.
        """
        with self._saving:
            back = False
            try:
                self._lock.check()
            except FolderLostError:
                if not self._take_again():
                    raise
                back = True
            self._check_text()
            return back

    def place(self) -> Path | None:
        """Where the project's folder is now, as far as the system tells; None if it is nowhere."""
        return self._lock.place()

    def relocate(self, folder: str | Path) -> None:
        """Go on in the folder where this very project is now.

        Raises
        ------
        ProjectError
            If something else is there, or another state of this project; it stays where it was then.
        OutputError
            If nothing can be written there.
        """
        folder = Path(folder).absolute()
        with self._saving:
            if self._lock.holds(folder):
                self._lock.follow(folder)
            else:
                _check_same(folder, self._texts, self._id)
                lock = FolderLock(folder)
                self._lock.release()
                self._lock = lock
            self.folder, self._seen = folder, None
            for key, labels in self._labels.items():
                try:
                    labels.relocate(self._place(self._folders[key]), folder)
                except ProjectError as error:
                    self._warnings.append(str(error))

    def _take_again(self) -> bool:
        """Take the folder that has our name, if it holds what was written last."""
        if _digest_of(self.folder / _PROJECT) not in self._texts:
            return False
        try:
            lock = FolderLock(self.folder)
        except (ProjectError, OutputError) as error:
            raise FolderLostError(str(error)) from error
        self._lock.release()
        self._lock = lock
        return True

    def _check_text(self) -> None:
        path = self.folder / _PROJECT
        try:
            facts = os.stat(path)
            stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            if stamp == self._seen:
                return
            if _digest_of(path) in self._texts:
                self._seen = stamp
                return
        except FileNotFoundError as error:
            if not self._saved:  # nothing was written yet
                return
            raise FolderLostError(f"{path} was removed while the project was open; {_WAYS_OUT}") from error
        except OSError as error:
            raise FolderLostError(f"{path} cannot be read any more ({error.strerror or error}); {_WAYS_OUT}") from error
        raise FolderLostError(f"{path} was changed by another program while the project was open; {_WAYS_OUT}")

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
                folder = self._folders.get(key, folder_name(facts.name, _checked_image(key)))
                labels = StoredLabels(self._place(folder), facts.stack_shape, facts.shape, within=self.folder)
                self._labels[key], self._folders[key] = labels, folder
            self._describe(key, labels, facts)
            return labels

    def labelled(self) -> tuple[str, ...]:
        """Keys of the images of which there are labels on disk."""
        return tuple(key for key, name in self._folders.items() if any((self._place(name) / LEVEL / "c").glob("*/*")))

    def lacks_strokes(self, key: str) -> bool:
        """Whether some of the strokes of an image were lost, as the warnings tell, and are neither back nor painted anew."""
        if key not in self._incomplete:
            return False
        facts = self.state.images.get(key)
        name = self._folders.get(key, folder_name(facts.name if facts else "", key))
        return bool(missing_strokes(self._place(name), facts.painted if facts else 0))

    def _place(self, labels: str) -> Path:
        return self.folder / _LABELS / labels

    def _describe(self, key: str, labels: StoredLabels, facts: ImageFacts | None = None) -> None:
        known = facts or self.state.images.get(key)
        if known is not None:
            about = (known.name, self.state.classes, labels.stack_shape, known.pixel_size, known.unit)
            labels.describe(label_image(*about))

    def labels(self, key: str) -> StoredLabels:
        """The strokes that `open_labels` opened; KeyError if it did not."""
        return self._labels[key]

    def copy_to(self, folder: str | Path) -> None:
        """Copy everything that is saved into a new folder ("Save project as"). This project stays open.

        Flush the autosave before. Strokes of open images that are to be saved meanwhile wait. Of a project whose folder is
        lost, the copy has the state alone.

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
        make_folder(folder.parent)
        left_out = shutil.ignore_patterns(LOCK_FILE, "*.partial", f"*{UNFINISHED_SUFFIX}", _PROJECT)
        source = self.place() or self.folder
        with contextlib.ExitStack() as stack:
            for labels in tuple(self._labels.values()):
                stack.enter_context(labels.resting())
            unfinished = stack.enter_context(replacing(folder))
            if source.is_dir() and self._lock.holds(source):
                shutil.copytree(source, unfinished, ignore=left_out, copy_function=_copy_if_there)
            else:
                unfinished.mkdir()
            write_text(unfinished / _PROJECT, self.state.to_json(folder, uuid.uuid4().hex))

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
        version, problems = VERSION, list[str]()
        try:
            facts = read_json(path, object, max_bytes=_MAX_BYTES)
            version = checked_version(facts)
            data = path.read_bytes()
            self.state = ProjectState.from_json(data, self.folder, problems)
            self._texts, self._saved = (_digest(data),), True
            self._id = _id_of(facts) or self._id
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ProjectError(f"cannot read {path} ({error.strerror or error}); check the permissions") from error
        except ProjectError as error:
            raise ProjectError(f"cannot open {path}: {error}") from error
        except ValueError as error:
            aside = self._set_aside(path, os.replace)
            self._warnings.append(
                f"{path} is damaged ({error}): it was set aside as {aside}; classes and settings start anew, strokes are kept"
            )
        if problems:
            aside = self._set_aside(path, shutil.copyfile)
            self._warnings += [f"{path}: {problem}" for problem in problems[:_NAMED]]
            more = f", and {len(problems) - _NAMED} more entries are damaged" if len(problems) > _NAMED else ""
            self._warnings.append(f"{path} was kept as {aside}, as it was{more}")
        move_labels(self.folder / _LABELS, {key: facts.name for key, facts in self.state.images.items()})
        if self._texts:
            self._renew(path, version)
        labels = self.folder / _LABELS
        names = [folder.name for folder in labels.glob(f"*{SUFFIX}")]
        names = [*map(recorded_folder, labels.glob(f"*{RECORD_SUFFIX}")), *names]  # of the same image, one that is there
        self._folders |= {name.removesuffix(SUFFIX).rpartition("-")[2]: name for name in names}
        self._incomplete, warnings = _look_for_strokes(labels, self._folders, self.state.images)
        self._warnings += warnings

    def _renew(self, path: Path, version: int) -> None:
        """Write a project of an earlier version as one of this; what it was is kept until that is done."""
        if version < VERSION:
            write_bytes(self.folder / _BACKUP.format(version), path.read_bytes())
            self.save_state(self.state)
        for older in range(1, VERSION):
            (self.folder / _BACKUP.format(older)).unlink(missing_ok=True)

    def _set_aside(self, path: Path, how: Callable[[Path, Path], object]) -> str:
        """Keep a damaged file for whoever wants to mend it; its new name."""
        names = (_DAMAGED.format(f"-{number}" if number > 1 else "") for number in itertools.count(1))
        free = next(self.folder / name for name in names if not os.path.lexists(self.folder / name))
        try:
            how(path, free)
        except OSError as refused:
            raise output_error(path, refused) from refused
        return free.name


def _look_for_strokes(
    labels: Path, folders: Mapping[str, str], images: Mapping[str, ImageFacts]
) -> tuple[frozenset[str], list[str]]:
    """Keys of the images whose strokes are not all there, and that in words."""
    found = {}
    for key, facts in images.items():
        if key in folders or facts.painted:  # of others there was never a stroke
            words = missing_strokes(labels / folders.get(key, folder_name(facts.name, key)), facts.painted)
            if words:
                found[key] = f"the strokes of {facts.name}: {words}"
    warnings = list(found.values())[:_NAMED]
    if len(found) > _NAMED:
        warnings.append(f"the strokes of {len(found) - _NAMED} more images are not all there")
    return frozenset(found), warnings


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
        raise ProjectError(f"{key!r} is no key of a project: letters, digits, - and _ are wanted")
    return key


def _checked_image(key: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_]{1,100}", key):  # no -, which ends the name that goes before it
        raise ProjectError(f"{key!r} is no key of an image: letters, digits and _ are wanted")
    return key


def _refuse_strangers(folder: Path) -> None:
    """Make sure that a folder of the user's own files does not become a project by mistake."""
    if not folder.is_dir() or (folder / _PROJECT).exists():
        return
    ours = {_LABELS, _CLASSIFIER, _FINETUNED, *map(_BACKUP.format, range(1, VERSION))}
    try:
        names = [path.name for path in folder.iterdir() if not path.name.startswith((".", _DAMAGED.partition("{")[0]))]
        other = [name for name in names if name not in ours]
    except OSError as error:
        raise ProjectError(f"cannot look into {folder} ({error.strerror or error}); check the permissions") from error
    if other:
        raise ProjectError(f"{folder} holds no project but other files, for example {min(other)}: choose an empty folder")


def _check_same(folder: Path, texts: tuple[bytes, ...], project_id: str) -> None:
    """Make sure that a folder holds the project of this id, as it was written last."""
    path = folder / _PROJECT
    if _digest_of(path) in texts:
        return
    try:
        known = read_json(path, dict[str, Any], max_bytes=_MAX_BYTES).get("id")
    except (OSError, ValueError) as error:
        raise ProjectError(f"{folder} is not where this project is now ({error}): choose its folder") from error
    if known != project_id:
        raise ProjectError(f"{folder} holds another project: choose the folder that holds this one")
    raise ProjectError(
        f"{folder} holds this project as it was at another time: save a copy in a new folder, so that neither is lost"
    )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _digest_of(path: Path) -> bytes:
    """Digest of a file; empty if it cannot be read."""
    try:
        facts = os.stat(path)
        return _digest(path.read_bytes()) if stat.S_ISREG(facts.st_mode) and facts.st_size <= _MAX_BYTES else b""
    except OSError:
        return b""


def _id_of(facts: object) -> str:
    known = facts.get("id") if isinstance(facts, dict) else ""
    return known if isinstance(known, str) else ""


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
