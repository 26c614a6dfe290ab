"""A project of many images and the live session on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.services.image_list import ImageEntry
from mdm_studio.services.session import Session


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
    """

    id: str
    name: str
    levels: Sequence[Any]
    rgb: bool
    channel_axis: int | None
    scale: tuple[float, ...]
    units: str | None
    labels: Any


class Workspace:
    """A project of many images and the live session on it; labelled images are learnt from whether shown or not.

    Parameters
    ----------
    folder : Path
        The project.
    session : Session
        Made with ``keep=folder``.

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
    """

    entries_changed = Signal()
    ranked = Signal(int, int)

    def __init__(self, folder: Path, session: Session) -> None:
        self.folder, self.session = folder, session

    @staticmethod
    def create(folder: Path, images: Iterable[Path]) -> None:
        """A new project of images, known by their paths; none is read.

        Raises
        ------
        ProjectError
            If the folder holds something already.
        OutputError
            If it cannot be written.
        """
        raise NotImplementedError

    @property
    def entries(self) -> tuple[ImageEntry, ...]:
        """All images, in the order in which they were added."""
        raise NotImplementedError

    def entry(self, image_id: str) -> ImageEntry:
        """One image; KeyError if there is none of this id."""
        raise NotImplementedError

    def open(self) -> None:
        """Bring back classes and settings, and take the labelled images into the session; returns at once."""
        raise NotImplementedError

    def load(self, image_id: str) -> LoadedImage:
        """Open an image to be shown, and in the session. It reads the file: call it on a thread."""
        raise NotImplementedError

    def release(self, image_id: str) -> None:
        """It is shown no longer: it stays in the session if it has strokes, and is closed otherwise."""
        raise NotImplementedError

    def set_reviewed(self, image_id: str, reviewed: bool) -> None:
        """Say whether somebody has found an image well."""
        raise NotImplementedError

    def add_images(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Add images that are not in the project yet; ids of the new ones."""
        raise NotImplementedError

    def remove_images(self, ids: Iterable[str]) -> None:
        """Take images out of the project; their label files stay in its folder."""
        raise NotImplementedError

    def missing(self) -> tuple[ImageEntry, ...]:
        """Images that are not where they were. It looks at the disk: call it on a thread."""
        raise NotImplementedError

    def relocate(self, old: Path, new: Path) -> int:
        """Look for images of the folder `old` (and below) in `new`; how many were found there. Call it on a thread."""
        raise NotImplementedError

    def rank(self) -> None:
        """Predict every image with the present classifier, step by step while nothing in view waits.

        Raises
        ------
        ClassifierError
            If there is no classifier yet.
        """
        raise NotImplementedError

    def stop_ranking(self) -> None:
        """Stop it; what was ranked stays, and `rank` goes on from there."""
        raise NotImplementedError

    def suggest(self) -> str | None:
        """The unlabelled image that would help most; None if none is left."""
        raise NotImplementedError

    def thumbnail(self, image_id: str, size: int = 128) -> NDArray[np.uint8]:
        """``(h, w, 3)``, `size` along its longer side, kept in the cache folder. Call it on a thread.

        Raises
        ------
        InputError
            If the image cannot be read; its entry then has a `problem`.
        """
        raise NotImplementedError

    def classifier_path(self) -> Path:
        """Save the session's classifier into the project and give its path.

        Raises
        ------
        ClassifierError
            If there is none yet.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Save the classifier and let go of the images. The session, which is closed after it, saves the rest."""
        raise NotImplementedError
