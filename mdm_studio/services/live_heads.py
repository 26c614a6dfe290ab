"""Heads of a live session: ensembles with the parts of them that draw previews, and the pixels they learn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdm_studio.engine.heads import EnsembleConfig, TrainStep, pick_members, subsample, train_ensemble
from mdm_studio.io.classifier_file import SeenImages
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble
from mdm_studio.services.live_plan import Head, Stage
from mdm_studio.services.strokes import Block

SLICE_SECONDS = 0.08
"""Of training before a preview: what a user does not notice, and enough for a warm ensemble to turn to a new stroke."""
FIRST_SLICE_SECONDS = 0.25
BLOCK_PIXELS = 200
"""Painted pixels of a block that are learnt from; neighbours are nearly alike."""
MOST_PIXELS = 5000
"""Painted pixels of all images that are learnt from."""


@dataclass(frozen=True)
class LiveHead:
    """A head with its weights.

    Attributes
    ----------
    facts : Head
        For the plan.
    values : tuple of int
        Class values in the order of the ensemble's outputs.
    ensemble : PixelMLPEnsemble
        All members.
    previews : mapping
        Few members for previews of tiles of each stage; those of `Stage.FILTERS` read no other channels.
    loss : float
        Mean over members, the last one in training.
    training : mapping
        Facts for the classifier file.
    seen : SeenImages or None
        The images that it learnt from; None if that is not known.
    """

    facts: Head
    values: tuple[int, ...]
    ensemble: PixelMLPEnsemble
    previews: Mapping[Stage, PixelMLPEnsemble]
    loss: float
    training: Mapping[str, object] = field(default_factory=dict)
    seen: SeenImages | None = None


@dataclass(frozen=True)
class Sample:
    """Features ``(n, D)`` and class values ``(n,)`` of painted pixels of a block; `version` of its strokes."""

    version: int
    stage: Stage
    features: Tensor
    values: NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Lesson:
    """What a head learns from: features ``(N, D)``, class index ``(N,)``, class values in order, channels of each source."""

    features: Tensor
    targets: NDArray[np.intp]
    values: tuple[int, ...]
    sources: tuple[int, ...]
    painted: Mapping[int, int]
    images: int


def lesson(samples: Mapping[Block, Sample], channels: slice, sources: Sequence[int], seed: int) -> Lesson:
    """Put the samples of all blocks together; of more than `MOST_PIXELS` pixels a balanced part is taken."""
    blocks = sorted(samples)  # the same strokes give the same head, in whatever order they were painted
    values = np.concatenate([samples[block].values for block in blocks])
    kept = subsample(values, MOST_PIXELS, seed)
    features = torch.cat([samples[block].features[:, channels] for block in blocks])[torch.from_numpy(kept)]
    classes, targets = np.unique(values[kept], return_inverse=True)
    painted = {int(value): int((values == value).sum()) for value in classes}
    names = tuple(int(value) for value in classes)
    return Lesson(features, targets, names, tuple(sources), painted, len({block.plane.image for block in blocks}))


def learn_slice(what: Lesson, config: EnsembleConfig, warm: LiveHead | None, seed: int) -> tuple[PixelMLPEnsemble, float]:
    """Train one member of each source for a moment, going on from `warm` if it knows the same classes.

    Each slice wants another `seed`, or it would shuffle the pixels as the last one did.

    Returns
    -------
    PixelMLPEnsemble
        One member of each source, not trained to the end.
    float
        Their mean loss.
    """
    few = replace(config, members=len(what.sources), seed=seed)
    init = warm.previews[Stage.ALL] if warm else None
    if init and (init.dims, init.n_classes, init.members) != (what.features.shape[1], len(what.values), few.members):
        init = None
    begin, budget = time.perf_counter(), SLICE_SECONDS if init else FIRST_SLICE_SECONDS
    steps = train_ensemble(what.features, what.targets, len(what.values), few, init=init, sources=what.sources)
    for step in steps:
        if step.done or time.perf_counter() - begin > budget:
            break
    return step.snapshot(), float(np.mean(step.losses))


def learn_all(
    what: Lesson, config: EnsembleConfig, stale: Callable[[], bool], report: Callable[[TrainStep], None]
) -> TrainStep | None:
    """Train all members anew until their losses stop falling; None if the work became `stale` on the way."""
    steps: Iterator[TrainStep] = train_ensemble(what.features, what.targets, len(what.values), config, sources=what.sources)
    while part := list(islice(steps, 8)):
        if part[-1].done:
            return part[-1]
        report(part[-1])
        if stale():
            return None
    return None


def preview_parts(ensemble: PixelMLPEnsemble, sources: int, staged: bool) -> dict[Stage, PixelMLPEnsemble]:
    """One member of each source; and, if features come in stages, one that reads the filters (the last source) alone."""
    few = min(sources, ensemble.members)
    parts = {Stage.ALL: pick_members(ensemble, range(few))}
    if staged and few == sources:
        parts[Stage.FILTERS] = pick_members(ensemble, [sources - 1])
    return parts
