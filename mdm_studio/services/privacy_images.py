"""The images of a privacy report: which trained the backbone, which did not, and what is cut out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdm_studio.engine.backbones import BackboneCard
from mdm_studio.engine.crops import CropSource, PlaneInfo, survey
from mdm_studio.engine.generation import usual_side
from mdm_studio.engine.likeness import shrink
from mdm_studio.errors import InputError
from mdm_studio.io.image_digest import image_digest

SEARCHED = 48  # pixels along a crop when pictures are searched: objects are still seen, and shifts cost little
_FIELD = 2  # sides of a crop that a field is high and wide
_FIELDS = 4  # of an image at a working scale, at most
_FEWEST = 2  # images of a kind


@dataclass(frozen=True)
class Sides:
    """Images that trained the backbone and images that did not; `notes` say what was left out, and why."""

    trained: tuple[Path, ...]
    held_out: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def divide(card: BackboneCard, images: Sequence[Path], held_out: Sequence[Path]) -> Sides:
    """Settle which images trained a backbone: by the digests of its card, and by what the user says.

    Parameters
    ----------
    images : sequence of Path
        Images that trained it; where its card knows them, others may be among them.
    held_out : sequence of Path
        Images that did not; empty if they are among `images`.

    Raises
    ------
    InputError
        If there are not enough images of a kind.
    """
    known = set(card.training.get("image_digests", ()))
    digests = {path: image_digest(path) for path in (*images, *held_out)}
    notes: list[str] = []
    trained = [path for path in images if not known or digests[path] in known]
    if not held_out:
        if not known:
            raise InputError(
                f"the card of {card.name} does not tell which images trained it; name images that did not with --held-out"
            )
        others = [path for path in images if digests[path] not in known]
    else:
        others = list(held_out)
        if known and not trained:
            trained = list(images)
            notes.append(
                f"None of the {len(images)} training images is a file that the card of {card.name} lists: they are taken for "
                "training images because you said so. Files that were converted or saved anew are not recognised."
            )
        elif len(trained) < len(images):
            notes.append(f"{len(images) - len(trained)} files were left out: the card does not list them as training images.")
        seen = known | {digests[path] for path in trained}
        others = [path for path in others if digests[path] not in seen]
        if len(others) < len(held_out):
            notes.append(f"{len(held_out) - len(others)} held-out files were left out: they are training images.")
    for kind, found in (("that trained it", trained), ("held out", others)):
        if len(found) < _FEWEST:
            left_out = len(held_out) - len(others) if held_out else 0
            why = f"; {left_out} of them trained it, as its card says" if left_out else ""
            raise InputError(
                f"{len(found)} images {kind} are too few: at least {_FEWEST} of each kind are needed, some dozens to conclude "
                f"anything ({len(images)} images were given, and {len(held_out)} with --held-out{why})"
            )
    return Sides(tuple(trained), tuple(others), tuple(notes))


@dataclass(frozen=True)
class Cut:
    """How crops are cut out of the images: as in pretraining, but for the colours, which stay."""

    side: int
    crops: int
    in_channels: int
    scales: tuple[int, ...]
    seed: int
    channels: tuple[int, ...] | None = None

    @classmethod
    def of(cls, card: BackboneCard, *, crops: int, seed: int, channels: tuple[int, ...] | None) -> Cut:
        """As a backbone was trained."""
        config = card.network()
        side = int(getattr(config, "image_size", 0)) or usual_side(card)
        return cls(side, crops, config.in_channels, card.scales, seed, channels)


class Shown:
    """One image, by one of its planes: crops for the network, and fields to search in.

    Parameters
    ----------
    info : PlaneInfo
        The plane.
    number : int
        Its own among all images; what is cut out depends on it and the seed alone.
    """

    def __init__(self, info: PlaneInfo, cut: Cut, number: int) -> None:
        self.name = info.path.name
        self._info, self._cut, self._number = info, cut, number

    def crops(self) -> Tensor:
        """Random crops ``(K, C, side, side)`` in [-1, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self._source(self._cut.side, self._cut.crops, self._cut.scales).batch(0)))

    @cached_property
    def fields(self) -> list[Tensor]:
        """Grey fields to search in, small; they cover the image, or as much of it as is searched."""
        return list(shrink(torch.from_numpy(self.whole_fields()), SEARCHED / self._cut.side))

    def whole_fields(self) -> NDArray[np.float32]:
        """The same fields as the network would see them, ``(F, C, h, w)``."""
        side, found = _FIELD * self._cut.side, []
        for scale in self._cut.scales:
            area = self._info.shape[1] * self._info.shape[2] / (scale * side) ** 2
            count = int(np.clip(np.ceil(area), 1, _FIELDS))
            found.append(self._source(side, count, (scale,)).batch(1))
        return np.ascontiguousarray(np.concatenate(found))

    def _source(self, side: int, count: int, scales: tuple[int, ...]) -> CropSource:
        cut = self._cut
        return CropSource(
            [self._info], crop=side, batch=count, in_channels=cut.in_channels, seed=cut.seed + 1009 * self._number,
            scales=scales, channels=cut.channels,
        )  # fmt: skip


def choose(paths: Sequence[Path], card: BackboneCard, cut: Cut, limit: int, first: int) -> tuple[list[Shown], list[str]]:
    """At most `limit` of the images, each by a plane of its own, all at random; also one line for each that cannot be read.

    `first` is the number of the first one.
    """
    rng = np.random.default_rng([cut.seed, first])
    order = [paths[index] for index in rng.permutation(len(paths))[:limit]]
    planes, unreadable = survey(order, cut.channels, card.intensity)
    by_path: dict[Path, list[PlaneInfo]] = {}
    for info in planes:
        by_path.setdefault(info.path, []).append(info)
    chosen = [group[int(rng.integers(len(group)))] for group in by_path.values()]
    return [Shown(info, cut, first + number) for number, info in enumerate(chosen)], unreadable
