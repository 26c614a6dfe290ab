"""Pretraining of a backbone: a generator of steps that knows no file, progress bar or thread.

`Pretrainer` owns what a run must remember (network, its moving average, optimizer, learning-rate schedule, step). Every random
number depends on ``(seed, step, process)`` alone, so a run resumed from its state equals an uninterrupted one bit for bit
on the same CPU and number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mdm_studio import registry
from mdm_studio.arrays import IntensityLaw
from mdm_studio.engine.averaging import ramped_average
from mdm_studio.engine.devices import Precision, pick_device, pick_precision
from mdm_studio.engine.recipes import Example, Recipe
from mdm_studio.errors import CheckpointError, JobError
from mdm_studio.io.json_files import check_value
from mdm_studio.nn.network import Network, NetworkConfig

Arrays = dict[str, Tensor]
_Count = Annotated[int, Meta(ge=0, le=2**53)]


class TrainingFacts(TypedDict):
    """Where a training stood when its state was saved."""

    step: _Count
    averaged: _Count
    schedule: dict[str, Any]


@dataclass(frozen=True)
class PretrainConfig:
    """Numbers of a pretraining run.

    Attributes
    ----------
    crop, batch
        Side of the random crops in pixels and crops a step. 128 x 16 keeps a step near a second on two CPU cores; the paper
        uses 256 x 128 on a GPU.
    lr, warmup, weight_decay, betas, clip
        AdamW, without decay of biases and norms; the learning rate rises linearly over `warmup` steps and stays. The paper of
        MDM uses 1e-4 at batch 128 without warm-up; a short run on small batches gets further with 3e-4, a warm-up and gradients
        clipped to norm 1.
    decay_steps
        Steps, the warm-up among them, over which the learning rate falls to 0 along half a cosine; 0 keeps it.
    ema
        Decay of the moving average of the weights, reached over the first steps as ``(1 + n) / (10 + n)``, so that a short
        run is not mostly its random start. The paper's 0.9999 wants 100,000 steps.
    scales
        Working scales: each crop is drawn from the image binned by one of these, at random. Objects should be a good part of
        a crop, see the guide.
    jitter
        Change the colours of each crop at random, half of them with dark and bright exchanged, so that features depend less on
        stain, lamp and polarity.
    intensity
        How raw values become [-1, 1], see `mdm_studio.arrays.IntensityLaw`.
    compile
        Use ``torch.compile``: pays on GPUs, not on CPUs (two minutes to compile and no faster).
    """

    crop: int = 128
    batch: int = 16
    lr: float = 3e-4
    warmup: int = 200
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    decay_steps: int = 0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"
    compile: bool = False
    scales: tuple[int, ...] = (1,)
    jitter: bool = False
    intensity: IntensityLaw = "percentile"


@dataclass(frozen=True)
class Step:
    """Report of one finished step.

    ``loss`` is the mean over the batch; ``seconds`` is the time this step took, waiting for images included.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    images: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Crops seen a second in this step."""
        return self.images / max(self.seconds, 1e-9)


class Pretrainer:
    """Network, moving average, optimizer and step of one run.

    Parameters
    ----------
    network : NetworkConfig
        Shape of the network, of the kind that the recipe trains. Parts of it that need no gradient stay as they are.
    recipe : Recipe
        What is hidden and how the loss is taken.
    config : PretrainConfig
        Numbers of the run.
    """

    def __init__(self, network: NetworkConfig, recipe: Recipe, config: PretrainConfig) -> None:
        self.network, self.recipe, self.config = network, recipe, config
        device = pick_device(config.device)
        self.precision = pick_precision(config.precision, device)
        AcceleratorState._reset_state()  # noqa: SLF001 - it keeps the precision of the first training in a process for all others
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if self.precision == "bf16" else "no")
        torch.manual_seed(config.seed)
        kind: type[Network] = registry.load("backbones", recipe.network)
        self.net = kind(network).to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = AveragedModel(self.net, multi_avg_fn=ramped_average(config.ema))
        groups = _decayed_or_not(self.net, config.weight_decay)
        self._trained = [parameter for group in groups for parameter in group["params"]]  # in the order of the optimizer
        optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=device.type != "mps")
        model: Any = torch.compile(self.net) if config.compile else self.net
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer.optimizer, _learning_rate(config))
        self.step = 0

    def steps(self, batches: Iterable[NDArray[np.float32]]) -> Iterator[Step]:
        """Train on each batch ``(B, C, H, W)`` in turn; batch ``k`` must be the one of step ``self.step + k``.

        Raises
        ------
        JobError
            If the loss is no longer a number; the state is then that of the last good step.
        """
        self.model.train()
        begin = time.perf_counter()
        for batch in batches:
            x = torch.from_numpy(batch).to(self.accelerator.device, memory_format=torch.channels_last, non_blocking=True)
            loss, norm = self._update(x)
            lr = self.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            self.step += 1
            now = time.perf_counter()
            images = len(x) * self.accelerator.num_processes
            yield Step(self.step, loss, norm, lr, images, now - begin)
            begin = time.perf_counter()

    def _update(self, x: Tensor) -> tuple[float, float]:
        seed = np.random.SeedSequence([self.config.seed, self.step, self.accelerator.process_index])
        generator = torch.Generator().manual_seed(int(seed.generate_state(1)[0]))
        torch.manual_seed(int(seed.generate_state(2)[1]))  # dropout and the like
        t = self.recipe.draw_timesteps(len(x), generator).to(x.device)
        example = self.recipe.corrupt(x, t, generator)
        loss = self.recipe.loss(_predict(self.model, example), example).mean()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        value = float(self.accelerator.gather(loss.detach()).mean())
        if not np.isfinite(value) or not torch.isfinite(norm):
            self.optimizer.zero_grad()
            raise JobError(
                f"the loss became {value} at step {self.step + 1}; the last checkpoint is good: "
                "start a new job with a smaller --lr or --precision fp32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update_parameters(self.net)
        for averaged, current in zip(self.ema.module.buffers(), self.net.buffers(), strict=True):
            averaged.copy_(current)  # statistics of batch norms, which are averages themselves
        return value, float(norm)

    def agree(self, stop: bool, elapsed: float) -> tuple[bool, float]:
        """What all processes of a run go by: whether any of them wants to stop, and the first one's seconds.

        Every process must call it equally often, between steps: one that went on alone would wait for the others for ever.

        Raises
        ------
        JobError
            If they have not done the same steps, because they resumed from different checkpoints.
        """
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return stop, elapsed
        mine = torch.tensor([[float(stop), elapsed, float(self.step)]], dtype=torch.float64, device=accelerator.device)
        stops, seconds, steps = accelerator.gather(mine).cpu().unbind(1)
        if steps.min() != steps.max():
            raise JobError(
                f"the processes of this run stand at different steps ({', '.join(str(int(n)) for n in steps)}); do all of "
                "them see the same folder? Stop them and resume the job"
            )
        return bool(stops.any()), float(seconds[0])

    def close(self) -> None:
        """Let go of the other processes of the run; without it the interpreter may abort while it ends."""
        if self.accelerator.num_processes > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.float32], timesteps: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the averaged network sees and makes of ``(B, C, H, W)`` at each timestep: two ``(T, B, C, H, W)`` arrays."""
        images = torch.from_numpy(np.ascontiguousarray(x)).to(self.accelerator.device)
        network = self.ema.module.eval()
        seen_all, made_all = [], []
        for t in timesteps:
            steps = torch.full((len(images),), t, device=images.device)
            example = self.recipe.corrupt(images, steps, torch.Generator().manual_seed(t))
            with self.accelerator.autocast():
                made = self.recipe.restored(_predict(network, example).float(), example)
            seen_all.append(self.recipe.to_pixels(example.seen).float().cpu().numpy())
            made_all.append(made.float().cpu().numpy())
        return np.stack(seen_all), np.stack(made_all)

    def start_from(self, weights: Arrays) -> None:
        """Begin with the weights of a backbone instead of random ones, or with those of a part of it, such as an encoder.

        Raises
        ------
        CheckpointError
            If they are those of another network.
        """
        try:
            for net in (self.net, self.ema.module):
                net.load_state_dict(net.state_dict() | weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the backbone to start from does not fit this network ({str(error).splitlines()[0]}); "
                "start from nothing, or with the size and channels it has"
            ) from error

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything needed to go on: tensors, and facts that are JSON values."""
        arrays: Arrays = {f"model/{name}": value for name, value in self.net.state_dict().items()}
        arrays |= {f"ema/{name}": value for name, value in self.ema.module.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        facts = {
            "step": self.step,
            "averaged": int(self.ema.n_averaged),
            "schedule": {
                k: v for k, v in self.schedule.state_dict().items() if isinstance(v, int | float | list) and k != "lr_lambdas"
            },
        }
        return {name: value.detach().contiguous() for name, value in arrays.items()}, facts

    def load_state(self, arrays: Arrays, facts: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises
        ------
        CheckpointError
            If the tensors are those of another network, or not all finite numbers.
        """
        try:
            known = check_value(facts, TrainingFacts)
        except ValueError as error:
            raise CheckpointError(f"the checkpoint does not say where the training stood ({error})") from error
        _check_kinds(arrays, {"model/": self.net, "ema/": self.ema.module})
        try:
            self.net.load_state_dict(_below(arrays, "model/"))
            self.ema.module.load_state_dict(_below(arrays, "ema/"))
            parameters = self._trained
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in _below(arrays, "optimizer/").items():
                index, slot = name.split("/")
                # the fused optimizer walks raw memory: moments must lie as their channels-last parameters do
                like = parameters[int(index)]
                laid = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                slots.setdefault(int(index), {})[slot] = laid
            whole = self.optimizer.state_dict() | {"state": slots}
            self.optimizer.load_state_dict(whole)
            self.schedule.load_state_dict(self.schedule.state_dict() | known["schedule"])
        except (ArithmeticError, RuntimeError, TypeError, ValueError, LookupError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this network ({str(error).splitlines()[0]}); "
                "resume with the settings the run was started with"
            ) from error
        self.ema.n_averaged.fill_(known["averaged"])
        for group, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = lr
        self.step = known["step"]

    def weights(self) -> Arrays:
        """Averaged weights of the network, for a backbone file."""
        return {name: value.detach().contiguous() for name, value in self.ema.module.state_dict().items()}


def _check_kinds(arrays: Arrays, parts: dict[str, nn.Module]) -> None:
    """Complain about weights of another kind of number, and about those that are none: training cannot go on from them."""
    for prefix, net in parts.items():
        wanted = net.state_dict()
        for name, value in _below(arrays, prefix).items():
            if name in wanted and value.dtype != wanted[name].dtype:
                raise CheckpointError(f"the checkpoint holds {prefix}{name} as {value.dtype}; resume from another one")
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CheckpointError(f"the checkpoint holds numbers that are not finite in {prefix}{name}")


def _predict(network: Any, example: Example) -> Tensor:
    """What a network answers; one that leaves nothing out is not asked to."""
    more = {} if example.hidden is None else {"hidden": example.hidden}
    prediction: Tensor = network(example.seen, example.t, **more)
    return prediction


def _decayed_or_not(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters to train: matrices and kernels with weight decay, biases and norms without."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not weight_decay:
        return [{"params": trained, "weight_decay": 0.0}]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _learning_rate(config: PretrainConfig) -> Callable[[int], float]:
    """Factor of the learning rate after `n` steps: a linear warm-up, then half a cosine, or nothing more."""

    def factor(n: int) -> float:
        rise = min(1.0, (n + 1) / max(config.warmup, 1))
        if not config.decay_steps or n < config.warmup:
            return rise
        share = (n - config.warmup) / max(config.decay_steps - config.warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    return factor


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
