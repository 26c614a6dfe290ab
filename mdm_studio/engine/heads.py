"""The head: an ensemble of pixel MLPs is fitted to labelled pixels and votes on all others.

Training and voting follow Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models" (ICLR 2022), and
DatasetGAN (Zhang et al., CVPR 2021). Here all members train together as one stack of tensors, features are read at labelled
pixels only, and prediction never upsamples a feature (see `mdm_studio.nn.pixel_mlp`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mdm_studio.errors import ClassifierError, InputError, LabelsError, UsageError
from mdm_studio.nn.pixel_mlp import (
    FeatureMap,
    LogitsChunk,
    PixelMLPEnsemble,
    cells_read,
    hidden_sizes,
    pieces,
    predict_pixels,
    predict_rows,
    taps,
)

_SAMPLE_BYTES = 32 << 20  # taps gathered at a time by `sample_features`
_TALLY_BYTES = 48 << 20  # probabilities summed at a time by `predict_window`: a tile of 40 classes is one piece
_FLAT = 1e-2  # a channel that varies less than this part of the median channel is not blown up to unit variance


@dataclass(frozen=True)
class EnsembleConfig:
    """How an ensemble is fitted. The defaults are Baranchuk et al.'s released code, except where a comment says otherwise.

    Attributes
    ----------
    members : int
        MLPs that vote.
    hidden : "auto" or (int, int)
        Widths of the hidden layers; "auto" is (128, 32), or (256, 128) from 30 classes on.
    lr, batch_size : float, int
        Of Adam, for each member. Fewer pixels than a batch make one smaller batch.
    min_epochs, patience, max_epochs : int
        A member stops when more than `patience` iterations in a row after `min_epochs` epochs have not lowered its best batch
        loss, or after `max_epochs`.
    class_weight : "balanced" or "none"
        "balanced" weighs a pixel of class k by ``n / (K n_k)`` over the training pixels (K classes that occur), so that each
        class counts alike however much of it was painted; "none" is the published rule.
    standardise : bool
        Bring each feature channel to zero mean and unit variance over the training pixels first.
    noise : float
        Standard deviation of the Gaussian noise that features get in training, anew at every iteration, in units of each
        channel's own deviation (as measured when `standardise` is set). It acts as a penalty on steep functions (Bishop 1995)
        and keeps a few hundred labelled pixels of a few images from being learnt by heart.
    one_source : bool
        Each member reads one source of features (a backbone at one working scale, the filter bank), in turn: together they
        cannot drown each other. With fewer members than sources, or False, all members read all.
    weight_decay : float
        Decoupled (AdamW), on the weight matrices.
    seed : int
        Starts everything random: weights and shuffles of each member.
    """

    members: int = 10  # both papers; more hardly helps (DatasetGAN's supplement)
    hidden: Literal["auto"] | tuple[int, int] = "auto"
    lr: float = 1e-3  # both papers
    batch_size: int = 64  # both papers
    min_epochs: int = 4  # "epoch > 3" with epochs counted from 0
    patience: int = 50  # stops at the 51st iteration without a new best loss
    max_epochs: int = 100  # reached only by very few pixels, whose epochs are an iteration or two
    class_weight: Literal["balanced", "none"] = "balanced"  # ours: strokes say little about how common a class is
    standardise: bool = True  # ours: channel scales differ a hundredfold between blocks, and Adam has few iterations on strokes
    noise: float = 1.0  # ours (0 in both papers): 1 to 5 points of Dice on strokes, see benchmarks/NOTES.md
    one_source: bool = True  # ours: 2 to 4 points on strokes, see benchmarks/NOTES.md
    weight_decay: float = 0.0  # both papers
    seed: int = 0

    @classmethod
    def of(cls, *, dense: bool, **given: Any) -> EnsembleConfig:
        """The defaults for strokes, or for dense masks, with what is given put in their place.

        Dense masks have pixels enough for the published rules, and do say how common a class is: no noise, no weights of
        classes, and every member reads everything.
        """
        return cls(**({"noise": 0.0, "class_weight": "none", "one_source": False} | given if dense else given))

    def member_seeds(self) -> tuple[int, ...]:
        """One seed for each member; those of two configurations with different `seed` have nothing in common."""
        if self.seed < 0 or self.members < 1:
            raise UsageError(f"{self.members} members and seed {self.seed} were given; take at least 1 member and seed 0")
        return tuple(int(np.random.SeedSequence((self.seed, e)).generate_state(1)[0]) for e in range(self.members))


@dataclass(frozen=True)
class TrainStep:
    """One iteration of training, or the end of it.

    Attributes
    ----------
    epoch, iteration : int
        Counted from 0; `iteration` over all epochs.
    losses : tuple of float
        Batch loss of each member, the last one it had if it has stopped, NaN if it is not to be trained.
    training : int
        Members that go on after this step.
    done : bool
        True for the last item only.
    snapshot : callable
        ``snapshot()`` is a copy of the ensemble as it is now, in evaluation mode. Call it before asking for the next step.
    """

    epoch: int
    iteration: int
    losses: tuple[float, ...]
    training: int
    done: bool
    snapshot: Callable[[], PixelMLPEnsemble]


@dataclass(frozen=True)
class Prediction:
    """What the ensemble says about a window of the image, or about N pixels: then ``(N,)`` stands for ``(H, W)``.

    Attributes
    ----------
    labels : (H, W) int64
        Class 0..K-1 with most votes, the smallest of equal ones.
    probabilities : (K, H, W) float32
        Mean over members.
    uncertainty : (H, W) float32
        Jensen-Shannon divergence of the members in nats, at least 0. A single member cannot disagree: then the entropy of its
        probabilities.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


# --- pixels to train on -------------------------------------------------------------------------------------------------


@torch.no_grad()
def sample_features(maps: Sequence[FeatureMap], rows: ArrayLike, cols: ArrayLike) -> Tensor:
    """Features at image pixels, read bilinearly from maps at their own resolution.

    Parameters
    ----------
    maps : sequence of FeatureMap
        Crops will do, as long as they hold the cells around every pixel.
    rows, cols : (n,) int
        Image pixels.

    Returns
    -------
    Tensor
        ``(n, D)`` float32 on the CPU, channels in the order of the maps: what `torch.nn.functional.interpolate` (bilinear,
        ``align_corners=False``) of the whole maps holds at these pixels.

    Raises
    ------
    UsageError
        If a map lacks a cell that a pixel reads.
    """
    y, x = (np.asarray(v, dtype=np.int64).ravel() for v in (rows, cols))
    features = torch.empty(len(y), sum(m.values.shape[0] for m in maps))
    filled = 0
    for feature_map in maps:
        channels = feature_map.values.shape[0]
        step = max(_SAMPLE_BYTES // (16 * channels), 1)  # 4 taps of 4 bytes
        for start in range(0, len(y), step):
            part = slice(start, start + step)
            features[part, filled : filled + channels] = _gathered(feature_map, y[part], x[part])
        filled += channels
    return features


def _gathered(feature_map: FeatureMap, y: NDArray[np.int64], x: NDArray[np.int64]) -> Tensor:
    """``(n, C)``: the four cells around each pixel, weighted and summed."""
    values = feature_map.values
    (top, bottom, v), (left, right, h) = (_taps(feature_map, axis, pixels) for axis, pixels in enumerate((y, x)))
    width = values.shape[2]
    cells = np.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right], 1)  # (n, 4)
    weights = np.stack([(1 - v) * (1 - h), (1 - v) * h, v * (1 - h), v * h], 1)
    # neighbouring pixels read the same few cells: take each out of the map once, channels innermost
    unique, places = np.unique(cells, return_inverse=True)
    table = values.flatten(1)[:, torch.from_numpy(unique).to(values.device)].t().float().cpu().contiguous()  # (cells, C)
    indices, weight = torch.from_numpy(places.reshape(cells.shape)), torch.from_numpy(weights).float()
    return F.embedding_bag(indices, table, mode="sum", per_sample_weights=weight)


def _taps(
    feature_map: FeatureMap, axis: int, pixels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Lower and upper cell (in the crop) of each pixel along an axis, and the weight of the upper one."""
    s, full, origin = feature_map.stride, feature_map.full[axis], feature_map.origin[axis]
    held = feature_map.values.shape[1 + axis]
    if len(pixels):
        first, end = cells_read(int(pixels.min()), int(pixels.max()) + 1, s, full)
        if pixels.min() < 0 or pixels.max() >= full * s or first < origin or end > origin + held:
            raise UsageError(
                f"pixels {pixels.min()}..{pixels.max()} along axis {axis} read cells {first}..{end - 1} of a map of stride {s} "
                f"that holds {origin}..{origin + held - 1} of 0..{full - 1}: take pixels that these maps surround"
            )
    lower, upper, weight = taps(pixels, s, full)
    return lower - origin, upper - origin, weight


def pixel_limit(memory: int, dims: int) -> int:
    """Training pixels of `dims` float32 features that fit into `memory` bytes (at least one)."""
    return max(memory // (4 * dims), 1)


def subsample(labels: NDArray[np.integer[Any]], limit: int, seed: int, *, balanced: bool = True) -> NDArray[np.int64]:
    """Choose at most `limit` labelled pixels.

    Parameters
    ----------
    labels : (n,) int
        Class of each labelled pixel, of all images together.
    limit : int
        Pixels to keep, for example of `pixel_limit`: dense masks of many images would not fit into memory.
    seed : int
        Chooses which.
    balanced : bool
        Take from the common classes first: every class may keep the same number of pixels, and what a rare class does not use
        goes to the others. False: take evenly from all, so that classes stay as common as they are.

    Returns
    -------
    (m,) int64
        Indices in ascending order.
    """
    labels = np.asarray(labels)
    if limit < 1:
        raise UsageError(f"a limit of {limit} training pixels was given; take at least 1")
    if len(labels) <= limit:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    if not balanced:
        return np.sort(rng.choice(len(labels), limit, replace=False, shuffle=False))
    classes, counts = np.unique(labels, return_counts=True)
    kept, left = [], limit
    for rank, i in enumerate(np.argsort(counts, kind="stable")):  # the rarest class first
        share = min(int(counts[i]), left // (len(classes) - rank))
        kept.append(rng.choice(np.flatnonzero(labels == classes[i]), share, replace=False, shuffle=False))
        left -= share
    return np.sort(np.concatenate(kept))


# --- training -----------------------------------------------------------------------------------------------------------


def fit_ensemble(
    features: Tensor, labels: ArrayLike, n_classes: int, config: EnsembleConfig, *, sources: Sequence[int] = ()
) -> PixelMLPEnsemble:
    """Train to the end and return the ensemble; see `train_ensemble`."""
    *_, last = train_ensemble(features, labels, n_classes, config, sources=sources)
    return last.snapshot()


def train_ensemble(
    features: Tensor,
    labels: ArrayLike,
    n_classes: int,
    config: EnsembleConfig,
    init: PixelMLPEnsemble | None = None,
    *,
    sources: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> Iterator[TrainStep]:
    """Train members together, step by step.

    Parameters
    ----------
    features : (N, D) float32
        Of the labelled pixels. Training runs on the device they are on.
    labels : (N,) int
        Classes 0..K-1 of these pixels; at least two must occur.
    n_classes : int
        K.
    config : EnsembleConfig
        Members, batches, convergence and seed.
    init : PixelMLPEnsemble, optional
        Start from a copy of this ensemble, standardisation included, instead of fresh weights (a stroke was added). A member
        of it that reads more than its source goes on reading everything.
    sources : sequence of int
        Channels of each source of features, in order, see ``config.one_source``; empty for a single one.
    only : sequence of int, optional
        Train these members and leave the others as they are in `init` (or as they were drawn): for a quick answer, one for
        each source. By default all.

    Yields
    ------
    TrainStep
        One for each iteration, and a last one with ``done=True``.

    Raises
    ------
    LabelsError
        If there are no labelled pixels, fewer than two classes, or labels outside 0..K-1.
    InputError
        If features are not finite.
    UsageError
        If `init` is of another shape, `sources` do not sum to the channels, or `only` names no member, or one twice.

    Notes
    -----
    Every member draws its weights and its own shuffle of the pixels from its own seed, so an ensemble trained together equals
    its members trained alone, and the same call gives the same bits (one thread, CPU). The global random state is not touched.
    A member's shuffles and noise begin anew at every call: give each slice of a training that goes on from `init` a
    ``config.seed`` of its own. The last incomplete batch of an epoch is dropped, as published. The class weights enter as in
    `torch.nn.CrossEntropyLoss`: a weighted mean over the batch.
    """
    target = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(features.device)
    weight = _class_weights(features, target, n_classes, config)
    ensemble = _starting_ensemble(features, n_classes, config, init)
    reads = _reads(sources, config, ensemble, fresh=init is None)
    learners = range(config.members) if only is None else only
    if not learners or len(set(learners)) < len(learners) or not set(learners) <= set(range(config.members)):
        raise UsageError(f"the members {list(learners)} were to be trained; take some of 0..{config.members - 1}, each once")
    return _train(ensemble, features, target, weight, config, _Learners(ensemble, learners, reads, config))


@torch.no_grad()
def _reads(sources: Sequence[int], config: EnsembleConfig, ensemble: PixelMLPEnsemble, *, fresh: bool) -> list[slice]:
    """The channels that each member reads; a fresh one's weights of all others are set to zero."""
    dims = ensemble.dims
    if sources and sum(sources) != dims:
        raise UsageError(f"the sources have {list(sources)} channels, together {sum(sources)}, and the features {dims}")
    if not sources or not config.one_source or config.members < len(sources):
        return [slice(0, dims)] * config.members
    ends = list(accumulate(sources))
    reads = []
    for member, weights in enumerate(ensemble.linear1.weight):  # (h1, D)
        source = member % len(sources)
        others = [weights[:, : ends[source] - sources[source]], weights[:, ends[source] :]]
        if fresh:
            for other in others:
                other.zero_()
        alone = fresh or not any(bool(other.any()) for other in others)
        reads.append(slice(ends[source] - sources[source], ends[source]) if alone else slice(0, dims))
    return reads


def _class_weights(features: Tensor, labels: Tensor, n_classes: int, config: EnsembleConfig) -> Tensor:
    """``(K,)`` weights of the classes, 0 for those that do not occur; refuses labels that cannot be learnt from."""
    if labels.shape != features.shape[:1]:
        raise UsageError(f"{features.shape[0]} pixels have features and {tuple(labels.shape)} labels; give one label a pixel")
    if len(labels) == 0:
        raise LabelsError("no pixel is labelled; label a few pixels of at least two classes")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise LabelsError(f"labels {low}..{high} were met and classes are 0..{n_classes - 1}; check the label maps")
    counts = torch.bincount(labels, minlength=n_classes).float()
    present = int((counts > 0).sum())
    if present < 2:
        raise LabelsError("all labelled pixels are of one class; label a few pixels of at least two classes")
    if config.class_weight == "none":
        return torch.ones_like(counts)
    return torch.where(counts > 0, len(labels) / (present * counts), 0.0)


def _starting_ensemble(
    features: Tensor, n_classes: int, config: EnsembleConfig, init: PixelMLPEnsemble | None
) -> PixelMLPEnsemble:
    variance, mean = torch.var_mean(features, dim=0, correction=0)
    if not bool(torch.isfinite(variance).all()):
        raise InputError(
            "the features of the labelled pixels hold infinite values or NaN; compute them in full precision, "
            "or leave out the block that overflows"
        )
    hidden = hidden_sizes(n_classes) if config.hidden == "auto" else config.hidden
    wanted = (features.shape[1], n_classes, config.members, hidden)
    ensemble = PixelMLPEnsemble(*wanted[:2], members=config.members, hidden=hidden).to(features.device)
    if init is not None:
        have = (init.dims, init.n_classes, init.members, init.hidden)
        if have != wanted:
            raise UsageError(
                f"the ensemble to go on from has (features, classes, members, hidden) {have} and {wanted} were wanted; "
                "start a fresh one"
            )
        ensemble.load_state_dict(init.state_dict())
        return ensemble
    ensemble.reset(config.member_seeds())
    if config.standardise:
        deviation = variance.sqrt()
        floor = deviation.median() * _FLAT
        ensemble.shift.copy_(mean)
        ensemble.scale.copy_(1 / torch.where(deviation > floor, deviation, floor if floor > 0 else torch.ones_like(floor)))
    return ensemble


class _Batches:
    """Each member's own shuffles of the pixels, and noise, from its own generator."""

    def __init__(self, seeds: Sequence[int], pixels: int, batch_size: int):
        # one apart from the generators of the weights, so that a shuffle does not repeat their stream
        self._generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
        self._pixels = pixels
        self.size = min(batch_size, pixels)
        self.per_epoch = pixels // self.size
        self._order = torch.empty(0)

    def shuffle(self, members: Sequence[int]) -> None:
        """Begin an epoch of `members`."""
        orders = [torch.randperm(self._pixels, generator=self._generators[m], dtype=torch.int32) for m in members]
        self._order = torch.stack(orders)  # (members, N)

    def keep(self, places: Sequence[int]) -> None:
        """Drop the members that have stopped."""
        self._order = self._order[list(places)]

    def noise(self, member: int, deviation: float, out: Tensor) -> Tensor:
        """Fill `out` with a member's next Gaussian noise."""
        return out.normal_(0, deviation, generator=self._generators[member])

    def __getitem__(self, batch: int) -> Tensor:
        """``(members, size)`` pixel indices."""
        return self._order[:, batch * self.size : (batch + 1) * self.size]


class _Convergence:
    """The papers' rule, for each member alone."""

    def __init__(self, members: int, config: EnsembleConfig):
        self._best = [float("inf")] * members
        self._since = [0] * members
        self._config = config

    def stops(self, member: int, loss: float, epoch: int) -> bool:
        if epoch < self._config.min_epochs:
            return False
        if loss < self._best[member]:
            self._best[member], self._since[member] = loss, 0
        else:
            self._since[member] += 1
        return self._since[member] > self._config.patience


class _Learners:
    """The members that go on, those that read the same channels side by side.

    The first layer is as wide as what is read: weights of other channels are zero, stay zero, and would be half of the work.
    All other layers are one stack.

    Attributes
    ----------
    members : list of int
        In the order of all tensors here.
    """

    def __init__(self, ensemble: PixelMLPEnsemble, members: Sequence[int], reads: Sequence[slice], config: EnsembleConfig):
        self.members = sorted(members, key=lambda m: (reads[m].start, reads[m].stop))
        self._groups = _side_by_side([reads[m] for m in self.members])
        self._shift, self._scale = ensemble.shift, ensemble.scale
        self._rest = pick_members(ensemble, self.members, slice(0, 0)).train()
        weights = ensemble.linear1.weight.detach()
        self._first = [weights[self.members[group], :, span].clone().requires_grad_() for span, group in self._groups]
        self._parameters = self._collected()
        self._adam = _Adam(self._parameters, config)

    def _collected(self) -> list[Tensor]:
        return [*self._first, *(value for value in self._rest.parameters() if value.numel())]

    def learn(
        self, features: Tensor, target: Tensor, weight: Tensor, places: Tensor, batches: _Batches, noise: float
    ) -> list[float]:
        """One update of every member on its own batch of `places` ``(members, B)``; the losses before it."""
        truth = target.index_select(0, places.flatten()).view(places.shape)  # (members, B)
        inputs = self._inputs(features, places, batches, noise)
        with torch.enable_grad():
            units = torch.cat([torch.bmm(w, x.transpose(1, 2)) for w, x in zip(self._first, inputs, strict=True)])
            logits = self._rest.after_first(units.add_(self._rest.linear1.bias[:, :, None])).transpose(1, 2)  # (members, K, B)
            loss = F.cross_entropy(logits, truth, weight, reduction="none").sum(1) / weight[truth].sum(1)  # (members,)
            gradients = torch.autograd.grad(loss.sum(), self._parameters)
        self._adam.step(self._parameters, gradients)
        values: list[float] = loss.detach().tolist()
        return values

    def _inputs(self, features: Tensor, places: Tensor, batches: _Batches, noise: float) -> list[Tensor]:
        """Of each group ``(members, B, channels)``, standardised and with noise."""
        drawn = torch.empty(places.shape[1], features.shape[1])  # all channels' noise: what is read decides no other number
        inputs = []
        for span, group in self._groups:
            pixels = features.index_select(0, places[group].flatten())[:, span]
            values = ((pixels - self._shift[span]) * self._scale[span]).view(-1, places.shape[1], pixels.shape[1])
            if noise:
                for each, member in zip(values, self.members[group], strict=True):
                    each += batches.noise(member, noise, drawn)[:, span].to(each.device)
            inputs.append(values)
        return inputs

    @torch.no_grad()
    def write_into(self, ensemble: PixelMLPEnsemble) -> PixelMLPEnsemble:
        """Put the members where they belong in the whole ensemble."""
        for weights, (span, group) in zip(self._first, self._groups, strict=True):
            ensemble.linear1.weight[self.members[group], :, span] = weights
        whole = ensemble.state_dict()
        for name, value in self._rest.state_dict().items():
            if value.ndim > 1 and value.numel():
                whole[name][self.members] = value
        return ensemble

    def keep(self, staying: Sequence[int]) -> None:
        """Go on with the members at these places alone, with their part of Adam's moments."""
        everyone = slice(0, len(self.members))
        groups = [group for _, group in self._groups] + [everyone] * (len(self._parameters) - len(self._first))
        chosen = [[place - group.start for place in staying if group.start <= place < group.stop] for group in groups]
        self._adam.keep(chosen)
        kept = zip(self._first, chosen, strict=False)
        self._first = [value.detach()[places].requires_grad_() for value, places in kept if places]
        self._rest = pick_members(self._rest, staying, slice(0, 0)).train()
        self.members = [self.members[place] for place in staying]
        reads = [span for span, group in self._groups for _ in range(group.start, group.stop)]
        self._groups = _side_by_side([reads[place] for place in staying])
        self._parameters = self._collected()


def _side_by_side(reads: Sequence[slice]) -> list[tuple[slice, slice]]:
    """Channels that are read, and the places of the members that read them, of members in the order of what they read."""
    starts = [i for i, span in enumerate(reads) if i == 0 or span != reads[i - 1]]
    return [(reads[a], slice(a, b)) for a, b in pairwise([*starts, len(reads)])]


class _Adam:
    """AdamW (Loshchilov and Hutter 2019), decay on matrices alone: PyTorch's own fused step.

    Its optimizer classes would import PyTorch's compiler: a second, before the first stroke can be learnt.
    """

    def __init__(self, parameters: Sequence[Tensor], config: EnsembleConfig):
        self._config = config
        self._moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self._steps = [torch.zeros((), device=p.device) for p in parameters]

    @torch.no_grad()
    def step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        torch._foreach_add_(self._steps, 1)
        for decay, ndim in ((self._config.weight_decay, 3), (0.0, 2)):
            chosen = [i for i, p in enumerate(parameters) if p.ndim == ndim]
            values, slopes, steps = ([each[i] for i in chosen] for each in (parameters, gradients, self._steps))
            means, squares = ([self._moments[i][which] for i in chosen] for which in (0, 1))
            torch._fused_adamw_(
                values, slopes, means, squares, [], steps, lr=self._config.lr, beta1=0.9, beta2=0.999, weight_decay=decay,
                eps=1e-8, amsgrad=False, maximize=False
            )  # fmt: skip

    def keep(self, chosen: Sequence[Sequence[int]]) -> None:
        """Of each parameter's moments these places alone; without any, none of it."""
        kept = [i for i, places in enumerate(chosen) if places]
        self._steps = [self._steps[i] for i in kept]
        self._moments = [
            (mean[list(chosen[i])], square[list(chosen[i])]) for i, (mean, square) in enumerate(self._moments) if chosen[i]
        ]


def _train(
    ensemble: PixelMLPEnsemble, features: Tensor, target: Tensor, weight: Tensor, config: EnsembleConfig, live: _Learners
) -> Iterator[TrainStep]:
    batches = _Batches(config.member_seeds(), len(target), config.batch_size)
    convergence = _Convergence(config.members, config)
    losses, iteration, epoch = [float("nan")] * config.members, 0, 0

    def snapshot() -> PixelMLPEnsemble:
        return live.write_into(pick_members(ensemble, range(config.members))).eval()

    for epoch in range(config.max_epochs):
        batches.shuffle(live.members)
        for batch in range(batches.per_epoch):
            places = batches[batch].to(features.device)
            found = live.learn(features, target, weight, places, batches, config.noise)
            for member, loss in zip(live.members, found, strict=True):
                losses[member] = loss
            staying = [i for i, m in enumerate(live.members) if not convergence.stops(m, losses[m], epoch)]
            if len(staying) < len(live.members):
                live.write_into(ensemble)
                batches.keep(staying)
                live.keep(staying)
            yield TrainStep(epoch, iteration, tuple(losses), len(live.members), False, snapshot)
            iteration += 1
            if not live.members:
                break
        if not live.members:
            break
    yield TrainStep(epoch, max(iteration - 1, 0), tuple(losses), 0, True, snapshot)


@torch.no_grad()
def pick_members(ensemble: PixelMLPEnsemble, chosen: Sequence[int], channels: slice = slice(None)) -> PixelMLPEnsemble:
    """A copy of some members as an ensemble of its own that reads these channels alone."""
    index = torch.tensor(list(chosen), dtype=torch.int64, device=ensemble.shift.device)
    state = {name: value if value.ndim == 1 else value.index_select(0, index) for name, value in ensemble.state_dict().items()}
    for name in ("linear1.weight", "shift", "scale"):
        state[name] = state[name][..., channels]
    part = PixelMLPEnsemble(len(state["shift"]), ensemble.n_classes, members=len(chosen), hidden=ensemble.hidden)
    part.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    for parameter in part.parameters():
        parameter.requires_grad_(True)
    return part


# --- voting -------------------------------------------------------------------------------------------------------------


def vote(logits: Tensor) -> Tensor:
    """Class with most votes ``(N,)`` of logits ``(E, N, K)``; the smallest of equal ones, as `torch.mode`."""
    votes = torch.zeros(logits.shape[1:], dtype=torch.int16, device=logits.device)
    for labels in logits.argmax(2, keepdim=True):  # (N, 1)
        votes.scatter_add_(1, labels, torch.ones_like(labels, dtype=torch.int16))
    return votes.argmax(1)


def mean_probabilities(logits: Tensor) -> Tensor:
    """Mean softmax ``(N, K)`` of logits ``(E, N, K)``."""
    return logits.softmax(2).mean(0)


def jensen_shannon(logits: Tensor) -> Tensor:
    """Uncertainty ``(N,)`` in nats of logits ``(E, N, K)``: entropy of the mean softmax less the mean entropy, at least 0."""
    logarithms = logits.log_softmax(2)
    entropies = -(logarithms.exp() * logarithms).sum(2)  # (E, N)
    mixed: Tensor = torch.special.entr(mean_probabilities(logits)).sum(1)
    return (mixed - entropies.mean(0)).clamp_min(0)


def predict_window(
    ensemble: PixelMLPEnsemble, maps: Sequence[FeatureMap], rows: slice, cols: slice, *, members: int | None = None
) -> Prediction:
    """Vote, mean probabilities and uncertainty for a window of an image.

    Parameters
    ----------
    ensemble : PixelMLPEnsemble
        On any device; the maps are moved to it.
    maps : sequence of FeatureMap
        In the order of the ensemble's channels; they hold at least the cells that the window reads.
    rows, cols : slice
        Start and stop in image pixels.
    members : int, optional
        Use the first so many only (a quick preview); by default all.

    Returns
    -------
    Prediction
        The same for a window as for the whole image, cut out.

    Raises
    ------
    UsageError
        If the window is empty or outside the maps, or the maps do not fit the ensemble.
    """
    count = _voters(ensemble, members)
    size = tuple(min((m.full[axis] * m.stride for m in maps), default=0) for axis in (0, 1))
    for span, length in zip((rows, cols), size, strict=True):
        if span.step not in (None, 1) or not 0 <= (span.start or 0) < (span.stop or 0) <= length:
            raise UsageError(f"the window {rows}, {cols} was given and the maps cover {size}; take one inside, not empty")
    rows, cols = slice(rows.start or 0, rows.stop), slice(cols.start or 0, cols.stop)
    height, width = rows.stop - rows.start, cols.stop - cols.start
    wanted = math.ceil(4 * ensemble.n_classes * height * width / _TALLY_BYTES)
    bands = list(pieces(rows, min(wanted, height)))
    if len(bands) == 1:
        return _counted(ensemble, maps, rows, cols, count)
    labels = np.empty((height, width), np.int64)
    probabilities = np.empty((ensemble.n_classes, height, width), np.float32)
    uncertainty = np.empty((height, width), np.float32)
    for band in bands:  # votes and the like of many classes take several times what is returned
        at = slice(band.start - rows.start, band.stop - rows.start)
        found = _counted(ensemble, maps, band, cols, count)
        labels[at], probabilities[:, at], uncertainty[at] = found.labels, found.probabilities, found.uncertainty
    return Prediction(labels, probabilities, uncertainty)


def _counted(ensemble: PixelMLPEnsemble, maps: Sequence[FeatureMap], rows: slice, cols: slice, members: int) -> Prediction:
    tally = _Tally(ensemble, rows, cols, members)
    for chunk in predict_pixels(ensemble, maps, rows, cols, members=members):
        tally.add(chunk)
    return tally.prediction()


def predict_points(ensemble: PixelMLPEnsemble, features: Tensor, *, members: int | None = None) -> Prediction:
    """Vote, mean probabilities and uncertainty of pixels whose features were sampled before: a coarse look in no time.

    Parameters
    ----------
    ensemble : PixelMLPEnsemble
        On any device; the features are moved to it.
    features : (N, D) float32 or float16
        One pixel a row, as `sample_features` gives them. What no member reads is not touched.
    members : int, optional
        Use the first so many only; by default all.

    Returns
    -------
    Prediction
        Of ``(N,)`` pixels.

    Raises
    ------
    UsageError
        If the features are not the ensemble's, or there are none.
    """
    count = _voters(ensemble, members)
    if features.ndim != 2 or features.shape[1] != ensemble.dims or not len(features):
        raise UsageError(
            f"features {tuple(features.shape)} were given and the classifier reads (N, {ensemble.dims}), N at least 1: "
            "sample the blocks and timesteps that it was fitted on"
        )
    tally = _Tally(ensemble, slice(0, 1), slice(0, len(features)), count)
    for chunk in predict_rows(ensemble, features, members=count):
        tally.add(chunk)
    found = tally.prediction()
    return Prediction(found.labels[0], found.probabilities[:, 0], found.uncertainty[0])


def _voters(ensemble: PixelMLPEnsemble, members: int | None) -> int:
    count = ensemble.members if members is None else members
    if not 1 <= count <= ensemble.members:
        raise UsageError(f"{count} members were asked for and the ensemble has {ensemble.members}; take 1..{ensemble.members}")
    return count


class _Tally:
    """Votes, probabilities and entropies of a window, summed as the members' logits come in."""

    def __init__(self, ensemble: PixelMLPEnsemble, rows: slice, cols: slice, members: int):
        size, device = (rows.stop - rows.start, cols.stop - cols.start), ensemble.shift.device
        self._members, self._alone = members, ensemble.members == 1
        self._origin = (rows.start, cols.start)
        self._votes = torch.zeros(ensemble.n_classes, *size, dtype=torch.int16, device=device)
        self._probabilities = torch.zeros(ensemble.n_classes, *size, device=device)
        self._entropy = torch.zeros(size, device=device)
        # the largest rank among the largest logits is the first of them
        self._rank = torch.arange(ensemble.n_classes, 0, -1.0, device=device)[:, None, None]

    @torch.no_grad()
    def add(self, chunk: LogitsChunk) -> None:
        """Count a member's logits, which are used up.

        Every line is one pass of long vectors over memory in cache. ``max`` with its indices, ``softmax`` and an entropy from
        ``log_softmax`` take three times as long together.
        """
        logits, (top_row, left) = chunk.logits, self._origin  # (K, h, w)
        at = (
            slice(chunk.rows.start - top_row, chunk.rows.stop - top_row),
            slice(chunk.cols.start - left, chunk.cols.stop - left),
        )
        top = logits.amax(0)  # (h, w)
        best = torch.ge(logits, top, out=torch.empty_like(logits)).mul_(self._rank).amax(0)
        label = (len(logits) - best.clamp_min_(1)).long()[None]  # the rank of no class: `prediction` refuses it
        self._votes[:, at[0], at[1]].scatter_add_(0, label, torch.ones_like(label, dtype=torch.int16))
        logits -= top
        exponents = logits.exp()
        total = exponents.sum(0)
        self._probabilities[:, at[0], at[1]].addcdiv_(exponents, total, value=1 / self._members)
        # H = log sum e^l - sum l e^l / sum e^l
        self._entropy[at] += total.log() - logits.mul_(exponents).sum(0) / total

    @torch.no_grad()
    def prediction(self) -> Prediction:
        """The tally as arrays.

        Raises
        ------
        ClassifierError
            If the members gave something that is no number, as weights do that are beyond all measure.
        """
        if not self._entropy.isfinite().all():
            raise ClassifierError("the classifier gives no numbers for these features: its weights are damaged; fit it again")
        mixed = torch.special.entr(self._probabilities).sum(0)
        uncertainty = mixed if self._alone else (mixed - self._entropy / self._members).clamp_min_(0)
        # the most votes, the smallest class of equal ones, in one number: `argmax` takes ten times as long
        ranked = self._votes.int().mul_(len(self._votes)).add_(self._rank.int() - 1).amax(0)
        labels = len(self._votes) - 1 - ranked.remainder_(len(self._votes)).long()
        return Prediction(labels.cpu().numpy(), self._probabilities.cpu().numpy(), uncertainty.cpu().numpy())


@torch.no_grad()
def identity_ensemble(n_classes: int) -> PixelMLPEnsemble:
    """An ensemble of one member whose logits are its features, for a network that gives logits itself; exactly.

    Two units carry the positive and the negative part of each logit past the ReLUs, ``x = relu(x) - relu(-x)``.
    """
    ensemble = PixelMLPEnsemble(n_classes, n_classes, members=1, hidden=(2 * n_classes, 2 * n_classes))
    one = torch.eye(n_classes)
    ensemble.linear1.weight[0] = torch.cat([one, -one])
    ensemble.linear2.weight[0] = torch.eye(2 * n_classes)
    ensemble.linear3.weight[0] = torch.cat([one, -one], dim=1)
    for norm in (ensemble.norm1, ensemble.norm2):
        norm.running_var.fill_(1 - norm.eps)
    return ensemble.eval()


# --- state --------------------------------------------------------------------------------------------------------------


def state_arrays(ensemble: PixelMLPEnsemble) -> dict[str, NDArray[np.float32]]:
    """The ensemble as named arrays, for safetensors; shapes say all the rest."""
    return {name: value.detach().cpu().numpy().copy() for name, value in ensemble.state_dict().items()}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> PixelMLPEnsemble:
    """Ensemble of `state_arrays`, in evaluation mode.

    Raises
    ------
    ClassifierError
        If an array is missing, of another shape or not finite, or one is too many.
    """
    try:
        members, first, dims = arrays["linear1.weight"].shape
        _, n_classes, second = arrays["linear3.weight"].shape
    except (KeyError, ValueError) as error:
        raise ClassifierError(
            f"the weights hold {sorted(arrays)[:4]}... and not an ensemble's linear1.weight and linear3.weight (E, out, in); "
            "fit the classifier again"
        ) from error
    if 0 in (members, first, dims, n_classes, second):
        raise ClassifierError(f"the weights are those of {members} members for {n_classes} classes; fit the classifier again")
    with torch.device("meta"):  # sizes that do not fit one another must not take memory
        ensemble = PixelMLPEnsemble(dims, n_classes, members=members, hidden=(first, second))
    wanted = {name: tuple(value.shape) for name, value in ensemble.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in arrays.items()}
    if have != wanted:
        wrong = sorted(name for name in have.keys() | wanted.keys() if have.get(name) != wanted.get(name))[0]
        raise ClassifierError(
            f"the array {wrong} is {have.get(wrong, 'missing')} and {wanted.get(wrong, 'none')} was wanted; "
            "fit the classifier again"
        )
    tensors = {name: torch.tensor(np.asarray(value, dtype=np.float32)) for name, value in arrays.items()}
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise ClassifierError("the classifier's weights hold infinite values or NaN; fit it again")
    ensemble.load_state_dict(tensors, assign=True)
    return ensemble.eval()
