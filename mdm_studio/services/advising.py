"""Which blocks and timesteps to read, by the label maps there are: gather the features of the strokes, ask the advisor."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mdm_studio.arrays import LabelMap
from mdm_studio.engine.advisor import Advice, Cell, Score, advise, find_strokes, stroke_folds
from mdm_studio.engine.features import BlockMap, MapSpec
from mdm_studio.engine.heads import subsample
from mdm_studio.io.atomic import make_folder, replacing
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import find_images, open_image
from mdm_studio.io.labels import check_learnable, find_labels, read_labels_of
from mdm_studio.services.extraction import load_for_features
from mdm_studio.services.fitting import FitStep, LabelledPoints, gather_features

PIXELS = 2000
"""Pixels that features are judged by, shared out evenly among strokes: neighbours in a stroke hardly differ."""
_CELL = 0.9  # inches of a cell of the heat map across
_GAP = 0.3  # of a cell, before the filters


@dataclass(frozen=True)
class AdviceRequest:
    """What to score on what; the meaning of each is that of `mdm_studio.services.fitting.FitRequest`.

    Attributes
    ----------
    blocks : tuple of int or None
        None tries every block.
    timesteps : tuple of int or None
        None tries several, see `mdm_studio.services.extraction.SEVERAL`.
    filters : bool
        Score the filter bank too, alone and beside the blocks.
    """

    images: tuple[str, ...]
    labels: Path
    backbone: str
    blocks: tuple[int, ...] | None = None
    timesteps: tuple[int, ...] | None = None
    scales: tuple[int, ...] | None = None
    filters: bool = True
    unlabelled: int | None = 0
    channels: tuple[int, ...] | None = None
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class FolderAdvice:
    """The advice, and what it rests on: images, pixels and, for each class value, strokes."""

    advice: Advice
    images: int
    pixels: int
    strokes: dict[int, int]


def advise_folder(request: AdviceRequest, cache: FeatureCache | None) -> Generator[FitStep, None, FolderAdvice]:
    """Score every block and timestep by the labels of a folder; only the tiles that hold labels are computed.

    Yields
    ------
    FitStep

    Raises
    ------
    LabelsError
        If the labels do not fit the images, hold fewer than two classes, or fewer than two strokes of a class.
    """
    paths = find_images(request.images)
    label_files = find_labels(paths, request.labels)
    source = load_for_features(
        request.backbone,
        blocks="all" if request.blocks is None else request.blocks,
        timesteps="several" if request.timesteps is None else request.timesteps,
        scales=request.scales,
        filters=request.filters,
        device=request.device,
    )
    found = list(_read_strokes(label_files, request))
    check_learnable([classes for _, classes in found], request.unlabelled)
    class_of = np.concatenate([classes for _, classes in found]).astype(np.int64)
    planes = _thinned([points for points, classes in found if len(classes)], request.seed)
    numbers = np.concatenate([plane.values for plane in planes])
    stroke_folds(class_of[numbers], numbers)  # fail before the features are computed
    features, numbers = yield from gather_features(planes, source.backbone, [source.settings], request.channels, cache)
    cells, filters = _cells(features, source.settings.specs(source.backbone))
    scoring = advise(cells, class_of[numbers], numbers, filters=filters, seed=request.seed)
    while True:
        try:
            step = next(scoring)
        except StopIteration as finished:
            advice: Advice = finished.value
            break
        yield FitStep("scores", step.done, step.what)
    values, counts = np.unique(class_of[np.unique(numbers)], return_counts=True)
    strokes = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return FolderAdvice(advice, len({plane.path for plane in planes}), len(numbers), strokes)


def _read_strokes(label_files: Mapping[Path, Path], request: AdviceRequest) -> Iterator[tuple[LabelledPoints, LabelMap]]:
    """For each plane some labelled pixels, with the number of their stroke as value, and the class of each of its strokes.

    Strokes are numbered from 0 over all planes.
    """
    total = 0
    for path, label_path in label_files.items():
        with open_image(path, request.channels) as image:
            for plane in range(image.planes):
                label_map = read_labels_of(label_path, image, plane)
                strokes, count = find_strokes(label_map, request.unlabelled)
                rows, cols = np.nonzero(strokes)
                numbers = strokes[rows, cols] - 1
                first = np.unique(numbers, return_index=True)[1]
                kept = subsample(numbers, PIXELS, request.seed)
                values = (numbers[kept] + total).astype(np.uint32)
                yield LabelledPoints(path, plane, rows[kept], cols[kept], values), label_map[rows[first], cols[first]]
                total += count


def _thinned(planes: Sequence[LabelledPoints], seed: int) -> list[LabelledPoints]:
    """At most `PIXELS` pixels, evenly from all strokes."""
    numbers = np.concatenate([plane.values for plane in planes])
    kept = np.zeros(len(numbers), bool)
    kept[subsample(numbers, PIXELS, seed)] = True
    parts = np.split(kept, np.cumsum([len(plane.values) for plane in planes])[:-1])
    return [
        LabelledPoints(plane.path, plane.plane, plane.rows[part], plane.cols[part], plane.values[part])
        for plane, part in zip(planes, parts, strict=True)
        if part.any()
    ]


def _cells(features: Tensor, specs: Sequence[MapSpec]) -> tuple[dict[Cell, Tensor], Tensor | None]:
    """Features of each block and timestep, all working scales side by side, and of the filter bank."""
    cells: dict[Cell, list[Tensor]] = {}
    filters: list[Tensor] = []
    for spec, part in zip(specs, torch.split(features, [spec.channels for spec in specs], dim=1), strict=True):
        (cells.setdefault((spec.block, spec.timestep), []) if isinstance(spec, BlockMap) else filters).append(part)
    return {cell: torch.cat(parts, 1) for cell, parts in cells.items()}, torch.cat(filters, 1) if filters else None


def write_heat_map(advice: Advice, path: Path) -> None:
    """Write the scores as a picture: a row a timestep, a column a block, the filter bank beside them; framed = recommended."""
    blocks = sorted({block for block, _ in advice.scores})
    timesteps = list(dict.fromkeys(timestep for _, timestep in advice.scores))
    shown = [score.mean for score in [*advice.scores.values(), *([advice.filters] if advice.filters else [])]]
    low, high = min(shown), max(max(shown), min(shown) + 0.01)
    columns, rows = len(blocks) + (1 + _GAP if advice.filters else 0), len(timesteps)
    figure = Figure(figsize=(_CELL * max(columns, 6) + 0.8, 0.6 * rows + 0.9), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    for (block, timestep), score in advice.scores.items():
        recommended = block in advice.blocks and timestep in advice.timesteps
        at = (blocks.index(block), timesteps.index(timestep))
        _draw(axes, *at, score, (score.mean - low) / (high - low), recommended)
    if advice.filters:
        _draw(axes, columns - 1, 0, advice.filters, (advice.filters.mean - low) / (high - low), advice.with_filters)
    filters = [(columns - 1, "filters")] if advice.filters else []
    ticks = [*((place, f"block {block}") for place, block in enumerate(blocks)), *filters]
    axes.set_xticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.set_yticks(range(rows), [f"t = {timestep}" if timesteps != [0] else "" for timestep in timesteps])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("balanced accuracy on strokes held out; framed: recommended", fontsize=10, loc="left")
    make_folder(path.parent)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=100)


def _draw(axes: Axes, x: float, y: float, score: Score, place: float, framed: bool) -> None:
    """One cell: its colour by its place between the lowest and the highest score, and its number."""
    colour = colormaps["viridis"](place)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=colour, linewidth=0))
    if framed:
        axes.add_patch(Rectangle((x - 0.44, y - 0.44), 0.88, 0.88, fill=False, edgecolor="#d55e00", linewidth=2.5))
    ink = "black" if place > 0.6 else "white"
    axes.text(x, y, f"{score.mean:.3f}\n±{score.spread:.3f}", ha="center", va="center", color=ink, fontsize=8)
