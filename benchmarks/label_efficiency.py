"""Label efficiency: how good are the masks after so many labels, by features and by head?

    python benchmarks/label_efficiency.py DATA --out RESULTS
    python benchmarks/label_efficiency.py DATA --out RESULTS --sets glas --methods forest:raw "mlp:my-backbone#4-7@1,2+filters"
    python benchmarks/label_efficiency.py DATA --out RESULTS --sets dsb2018 --labels 5x8 --each-block mdm-nuclei

DATA holds the data sets that `data_sets.py` knows. ``--labels IxD`` means I images with D discs of radius 4 for each class, or
`dense` (3,000 random pixels an image). On every data set, seed and amount of labels all methods get the same labelled pixels
and are tested on the same pixels of images of other groups.

A method is ``HEAD:SOURCE+SOURCE...``, or ``HEAD:SOURCE+SOURCE... as NAME`` to have it called so

* HEAD: ``forest`` (100 trees of scikit-learn), ``mlp`` (our ensemble), or ``mlp(noise=0;weight_decay=0.01;...)`` with other
  settings of it, ``invert=1`` to learn from the negatives of the labelled images too
  (``invert=None``: where the product would), ``smooth=8`` to smooth predictions;
  its defaults are the product's, which are others for dense labels than for strokes;
* SOURCE: ``raw`` (scikit-image's multiscale_basic_features, sigma 1..16, of intensities as they are: with ``forest`` the recipe
  of today's tools), ``filters`` (our filter bank), ``untrained`` (the bundled network with random weights) or a backbone's name
  or folder, then optionally ``#blocks``, ``~timesteps`` and ``@scales``, by default the backbone's own.

Where there are two classes, Dice of the object class, mean over test images; else mean IoU over all test pixels. Results go to
RESULTS/results.jsonl as they come; what is there is not computed again. RESULTS/table.md and RESULTS/curves.png are made of it
at the end (``--report``: of all that is there); features are kept in RESULTS/features and RESULTS/planes.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from data_sets import DENSE, TEST, DataSet, Points, data_sets
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from mdm_studio.arrays import fit_channels, intensity_window, normalise
from mdm_studio.cli.common import parse_numbers
from mdm_studio.config import DEFAULT_BACKBONE, SMOOTH
from mdm_studio.engine.backbones import Backbone, find_backbone, load_backbone, untrained_backbone
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, fit_ensemble, mean_probabilities, sample_features, vote
from mdm_studio.engine.polarity import mixed, polarity, some_of
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import ArrayPlane
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble

LABELS = ["1x1", "2x2", "5x1", "5x2", "5x8", "5xdense"]
METHODS = [
    "forest:raw",
    "forest:filters",
    "mlp:filters",
    "mlp:untrained",
    f"mlp:{DEFAULT_BACKBONE}",
    f"mlp:{DEFAULT_BACKBONE}+filters",
    f"mlp(smooth={SMOOTH};invert=None):{DEFAULT_BACKBONE}+filters",
]
CACHE_BYTES = 15 * 10**9  # of the features of whole planes, which smoothing needs
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Where features come from; without blocks, timesteps or scales those of the backbone's card."""

    name: str
    blocks: tuple[int, ...] | None = None
    timesteps: tuple[int, ...] | None = None
    scales: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        match = re.fullmatch(r"([^#~@]+)(?:#([\d,-]+))?(?:~([\d,-]+))?(?:@([\d,-]+))?", text)
        if match is None:
            raise SystemExit(f"the source {text!r} is not NAME, or NAME#blocks~timesteps@scales")
        return cls(match[1], *(parse_numbers(part, text) for part in match.groups()[1:]))


@dataclass(frozen=True)
class Method:
    """A head and what it reads; `text` is what it is called."""

    text: str
    head: str
    options: dict[str, object]
    sources: tuple[Source, ...]
    invert: bool | None = False
    smooth: int = 0

    @classmethod
    def parse(cls, text: str) -> Method:
        method, _, name = text.partition(" as ")
        match = re.fullmatch(r"(forest|mlp)(?:\((.*?)\))?:(.+)", method)
        if match is None:
            raise SystemExit(f"the method {text!r} is not forest:SOURCE+... or mlp:SOURCE+...")
        options = {
            key: ast.literal_eval(value) for key, value in (item.split("=") for item in (match[2] or "").split(";") if item)
        }
        sources = tuple(Source.parse(part) for part in match[3].split("+"))
        invert, smooth = options.pop("invert", 0), options.pop("smooth", 0)
        return cls(name or text, match[1], options, sources, None if invert is None else bool(invert), smooth)

    def settings(self) -> tuple[Backbone, FeatureSettings]:
        """The same features as one setting of the product, for whole planes."""
        filters = self.sources[-1].name == "filters"
        if len(self.sources) > 1 + filters or self.sources[0].name == "raw":
            raise SystemExit(f"smooth= needs one backbone, or filters, or BACKBONE+filters; {self.text!r} is something else")
        source, backbone = self.sources[0], _backbone(self.sources[0].name)
        blocks = () if source.name == "filters" else source.blocks
        return backbone, FeatureSettings.of(
            backbone, blocks=blocks, timesteps=source.timesteps, scales=source.scales, filters=filters
        )


# --- features of an image's points, kept on disk ------------------------------------------------------------------------


@cache
def _backbone(name: str) -> Backbone:
    if name in ("untrained", "filters"):
        like = _backbone(DEFAULT_BACKBONE)
        return untrained_backbone(like.net.config, like.card) if name == "untrained" else like
    return load_backbone(find_backbone(name))


class Kept:
    """Features of the fixed points of images, in files of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, data: DataSet, name: str, points: Points, source: Source, *, inverted: bool = False) -> list[Features]:
        """Features ``(n, D)`` of a source at the points of an image, or of its negative; of a backbone, one array a scale."""
        if source.name == "raw":
            return [self._kept(data, name, "raw", lambda: raw_filters(data.plane(name), points))]
        backbone = _backbone(source.name)
        end = "-inverted" if inverted else ""
        if source.name == "filters":
            settings = replace(FeatureSettings.of(backbone, blocks=(), scales=(1,), filters=True), inverted=inverted)
            return [self._kept(data, name, f"filters{end}", lambda: at_points(backbone, data.plane(name), points, settings))]
        wanted = FeatureSettings.of(
            backbone, blocks=source.blocks, timesteps=source.timesteps, scales=source.scales, filters=False
        )
        parts: dict[int, list[Features]] = {}
        for scale, t in itertools.product(wanted.scales, wanted.timesteps):
            every = FeatureSettings.of(
                backbone, blocks=range(backbone.n_blocks), timesteps=(t,), scales=(scale,), filters=False
            )
            every = replace(every, inverted=inverted)
            key = f"{backbone.card.digest[:12]}-t{t}-s{scale}{end}"
            values = self._kept(data, name, key, lambda every=every: at_points(backbone, data.plane(name), points, every))
            ends = np.cumsum([spec.channels for spec in every.specs(backbone)])
            of_blocks = [values[:, slice(ends[b - 1] if b else 0, ends[b])] for b in wanted.blocks]
            parts.setdefault(scale, []).extend(of_blocks)
        return [np.concatenate(each, axis=1) for each in parts.values()]

    def _kept(self, data: DataSet, name: str, key: str, make: object) -> Features:
        path = self.root / data.name / key / f"{name}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, np.asarray(make(), np.float16))
            unfinished.replace(path)
        return np.load(path, mmap_mode="r")


def raw_filters(plane: ArrayPlane, points: Points) -> Features:
    """scikit-image's filters on intensities as they are in the file."""
    raw = fit_channels(plane.read(slice(None), slice(None)), 3, name=plane.name)  # grey and colour images side by side
    image = normalise(raw, intensity_window(raw, "range", joint=plane.rgb))
    bank = multiscale_basic_features(image.transpose(1, 2, 0), sigma_min=1, sigma_max=16, channel_axis=-1)
    return bank[points.rows, points.cols]


def at_points(backbone: Backbone, plane: ArrayPlane, points: Points, settings: FeatureSettings) -> Features:
    """Features of a plane at points, tile by tile."""
    source = PlaneFeatures(backbone, plane, settings)
    tiles = np.stack([points.rows // source.grid.tile[0], points.cols // source.grid.tile[1]], axis=1)
    out = np.empty((len(points.rows), sum(spec.channels for spec in source.specs)), np.float32)
    for row, col in np.unique(tiles, axis=0).tolist():
        here = (tiles == (row, col)).all(axis=1)
        out[here] = sample_features(source.maps(row, col), points.rows[here], points.cols[here]).numpy()
    return out


# --- heads and scores ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """A test image: the pixels to predict, and their features."""

    plane: Callable[[], ArrayPlane]
    points: Points
    features: Features
    cache: FeatureCache


def predict(
    method: Method,
    x: Features,
    y: NDArray[np.intp],
    tests: list[Tested],
    classes: int,
    seed: int,
    *,
    widths: list[int],
    dense: bool,
) -> list[NDArray]:
    """Fit the head and predict the test pixels of every image; `widths` are the channels of each source."""
    if method.head == "forest":
        forest = RandomForestClassifier(100, n_jobs=torch.get_num_threads(), random_state=seed, **method.options)
        forest.fit(x, y)
        return [forest.predict(test.features) for test in tests]
    config = EnsembleConfig.of(dense=dense, seed=seed, **method.options)
    ensemble = fit_ensemble(torch.from_numpy(x), y, classes, config, sources=widths)
    if method.smooth:
        return [smoothed(method, ensemble, test) for test in tests]
    with torch.inference_mode():
        decide = vote if len(widths) == 1 else lambda logits: mean_probabilities(logits).argmax(1)  # two camps tie often
        return [decide(ensemble(torch.from_numpy(test.features))).numpy() for test in tests]


def smoothed(method: Method, ensemble: PixelMLPEnsemble, test: Tested) -> NDArray:
    """Predict the whole plane, as the product does, and read it at the test pixels."""
    backbone, settings = method.settings()
    plane = test.plane()
    source = PlaneFeatures(backbone, plane, settings, test.cache)
    labels = np.empty(plane.shape[1:], np.intp)
    for rows, cols, found in predict_plane(ensemble, source, smooth=method.smooth):
        labels[rows, cols] = found.labels
    return labels[test.points.rows, test.points.cols]


@cache
def mixed_polarities(data: DataSet) -> bool:
    """What the product finds when it decides for itself."""
    return mixed(polarity(data.plane(name)) for name in some_of(sorted(data.groups)))


def joined(parts: list[Features]) -> Features:
    """Features of several sources side by side."""
    return np.concatenate(parts, axis=1).astype(np.float32)


def score(predictions: list[NDArray], truths: list[NDArray], classes: int) -> float:
    """Dice of class 1, mean over images, for two classes; else mean IoU of the classes that occur, over all pixels."""
    if classes == 2:
        each = [2 * (p & t).sum() / max(p.sum() + t.sum(), 1) for p, t in zip(predictions, truths, strict=True) if t.any()]
        return float(np.mean(each))
    p, t = np.concatenate(predictions), np.concatenate(truths)
    each = [((p == k) & (t == k)).sum() / ((p == k) | (t == k)).sum() for k in range(classes) if (t == k).any()]
    return float(np.mean(each))


def run(
    data: DataSet, kept: Kept, methods: list[Method], labels: list[str], seeds: list[int], limit: int, done: set
) -> Iterator[dict]:
    """Every seed, method and amount of labels that is not done yet."""
    for seed in seeds:
        todo = [(m, level) for m, level in itertools.product(methods, labels) if (data.name, seed, level, m.text) not in done]
        if not todo:
            continue
        labelled, tested = data.split(seed, limit)
        points = {name: data.points(name) for name in labelled + tested}
        testing = {name: points[name].disc == TEST for name in tested}
        truths = [points[name].truth[testing[name]] for name in tested]
        for method, levels in itertools.groupby(todo, key=lambda pair: pair[0]):
            parts = {n: [part for s in method.sources for part in kept.read(data, n, p, s)] for n, p in points.items()}
            widths = [part.shape[1] for part in next(iter(parts.values()))]
            x = {n: joined(each) for n, each in parts.items()}
            views = [x]
            if mixed_polarities(data) if method.invert is None else method.invert:
                views.append(
                    {
                        n: joined([p for s in method.sources for p in kept.read(data, n, points[n], s, inverted=True)])
                        for n in labelled
                    }
                )
            cache = FeatureCache(kept.root.parent / "planes", CACHE_BYTES)
            tests = [Tested(partial(data.plane, n), points[n].where(testing[n]), x[n][testing[n]], cache) for n in tested]
            for _, level in levels:
                images, _, discs = level.partition("x")
                chosen = {
                    n: points[n].disc == DENSE if discs == "dense" else points[n].disc < int(discs)
                    for n in labelled[: int(images)]
                }
                y = np.concatenate([points[n].truth[where] for n, where in chosen.items()])
                begin = time.perf_counter()
                fit_on = np.concatenate([view[n][where] for view in views for n, where in chosen.items()])
                y_on = np.tile(y, len(views))
                found = predict(method, fit_on, y_on, tests, data.classes, seed, widths=widths, dense=discs == "dense")
                yield {
                    "set": data.name,
                    "seed": seed,
                    "labels": level,
                    "method": method.text,
                    "score": score(found, truths, data.classes),
                    "pixels": len(y),
                    "tested": len(tested),
                    "seconds": round(time.perf_counter() - begin, 2),
                }


# --- reports ------------------------------------------------------------------------------------------------------------


def table(rows: list[dict], base: str) -> str:
    """Markdown: mean and standard deviation over seeds, and the difference from `base`, paired by seed."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        here = [row for row in rows if row["set"] == name]
        levels = sorted(
            {row["labels"] for row in here}, key=lambda level: np.mean([r["pixels"] for r in here if r["labels"] == level])
        )
        lines += ["", f"### {name}", "", f"| method | {' | '.join(levels)} |", "|---" * (len(levels) + 1) + "|"]
        for method in dict.fromkeys(row["method"] for row in here):
            cells = [cell(here, method, level, base) for level in levels]
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines[1:]) + "\n"


def cell(rows: list[dict], method: str, level: str, base: str) -> str:
    """``mean ± spread (paired difference from the base)`` in percent."""
    found, against = (
        {row["seed"]: 100 * row["score"] for row in rows if row["method"] == m and row["labels"] == level}
        for m in (method, base)
    )
    if not found:
        return ""
    text = f"{np.mean(list(found.values())):.1f} ± {spread(list(found.values())):.1f}"
    shared = [found[seed] - against[seed] for seed in found.keys() & against.keys()]
    return text if method == base or not shared else f"{text} ({np.mean(shared):+.1f} ± {spread(shared):.1f})"


def spread(values: list[float]) -> float:
    """Standard deviation over seeds."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def curves(path: Path, rows: list[dict]) -> None:
    """Score against labelled pixels, one line a method, one panel a data set."""
    mpl.use("agg")
    sets = list(dict.fromkeys(row["set"] for row in rows))
    every = list(dict.fromkeys(row["method"] for row in rows))
    across = min(len(sets), 3)
    down = -(-len(sets) // across)
    figure, grid = plt.subplots(down, across, figsize=(4.6 * across, 3.6 * down + 1.2), squeeze=False, layout="constrained")
    panels = grid.ravel()
    for panel in panels[len(sets) :]:
        panel.axis("off")
    for panel, name in zip(panels, sets, strict=False):
        here = [row for row in rows if row["set"] == name]
        for method in dict.fromkeys(row["method"] for row in here):
            mine = [row for row in here if row["method"] == method]
            place = every.index(method)
            colour = mpl.colormaps["tab20"](2 * place % 20 + place // 10 % 2)  # the same in every panel
            points = sorted(
                (np.mean([r["pixels"] for r in mine if r["labels"] == level]), *_mean_and_error(mine, level))
                for level in {row["labels"] for row in mine}
            )
            pixels, means, errors = np.array(points).T
            panel.errorbar(pixels, means, errors, label=method, color=colour, marker="o", ms=3, lw=1, capsize=2)
        panel.set(title=name, xscale="log", xlabel="labelled pixels")
        panel.set_ylabel("Dice (%)" if name in ("dsb2018", "glas", "monuseg") else "mean IoU (%)")
        panel.grid(alpha=0.3)
    handles = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _mean_and_error(rows: list[dict], level: str) -> tuple[float, float]:
    values = [100 * row["score"] for row in rows if row["labels"] == level]
    return float(np.mean(values)), spread(values) / np.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--each-block", metavar="BACKBONE", help="every block of it alone, at --timesteps and --scales")
    parser.add_argument("--timesteps", default="50")
    parser.add_argument("--scales", default="1")
    parser.add_argument("--labels", nargs="+", default=LABELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tests", type=int, default=60, help="test images, at most")
    parser.add_argument("--base", default="forest:raw", help="method that differences are taken from")
    parser.add_argument("--report", action="store_true", help="compute nothing; table and curves of all results in --out")
    args = parser.parse_args()
    sets = data_sets(args.data)
    texts = list(args.methods)
    if args.each_block:
        grid = itertools.product(args.scales.split(","), args.timesteps.split(","), range(_backbone(args.each_block).n_blocks))
        texts = [f"mlp:{args.each_block}#{b}~{t}@{s}" for s, t, b in grid]
    methods = [Method.parse(text) for text in texts]
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "results.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["set"], row["seed"], row["labels"], row["method"]) for row in rows}
    kept = Kept(args.out / "features")
    names = args.sets or list(sets)
    for name in () if args.report else names:
        for row in run(sets[name], kept, methods, args.labels, args.seeds, args.tests, done):
            rows.append(row)
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{name} seed {row['seed']} {row['labels']:8s} {row['method']:40s} {row['score']:.3f}",
                file=sys.stderr,
                flush=True,
            )
    called = [method.text for method in methods]
    wanted = [
        row
        for row in rows
        if args.report
        or (row["set"] in names and row["method"] in called and row["labels"] in args.labels and row["seed"] in args.seeds)
    ]
    (args.out / "table.md").write_text(table(wanted, args.base))
    curves(args.out / "curves.png", wanted)
    print(table(wanted, args.base))


if __name__ == "__main__":
    main()
