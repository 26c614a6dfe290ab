"""The panel of an image: a matrix of small pictures, a row a timestep, a column a block, with the image itself in front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mdm_studio.engine.features import BlockMap
from mdm_studio.io.atomic import replacing
from mdm_studio.io.names import one_line

Rgb = NDArray[np.uint8]

_CELL = 1.9  # inches of a picture across
_HEAD, _SIDE = 0.75, 0.12  # inches above and around the pictures
_GAP = 0.12  # of a picture's width, between the image and the matrix
_TALLEST = 2.5  # rows of pixels a column: longer images are shown squeezed


def write_panel(path: Path, headline: str, image: Rgb, pictures: Mapping[BlockMap, Rgb]) -> None:
    """Write a panel as PNG.

    Parameters
    ----------
    path : Path
        The file.
    headline : str
        What is shown.
    image : (h, w, 3) uint8
        Shown first.
    pictures : mapping
        Block, timestep and working scale -> ``(h, w, 3)`` uint8.
    """
    columns = list(dict.fromkeys((spec.scale, spec.block) for spec in pictures))
    rows = list(dict.fromkeys(spec.timestep for spec in pictures))
    ratio = float(np.clip(image.shape[0] / image.shape[1], 1 / _TALLEST, _TALLEST))
    width, height = _CELL * (len(columns) + 1 + _GAP) + 2 * _SIDE, _CELL * ratio * len(rows) + _HEAD + _SIDE
    figure = Figure(figsize=(width, height), facecolor="white")
    grid = figure.add_gridspec(
        len(rows), len(columns) + 2, width_ratios=[1, _GAP] + [1] * len(columns), wspace=0.05, hspace=0.05,
        left=_SIDE / width, right=1 - _SIDE / width, top=1 - _HEAD / height, bottom=_SIDE / height,
    )  # fmt: skip
    figure.text(_SIDE / width, 1 - 0.3 / height, one_line(headline), fontsize=12, weight="bold", parse_math=False)
    _show(figure.add_subplot(grid[0, 0]), image).set_title("image", fontsize=10, color="0.35", pad=4)
    several = len({scale for scale, _ in columns}) > 1 or columns[0][0] > 1
    for spec, picture in pictures.items():
        row, column = rows.index(spec.timestep), columns.index((spec.scale, spec.block))
        axes = _show(figure.add_subplot(grid[row, column + 2]), picture)
        if row == 0:
            title = f"block {spec.block}" + (f", 1/{spec.scale}" if several else "")
            axes.set_title(title, fontsize=10, color="0.35", pad=4)
        if column == 0 and rows != [0]:  # a network without timesteps, or its first one alone: nothing to tell apart
            axes.set_ylabel(f"t = {spec.timestep}", fontsize=10, color="0.35", labelpad=3)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=100)


def _show(axes: Axes, picture: Rgb) -> Axes:
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes
