"""What the features see without any label: k-means clusters and principal components, exact at every pixel.

The published way (Baranchuk et al. 2022, figure 4) upsamples all feature maps to the image, which takes gigabytes, and runs
k-means on the pixels. Upsampling is a linear map U from cells to pixels, so Lloyd's two steps need no upsampled feature:

* assignment: the nearest centroid c of a pixel has the largest ``<Uf, c> - |c|^2 / 2 = U<f, c> - |c|^2 / 2``. The K scores
  are taken at the cells and upsampled, K maps instead of C;
* update: the sum of a cluster's pixels is ``f . U'1``: its indicator map, brought down to the cells by the adjoint of U.

Mean, variance and covariance of the pixels are quadratic forms in U'U and exact in the same way. Labels and centroids are
therefore those of the naive way, up to rounding, which is that of float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array, kron

from mdm_studio.errors import InputError, UsageError
from mdm_studio.nn.pixel_mlp import FeatureMap, cells_read, crop_cells, taps

Array = NDArray[np.float64]

_FLAT = 1e-2  # as in `mdm_studio.engine.heads`: a channel that hardly varies is not blown up to unit variance
_ROUNDING = 1e-6  # a deviation below this part of the mean is none: weights of bilinear interpolation sum to 1 but for rounding
_SAME = 1e-12  # pixels as near as this, squared, in units of a channel's deviation, are the same point
_SAMPLE = 2048  # pixels that first centroids are sought among
_STARTS = 10  # draws of first centroids, of which the best goes on
_SAMPLE_STEPS = 20  # of Lloyd's algorithm on the sample; all pixels do the rest
_TOLERANCE = 1e-4  # centroids that move less, squared, in units of the mean variance, have settled (scikit-learn's rule)
_TAILS = (1, 99)  # percentiles of a principal component that become 0 and 1


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, and the feature maps that describe it.

    Attributes
    ----------
    maps : sequence of FeatureMap
        Of any strides; the feature vector of a pixel is all of them, one after another. They may be crops, as long as they
        hold every cell that the rectangle reads.
    rows, cols : slice
        Start and stop in image pixels.
    step : int
        Only every `step`-th row and column counts, from the first on: for thumbnails and samples.
    """

    maps: Sequence[FeatureMap]
    rows: slice
    cols: slice
    step: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pixels that count."""
        height, width = (len(range(span.start, span.stop, self.step)) for span in (self.rows, self.cols))
        return height, width


@dataclass(frozen=True)
class Clusters:
    """Centroids that pixels are assigned to.

    Attributes
    ----------
    centroids : (k, D) float64
        In standardised units, the largest cluster first.
    shift, scale : (D,) float64
        Features are compared as ``(f - shift) * scale``.
    counts : (k,) int64
        Pixels of each cluster.
    inertia : float
        Mean squared distance of a pixel from its centroid.
    iterations : int
        Of Lloyd's algorithm.
    """

    centroids: Array
    shift: Array
    scale: Array
    counts: NDArray[np.int64]
    inertia: float
    iterations: int


@dataclass(frozen=True)
class Components:
    """First three principal components: ``features @ weights + offset``, of which ``low`` and ``high`` are shown as 0 and 1.

    ``weights`` are ``(D, 3)``, the others ``(3,)``.
    """

    weights: Array
    offset: Array
    low: Array
    high: Array


# --- clusters -----------------------------------------------------------------------------------------------------------


def cluster_maps(
    windows: Sequence[Window], k: int, seed: int = 0, *, iterations: int = 100, standardise: bool = True
) -> tuple[Clusters, list[NDArray[np.int64]]]:
    """K-means clusters of the pixels of one or several windows, which share the centroids.

    Parameters
    ----------
    windows : sequence of Window
        Of one image or of several, with the same channels. All are held in memory in float64, at their own resolution.
    k : int
        Clusters; there are fewer if the pixels have fewer distinct features.
    seed : int
        Fixes the result.
    iterations : int
        At most so many steps of Lloyd's algorithm.
    standardise : bool
        Bring every channel to zero mean and unit variance over the pixels of the windows first.

    Returns
    -------
    clusters : Clusters
    labels : list of (h, w) int64
        Cluster 0..k-1 of each pixel that counts, for each window.

    Raises
    ------
    UsageError
        If there is nothing to cluster, channels differ between windows, or a map lacks cells.
    InputError
        If features are not finite.

    Notes
    -----
    First centroids are the best of a few runs of k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's algorithm on a sample of
    pixels. Of equally near centroids the first counts; a cluster that loses its last pixel keeps its centroid.
    """
    if k < 1:
        raise UsageError(f"{k} clusters were asked for; take at least 1")
    pixels = _read(windows)
    standard = _standard(pixels, standardise)
    centroids, steps = _lloyd(pixels, standard, _first_centroids(pixels, standard, k, seed), iterations)
    labels, _ = _nearest(pixels, standard, centroids)
    centroids = centroids[np.argsort(-_counts(labels, len(centroids)), kind="stable")]
    labels, inertia = _nearest(pixels, standard, centroids)
    found = Clusters(centroids, standard.shift, standard.scale, _counts(labels, len(centroids)), inertia, steps)
    return found, [each.reshape(window.shape) for each, window in zip(labels, windows, strict=True)]


def assign(clusters: Clusters, window: Window) -> NDArray[np.int64]:
    """Nearest cluster 0..k-1 of each pixel of a window, ``(h, w)``: for tiles that the clusters were not fitted on."""
    scores = _scored(_read([window])[0], *_affine(clusters.shift, clusters.scale, clusters.centroids))
    labels: NDArray[np.int64] = scores.argmax(1).reshape(window.shape)
    return labels


def match_labels(reference: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """How to renumber one clustering so that it agrees with another one of the same pixels as far as possible.

    Parameters
    ----------
    reference, other : integers 0..k-1
        Clusters of the same pixels, of equal shape.
    k : int
        The larger number of clusters.

    Returns
    -------
    (k,) int64
        A permutation: ``mapping[other]`` has the largest overlap with `reference` (Kuhn 1955).

    Raises
    ------
    UsageError
        If the shapes differ.

    Examples
    --------
    >>> match_labels(np.array([0, 0, 1]), np.array([1, 1, 0]), 2)
    array([1, 0])
    """
    mapping: NDArray[np.int64] = linear_sum_assignment(_overlap(reference, other, k), maximize=True)[1].astype(np.int64)
    return mapping


def matched_colours(clusterings: Sequence[NDArray[np.integer[Any]]], k: int) -> list[NDArray[np.int64]]:
    """A colour 0..k-1 for each cluster of each of several clusterings of the same pixels: the same thing keeps its colour.

    All are matched (see `match_labels`) to the one that agrees best with the others.

    Returns
    -------
    list of (k,) int64
        ``colours[i][clusterings[i]]`` are colours.
    """
    agreement = np.zeros((len(clusterings), len(clusterings)))
    mappings: dict[tuple[int, int], NDArray[np.int64]] = {}
    for i, reference in enumerate(clusterings):
        for j, other in enumerate(clusterings):
            overlap = _overlap(reference, other, k)
            rows, mappings[i, j] = linear_sum_assignment(overlap, maximize=True)
            agreement[i, j] = overlap[rows, mappings[i, j]].sum()
    return [mappings[int(agreement.sum(1).argmax()), j] for j in range(len(clusterings))]


def _overlap(reference: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """``(k, k)`` pixels of each pair; rows = clusters of `other`."""
    if reference.shape != other.shape:
        raise UsageError(f"clusterings of {reference.shape} and {other.shape} pixels were given; take two of the same pixels")
    return np.bincount(other.ravel().astype(np.int64) * k + reference.ravel(), minlength=k * k).reshape(k, k)


# --- principal components -----------------------------------------------------------------------------------------------


def principal_components(windows: Sequence[Window]) -> list[NDArray[np.float32]]:
    """The first three principal components of the standardised features as colours, ``(h, w, 3)`` in 0..1 for each window.

    The windows share components and range; see `fit_components`.
    """
    components = fit_components(windows)
    return [project(components, window) for window in windows]


def fit_components(windows: Sequence[Window]) -> Components:
    """Principal components of the pixels of one or several windows: exact, from the covariance of the upsampled features.

    The longer tail of each is positive (third moment), so that none turns over by chance and what is rare is bright;
    percentiles 1 and 99 become 0 and 1. Where there are fewer than three components, the others are 0.5 everywhere.

    Raises
    ------
    UsageError, InputError
        As `cluster_maps`.
    """
    pixels = _read(windows)
    standard = _standard(pixels, standardise=True)
    shift, scale = standard.shift, standard.scale
    covariance = _second_moments(pixels, shift) * scale * scale[:, None]
    values, vectors = np.linalg.eigh(covariance)
    directions = np.zeros((len(shift), 3))
    for place, rank in enumerate(np.argsort(-values, kind="stable")[:3]):
        if values[rank] > _SAME:
            directions[:, place] = vectors[:, rank]
    weights, offset = directions * scale[:, None], -(shift * scale) @ directions
    shown = np.concatenate([_scored(part, weights, offset) for part in pixels])
    signs = np.where((shown**3).sum(0) < 0, -1.0, 1.0)
    weights, offset, shown = weights * signs, offset * signs, shown * signs
    low, high = np.percentile(shown, _TAILS, axis=0)
    flat = high - low <= np.sqrt(_SAME)
    return Components(weights, offset, np.where(flat, low - 0.5, low), np.where(flat, low + 0.5, high))


def project(components: Components, window: Window) -> NDArray[np.float32]:
    """The components of a window's pixels as colours, ``(h, w, 3)`` float32 in 0..1."""
    values = _scored(_read([window])[0], components.weights, components.offset)
    shown = np.clip((values - components.low) / (components.high - components.low), 0, 1)
    return shown.reshape(*window.shape, 3).astype(np.float32)


# --- pixels that are never upsampled ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Maps of one stride: what they hold, and how it is brought up to the pixels of a window."""

    channels: NDArray[np.intp]  # their places in the feature vector
    cells: Array  # (cells, channels)
    upsample: csr_array  # (pixels, cells)


@dataclass(frozen=True)
class _Pixels:
    """The pixels of a window as groups of maps."""

    groups: list[_Group]
    pixels: int

    @property
    def channels(self) -> int:
        return sum(len(group.channels) for group in self.groups)


def _read(windows: Sequence[Window]) -> list[_Pixels]:
    pixels = [_Pixels(_groups(window), window.shape[0] * window.shape[1]) for window in windows]
    if not sum(part.pixels for part in pixels) or not all(part.channels for part in pixels):
        raise UsageError(f"{len(windows)} windows without pixels or feature maps were given; give at least one of each")
    if len(different := {part.channels for part in pixels}) > 1:
        raise UsageError(f"the windows have {sorted(different)} channels; all must have the same blocks and timesteps")
    return pixels


def _groups(window: Window) -> list[_Group]:
    """Maps of equal stride side by side."""
    ends = np.cumsum([m.values.shape[0] for m in window.maps])
    groups = []
    for stride, full in sorted({(m.stride, m.full) for m in window.maps}):
        same = [i for i, m in enumerate(window.maps) if (m.stride, m.full) == (stride, full)]
        spans = (window.rows, window.cols)
        read = [cells_read(span.start, span.stop, stride, size) for span, size in zip(spans, full, strict=True)]
        maps = [crop_cells(window.maps[i], read[0], read[1]) for i in same]
        cells = np.concatenate([m.float().cpu().numpy().astype(np.float64).reshape(len(m), -1) for m in maps]).T
        if not np.isfinite(cells).all():
            raise InputError(
                "the features hold infinite values or NaN; compute them in full precision, or leave out the block that "
                "overflows"
            )
        along = [
            _interpolation(np.arange(span.start, span.stop, window.step), stride, size, first, end)
            for span, size, (first, end) in zip(spans, full, read, strict=True)
        ]
        channels = np.concatenate([np.arange(ends[i] - window.maps[i].values.shape[0], ends[i]) for i in same])
        groups.append(_Group(channels, np.ascontiguousarray(cells), csr_array(kron(along[0], along[1], format="csr"))))
    return groups


def _interpolation(pixels: NDArray[np.int64], stride: int, size: int, first: int, end: int) -> csr_array:
    """Bilinear interpolation along an axis as a matrix, ``(pixels, cells first..end-1)``."""
    lower, upper, weight = taps(pixels, stride, size)
    at = np.arange(len(pixels))
    rows, cols, values = np.concatenate([at, at]), np.concatenate([lower, upper]), np.concatenate([1 - weight, weight])
    read = values > 0
    return csr_array(coo_array((values[read], (rows[read], cols[read] - first)), shape=(len(pixels), end - first)))


def _scored(part: _Pixels, weights: Array, offset: Array) -> Array:
    """``features @ weights + offset`` at each pixel, ``(pixels, m)`` for weights ``(D, m)``: only m maps are upsampled."""
    scores = sum(group.upsample @ (group.cells @ weights[group.channels]) for group in part.groups)
    return np.asarray(scores + offset)


@dataclass(frozen=True)
class _Standard:
    """Features count as ``(f - shift) * scale``, ``(D,)`` each; `spread` is their mean squared length then."""

    shift: Array
    scale: Array
    spread: float


def _standard(pixels: Sequence[_Pixels], standardise: bool) -> _Standard:
    """Mean and deviation of the channels over all pixels."""
    dims, total = pixels[0].channels, sum(part.pixels for part in pixels)
    shift, variance = np.zeros(dims), np.zeros(dims)
    for part in pixels:
        for group in part.groups:
            shift[group.channels] += (group.upsample.T @ np.ones(part.pixels)) @ group.cells / total
    for part in pixels:
        for group in part.groups:
            centred = group.cells - shift[group.channels]
            variance[group.channels] += (centred * (group.upsample.T @ group.upsample @ centred)).sum(0) / total
    deviation = np.sqrt(np.maximum(variance, 0))
    deviation[deviation <= _ROUNDING * np.abs(shift)] = 0
    floor = np.median(deviation) * _FLAT
    scale = 1 / np.where(deviation > floor, deviation, floor or 1.0) if standardise else np.ones(dims)
    return _Standard(shift, scale, float((variance * scale**2).sum()))


def _second_moments(pixels: Sequence[_Pixels], shift: Array) -> Array:
    """Covariance ``(D, D)`` over all pixels; ``f' U'V g`` for maps f and g of any strides."""
    total = sum(part.pixels for part in pixels)
    moments = np.zeros((len(shift), len(shift)))
    for part in pixels:
        for i, left in enumerate(part.groups):
            for right in part.groups[: i + 1]:
                both = left.upsample.T @ right.upsample  # (cells, cells)
                block = (left.cells - shift[left.channels]).T @ (both @ (right.cells - shift[right.channels])) / total
                moments[np.ix_(left.channels, right.channels)] += block
                if left is not right:
                    moments[np.ix_(right.channels, left.channels)] += block.T
    return moments


# --- Lloyd's algorithm --------------------------------------------------------------------------------------------------


def _affine(shift: Array, scale: Array, centroids: Array) -> tuple[Array, Array]:
    """Weights ``(D, k)`` and offset ``(k,)`` on raw features that give ``<x, c> - |c|^2 / 2`` of standardised ones."""
    weights = centroids * scale  # (k, D)
    return weights.T, -weights @ shift - (centroids**2).sum(1) / 2


def _nearest(pixels: Sequence[_Pixels], standard: _Standard, centroids: Array) -> tuple[list[NDArray[np.int64]], float]:
    """Nearest centroid of each pixel, for each window, and the mean squared distance."""
    weights, offset = _affine(standard.shift, standard.scale, centroids)
    labels, best = [], 0.0
    for part in pixels:
        scores = _scored(part, weights, offset)
        nearest = scores.argmax(1)
        labels.append(nearest)
        best += float(np.take_along_axis(scores, nearest[:, None], 1).sum())
    return labels, max(standard.spread - 2 * best / sum(part.pixels for part in pixels), 0.0)  # |x|^2 - 2 (<x, c> - |c|^2 / 2)


def _counts(labels: Sequence[NDArray[np.int64]], k: int) -> NDArray[np.int64]:
    """Pixels of each cluster over all windows, ``(k,)``."""
    return np.bincount(np.concatenate(labels), minlength=k)


def _means(pixels: Sequence[_Pixels], standard: _Standard, labels: Sequence[NDArray[np.int64]], old: Array) -> Array:
    """Mean of each cluster in standardised units, ``(k, D)``; that of an empty one stays as it was."""
    sums, counts = np.zeros_like(old), np.zeros(len(old))
    for part, nearest in zip(pixels, labels, strict=True):
        indicator = np.zeros((part.pixels, len(old)))
        indicator[np.arange(part.pixels), nearest] = 1
        counts += indicator.sum(0)
        for group in part.groups:
            sums[:, group.channels] += (group.upsample.T @ indicator).T @ group.cells
    means = (sums / np.maximum(counts, 1)[:, None] - standard.shift) * standard.scale
    return np.where(counts[:, None] > 0, means, old)


def _lloyd(pixels: Sequence[_Pixels], standard: _Standard, centroids: Array, iterations: int) -> tuple[Array, int]:
    """Centroids that have settled, from the given ones, and the steps it took."""
    settled = _TOLERANCE * standard.spread / standard.shift.size
    before: list[NDArray[np.int64]] = []
    for step in range(iterations):
        labels, _ = _nearest(pixels, standard, centroids)
        if before and all(np.array_equal(a, b) for a, b in zip(labels, before, strict=True)):
            return centroids, step
        moved = _means(pixels, standard, labels, centroids)
        distance = float(((moved - centroids) ** 2).sum())
        before, centroids = labels, moved
        if distance <= settled:
            return centroids, step + 1
    return centroids, iterations


def _first_centroids(pixels: Sequence[_Pixels], standard: _Standard, k: int, seed: int) -> Array:
    """At most `k` distinct centroids ``(k, D)``: the best of a few runs on a sample of the pixels."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0] + [part.pixels for part in pixels])
    chosen = np.sort(rng.choice(ends[-1], min(_SAMPLE, ends[-1]), replace=False, shuffle=False))
    sample = np.empty((len(chosen), standard.shift.size))  # the only features at pixels there are
    for part, start, end in zip(pixels, ends[:-1], ends[1:], strict=True):
        here = (chosen >= start) & (chosen < end)
        for group in part.groups:
            sample[np.ix_(here, group.channels)] = group.upsample[chosen[here] - start] @ group.cells
    sample = (sample - standard.shift) * standard.scale
    runs = [_plain_lloyd(sample, _plus_plus(sample, k, rng)) for _ in range(_STARTS)]
    return min(runs, key=lambda run: run[1])[0]


def _plus_plus(points: Array, k: int, rng: np.random.Generator) -> Array:
    """K-means++: each further centroid is a point drawn in proportion to its squared distance from those there are."""
    centroids = [points[rng.integers(len(points))]]
    distances = ((points - centroids[0]) ** 2).sum(1)
    while len(centroids) < k and distances.max() > _SAME * points.shape[1]:
        distances[distances <= _SAME * points.shape[1]] = 0
        centroids.append(points[rng.choice(len(points), p=distances / distances.sum())])
        distances = np.minimum(distances, ((points - centroids[-1]) ** 2).sum(1))
    return np.stack(centroids)


def _plain_lloyd(points: Array, centroids: Array) -> tuple[Array, float]:
    """Lloyd's algorithm on points ``(n, D)`` as they are: centroids, and the mean squared distance."""
    norms = (points**2).sum(1)
    for _ in range(_SAMPLE_STEPS):
        scores = points @ centroids.T - (centroids**2).sum(1) / 2  # (n, k)
        members = np.zeros_like(scores)
        members[np.arange(len(points)), scores.argmax(1)] = 1
        counts = members.sum(0)[:, None]
        moved = np.where(counts > 0, members.T @ points / np.maximum(counts, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids, float((norms - 2 * scores.max(1)).mean())
