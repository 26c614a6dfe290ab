"""A project of many images and the live session on it.

Labelled images are in the session whether they are shown or not, so that all of them are learnt from. Of the others nothing is
read until they are shown, but for their thumbnails, and for a ranking where one was asked for.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.arrays import intensity_window
from mdm_studio.config import default_cache_dir
from mdm_studio.errors import ClassifierError, InputError, MDMStudioError, ProjectError, UsageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.images import image_name
from mdm_studio.services.clerk import Clerk
from mdm_studio.services.image_list import ImageEntry
from mdm_studio.services.keeper import Restored
from mdm_studio.services.kept_classifier import KeptClassifier
from mdm_studio.services.open_images import OpenImages
from mdm_studio.services.project import ImageFacts, Project, ProjectState
from mdm_studio.services.ranker import Ranker
from mdm_studio.services.ranking import look, suggest_image
from mdm_studio.services.session import Session

__all__ = ["ImageEntry", "LoadedImage", "Workspace"]

_GONE = "it is not where it was: choose the folder where it is now"
_SAMPLED = 1 << 16  # pixels that tell how bright an image is
_NO_FILE = "it was never a file: open it by hand to label it"


@dataclass(frozen=True)
class LoadedImage:
    """What a viewer shows of an image.

    Attributes
    ----------
    id, name : str
        Of its entry.
    levels : sequence of arrays
        A pyramid, finest first; one level of most images. NumPy, dask or zarr arrays.
    rgb : bool
        The last axis is red, green and blue.
    channel_axis : int or None
        Which axis counts channels.
    scale : tuple of float
        Size of a pixel along each axis of `levels`, the axis of colours left out.
    units : str or None
        Of the last two, as OME-Zarr spells it ("micrometer").
    labels : array
        ``stack_shape + (H, W)``, uint8: the array that the session reads and writes, too.
    channels : tuple of int or None
        Those that the session reads, where somebody has chosen others than the usual ones.
    limits : (float, float) or None
        Raw values to show as black and white, so that a dark image can be seen; None of colours.
    remarks : tuple of str
        What should be known of its file, for example which parts of it are left out.
    """

    id: str
    name: str
    levels: Sequence[Any]
    rgb: bool
    channel_axis: int | None
    scale: tuple[float, ...]
    units: str | None
    labels: Any
    channels: tuple[int, ...] | None = None
    limits: tuple[float, float] | None = None
    remarks: tuple[str, ...] = ()


class Workspace:
    """A project of many images and the live session on it; labelled images are learnt from whether shown or not.

    Classes and settings of the project are those of the session from now on; with those of a new project it is the other way
    round. Methods may be called from any thread; signals come from the thread that made them happen.

    Parameters
    ----------
    folder : Path
        The project.
    session : Session
        Made with ``keep=folder``; `close` ends it, too.

    Attributes
    ----------
    entries_changed : Signal
        Any entry is other than it was.
    ranked : Signal
        Images ranked, and how many there are to rank.

    Raises
    ------
    ProjectError
        If the project is open elsewhere (naming the process), belongs to a newer version, or is none.
    UsageError
        If the session keeps something else.
    """

    entries_changed = Signal()
    ranked = Signal(int, int)

    def __init__(self, folder: Path, session: Session) -> None:
        keeper = session.keeper
        if keeper is None or keeper.folder is None or Path(keeper.folder).absolute() != Path(folder).absolute():
            raise UsageError(f"the session does not keep its work in {folder}; make it with keep={str(folder)!r}")
        self.session, self._keeper = session, keeper
        restored = keeper.begin()
        self._lock = threading.RLock()  # of what follows; nothing is emitted while it is held
        self._problems: dict[str, str] = {}
        self._looks: dict[str, NDArray[np.float32]] = {}
        self._labelled: set[str] = set()
        if restored is not None:
            _take_over(restored, session)
        keeper.mark_state(session.classes, session.settings)
        self._files = OpenImages(session, keeper)
        self._classifier = KeptClassifier(session, keeper)
        self._ranker = Ranker(
            session, keeper, self._files, problem=self._note, ranked=self.ranked.emit, changed=self.entries_changed.emit
        )
        self._clerk = Clerk(self._rested, session.failed.emit)
        session.labels_absorbed.connect(self._absorbed)
        session.status_changed.connect(self._clerk.stir)

    @staticmethod
    def create(folder: Path, images: Iterable[Path]) -> None:
        """A new project of images, known by their paths; none is read.

        Raises
        ------
        ProjectError
            If there is a project already, or the folder holds something else.
        OutputError
            If it cannot be written.
        """
        if (Path(folder) / "project.json").exists():
            raise ProjectError(f"{folder} is a project already: open it, or choose another name")
        with Project.open(folder) as project:
            project.save_state(replace(project.state, images=_added({}, images)))

    @property
    def folder(self) -> Path:
        """Where the project is; another one after `Session.save_project_as`."""
        return Path(self._keeper.folder or "")

    # ---- the list ----------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[ImageEntry, ...]:
        """All images, in the order in which they were added."""
        images, problems = self._keeper.state.images, dict(self._problems)
        return tuple(_entry(key, facts, problems.get(key, "")) for key, facts in images.items())

    def entry(self, image_id: str) -> ImageEntry:
        """One image; KeyError if there is none of this id."""
        return _entry(image_id, self._keeper.state.images[image_id], self._problems.get(image_id, ""))

    def set_reviewed(self, image_id: str, reviewed: bool) -> None:
        """Say whether somebody has found an image well."""
        self._keeper.change_image(image_id, reviewed=reviewed)
        self.entries_changed.emit()

    def add_images(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Add images that are not in the project yet; ids of the new ones."""
        new: list[str] = []

        def add(state: ProjectState) -> ProjectState:
            images = _added(state.images, paths)
            new.extend(key for key in images if key not in state.images)
            return replace(state, images=images)

        self._keeper.change(add)
        if new:
            self._clerk.do(self._take_in)  # one that was in it before brings its strokes back
            self.entries_changed.emit()
        return tuple(new)

    def remove_images(self, ids: Iterable[str]) -> None:
        """Take images out of the project; their label files stay in its folder, and come back with them."""
        gone = set(ids)
        for image_id in gone:
            self._files.release(image_id, always=True)

        def remove() -> None:  # when their last strokes are on disk
            self._keeper.change(
                lambda state: replace(state, images={key: facts for key, facts in state.images.items() if key not in gone})
            )
            self.entries_changed.emit()

        self.session.after_strokes(lambda: self.session.after_strokes(remove))  # closing takes an errand of its own

    def missing(self) -> tuple[ImageEntry, ...]:
        """Images that are not where they were. It looks at the disk: call it on a thread."""
        self._look_for_files()
        return tuple(entry for entry in self.entries if entry.problem == _GONE)

    def relocate(self, old: Path, new: Path) -> int:
        """Look for missing images of the folder `old` (and below) in `new`; how many were found. Call it on a thread.

        Where both names end alike, the folders beside `old` are looked for beside `new`, too: who moved ``/data/run`` is asked
        once, whichever of its folders was shown.
        """
        found = _moved({entry.id: entry.path for entry in self.missing()}, Path(old), Path(new))
        for image_id, path in found.items():
            self._keeper.change_image(image_id, source=str(path))
            self._problems.pop(image_id, None)
        if found:
            self._clerk.do(self._take_in)
            self.entries_changed.emit()
        return len(found)

    def thumbnail(self, image_id: str, size: int = 128) -> NDArray[np.uint8]:
        """``(h, w, 3)``, `size` along its longer side, kept in the cache folder. Call it on a thread.

        Raises
        ------
        InputError
            If the image cannot be read; its entry then has a `problem`.
        """
        from mdm_studio.io.thumbnails import FOLDER, thumbnail

        path = self.entry(image_id).path
        try:
            picture = thumbnail(path, size, default_cache_dir() / FOLDER)
        except InputError as error:
            self._note(image_id, str(error))
            raise
        self._note(image_id, "")
        self._looks[image_id] = look(picture)
        return picture

    # ---- images shown ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the labelled images into the session, in the background; returns at once."""
        self._keeper.tell_damage()
        self._clerk.do(self._take_in)

    def load(self, image_id: str) -> LoadedImage:
        """Open an image to be shown, and in the session. It reads the file: call it on a thread.

        Its strokes may come a moment later: `Session.labels_rewritten` tells.

        Raises
        ------
        InputError, ProjectError
            If it cannot be read, or has another size than when it was painted; its entry then has a `problem`.
        """
        try:
            opened = self._files.hold(image_id, shown=True)
        except (InputError, ProjectError) as error:
            self._note(image_id, str(error))
            raise
        self._note(image_id, "")
        levels = opened.levels
        channels = self._keeper.state.images[image_id].channels or None
        limits = None if levels.rgb else _limits(opened.source)
        place = (levels.scale, levels.unit or None, opened.labels, channels, limits)
        return LoadedImage(image_id, levels.name, levels.levels, levels.rgb, levels.channel_axis, *place, levels.remarks)

    def release(self, image_id: str) -> None:
        """It is shown no longer: it stays in the session if it has strokes, and is closed otherwise."""
        self._files.release(image_id)

    # ---- ranking -----------------------------------------------------------------------------------------------------

    def rank(self) -> None:
        """Predict every image with the present classifier, step by step while nothing in view waits.

        What was ranked by a classifier that is much the same is left alone (see `is_other`). Once asked for, a ranking begins
        anew by itself whenever the classifier has become another, until `stop_ranking`.

        Raises
        ------
        ClassifierError
            If there is none yet. While one is learnt the ranking waits for it.
        """
        classifier = self._classifier.present()
        if classifier is None and self.session.bench and self.session.bench.head:  # it is still learning
            self._ranker.wait()
            self._clerk.stir()
            return
        if classifier is None:
            raise ClassifierError("there is no classifier yet; paint two classes and wait for the exact picture")
        gone = (_GONE, _NO_FILE)  # other problems may have been put right: another backbone may read other channels
        self._ranker.begin(classifier, [each if each.problem in gone else replace(each, problem="") for each in self.entries])

    def stop_ranking(self) -> None:
        """Stop it; what was ranked stays, and `rank` goes on from there."""
        self._ranker.stop()

    def suggest(self) -> str | None:
        """The unlabelled image that would help most; None if none is left."""
        return suggest_image(self.entries, dict(self._looks))

    # ---- the classifier, the end -------------------------------------------------------------------------------------

    def classifier_path(self) -> Path:
        """Save the session's classifier into the project and give its path; that of an earlier session if it has none yet.

        Raises
        ------
        ClassifierError
            If there is none at all.
        """
        return self._classifier.path()

    def close(self, *, timeout: float = 5.0) -> bool:
        """Save the classifier, end the session, which saves the rest, and close the files; whether all ended in time."""
        self._ranker.stop()
        self.session.labels_absorbed.disconnect(self._absorbed, missing_ok=True)
        self.session.status_changed.disconnect(self._clerk.stir, missing_ok=True)
        self._clerk.close()
        try:
            self._classifier.save()
        except MDMStudioError as error:
            self.session.failed.emit(str(error))
        ended = self.session.close(timeout=timeout)
        self._files.close()
        return ended

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Open the labelled images; those that cannot be have a problem, and their strokes stay on disk."""
        self._look_for_files()
        known = self._keeper.state.images
        for image_id in self._keeper.project.labelled():
            if self._clerk.closing:
                return
            if image_id not in known or image_id in self.session.images or self._problems.get(image_id):
                continue
            try:
                self._files.hold(image_id)
            except (InputError, ProjectError) as error:
                self._note(image_id, str(error))
        self.entries_changed.emit()

    def _look_for_files(self) -> None:
        """Which images are where they were; one look a folder."""
        there: dict[str, set[str]] = {}
        for image_id, facts in self._keeper.state.images.items():
            problem = _NO_FILE if facts.source is None else "" if _is_there(facts.source, there) else _GONE
            if problem or self._problems.get(image_id) in (_GONE, _NO_FILE):  # it may have another problem, being there
                self._note(image_id, problem, tell=False)

    def _note(self, image_id: str, problem: str, *, tell: bool = True) -> None:
        with self._lock:
            changed = self._problems.get(image_id, "") != problem
            self._problems[image_id] = problem
        if changed and tell:
            self.entries_changed.emit()

    def _absorbed(self, image_id: str, *_: object) -> None:
        """Strokes were taken over: an image may be labelled now, or no longer."""
        self._clerk.stir()
        labelled = self.session.strokes.painted_in(image_id) > 0
        if labelled != (image_id in self._labelled):
            (self._labelled.add if labelled else self._labelled.discard)(image_id)
            self.entries_changed.emit()

    def _rested(self) -> None:
        """Nothing has happened for a while: save the classifier, and rank anew if it has become another."""
        if self.session.status.busy:
            self._clerk.stir()
            return
        if not self._keeper.lost:  # which is told already
            self._classifier.save()
        classifier = self._classifier.present()
        if classifier is not None and self._ranker.begins_now(classifier):
            self.rank()
        self.entries_changed.emit()


def _take_over(restored: Restored, session: Session) -> None:
    if restored.classes:
        session.set_classes(restored.classes)
    changes = {name: value for name, value in restored.settings.items() if getattr(session.settings, name) != value}
    if changes:
        session.choose(**changes)


def _entry(key: str, facts: ImageFacts, problem: str) -> ImageEntry:
    path = Path(facts.source if facts.source is not None else facts.name)
    problem = problem or ("" if facts.source is not None else _NO_FILE)
    return ImageEntry(key, path, facts.painted, facts.reviewed, facts.uncertainty, facts.shares, problem)


def _added(images: Mapping[str, ImageFacts], paths: Iterable[Path]) -> dict[str, ImageFacts]:
    """`images`, and those that are not among them yet."""
    found = dict(images)
    known = {facts.source for facts in images.values()}
    for path in paths:
        source = os.path.abspath(path)
        if source not in known:
            known.add(source)
            found[_new_id(Path(source), found)] = ImageFacts(image_name(source), source)
    return found


def _new_id(path: Path, taken: Mapping[str, ImageFacts]) -> str:
    """An id made of the file's name, so that strokes are found again even when ``project.json`` was lost.

    Where it is taken, the names of the folders above are added, one after the other.
    """
    parts = path.parts[::-1]
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        key = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        if key not in taken:
            return key
    raise ProjectError(f"{path} is in the project already")


def _is_there(source: str, folders: dict[str, set[str]]) -> bool:
    """Whether a file is there, by the list of its folder; a look at the file itself only if it is not in that."""
    folder, name = os.path.split(source)
    if folder not in folders:
        try:
            folders[folder] = set(os.listdir(folder))
        except OSError:
            folders[folder] = set()
    return name in folders[folder] or (bool(folders[folder]) and os.path.exists(source))


def _moved(missing: Mapping[str, Path], old: Path, new: Path) -> dict[str, Path]:
    """Where images are that were in `old` and are in `new`, as far as they are there."""
    pairs = [(old, new)]
    while old.name == new.name and old.parent != old:  # /data/run/a is /mnt/run/a now: /data/run/b may be /mnt/run/b
        old, new = old.parent, new.parent
        pairs.append((old, new))
    found = {}
    for image_id, path in missing.items():
        for before, after in pairs:
            if path.is_relative_to(before):
                places = (after / path.relative_to(before), after / path.name)
                there = next((place for place in places if place.exists()), None)
                if there is not None:
                    found[image_id] = there.absolute()
                    break
    return found


def _limits(image: ArrayImage) -> tuple[float, float]:
    """See `LoadedImage.limits`; of the plane in the middle, by the same percentiles as the network's input."""
    middle = tuple(n // 2 for n in image.stack_shape)
    window = intensity_window(image.plane(middle).sample(_SAMPLED), "percentile", joint=True)
    return window.low[0], window.high[0]
