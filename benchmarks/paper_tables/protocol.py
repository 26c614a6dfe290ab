"""How a method is measured: who is labelled and who is tested, the published head, and both readings of each metric."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from data_sets import DENSE, TEST, DataSet, Points
from numpy.typing import NDArray
from PIL import Image

from mdm_studio.engine.backbones import Backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, fit_ensemble, predict_points, sample_features
from mdm_studio.engine.image_corruptions import corrupt, generator_for
from mdm_studio.engine.metrics import aji, instances, object_dice
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ArrayPlane, Plane
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble
from paper_tables.methods import METHODS, UNTRAINED, blocks_read, open_backbone

ONE, TEN_PERCENT, ALL = "1 image", "10 %", "100 %"
OFFICIAL = "official"  # folder below a set's, with images/ and masks/ of the official test half
_HELD_OUT = 0.4  # share of the groups that is tested where there is no official half
_CACHE_BYTES = 8 * 10**9  # features of whole planes; a method's on one set
CLEAN = "clean"
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Rules:
    """Numbers of the measurement; a cell measured by others is measured again.

    Attributes
    ----------
    whole : bool
        Predict whole test images (needed for the AJI of instances), not 3,000 random pixels of each.
    tests : int
        Test images, at most.
    limit : int
        Labelled pixels that the head is fitted on, at most: that many are drawn evenly from all labelled images.
    members : int
        MLPs that vote; ten in the papers.
    bf16 : bool
        Extract features in bfloat16.
    """

    whole: bool = True
    tests: int = 1000
    limit: int = 100_000
    members: int = 10
    bf16: bool = False


@dataclass(frozen=True)
class Fold:
    """Images to label, in order, and images to test; `tested_in` is the set that the latter are of."""

    train: list[str]
    test: list[str]
    tested_in: DataSet


def fold(data: DataSet, seed: int, tests: int) -> Fold:
    """The official halves if the test labels are there; else the labelled images, divided by group (patient) at random."""
    rng = np.random.default_rng(seed)
    official = data.root / OFFICIAL
    if (official / "masks").is_dir():
        other = replace(data, root=official)
        return Fold(sorted(data.groups, key=_natural), sorted(other.groups, key=_natural)[:tests], other)
    groups = rng.permutation(sorted(set(data.groups.values()))).tolist()
    held_out = set(groups[: max(round(_HELD_OUT * len(groups)), 1)])
    order = rng.permutation(sorted(data.groups)).tolist()
    train = [name for name in order if data.groups[name] not in held_out and len(np.unique(data.truth(name))) > 1]
    return Fold(train, [name for name in order if data.groups[name] in held_out][:tests], data)


def _natural(name: str) -> tuple[str, int]:
    digits = "".join(character for character in name if character.isdigit())
    return name.rstrip("0123456789"), int(digits or 0)


def split_in_words(data: DataSet, rules: Rules) -> str:
    """The split, for the column of differences."""
    official = (data.root / OFFICIAL / "masks").is_dir()
    what = "official halves" if official else f"{1 - _HELD_OUT:.0%} of the groups of the labelled half against the rest"
    pixels = "whole images" if rules.whole else "3,000 pixels of each test image"
    return f"{what}; head on at most {rules.limit:,} pixels; {pixels}"


# --- features of fixed pixels, kept on disk -----------------------------------------------------------------------------------


class Reader:
    """Features of one backbone as one method reads them.

    Parameters
    ----------
    out : Path
        Features are kept below it.
    folder : Path or None
        Of the backbone; None is the control with random weights.
    """

    def __init__(self, out: Path, method: str, folder: Path | None, scale: int, rules: Rules) -> None:
        self.backbone: Backbone = open_backbone(folder, bf16=rules.bf16)
        self.settings = FeatureSettings.of(
            self.backbone,
            blocks=blocks_read(self.backbone, method),
            timesteps=METHODS[method].timesteps if method != UNTRAINED else (50,),
            scales=(scale,),
            filters=False,
        )
        self._kept = out / "features"
        self._cache = FeatureCache(out / "planes", _CACHE_BYTES)

    @property
    def facts(self) -> dict[str, object]:
        """What the numbers of a cell depend on."""
        chosen = asdict(self.settings)
        read = ("blocks", "timesteps", "scales", "precision")
        return {"digest": self.backbone.card.digest} | {key: chosen[key] for key in read}

    def at(self, data: DataSet, name: str, points: Points) -> Features:
        """Features ``(n, D)`` of the dense and the test pixels of an image, kept as float16."""
        parts = []
        for t in self.settings.timesteps:  # each by itself: other methods read some of them, too
            one = replace(self.settings, timesteps=(t,))
            blocks = "-".join(map(str, one.blocks))
            key = f"{self.backbone.card.digest[:12]}-b{blocks}-t{t}-s{one.scales[0]}-{one.precision}"
            path = self._kept / data.root.relative_to(data.root.parents[1]) / key / f"{name}.npy"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_suffix(".part.npy")
                np.save(unfinished, self.of_plane(data.plane(name), points, one).astype(np.float16))
                unfinished.replace(path)
            parts.append(np.load(path))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def of_plane(self, plane: Plane, points: Points, settings: FeatureSettings | None = None) -> Features:
        """Features of pixels of a plane, tile by tile, kept nowhere."""
        source = PlaneFeatures(self.backbone, plane, settings or self.settings)
        out = np.empty((len(points.rows), sum(spec.channels for spec in source.specs)), np.float32)
        tiles = np.stack([points.rows // source.grid.tile[0], points.cols // source.grid.tile[1]], axis=1)
        for row, col in np.unique(tiles, axis=0).tolist():
            here = (tiles == (row, col)).all(axis=1)
            out[here] = sample_features(source.maps(row, col), points.rows[here], points.cols[here]).numpy()
        return out

    def mask(self, ensemble: PixelMLPEnsemble, plane: Plane) -> NDArray[np.intp]:
        """Class of every pixel of a plane."""
        labels = np.empty(plane.shape[1:], np.intp)
        for rows, cols, found in predict_plane(ensemble, PlaneFeatures(self.backbone, plane, self.settings, self._cache)):
            labels[rows, cols] = found.labels
        return labels


def chosen_points(data: DataSet, name: str) -> Points:
    """The dense and the test pixels of an image."""
    points = data.points(name)
    return points.where(points.disc >= DENSE)


# --- one cell of a table ------------------------------------------------------------------------------------------------------


def labelled(split: Fold, level: str, ten_percent: int) -> list[str]:
    """Images with labels at a level."""
    return split.train[: {ONE: 1, TEN_PERCENT: ten_percent}.get(level, len(split.train))]


def fit(reader: Reader, data: DataSet, names: Sequence[str], seed: int, rules: Rules) -> tuple[PixelMLPEnsemble, int]:
    """The published head on dense labels of these images, and how many pixels it saw."""
    each = max(rules.limit // len(names), 1)
    x, y = [], []
    for name in names:
        points = chosen_points(data, name)
        dense = np.flatnonzero(points.disc == DENSE)[:each]  # their order is random already
        x.append(reader.at(data, name, points)[dense])
        y.append(points.truth[dense])
    features, targets = torch.from_numpy(np.concatenate(x)), np.concatenate(y)
    config = EnsembleConfig.of(dense=True, seed=seed, members=rules.members)
    return fit_ensemble(features, targets, data.classes, config, sources=[features.shape[1]]), len(targets)


def measure(reader: Reader, data: DataSet, level: str, ten_percent: int, seed: int, rules: Rules) -> dict[str, object]:
    """Fit and test: the scores of every test image."""
    begin = time.perf_counter()
    split = fold(data, seed, rules.tests)
    names = labelled(split, level, ten_percent)
    ensemble, pixels = fit(reader, data, names, seed, rules)
    scores: dict[str, list[float]] = {}
    test = _whole if rules.whole else _sampled
    for name in split.test:
        for metric, value in test(reader, ensemble, split.tested_in, name).items():
            scores.setdefault(metric, []).append(value)
    facts = {"labelled": len(names), "pixels": pixels, "tested": split.test, "seconds": round(time.perf_counter() - begin, 1)}
    return facts | {"scores": scores}


def _sampled(reader: Reader, ensemble: PixelMLPEnsemble, data: DataSet, name: str) -> dict[str, float]:
    points = chosen_points(data, name)
    test = points.disc == TEST
    found = predict_points(ensemble, torch.from_numpy(reader.at(data, name, points)[test])).labels
    return overlap(found, points.truth[test])


def _whole(reader: Reader, ensemble: PixelMLPEnsemble, data: DataSet, name: str) -> dict[str, float]:
    return of_mask(reader.mask(ensemble, data.plane(name)), data, name)


def of_mask(found: NDArray[np.intp], data: DataSet, name: str) -> dict[str, float]:
    """Every metric of a whole mask."""
    objects, true = instances((found == 1).astype(np.uint8)), numbered(data, name)
    return overlap(found, data.truth(name)) | {"aji": aji(objects, true), "object_dice": object_dice(objects, true)}


def numbered(data: DataSet, name: str) -> NDArray[np.int64]:
    """The true objects."""
    (path,) = sorted((data.root / "masks").glob(f"{name}.*"))
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int64)


def overlap(found: NDArray[np.intp], truth: NDArray[np.intp]) -> dict[str, float]:
    """Dice and IoU of class 1, NaN where neither has it. The IoU is what the MDM paper calls AJI: that of binary maps."""
    both, either = ((found == 1) & (truth == 1)).sum(), ((found == 1) | (truth == 1)).sum()
    if not either:
        return {"dice": float("nan"), "iou": float("nan")}
    return {"dice": float(2 * both / (both + either)), "iou": float(both / either)}


def spoilt(
    reader: Reader, data: DataSet, ten_percent: int, seed: int, rules: Rules, names: Sequence[str], severities: Sequence[int]
) -> Iterator[tuple[str, int, dict[str, object]]]:
    """Dice of corrupted test images, of a head that was fitted on 10 % of clean ones; the clean ones first (severity 0)."""
    split = fold(data, seed, rules.tests)
    ensemble, pixels = fit(reader, data, labelled(split, TEN_PERCENT, ten_percent), seed, rules)
    for name, severity in [(CLEAN, 0), *((name, severity) for name in names for severity in severities)]:
        scores: dict[str, list[float]] = {}
        for image in split.test:
            plane = split.tested_in.plane(image)
            points = chosen_points(split.tested_in, image)
            points = points.where(points.disc == TEST)
            if severity:
                pixels_ = plane.read(slice(None), slice(None))
                made = corrupt(pixels_, name, severity, generator_for(image, name, severity, seed), rgb=plane.rgb)
                plane = ArrayPlane(made, rgb=plane.rgb, name=image)
            found = predict_points(ensemble, torch.from_numpy(reader.of_plane(plane, points))).labels
            for metric, value in overlap(found, points.truth).items():
                scores.setdefault(metric, []).append(value)
        yield name, severity, {"pixels": pixels, "tested": split.test, "scores": scores}
