"""Images of any size through a network whose positions are those of one size: overlapping windows, smoothly blended."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_TOGETHER = 8  # windows in one pass: enough rows for the matrix products, little memory

Maps = dict[int, Tensor]


def by_windows(x: Tensor, side: int, stride: int, run: Callable[[Tensor], Maps]) -> Maps:
    """Maps of images of any size, from windows of `side` pixels that overlap by half.

    Windows begin at every ``side / 2`` pixels and a last one ends with the image; each cell is a mean of the windows over it,
    weighted by a squared sine that falls to almost nothing at a window's edge, so that no seam shows. Parts of an image that
    begin at a multiple of half a side and overlap by a side therefore agree. An image smaller than a window is mirrored.

    Parameters
    ----------
    x : (B, C, H, W)
        H and W are multiples of `stride`.
    side : int
        Size of what the network was trained on, a multiple of `stride`.
    stride : int
        The network's total stride: windows begin at multiples of it.
    run : callable
        Maps ``{block: (n, C_b, side / s, side / s)}`` of windows ``(n, C, side, side)``, each block at its own stride s, a
        divisor of `stride`. The n rows are the batch once for each of n / B windows: what belongs to an image is repeated by
        ``values.repeat(n // B)``.

    Returns
    -------
    dict of int to Tensor
        ``{block: (B, C_b, H / s, W / s)}``; float32 if the image took more than one window.

    Raises
    ------
    ValueError
        If a size is no multiple of `stride`.
    """
    height, width = x.shape[2:]
    if side % stride or height % stride or width % stride:
        raise ValueError(f"windows of {side} over {height} x {width} pixels: all must be multiples of the stride {stride}")
    whole = _mirrored(x, side)
    maps = run(whole) if whole.shape[2:] == (side, side) else _blended(whole, side, stride, run)
    if whole is x:
        return maps
    scales = {block: whole.shape[2] // values.shape[2] for block, values in maps.items()}
    return {block: values[:, :, : height // scales[block], : width // scales[block]] for block, values in maps.items()}


def _blended(x: Tensor, side: int, stride: int, run: Callable[[Tensor], Maps]) -> Maps:
    n, _, height, width = x.shape
    rows, cols = _starts(height, side, stride), _starts(width, side, stride)
    places = [(row, col) for row in rows for col in cols]
    together = max(_TOGETHER // n, 1)
    totals: Maps = {}
    for first in range(0, len(places), together):
        some = places[first : first + together]
        seen = torch.cat([x[:, :, row : row + side, col : col + side] for row, col in some])  # (k B, C, side, side)
        for block, maps in run(seen).items():
            cells = maps.shape[-1]
            scale = side // cells
            if block not in totals:
                totals[block] = torch.zeros(n, maps.shape[1], height // scale, width // scale, device=maps.device)
            down, across = (_weights(starts, side, cells, maps.device) for starts in (rows, cols))
            for (row, col), each in zip(some, torch.split(maps, n), strict=True):
                y, left = row // scale, col // scale
                weight = torch.outer(down[row], across[col])  # (cells, cells)
                totals[block][:, :, y : y + cells, left : left + cells] += each * weight
    return totals


def _starts(size: int, side: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis."""
    step = max(side // 2 // stride, 1) * stride
    return [*range(0, size - side, step), size - side]


def _weights(starts: list[int], side: int, cells: int, device: torch.device) -> dict[int, Tensor]:
    """Weights ``(cells,)`` of the window at each start along one axis; over every cell of the image they sum to 1."""
    bump = torch.sin(math.pi * (torch.arange(cells, device=device) + 0.5) / cells) ** 2
    spans = {start: slice(start * cells // side, start * cells // side + cells) for start in starts}
    total = torch.zeros(spans[starts[-1]].stop, device=device)
    for span in spans.values():
        total[span] += bump
    return {start: bump / total[span] for start, span in spans.items()}


def _mirrored(x: Tensor, side: int) -> Tensor:
    """Images of at least `side` pixels each way, mirrored at their lower and right border as often as that takes."""
    for axis in (2, 3):
        size = x.shape[axis]
        if size < side:
            there_and_back = torch.arange(side, device=x.device) % (2 * size)
            x = x.index_select(axis, torch.minimum(there_and_back, 2 * size - 1 - there_and_back))
    return x
