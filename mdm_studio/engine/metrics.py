"""Scores of masks against the truth. Everything is read off one contingency table of the two label maps.

A score that is undefined (a class in neither map) is NaN: it is left out of means, never counted as 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label
from skimage.metrics import contingency_table

from mdm_studio.errors import InputError

Labels = NDArray[np.integer[Any]]
_EPSILON = 1e-8  # of the published mIoU


def confusion(prediction: Labels, truth: Labels, classes: Sequence[int], ignore: int | None = None) -> NDArray[np.int64]:
    """Pixels of each pair of classes.

    Parameters
    ----------
    prediction, truth : (H, W) integers
    classes : sequence of int
        Values of the K classes; other values count as no class.
    ignore : int, optional
        Pixels with this value in the truth are left out.

    Returns
    -------
    (K + 1, K + 1) int64
        Rows = truth, columns = prediction; the last row and column hold what is no class.
    """
    _same_shape(prediction, truth)
    keep = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    values = np.asarray(classes)
    order = np.argsort(values)
    pairs = [_indices(part[keep], values[order], order) for part in (truth, prediction)]
    size = len(values) + 1
    return np.bincount(pairs[0] * size + pairs[1], minlength=size * size).reshape(size, size)


def _indices(values: Labels, ascending: NDArray[Any], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Place of each value among the classes; what is no class gets the last index."""
    places = np.searchsorted(ascending, values).clip(max=len(ascending) - 1)
    return np.where(ascending[places] == values, order[places], len(ascending))


def dice(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient (F1) of each class of a `confusion` table, ``(K,)``: ``2 TP / (2 TP + FP + FN)``."""
    both, sums = _overlap(table)
    return _divide(2 * both, sums)


def iou(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union (Jaccard index) of each class of a `confusion` table, ``(K,)``."""
    both, sums = _overlap(table)
    return _divide(both, sums - both)


def _overlap(table: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    both = np.diag(table)[:-1].astype(np.float64)
    return both, (table.sum(0) + table.sum(1))[:-1].astype(np.float64)


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    divided: NDArray[np.float64] = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return divided


def miou(table: NDArray[np.int64]) -> float:
    """Mean IoU over the classes that occur in either map."""
    scores = iou(table)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def miou_published(prediction: Labels, truth: Labels, classes: Sequence[int], ignore: int) -> float:
    """Mean IoU as ddpm-segmentation computes it (Baranchuk et al. 2022, released code).

    A class that occurs nowhere scores 0 and stays in the mean; the class `ignore` is left out of the mean, but pixels that the
    truth marks with it are not: they enlarge the union of the class predicted there.
    """
    counted = [value for value in classes if value != ignore]
    both, sums = _overlap(confusion(prediction, truth, counted))
    return float(np.mean(both / (sums - both + _EPSILON)))


def instances(mask: Labels, background: int = 0) -> NDArray[np.int64]:
    """Objects of a semantic mask: connected components (8 neighbours) of equal class, numbered from 1; 0 = background."""
    numbered: NDArray[np.int64] = label(mask, background=background).astype(np.int64)  # type: ignore[no-untyped-call]
    return numbered


def aji(prediction: Labels, truth: Labels) -> float:
    """Aggregated Jaccard index of two instance maps (Kumar et al. 2017, algorithm 1); 0 = background.

    Each true object is paired with the predicted one of the largest IoU; predicted objects that are paired with none enlarge
    the union. NaN if both maps are empty. On binary maps it is the IoU of the foreground, which is what the MDM paper's code
    reports as AJI.
    """
    overlap, true_sizes, found_sizes = _object_overlap(prediction, truth)
    if not len(true_sizes) and not len(found_sizes):
        return float("nan")
    if not len(true_sizes) or not len(found_sizes):
        return 0.0
    union = true_sizes[:, None] + found_sizes[None, :] - overlap
    partner = (overlap / union).argmax(axis=1)
    rows = np.arange(len(true_sizes))
    paired = overlap[rows, partner] > 0
    intersection = overlap[rows, partner][paired].sum()
    total = union[rows, partner][paired].sum() + true_sizes[~paired].sum()
    unused = np.setdiff1d(np.arange(len(found_sizes)), partner[paired])
    return float(intersection / (total + found_sizes[unused].sum()))


def object_dice(prediction: Labels, truth: Labels) -> float:
    """Object-level Dice of the GlaS challenge (Sirinukunwattana et al. 2017, equation 9); 0 = background.

    NaN if both maps are empty and 0 if one is; the challenge's widely copied code returns 1 for an empty prediction, an
    operator-precedence slip.
    """
    overlap, true_sizes, found_sizes = _object_overlap(prediction, truth)
    if not len(true_sizes) and not len(found_sizes):
        return float("nan")
    if not len(true_sizes) or not len(found_sizes):
        return 0.0
    one = _weighted_dice(overlap, true_sizes, found_sizes)
    return 0.5 * (one + _weighted_dice(overlap.T, found_sizes, true_sizes))


def _weighted_dice(overlap: NDArray[np.float64], sizes: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Mean over objects, weighted by size, of the Dice with the object of the largest overlap."""
    partner = overlap.argmax(axis=1)
    shared = overlap[np.arange(len(sizes)), partner]
    return float((sizes / sizes.sum() * 2 * shared / (sizes + others[partner])).sum())


def _object_overlap(prediction: Labels, truth: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Shared pixels ``(true objects, found objects)`` and the sizes of both."""
    _same_shape(prediction, truth)
    true_map, found_map = (np.unique(part, return_inverse=True) for part in (truth, prediction))
    places = [part[1].reshape(truth.shape) for part in (true_map, found_map)]
    table = contingency_table(*places).toarray()  # type: ignore[no-untyped-call]
    rows, cols = true_map[0] != 0, found_map[0] != 0
    return table[rows][:, cols], table[rows].sum(axis=1), table[:, cols].sum(axis=0)


def _same_shape(prediction: Labels, truth: Labels) -> None:
    if prediction.shape != truth.shape:
        raise InputError(
            f"the prediction has {prediction.shape} pixels and the truth {truth.shape}; compare masks of one image"
        )
