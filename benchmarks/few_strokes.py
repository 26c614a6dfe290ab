"""A few strokes: how good are the masks after 5 labelled images with 8 discs of radius 4 in each class?

    python benchmarks/few_strokes.py DATA/dsb2018 --group mosaic
    python benchmarks/few_strokes.py DATA/glas --group patient --max-size 800

DATA/NAME holds ``images/``, ``masks/`` (instances; the task is mask > 0) and ``index.csv`` with a column of groups that must
not be split. For each seed 5 images of different groups are labelled and images of other groups are tested, on the same
labelled pixels and the same test pixels for every method:

* ``forest``: scikit-image's multiscale_basic_features (sigma 1..16) and a random forest of 100 trees, the recipe that
  ilastik, Labkit and apoc share; ``forest, normalised``: the same, intensities stretched as the backbone sees them;
* ``MLPs on filters``: our ensemble on those filters;
* ``untrained``: our ensemble on the features of the same network with random weights;
* ``backbone``: our ensemble on the backbone's features.

Dice of the object class on ``--test-pixels`` random pixels an image: the mean over test images, and pooled over all of them.
``--sweep all`` scores every block and timestep alone and ranges of blocks together, on seeds of its own (100, 101, ...), so
that a choice made from it is not made on the seeds that are reported.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.draw import disk
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from mdm_studio.arrays import fit_channels, intensity_window, normalise
from mdm_studio.config import DEFAULT_BACKBONE
from mdm_studio.engine.backbones import Backbone, find_backbone, load_backbone, untrained_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, fit_ensemble, sample_features, vote
from mdm_studio.io.images import ArrayPlane, open_image

DISCS, RADIUS, LABELLED = 8, 4, 5


@dataclass(frozen=True)
class Sample:
    """Pixels of one image: rows, columns and truth (0 ground, 1 object)."""

    name: str
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    truth: NDArray[np.intp]


def strokes(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels of 8 discs of radius 4 for each class, kept inside the class."""
    chosen = np.zeros(mask.shape, bool)
    for wanted in (False, True):
        ys, xs = np.nonzero(mask == wanted)
        for index in rng.choice(len(ys), size=min(DISCS, len(ys)), replace=False):
            rows, cols = disk((ys[index], xs[index]), RADIUS + 0.5, shape=mask.shape)
            inside = mask[rows, cols] == wanted
            chosen[rows[inside], cols[inside]] = True
    rows, cols = np.nonzero(chosen)
    return rows, cols


class Data:
    """Images of a folder, their masks and groups."""

    def __init__(self, root: Path, group: str, max_size: int) -> None:
        self.root = root
        with (root / "index.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if max(int(row["w"]), int(row["h"])) <= max_size]
        self.groups = {row["name"]: row[group] for row in rows}
        self.names = sorted(self.groups)

    def mask(self, name: str) -> NDArray[np.bool_]:
        return np.asarray(Image.open(self.root / "masks" / f"{name}.png")) > 0

    def plane(self, name: str) -> ArrayPlane:
        with open_image(self.root / "images" / f"{name}.png") as image:
            plane = image.plane(0)
            return ArrayPlane(plane.read(slice(None), slice(None)), rgb=plane.rgb, name=name)

    def split(self, seed: int, test_images: int, test_pixels: int) -> tuple[list[Sample], list[Sample]]:
        """Labelled pixels of 5 images and test pixels of images of other groups."""
        rng = np.random.default_rng(seed)
        labelled: list[Sample] = []
        groups: set[str] = set()
        order = rng.permutation(self.names).tolist()
        for name in order:
            mask = self.mask(name)
            if self.groups[name] not in groups and mask.any() and not mask.all() and len(labelled) < LABELLED:
                rows, cols = strokes(mask, rng)
                labelled.append(Sample(name, rows, cols, mask[rows, cols].astype(np.intp)))
                groups.add(self.groups[name])
        tested = [name for name in order if self.groups[name] not in groups][:test_images]
        tests = []
        for name in tested:
            mask = self.mask(name)
            rows, cols = (rng.integers(size, size=test_pixels) for size in mask.shape)
            tests.append(Sample(name, rows, cols, mask[rows, cols].astype(np.intp)))
        return labelled, tests


def filters(plane: ArrayPlane, sample: Sample, normalised: bool) -> NDArray[np.float32]:
    """The classical filter bank at the sample's pixels, ``(n, D)``."""
    raw = plane.read(slice(None), slice(None))
    raw = fit_channels(raw, 3, name=plane.name)  # grey and colour images side by side
    image = normalise(raw, intensity_window(raw, "percentile" if normalised else "range", joint=plane.rgb))
    bank = multiscale_basic_features(image.transpose(1, 2, 0), sigma_min=1, sigma_max=16, channel_axis=-1)
    return bank[sample.rows, sample.cols].astype(np.float32)


def deep(backbone: Backbone, plane: ArrayPlane, sample: Sample, settings: FeatureSettings) -> NDArray[np.float32]:
    """Features of the backbone at the sample's pixels, ``(n, D)``."""
    source = PlaneFeatures(backbone, plane, settings)
    tiles = np.stack([sample.rows // source.grid.tile[0], sample.cols // source.grid.tile[1]], axis=1)
    out = np.empty((len(sample.rows), sum(spec.channels for spec in source.specs)), np.float32)
    for row, col in np.unique(tiles, axis=0).tolist():
        here = (tiles == (row, col)).all(axis=1)
        out[here] = sample_features(source.maps(row, col), sample.rows[here], sample.cols[here]).numpy()
    return out


def dice(prediction: NDArray[np.intp], truth: NDArray[np.intp]) -> float:
    total = prediction.sum() + truth.sum()
    return float("nan") if total == 0 else float(2 * (prediction & truth).sum() / total)


def scores(predictions: list[NDArray[np.intp]], tests: list[Sample]) -> tuple[float, float]:
    """Mean Dice over images, and Dice pooled over all test pixels."""
    each = [dice(p, t.truth) for p, t in zip(predictions, tests, strict=True)]
    return float(np.nanmean(each)), dice(np.concatenate(predictions), np.concatenate([t.truth for t in tests]))


def mlps(
    x: list[NDArray[np.float32]], y: list[NDArray[np.intp]], tests: list[NDArray[np.float32]], seed: int
) -> list[NDArray[np.intp]]:
    ensemble = fit_ensemble(torch.from_numpy(np.concatenate(x)), np.concatenate(y), 2, EnsembleConfig(seed=seed))
    with torch.inference_mode():
        return [vote(ensemble(torch.from_numpy(test))).numpy().astype(np.intp) for test in tests]


def forest(
    x: list[NDArray[np.float32]], y: list[NDArray[np.intp]], tests: list[NDArray[np.float32]], seed: int
) -> list[NDArray[np.intp]]:
    model = RandomForestClassifier(100, n_jobs=torch.get_num_threads(), random_state=seed)
    model.fit(np.concatenate(x), np.concatenate(y))
    return [model.predict(test).astype(np.intp) for test in tests]


def compare(data: Data, backbone: Backbone, settings: FeatureSettings, seeds: list[int], args: argparse.Namespace) -> dict:
    """Every method on the same pixels, seed by seed."""
    control = untrained_backbone_like(backbone)
    sources = {
        "forest": (lambda p, s: filters(p, s, False), forest),
        "forest, normalised": (lambda p, s: filters(p, s, True), forest),
        "MLPs on filters": (lambda p, s: filters(p, s, True), mlps),
        "untrained": (lambda p, s: deep(control, p, s, settings), mlps),
        "backbone": (lambda p, s: deep(backbone, p, s, settings), mlps),
    }
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
    pixels = []
    for seed in seeds:
        labelled, tests = data.split(seed, args.test_images, args.test_pixels)
        pixels.append(sum(len(s.rows) for s in labelled))
        kept: dict[str, list[NDArray[np.float32]]] = {}
        for name, (extract, head) in sources.items():
            shared = "normalised filters" if name in ("forest, normalised", "MLPs on filters") else name
            if shared not in kept:
                kept = {shared: [extract(data.plane(s.name), s) for s in labelled + tests]}
            x = kept[shared]
            predictions = head(x[: len(labelled)], [s.truth for s in labelled], x[len(labelled) :], seed)
            results[name].append(scores(predictions, tests))
            print(
                f"seed {seed} {name:20s} dice {results[name][-1][0]:.3f} pooled {results[name][-1][1]:.3f}",
                file=sys.stderr,
                flush=True,
            )
    return {"labelled_pixels": pixels, "dice": results}


def untrained_backbone_like(backbone: Backbone) -> Backbone:
    """The same network with random weights, looked at in the same way."""
    return untrained_backbone(backbone.net.config, backbone.card)


def sweep(
    data: Data, backbone: Backbone, seeds: list[int], timesteps: list[int], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Dice (mean over images) of single blocks, of ranges of blocks, and of pairs of timesteps."""
    blocks = list(range(backbone.n_blocks))
    results: dict[str, list[float]] = {}
    for seed in seeds:
        labelled, tests = data.split(seed, args.test_images, args.test_pixels)
        settings = FeatureSettings.of(backbone, blocks=blocks, timesteps=timesteps)
        values = [deep(backbone, data.plane(s.name), s, settings) for s in labelled + tests]
        widths = [spec.channels for spec in settings.specs(backbone)]
        ends = np.cumsum(widths)
        column = {
            (s.timestep, s.block): slice(e - w, e) for s, e, w in zip(settings.specs(backbone), ends, widths, strict=True)
        }
        for name, chosen in candidates(blocks, timesteps, args.sweep == "all").items():
            x = [np.concatenate([v[:, column[c]] for c in chosen], axis=1) for v in values]
            predictions = mlps(x[: len(labelled)], [s.truth for s in labelled], x[len(labelled) :], seed)
            results.setdefault(name, []).append(scores(predictions, tests)[0])
            print(f"seed {seed} {name:24s} dice {results[name][-1]:.3f}", file=sys.stderr, flush=True)
    return results


def candidates(blocks: list[int], timesteps: list[int], singles: bool) -> dict[str, list[tuple[int, int]]]:
    """Sets of (timestep, block) worth a look."""
    found: dict[str, list[tuple[int, int]]] = {}
    last = blocks[-1]
    for t, b in product(timesteps, blocks if singles else ()):
        found[f"t{t} b{b}"] = [(t, b)]
    for t, first in product(timesteps, range(max(last - 5, 0), last)):
        found[f"t{t} b{first}-{last}"] = [(t, b) for b in range(first, last + 1)]
    for pair in [(timesteps[0], timesteps[-1]), tuple(timesteps)]:
        for first in range(max(last - 3, 0), last + 1):
            found[f"t{'+'.join(map(str, pair))} b{first}-{last}"] = [(t, b) for t in pair for b in range(first, last + 1)]
    return found


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--group", default="mosaic")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test-images", type=int, default=60)
    parser.add_argument("--test-pixels", type=int, default=4000)
    parser.add_argument("--max-size", type=int, default=2000)
    parser.add_argument("--sweep", choices=("all", "sets"), help="every block and timestep alone too, or sets of them only")
    parser.add_argument("--timesteps", default="10,50,150,250,400")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = Data(args.data, args.group, args.max_size)
    backbone = load_backbone(find_backbone(args.backbone))
    begin = time.perf_counter()
    if args.sweep:
        found = sweep(data, backbone, [100 + i for i in range(args.seeds)], [int(t) for t in args.timesteps.split(",")], args)
        for name, values in sorted(found.items(), key=lambda item: -np.mean(item[1])):
            print(f"{name:28s} {spread(values)}")
        report: dict = {"sweep": found}
    else:
        settings = FeatureSettings.of(backbone)
        report = compare(data, backbone, settings, list(range(args.seeds)), args)
        base = [pair[0] for pair in report["dice"]["forest"]]
        print(
            f"{args.data.name}: {args.seeds} seeds, {LABELLED} images x 2 classes x {DISCS} discs of radius {RADIUS}, "
            f"{np.mean(report['labelled_pixels']):.0f} labelled pixels, {args.test_images} test images of other groups"
        )
        print(f"{'method':22s} {'Dice, mean of images':22s} {'pooled':16s} against the forest, paired")
        for name, pairs in report["dice"].items():
            means, pooled = [p[0] for p in pairs], [p[1] for p in pairs]
            print(
                f"{name:22s} {spread(means):22s} {spread(pooled):16s} "
                f"{spread([a - b for a, b in zip(means, base, strict=True)])}"
            )
        report["blocks"], report["timesteps"] = settings.blocks, settings.timesteps
    report["seconds"] = time.perf_counter() - begin
    if args.json:
        args.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
