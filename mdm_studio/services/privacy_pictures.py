"""Pictures of the privacy report: what was restored, what was found, and how the numbers are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mdm_studio.io.atomic import replacing
from mdm_studio.io.names import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    from mdm_studio.services.privacy import Example3, Findings, Kind, Pair

_TRAINED, _HELD_OUT = "#d55e00", "#0072b2"  # told apart with any colour vision
_CELL, _TITLE, _HEAD, _GAP = 1.6, 0.42, 0.4, 0.12  # inches of a picture, above it, above all of them, and between
WHAT: dict[Kind, str] = {
    "samples": "pictures made from noise",
    "restored": "held-out images, restored",
    "held-out": "held-out images themselves",
}
"""The kinds of pictures, in words."""


def write_pictures(folder: Path, findings: Findings) -> None:
    """Write all of them."""
    _save(folder / "restored.png", _restored_figure(findings.examples))
    for kind, pairs in findings.pairs.items():
        if kind != "held-out":
            _save(folder / picture_name(kind), _pairs_figure(kind, pairs))
    _save(folder / "distributions.png", _distributions(findings))


def picture_name(kind: Kind) -> str:
    """File of the pairs of a kind."""
    return f"nearest-{kind}.png"


def _rgb(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``(h, w, 3)``; of more than three channels the first three, of one or two the first."""
    shown = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    return ((shown.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)


def _save(path: Path, figure: Figure) -> None:
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=100)


def _show(axes: Axes, image: NDArray[np.float32], title: str, colour: str = "0.2") -> None:
    axes.imshow(_rgb(image), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=colour, pad=3, parse_math=False)


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= 18 else f"{name[:8]}…{name[-8:]}"


def _restored_figure(examples: Sequence[Example3]) -> Figure:
    """Two groups side by side, training and held-out images; a row an image, best restored first."""
    groups = [[each for each in examples if each.trained is trained] for trained in (True, False)]
    rows = max(len(group) for group in groups)
    figure, grid = _grid(rows, "Best restored training images (left) and held-out images (right)")
    for number, (group, colour) in enumerate(zip(groups, (_TRAINED, _HELD_OUT), strict=True)):
        for row, example in enumerate(group):
            what = "training" if example.trained else "held out"
            titles = (f"{what}\n{_short(example.name)}", "what it saw", f"restored\nerror {example.error:.3f}")
            for column, (picture, title) in enumerate(zip(example.pictures, titles, strict=True)):
                _show(figure.add_subplot(grid[row, 4 * number + column]), picture, title, colour)
    return figure


def _pairs_figure(kind: Kind, pairs: Sequence[Pair]) -> Figure:
    """Picture, nearest training window, nearest held-out window; two groups of rows side by side, worst first."""
    rows = (len(pairs) + 1) // 2
    figure, grid = _grid(rows, f"{WHAT[kind].capitalize()}: those most like a training image, and what they are like")
    first = "made from noise" if kind == "samples" else "restored"
    for number, pair in enumerate(pairs):
        labels = [
            f"{what}, {value:.2f}\n{_short(name)}"
            for what, value, name in zip(("training", "held out"), pair.correlation, pair.names, strict=True)
        ]
        parts = zip((pair.picture, *pair.windows), (first, *labels), ("0.2", _TRAINED, _HELD_OUT), strict=True)
        for column, (picture, title, colour) in enumerate(parts):
            _show(figure.add_subplot(grid[number % rows, 4 * (number // rows) + column]), picture, title, colour)
    return figure


def _grid(rows: int, headline: str) -> tuple[Figure, GridSpec]:
    """A figure of two groups of three columns; laid out by hand, because matplotlib's own layout takes seconds."""
    from matplotlib.figure import Figure

    width, row = 6 * _CELL + 6 * _GAP, _CELL + _TITLE
    height = rows * row + _HEAD
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(_GAP / width, 1 - 0.28 / height, headline, fontsize=11)
    grid = figure.add_gridspec(
        rows, 7, width_ratios=[1, 1, 1, 0.15, 1, 1, 1], wspace=0.05, hspace=_TITLE / _CELL,
        left=_GAP / width, right=1 - _GAP / width, top=1 - (_HEAD + _TITLE - _GAP) / height, bottom=_GAP / height,
    )  # fmt: skip
    return figure, grid


def _distributions(findings: Findings) -> Figure:
    """Histograms: errors of both kinds of images for each way to hide, and correlations of each kind of pictures."""
    from matplotlib.figure import Figure  # slow to import

    count = len(findings.restoring) + len(findings.resembling)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="tight", facecolor="white")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes, restoring in zip(panels, findings.restoring, strict=False):
        title = f"{restoring.words}\nAUC {restoring.attack.auc:.2f}"
        _histogram(axes, restoring.surprises, ("training", "held out"), "error beyond the usual (powers of 2)", title)
    for axes, resembling in zip(panels[len(findings.restoring) :], findings.resembling, strict=False):
        title = f"{WHAT[resembling.kind]}\n{resembling.nearness.share:.0%} nearest to a training image"
        _histogram(axes, resembling.correlation, ("to training", "to held out"), "correlation with the nearest", title)
    return figure


def _histogram(axes: Axes, values: tuple[Sequence[float], ...], labels: tuple[str, str], what: str, title: str) -> None:
    both = np.concatenate([np.asarray(each) for each in values])
    low, high = np.quantile(both, [0, 0.98])  # a few hopeless images would squeeze the rest
    edges = np.linspace(low, max(high, low + 1e-6), 21)
    for each, label, colour in zip(values, labels, (_TRAINED, _HELD_OUT), strict=True):
        clipped = np.clip(np.asarray(each), edges[0], edges[-1])
        weights = np.full(len(clipped), 1 / len(clipped))
        axes.hist(clipped, edges.tolist(), weights=weights, histtype="stepfilled", alpha=0.45, color=colour, label=label)
    axes.set_title(title, fontsize=8)
    axes.set_xlabel(what, fontsize=8)
    axes.set_ylabel("share", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="x", nbins=6)
    axes.legend(fontsize=7)
