"""Which image to label next: every image predicted by the present classifier, and how sure it is of each.

A ranking is a job beside a live session (`mdm_studio.services.session.Session.run_job`): it goes on tile by tile while nothing
that the user looks at waits. Rankings are numbered; an image is ranked anew when its number is not that of the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.engine.uncertainty import top_uncertainty
from mdm_studio.services.image_list import ImageEntry

if TYPE_CHECKING:
    from mdm_studio.engine.tiles import TileGrid
    from mdm_studio.io.array_planes import ArrayImage
    from mdm_studio.io.feature_cache import FeatureCache
    from mdm_studio.services.classifier import Classifier

MOST_TILES = 4
"""Tiles of an image that are looked at: all of a small one, of a larger one so many, evenly spread."""
MUCH = 0.25
"""Share of the painted pixels by which they must have changed for a new ranking to be worth its time."""
_STEP = 4  # every how many-th pixel, along each side, is predicted


@dataclass(frozen=True)
class Basis:
    """What a ranking rests on.

    Attributes
    ----------
    number : int
        Of the ranking; 0 before the first.
    painted : mapping of int to int
        Class value -> pixels that were learnt from.
    features : str
        Backbone and features that the classifier reads.
    """

    number: int = 0
    painted: Mapping[int, int] | None = None
    features: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        painted = {str(value): count for value, count in (self.painted or {}).items()}
        return {"number": self.number, "painted": painted, "features": self.features}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Basis:
        """Of a project; an empty mapping, or one that is not understood, is no ranking at all."""
        try:
            painted = {int(value): int(count) for value, count in facts["painted"].items()}
            return cls(int(facts["number"]), painted, str(facts["features"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls()

    @classmethod
    def of(cls, classifier: Classifier, number: int) -> Basis:
        """Of a classifier."""
        info = classifier.info
        read = (info.backbone_digest, info.blocks, info.timesteps, info.scales, info.filters)
        counts: Mapping[str, int] = info.training.get("pixels_per_class", {})
        return cls(number, {int(value): count for value, count in counts.items()}, repr(read))


def is_other(before: Basis, now: Basis) -> bool:
    """Whether a classifier is other enough for everything to be ranked anew.

    It reads other features, knows other classes, or has learnt from a quarter more or fewer pixels.
    """
    if before.painted is None or now.painted is None or before.features != now.features:
        return True
    if before.painted.keys() != now.painted.keys():
        return True
    changed = sum(abs(now.painted[value] - before.painted[value]) for value in now.painted)
    return changed > MUCH * sum(before.painted.values())


@dataclass(frozen=True)
class Ranked:
    """What was found of an image: uncertainty in nats (mean of the highest tenth), and the share of each class value."""

    uncertainty: float
    shares: dict[int, float]


def in_order(entries: Iterable[ImageEntry]) -> tuple[ImageEntry, ...]:
    """The entries in the order in which they are ranked: unlabelled ones first, and no images that cannot be read."""
    readable = [entry for entry in entries if not entry.problem]
    return tuple(sorted(readable, key=lambda entry: (entry.painted > 0, entry.reviewed)))


def rank_image(classifier: Classifier, image: ArrayImage, cache: FeatureCache | None) -> Iterator[Ranked | None]:
    """Predict an image at every fourth pixel; yields None after each tile, and at the end what was found.

    Features go through the cache, so that what is predicted here is opened and exported without computing them again.
    """
    from mdm_studio.engine.features import PlaneFeatures
    from mdm_studio.engine.heads import predict_points
    from mdm_studio.services.image_kinds import differences
    from mdm_studio.services.tile_memory import coarse_features

    differences(classifier.info, image, image.name)
    values = [each.value for each in classifier.info.classes]
    counts = np.zeros(len(values), np.int64)
    doubts: list[NDArray[np.float32]] = []
    source: PlaneFeatures | None = None
    shown = -1
    for plane, row, col in _places(image, classifier):
        if source is None or plane != shown:
            index = np.unravel_index(plane, image.stack_shape) if image.stack_shape else ()
            at = image.plane(tuple(int(i) for i in index))
            source, shown = PlaneFeatures(classifier.backbone, at, classifier.settings, cache), plane
        maps = source.maps(row, col)
        rows, cols = source.grid.core(row, col)
        found = predict_points(classifier.ensemble, coarse_features(maps, rows, cols, _STEP).flatten(0, 1))
        counts += np.bincount(found.labels, minlength=len(values))
        doubts.append(found.uncertainty)
        yield None
    shares = {value: float(count) for value, count in zip(values, counts / max(counts.sum(), 1), strict=True)}
    yield Ranked(top_uncertainty(np.concatenate(doubts)), shares)


def _places(image: ArrayImage, classifier: Classifier) -> list[tuple[int, int, int]]:
    """Plane, row and column of the tiles that are looked at."""
    from mdm_studio.engine.features import PlaneFeatures

    first = image.plane(tuple(0 for _ in image.stack_shape))
    grid = PlaneFeatures(classifier.backbone, first, classifier.settings).grid
    return spread(image.planes, grid)


def spread(planes: int, grid: TileGrid) -> list[tuple[int, int, int]]:
    """Evenly spread tiles of a stack, `MOST_TILES` at most: plane, row and column."""
    total = planes * len(grid)
    chosen = range(total) if total <= MOST_TILES else [int((i + 0.5) * total / MOST_TILES) for i in range(MOST_TILES)]
    return [(number // len(grid), *divmod(number % len(grid), grid.shape[1])) for number in chosen]


def ranking(
    entries: Sequence[ImageEntry],
    steps_of: Callable[[ImageEntry], Iterator[Ranked | None]],
    found: Callable[[ImageEntry, Ranked | str], None],
) -> Iterator[None]:
    """Rank images one after the other; a step is a tile.

    Parameters
    ----------
    entries : sequence of ImageEntry
        In this order.
    steps_of : callable
        Opens an image, see `rank_image`.
    found : callable
        Told what was found, or in words why an image cannot be ranked; the others go on.
    """
    from mdm_studio.errors import InputError

    for entry in entries:
        try:
            for step in steps_of(entry):
                if step is not None:
                    found(entry, step)
                yield
        except InputError as error:
            found(entry, str(error))
            yield


def suggest_image(entries: Sequence[ImageEntry], looks: Mapping[str, NDArray[np.float32]]) -> str | None:
    """The unlabelled image that would help most, None if none is left.

    That of the highest uncertainty, of those nobody has found well; before any ranking the one that looks least like the
    labelled ones, as far as looks are known (see `look`), or else simply the first.

    Parameters
    ----------
    looks : mapping
        A few numbers of each image that has a thumbnail.
    """
    wanted = [entry for entry in entries if not (entry.painted or entry.reviewed or entry.problem)]
    if not wanted:
        return None
    predicted = [entry for entry in wanted if entry.uncertainty is not None]
    if predicted:
        return max(predicted, key=lambda entry: entry.uncertainty or 0.0).id
    labelled = [looks[entry.id] for entry in entries if entry.painted and entry.id in looks]
    known = [entry for entry in wanted if entry.id in looks]
    if not (labelled and known):
        return wanted[0].id
    return max(known, key=lambda entry: min(float(np.abs(looks[entry.id] - other).sum()) for other in labelled)).id


def look(thumbnail: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A few numbers of how an image looks, 0 to 1: mean and spread of its colours, and a histogram of its brightness."""
    pixels = thumbnail.reshape(-1, 3).astype(np.float32) / 255
    brightness = np.histogram(pixels.mean(axis=1), bins=8, range=(0, 1))[0] / len(pixels)
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0), brightness]).astype(np.float32)
