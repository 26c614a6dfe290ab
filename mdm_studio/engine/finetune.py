"""Fine-tuning: a pretrained network and logits read from it learn labelled pixels together.

A generator of steps that knows no file and no thread. What it learns from are patches: windows of images around labelled
pixels, cut beforehand, so that memory is bounded whatever the images measure.

The readers of the logits are fitted first, on the network as it is, and only then everything is trained: a network that is
pulled by random logits forgets what it learnt without labels (Kumar et al., "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution", ICLR 2022).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mdm_studio.arrays import Image
from mdm_studio.engine.averaging import ramped_average
from mdm_studio.engine.backbones import Backbone
from mdm_studio.engine.devices import pick_precision
from mdm_studio.engine.recipes import Place, Recipe
from mdm_studio.errors import BackboneError, JobError, LabelsError, UsageError
from mdm_studio.nn.finetuned import KIND, FineTuned, FineTunedConfig

UNLABELLED = -1
"""Of the labels of a patch."""
_CROP = 128  # of networks that take any size: what the bundled one was pretrained on
_PLACES = 4096  # labelled pixels of a patch and class that a crop may be laid around; others lie beside them
_PROBE_PIXELS, _PROBE_STEPS = 20_000, 300  # of the readers' own fit
_PROBE_DECAY = 1e-3
_LOGITS = 1 / 4  # of the readers' first answers: a probe of few pixels is surer of itself than it should be


@dataclass(frozen=True)
class FinetuneConfig:
    """How a network is fine-tuned.

    Attributes
    ----------
    steps, minutes
        It ends after so many steps, or minutes if that is sooner (0: however long they take). The learning rate has fallen to 0
        by then, along half a cosine.
    batch : int
        Crops a step.
    crop : int
        Side of a crop in pixels of the working scale; 0 for the size that the network was made for.
    lr, lr_readers : float
        AdamW, for what was pretrained and for what reads the logits from it.
    warmup : int
        Steps over which both rise.
    weight_decay, clip : float
        Of matrices and kernels; the norm that gradients are clipped to.
    ema : float
        Decay of the moving average of the weights, which is what comes out.
    jitter : float
        Brightness and contrast of crops are changed by up to this part of the range.
    invert : bool
        Half of the crops have dark and bright exchanged.
    class_weight : {"balanced", "none"}
        As in `mdm_studio.engine.heads.EnsembleConfig`; balanced, crops are laid around pixels of each class equally often too.
    seed : int
        Of crops, their looks, and dropout.
    """

    steps: int = 200
    minutes: float = 0.0
    batch: int = 8
    crop: int = 0
    lr: float = 1e-4
    lr_readers: float = 1e-3
    warmup: int = 10
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.98
    jitter: float = 0.1
    invert: bool = False
    class_weight: Literal["balanced", "none"] = "balanced"
    seed: int = 0

    def check(self) -> None:
        """Refuse numbers that nothing can be done with, as a `UsageError`."""
        if self.steps < 1 or self.minutes < 0 or self.batch < 1 or self.crop < 0:
            raise UsageError(
                f"{self.steps} steps, {self.minutes:g} minutes, {self.batch} crops of {self.crop} pixels were asked for; "
                "take at least 1 step and 1 crop, and 0 or more of the others"
            )


@dataclass(frozen=True)
class Patch:
    """A window of an image with labelled pixels in it.

    Attributes
    ----------
    image : (C, h, w) float16
        In [-1, 1], at the working scale.
    labels : (h * scale, w * scale) int16
        Class index of each pixel of the image itself, or `UNLABELLED`.
    place : Place
        Where it lies.
    """

    image: NDArray[np.float16]
    labels: NDArray[np.int16]
    place: Place

    @property
    def scale(self) -> int:
        """Image pixels, along each side, that became one of `image`."""
        return int(self.labels.shape[0] // self.image.shape[1])


@dataclass(frozen=True)
class FinetuneStep:
    """A step of fine-tuning that was done.

    Attributes
    ----------
    step : int
        How many were done; 0 when the readers alone have learnt.
    loss : float
        Of the labelled pixels of its crops.
    done : float
        Share of everything, 0 to 1.
    seconds : float
        Spent on steps so far, whatever else the process did.
    snapshot : callable
        ``snapshot()`` is a copy of the network as it is now, averaged, in evaluation mode. Call it before asking for the next.
    ready : bool
        False while the readers are fitted: there is nothing to take a snapshot of yet.
    """

    step: int
    loss: float
    done: float
    seconds: float
    snapshot: Callable[[], FineTuned]
    ready: bool = True


# --- a network to begin with --------------------------------------------------------------------------------------------


def with_readers(backbone: Backbone, blocks: Sequence[int], n_classes: int) -> FineTuned:
    """A copy of a backbone's network, in float32 and to be trained whole, with logits of `n_classes` read from its blocks."""
    config = FineTunedConfig(backbone.in_channels, n_classes, dict(backbone.card.arch), tuple(blocks))
    devices: list[int] = []
    with torch.random.fork_rng(devices):  # the weights it draws are not kept
        net = FineTuned(config)
    net.inner.load_state_dict({name: value.clone() for name, value in backbone.net.state_dict().items()})
    return net.float().requires_grad_(True)


def arch(net: FineTuned) -> dict[str, Any]:
    """For the card of a fine-tuned network."""
    return {"kind": KIND, **asdict(net.config)}


def side_of(net: FineTuned, config: FinetuneConfig) -> int:
    """Side of a crop in pixels of the working scale."""
    stride = net.config.total_stride
    return -(-(config.crop or net.config.window or _CROP) // stride) * stride


# --- training -----------------------------------------------------------------------------------------------------------


def finetune(
    net: FineTuned,
    recipe: Recipe,
    timestep: int,
    patches: Sequence[Patch],
    config: FinetuneConfig,
    device: torch.device,
) -> Iterator[FinetuneStep]:
    """Fine-tune a network, step by step.

    Parameters
    ----------
    net : FineTuned
        It is trained in place; see `with_readers`.
    recipe : Recipe
        What the network sees of an image when its features are taken: it learns from the same.
    timestep : int
        It is told.
    patches : sequence of Patch
        Not smaller than a crop, all at one working scale.
    config : FinetuneConfig
        Numbers.
    device : torch.device
        Where it is trained.

    Yields
    ------
    FinetuneStep
        First of the readers alone, then of every step.

    Raises
    ------
    LabelsError
        If the patches have no labelled pixel, or of one class only.
    BackboneError
        If the device has too little memory.
    JobError
        If the loss is no number any more.

    Notes
    -----
    Crops and their looks depend on the seed and the step alone, so the same call gives the same network (one thread, CPU; with
    `minutes` the clock decides when the learning rate has fallen). Statistics of batch norms stay those of pretraining: a few
    crops of a few images would replace them with worse ones. The loss is taken where predictions are: logits are upsampled to
    the image bilinearly, and pixels without a label do not count.
    """
    config.check()
    crops = _Crops(patches, side_of(net, config), config)
    weight = _class_weights(patches, net.config.out_channels, config).to(device)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = _Training(net, recipe, timestep, weight, config, device)
    try:
        yield from training.steps(crops)
    except torch.OutOfMemoryError as error:
        raise BackboneError(
            f"the network cannot be fine-tuned in the memory of {device} with {config.batch} crops a step: "
            "use --device cpu or a smaller backbone"
        ) from error


def _class_weights(patches: Sequence[Patch], n_classes: int, config: FinetuneConfig) -> Tensor:
    """``(K,)``, 0 for classes that do not occur."""
    counts = np.zeros(n_classes)
    for patch in patches:
        counts += np.bincount(patch.labels[patch.labels != UNLABELLED], minlength=n_classes)[:n_classes]
    present = int((counts > 0).sum())
    if present < 2:
        raise LabelsError(f"{present} classes are labelled and two at least are needed: label a few pixels of another")
    if config.class_weight == "none":
        return torch.ones(n_classes)
    weights = np.divide(counts.sum(), present * counts, out=np.zeros(n_classes), where=counts > 0)
    return torch.from_numpy(weights).float()


class _Training:
    """The state of a fine-tuning: network, average, optimizer, and the time it took."""

    def __init__(
        self, net: FineTuned, recipe: Recipe, timestep: int, weight: Tensor, config: FinetuneConfig, device: torch.device
    ) -> None:
        self.net, self.recipe, self.timestep = net, recipe, timestep
        self.weight, self.config, self.device = weight, config, device
        self._bf16 = pick_precision("auto", device) == "bf16"
        self._seconds = self._readers_seconds = 0.0

    def steps(self, crops: _Crops) -> Iterator[FinetuneStep]:
        loss = yield from self._fit_readers(crops)
        with self._clock():
            self.ema = AveragedModel(self.net, multi_avg_fn=ramped_average(self.config.ema))
            self.ema.update_parameters(self.net)
            optimizer = self._optimizer()
        self._readers_seconds = self._seconds
        yield FinetuneStep(0, loss, 0.0, self._seconds, self.snapshot)
        step = 0
        while (share := self._share(step)) < 1:
            factor = min(1.0, (step + 1) / max(self.config.warmup, 1)) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = group["full"] * factor
            with self._clock():
                loss = self._update(crops.batch(step), optimizer, step)
            step += 1
            yield FinetuneStep(step, loss, self._share(step), self._seconds, self.snapshot)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begin

    def _share(self, step: int) -> float:
        spent = self._seconds - self._readers_seconds  # so that however few the minutes, the network learns a step
        by_clock = spent / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(max(step / self.config.steps, by_clock), 1.0)

    def _update(self, batch: _Batch, optimizer: torch.optim.Optimizer, step: int) -> float:
        _to_train(self.net)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.enable_grad(), torch.random.fork_rng(devices):  # dropout must not depend on what else the process drew
            torch.manual_seed(int(np.random.SeedSequence([self.config.seed, step, 1]).generate_state(1)[0]))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                logits = self.net.features(self._seen(batch), self._t(batch), (0,))[0]
            loss = self._loss(logits, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        value = float(loss.detach())
        if not (math.isfinite(value) and bool(torch.isfinite(norm))):
            raise JobError(f"the loss became {value} at step {step + 1}: fine-tune in smaller steps, or on other labels")
        optimizer.step()
        optimizer.zero_grad()
        self.ema.update_parameters(self.net)
        return value

    def _seen(self, batch: _Batch) -> Tensor:
        x = torch.from_numpy(batch.images).to(self.device, memory_format=torch.channels_last)
        return self.recipe.feature_input(x, self.timestep, batch.places)

    def _t(self, batch: _Batch) -> Tensor:
        return torch.full((len(batch.images),), self.timestep, device=self.device)

    def _loss(self, logits: Tensor, batch: _Batch) -> Tensor:
        labels = torch.from_numpy(batch.labels).to(self.device)  # (B, H, W)
        logits = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, labels, self.weight, ignore_index=UNLABELLED)

    def _optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        groups: list[dict[str, Any]] = []
        for inner, lr in ((True, config.lr), (False, config.lr_readers)):
            mine = [p for name, p in self.net.named_parameters() if name.startswith("inner.") == inner and p.requires_grad]
            for decay, chosen in (
                (config.weight_decay, [p for p in mine if p.ndim > 1]),
                (0.0, [p for p in mine if p.ndim <= 1]),
            ):
                groups.append({"params": chosen, "lr": lr, "full": lr, "weight_decay": decay})
        return torch.optim.AdamW([group for group in groups if group["params"]])

    @torch.no_grad()
    def snapshot(self) -> FineTuned:
        """A copy of the averaged network, on the CPU."""
        averaged = copy.deepcopy(self.ema.module)
        assert isinstance(averaged, FineTuned)
        return averaged.cpu().eval().requires_grad_(False)

    # ---- the readers alone -------------------------------------------------------------------------------------------

    def _fit_readers(self, crops: _Crops) -> Generator[FinetuneStep, None, float]:
        """Standardise what the readers read, and fit them on the network as it is; their loss."""
        found: list[tuple[dict[int, Tensor], Tensor]] = []
        batches = crops.probe_batches()
        for number, batch in enumerate(batches):
            with self._clock():
                found.append(self._probe(batch, number, _PROBE_PIXELS // len(batches)))
            yield FinetuneStep(0, math.nan, 0.0, self._seconds, self.snapshot, ready=False)
        maps = {block: torch.cat([each[block] for each, _ in found]) for block in self.net.config.blocks}
        targets = torch.cat([each for _, each in found]).to(self.device)
        for block, values in maps.items():
            reader = self.net.reader(block)
            deviation, mean = torch.std_mean(values, dim=0)
            floor = deviation.median() * 1e-2
            reader.shift.copy_(mean)
            reader.scale.copy_(1 / torch.where(deviation > floor, deviation, floor if floor > 0 else torch.ones_like(floor)))
        readers = {block: self.net.reader(block) for block in maps}
        x = torch.cat([(values - readers[b].shift) * readers[b].scale for b, values in maps.items()], dim=1)  # (N, D)
        weights, bias, loss = _logistic(x, targets, self.weight)
        with torch.no_grad():
            self.net.bias.copy_(bias * _LOGITS)
            parts = torch.split(weights, [values.shape[1] for values in maps.values()], 1)
            for reader, part in zip(readers.values(), parts, strict=True):
                reader.weight.copy_(part * _LOGITS)
        return loss

    @torch.no_grad()
    def _probe(self, batch: _Batch, number: int, limit: int) -> tuple[dict[int, Tensor], Tensor]:
        """Maps of the blocks ``(n, C_b)`` and classes ``(n,)`` at labelled pixels of a batch."""
        self.net.eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            maps = self.net.inner.features(self._seen(batch), self._t(batch), self.net.config.blocks)
        which, rows, cols = np.nonzero(batch.labels != UNLABELLED)
        if len(which) > limit:
            chosen = np.random.default_rng([self.config.seed, number, 2]).choice(len(which), limit, replace=False)
            which, rows, cols = which[chosen], rows[chosen], cols[chosen]
        found, (height, width) = {}, batch.labels.shape[1:]
        for block, values in maps.items():
            cells = (rows * values.shape[2] // height, cols * values.shape[3] // width)
            at = [torch.from_numpy(each).to(values.device) for each in (which, *cells)]
            found[block] = values[at[0], :, at[1], at[2]].float()
        return found, torch.from_numpy(batch.labels[which, rows, cols])


def _logistic(x: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """Weights ``(K, D)`` and bias ``(K,)`` of a logistic regression, and its loss."""
    weights = torch.zeros(len(weight), x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(len(weight), device=x.device, requires_grad=True)
    optimizer = torch.optim.AdamW([weights, bias], lr=1e-2, weight_decay=_PROBE_DECAY)
    value = math.nan
    with torch.enable_grad():
        for _ in range(_PROBE_STEPS):
            loss = F.cross_entropy(F.linear(x, weights, bias), targets, weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        value = float(loss.detach())
    return weights.detach(), bias.detach(), value


def _to_train(net: nn.Module) -> None:
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()


# --- crops --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """``(B, C, s, s)`` float32, ``(B, s * scale, s * scale)`` int64, and where they lie."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    places: list[Place]


class _Crops:
    """Crops around labelled pixels; a batch is a function of seed and step."""

    def __init__(self, patches: Sequence[Patch], side: int, config: FinetuneConfig) -> None:
        self._patches, self._side, self._config = list(patches), side, config
        rng = np.random.default_rng([config.seed, 3])
        self._labelled = [_labelled(patch.labels, config, rng) for patch in patches]

    def batch(self, step: int) -> _Batch:
        """The crops of a step, turned, flipped and in other lights."""
        rng = np.random.default_rng([self._config.seed, step, 0])
        chosen = [int(rng.integers(len(self._patches))) for _ in range(self._config.batch)]
        return self._stacked([self._one(index, rng, plain=False) for index in chosen])

    def probe_batches(self) -> list[_Batch]:
        """Crops as they are: of every patch, or of as many as a few steps would see."""
        rng = np.random.default_rng([self._config.seed, 4])
        size, most = self._config.batch, 8 * self._config.batch
        order = rng.permutation(len(self._patches)).tolist()
        chosen = (order * -(-size // len(order)))[: max(most, size)]
        made = [self._one(index, rng, plain=True) for index in chosen]
        return [self._stacked(made[start : start + size]) for start in range(0, len(made), size)]

    def _stacked(self, crops: Sequence[tuple[Image, NDArray[np.int16], Place]]) -> _Batch:
        images, labels, places = zip(*crops, strict=True)
        return _Batch(np.stack(images), np.stack(labels).astype(np.int64), list(places))

    def _one(self, index: int, rng: np.random.Generator, *, plain: bool) -> tuple[Image, NDArray[np.int16], Place]:
        patch, side, scale = self._patches[index], self._side, self._patches[index].scale
        places = self._labelled[index]
        of_class = places[int(rng.integers(len(places)))]
        pixel = np.unravel_index(int(of_class[int(rng.integers(len(of_class)))]), patch.labels.shape)
        top, left = (
            int(np.clip(int(at) // scale - int(rng.integers(side)), 0, size - side))
            for at, size in zip(pixel, patch.image.shape[1:], strict=True)
        )
        image = patch.image[:, top : top + side, left : left + side].astype(np.float32)
        labels = patch.labels[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        place = Place(patch.place.row + top, patch.place.col + left, patch.place.image)
        if not plain:
            image, labels = self._turned(self._lit(image, rng), labels, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels), place

    def _turned(self, image: Image, labels: NDArray[np.int16], rng: np.random.Generator) -> tuple[Image, NDArray[np.int16]]:
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, labels = np.rot90(image, turns, axes=(1, 2)), np.rot90(labels, turns)
        return (image[:, :, ::-1], labels[:, ::-1]) if flip else (image, labels)

    def _lit(self, image: Image, rng: np.random.Generator) -> Image:
        jitter = self._config.jitter
        gain, offset = 1 + rng.uniform(-jitter, jitter), rng.uniform(-jitter, jitter)
        lit: Image = np.clip(image * np.float32(gain) + np.float32(offset), -1, 1)
        return -lit if self._config.invert and rng.integers(2) else lit


def _labelled(labels: NDArray[np.int16], config: FinetuneConfig, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Flat places of labelled pixels, class by class if the classes are balanced, else of all in one."""
    flat = labels.reshape(-1)
    places = np.flatnonzero(flat != UNLABELLED)
    if not len(places):
        raise LabelsError("a patch has no labelled pixel")
    if config.class_weight == "balanced":
        found = [places[flat[places] == value] for value in np.unique(flat[places])]
    else:
        found = [places]
    return [each if len(each) <= _PLACES else rng.choice(each, _PLACES, replace=False) for each in found]
