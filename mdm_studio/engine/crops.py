"""Batches of random crops for pretraining: memory-bounded, prefetched, and a pure function of (seed, step)."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import (
    Image,
    IntensityLaw,
    IntensityWindow,
    Pixels,
    bin_pixels,
    fit_channels,
    normalise,
)
from mdm_studio.engine.intensity import EmptyPlaneError, plane_window
from mdm_studio.errors import NoImagesError, UnreadableImageError
from mdm_studio.io.images import open_image

_PREFETCH = 3  # batches prepared ahead: enough to hide a slow file, few enough to cost no memory


@dataclass(frozen=True)
class PlaneInfo:
    """One plane that crops are drawn from."""

    path: Path
    plane: int
    window: IntensityWindow
    shape: tuple[int, int, int]
    nbytes: int


def survey(paths: Sequence[Path], channels: tuple[int, ...] | None, law: IntensityLaw) -> tuple[list[PlaneInfo], list[str]]:
    """Open every image once: its planes, sizes and intensity windows, and one line for each file that cannot be used.

    Raises
    ------
    NoImagesError
        If not a single one can be read.
    """
    planes: list[PlaneInfo] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            with open_image(path, channels) as image:
                for index in range(image.planes):
                    plane = image.plane(index)
                    try:
                        window = plane_window(plane, law)
                    except EmptyPlaneError as error:
                        unreadable.append(str(error))
                        continue
                    nbytes = int(np.prod(plane.shape)) * np.dtype(plane.dtype).itemsize
                    planes.append(PlaneInfo(path, index, window, plane.shape, nbytes))
        except UnreadableImageError as error:
            unreadable.append(str(error))
    if not planes:
        raise NoImagesError(
            f"none of {len(paths)} images can be read; the first says: {unreadable[0] if unreadable else 'no files'}"
        )
    return planes, unreadable


class _RawPlanes:
    """Raw planes kept in memory up to a budget, least recently used first out; larger ones are read crop by crop."""

    def __init__(self, channels: tuple[int, ...] | None, max_bytes: int) -> None:
        self._channels = channels
        self._budget = max_bytes
        self._kept: OrderedDict[tuple[Path, int], Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def crop(self, info: PlaneInfo, rows: slice, cols: slice) -> Pixels:
        """Raw pixels ``(C, h, w)`` of a window."""
        key = (info.path, info.plane)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept[:, rows, cols]
        with open_image(info.path, self._channels) as image:
            plane = image.plane(info.plane)
            if info.nbytes > self._budget // 4:
                return plane.read(rows, cols)
            raw = plane.read(slice(0, info.shape[1]), slice(0, info.shape[2]))
        with self._lock:
            if key not in self._kept:
                self._kept[key], self._bytes = raw, self._bytes + raw.nbytes
            while self._bytes > self._budget and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return raw[:, rows, cols]


def colour_jitter(image: Image, rng: np.random.Generator) -> Image:
    """Another look of an image ``(C, H, W)`` in [-1, 1]: gamma, a mixing of channels, and half the time dark for bright.

    The ranges (gamma 0.5 to 2, mixing by normal numbers of 0.2) cover what stains and lamps do to the same tissue.
    """
    channels = len(image)
    bright = ((image + 1) / 2) ** np.exp(rng.uniform(-0.7, 0.7))
    mixing = np.eye(channels) + rng.normal(0, 0.2, (channels, channels))
    looked = np.tensordot(mixing.astype(np.float32), bright.astype(np.float32), axes=1).clip(0, 1) * 2 - 1
    return -looked if rng.integers(2) else looked


class CropSource:
    """Random crops of a set of planes.

    Parameters
    ----------
    planes : sequence of PlaneInfo
        From `survey`.
    crop, batch : int
        Side of a crop in pixels and crops a batch.
    in_channels : int
        Channels of the network.
    seed : int
        Batch ``step`` depends on ``(seed, step)`` alone, so that a resumed run sees what an uninterrupted one sees.
    scales : sequence of int
        Each crop is taken from the image binned by one of these.
    jitter : bool
        Change the colours of each crop, see `colour_jitter`.
    max_bytes : int
        Raw pixels kept in memory.
    """

    def __init__(
        self,
        planes: Sequence[PlaneInfo],
        *,
        crop: int,
        batch: int,
        in_channels: int,
        seed: int,
        scales: Sequence[int] = (1,),
        jitter: bool = False,
        channels: tuple[int, ...] | None = None,
        max_bytes: int = 1 << 30,
    ) -> None:
        self.planes = list(planes)
        self.crop, self.batch_size, self.in_channels, self.seed = crop, batch, in_channels, seed
        self.scales, self.jitter = tuple(scales), jitter
        self._raw = _RawPlanes(channels, max_bytes)

    def batch(self, step: int) -> NDArray[np.float32]:
        """Batch of `step`: ``(B, C, crop, crop)`` float32 in [-1, 1], randomly cropped and flipped."""
        rng = np.random.default_rng([self.seed, step])
        return np.stack([self._one(rng) for _ in range(self.batch_size)])

    def _one(self, rng: np.random.Generator) -> Image:
        info = self.planes[int(rng.integers(len(self.planes)))]
        scale = self.scales[int(rng.integers(len(self.scales)))] if len(self.scales) > 1 else self.scales[0]
        side = self.crop * scale
        spans = []
        for size in info.shape[1:]:
            start = int(rng.integers(max(size - side, 0) + 1))
            spans.append(slice(start, min(start + side, size)))
        flip_rows, flip_cols = rng.integers(2, size=2)
        raw = self._raw.crop(info, spans[0], spans[1])
        image = normalise(raw, info.window)
        image = fit_channels(image, self.in_channels, name=info.path.name)
        short = [side - size for size in image.shape[1:]]
        if any(short):  # an image smaller than the crop is mirrored at its border
            image = np.pad(image, ((0, 0), (0, short[0]), (0, short[1])), mode="symmetric")
        image = bin_pixels(image, scale)
        if self.jitter:
            image = colour_jitter(image, rng)
        return image[:, :: -1 if flip_rows else 1, :: -1 if flip_cols else 1]

    def batches(self, first_step: int) -> Iterator[NDArray[np.float32]]:
        """Batches from `first_step` on, prepared ahead in a thread; close the generator to end the thread."""
        with ThreadPoolExecutor(1, thread_name_prefix="crops") as pool:
            ahead: deque[Future[NDArray[Any]]] = deque()
            step = first_step
            try:
                while True:
                    while len(ahead) < _PREFETCH:
                        ahead.append(pool.submit(self.batch, step))
                        step += 1
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()
