"""The images of a project whose files are open: in the session for their strokes, in a viewer, or both."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdm_studio.errors import ChannelsError, InputError, UnreadableImageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.image_levels import ImageLevels, open_levels
from mdm_studio.services.keeper import Keeper
from mdm_studio.services.project import ImageFacts
from mdm_studio.services.session import Session

_IN_MEMORY = 1 << 30  # bytes of labels that are a plain array; more are chunks that exist where something was painted
_CHUNK = 512


@dataclass(frozen=True)
class OpenImage:
    """An open file, the planes that are read of it, and its labels ``stack_shape + (H, W)`` uint8."""

    levels: ImageLevels
    source: ArrayImage
    labels: Any


class OpenImages:
    """Opens each file once, whoever asks; threads may share it."""

    def __init__(self, session: Session, keeper: Keeper) -> None:
        self._session, self._keeper = session, keeper
        self._open: dict[str, OpenImage] = {}
        self._shown: set[str] = set()
        self._locks: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()  # of the locks

    def hold(self, image_id: str, *, shown: bool = False) -> OpenImage:
        """An image, opened here and in the session if it was not.

        Raises
        ------
        InputError
            If it cannot be read.
        ProjectError
            If it was painted when it had another size.
        """
        with self._turn(image_id):
            opened = self._open.get(image_id) or self._begin(image_id)
            if shown:
                self._shown.add(image_id)
            return opened

    def release(self, image_id: str, *, always: bool = False) -> None:
        """It is shown no longer: when its last stroke is taken over it is closed.

        Unless there are strokes, or undoing would bring some back; `always` closes it all the same.
        """
        with self._turn(image_id):
            self._shown.discard(image_id)
            image = self._session.images.get(image_id)
            for output in list(image.pictures) if image else ():
                if output != "prediction":  # which is shown at once when it comes back
                    self._session.forget_picture(image_id, output)

        def close() -> None:
            with self._turn(image_id):
                strokes = self._session.strokes.painted_in(image_id) > 0 or self._session.can_bring_back(image_id)
                wanted = image_id in self._shown or (strokes and not always)
                if image_id in self._open and not wanted:
                    self._session.close_image(image_id)
                    self._open.pop(image_id).levels.close()

        self._session.after_strokes(close)

    @contextmanager
    def look_at(self, image_id: str) -> Iterator[ArrayImage]:
        """Its planes, for a look: an image that is not open is closed again."""
        image = self._session.images.get(image_id)
        if image is not None:
            yield image.source
            return
        facts = self._facts(image_id)
        levels = open_levels(_path(facts))
        try:
            yield self._planes(levels, facts)
        finally:
            levels.close()

    def close(self) -> None:
        """Close all files; the session, which may be reading them, must have ended."""
        for opened in self._open.values():
            opened.levels.close()
        self._open.clear()
        self._shown.clear()

    def _begin(self, image_id: str) -> OpenImage:
        facts = self._facts(image_id)
        other = self._keeper.opened_as(image_id)
        if other not in ("", image_id):
            raise InputError(f"{facts.name} is open already, as the layer {other!r}: close that first")
        levels = open_levels(_path(facts))
        try:
            source = self._planes(levels, facts)
            shape = (source.height, source.width)
            place = {"pixel_size": levels.pixel_size, "unit": levels.unit, "dtype": np.dtype(source.dtype).str}
            facts = replace(facts, stack_shape=source.stack_shape, shape=shape, **place)  # type: ignore[arg-type]
            self._keeper.project.open_labels(image_id, facts)  # before anybody paints in vain
            self._keeper.change(lambda state: replace(state, images={**state.images, image_id: facts}))
            labels = empty_labels((*source.stack_shape, *shape))
            self._session.open_image(image_id, source, labels)
        except BaseException:
            levels.close()
            raise
        self._open[image_id] = OpenImage(levels, source, labels)
        return self._open[image_id]

    def _facts(self, image_id: str) -> ImageFacts:
        try:
            return self._keeper.state.images[image_id]
        except KeyError:
            raise InputError(f"the project has no image {image_id} (any more): choose another one") from None

    def _planes(self, levels: ImageLevels, facts: ImageFacts) -> ArrayImage:
        """With the channels that were chosen for this image, or else for all the labelled ones; or the usual ones."""
        chosen = {each.channels for each in self._keeper.state.images.values() if each.painted}
        for channels in (facts.channels, chosen.pop() if len(chosen) == 1 else ()):
            with suppress(ChannelsError):  # the file has fewer
                if channels:
                    return levels.as_image(channels)
        return levels.as_image()

    @contextmanager
    def _turn(self, image_id: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(image_id, threading.RLock())
        with lock:
            yield


def _path(facts: ImageFacts) -> Path:
    if facts.source is None:
        raise UnreadableImageError(f"{facts.name} was never a file: its strokes are kept, and the image must be opened by hand")
    return Path(facts.source)


def empty_labels(shape: tuple[int, ...]) -> Any:
    """An array of zeros (uint8) to paint into; a large one takes memory only where it is painted."""
    if math.prod(shape) <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    import zarr

    chunks = (1,) * (len(shape) - 2) + (_CHUNK, _CHUNK)
    return zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype="uint8", fill_value=0)
