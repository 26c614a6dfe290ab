"""Data sets of the benchmarks: where images and truth are, which images must not be split, and which pixels are looked at.

Every image has a fixed set of pixels: up to 8 discs of radius 4 for each class (the strokes), random pixels for dense labels,
and other random pixels for tests. A seed chooses which images are labelled and which are tested.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.draw import disk

from mdm_studio.io.images import ArrayPlane, open_image

DISCS, RADIUS = 8, 4
DENSE_PIXELS, TEST_PIXELS = 3000, 3000
DENSE, TEST = DISCS, DISCS + 1  # in `Points.disc`, where strokes have 0..7
IGNORED = -1
MAX_LABELLED = 8


@dataclass(frozen=True)
class Points:
    """Pixels of one image: rows, columns, true class, and the disc they belong to (or DENSE, or TEST), each ``(n,)``."""

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    truth: NDArray[np.intp]
    disc: NDArray[np.intp]

    def where(self, chosen: NDArray[np.bool_]) -> Points:
        """Some of the pixels."""
        return Points(self.rows[chosen], self.cols[chosen], self.truth[chosen], self.disc[chosen])


@dataclass(frozen=True)
class DataSet:
    """Images of a folder with ``images/`` and ``masks/``.

    Attributes
    ----------
    group : callable
        Name (and its row of ``index.csv``) to what must not be split between labelled and tested images.
    instances : bool
        Masks number objects; the task is mask > 0.
    ignore : int or None
        Value of pixels that are neither labelled nor tested.
    max_side : int
        Larger images are left out.
    """

    root: Path
    classes: int
    group: Callable[[str, dict[str, str]], str]
    instances: bool = True
    ignore: int | None = None
    max_side: int = 2000

    @property
    def name(self) -> str:
        return self.root.name

    @cached_property
    def groups(self) -> dict[str, str]:
        """Group of every image."""
        rows: dict[str, dict[str, str]] = {}
        if (self.root / "index.csv").exists():
            with (self.root / "index.csv").open() as file:
                rows = {row["name"]: row for row in csv.DictReader(file)}
        names = sorted(path.stem for path in (self.root / "masks").glob("*.png"))
        return {n: self.group(n, rows.get(n, {})) for n in names if max(self._size(n)) <= self.max_side}

    def _size(self, name: str) -> tuple[int, int]:
        with Image.open(self._file("images", name)) as picture:
            return picture.size

    def _file(self, folder: str, name: str) -> Path:
        return next(iter(sorted((self.root / folder).glob(f"{name}.*"))))

    def image(self, name: str) -> Path:
        """File of an image."""
        return self._file("images", name)

    def truth(self, name: str) -> NDArray[np.intp]:
        """Class of every pixel, IGNORED where it does not count."""
        with Image.open(self._file("masks", name)) as picture:
            mask = np.asarray(picture).astype(np.intp)
        if self.instances:
            return (mask > 0).astype(np.intp)
        return mask if self.ignore is None else np.where(mask == self.ignore, IGNORED, mask)

    def plane(self, name: str) -> ArrayPlane:
        """Raw pixels of an image."""
        with open_image(self._file("images", name)) as image:
            plane = image.plane(0)
            return ArrayPlane(plane.read(slice(None), slice(None)), rgb=plane.rgb, name=name)

    def split(self, seed: int, tests: int) -> tuple[list[str], list[str]]:
        """Images to label, in order (the first of them are used), and at most `tests` images of other groups."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(sorted(self.groups)).tolist()
        distinct = rng.permutation(sorted(set(self.groups.values()))).tolist()
        held_out: set[str] = set()
        if len(distinct) < 2 * MAX_LABELLED:  # few groups: a part of them is for tests, and groups may be labelled twice
            held_out = set(distinct[: max(len(distinct) * 2 // 5, 1)])
        candidates = [name for name in order if self.groups[name] not in held_out and len(np.unique(self.truth(name))) > 1]
        first = {self.groups[name]: name for name in reversed(candidates)}.values()  # one image of each group
        labelled = sorted(candidates, key=lambda name: (name not in first, order.index(name)))[:MAX_LABELLED]
        used = {self.groups[name] for name in labelled}
        tested = [name for name in order if (self.groups[name] in held_out if held_out else self.groups[name] not in used)]
        return labelled, tested[:tests]

    def points(self, name: str) -> Points:
        """The fixed pixels of an image."""
        rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))
        truth = self.truth(name)
        strokes = np.full(truth.shape, -1)
        for k in range(self.classes):
            places = np.flatnonzero(truth == k)
            for number, place in enumerate(rng.choice(places, size=min(DISCS, len(places)), replace=False)):
                rows, cols = disk(np.unravel_index(place, truth.shape), RADIUS + 0.5, shape=truth.shape)
                inside = (truth[rows, cols] == k) & (strokes[rows, cols] < 0)
                strokes[rows[inside], cols[inside]] = number
        counted = np.flatnonzero(truth != IGNORED)
        dense, test = (rng.choice(counted, size=min(n, len(counted)), replace=False) for n in (DENSE_PIXELS, TEST_PIXELS))
        places = np.concatenate([np.flatnonzero(strokes >= 0), dense, test])
        disc = np.concatenate([strokes[strokes >= 0], np.full(len(dense), DENSE), np.full(len(test), TEST)])
        rows, cols = np.unravel_index(places, truth.shape)
        return Points(rows, cols, truth[rows, cols], disc)


def data_sets(root: Path) -> dict[str, DataSet]:
    """The data sets that are in `root`, by name."""
    known = [
        DataSet(root / "dsb2018", 2, lambda _, row: row["mosaic"]),
        DataSet(root / "glas", 2, lambda name, row: row.get("patient", name)),
        DataSet(root / "monuseg", 2, lambda name, _: name),
        DataSet(root / "vnc_em", 5, lambda name, _: str(int(name[-2:]) // 3), instances=False),  # blocks of three sections
        DataSet(root / "camvid", 11, lambda name, _: name.split("_")[0], instances=False, ignore=11),  # drives
    ]
    return {data.name: data for data in known if data.root.is_dir()}
