"""New pictures from noise, by backbones that were trained to take noise away.

Each picture depends on the seed and its number alone: not on how many are made at a time, nor on which others are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mdm_studio.diffusion.samplers import Bounds, Predicts, Sampled, ancestral, ddim, spaced_times
from mdm_studio.engine.backbones import Backbone, BackboneCard, load_recipe
from mdm_studio.errors import UsageError

SamplerName = Literal["ddim", "ancestral"]
SIDE = 128  # pixels, where a card does not tell the side of the crops that trained the network

_REASONS = {
    "mdm": "it restores hidden patches in one step and never saw noise",
    "mae": "it restores hidden patches in one step and never saw noise",
    "dep": "it was trained at one small amount of noise, and pure noise is something else",
    "ddep": "it was trained at one small amount of noise, and pure noise is something else",
    "": "it is an encoder that gives features and no pictures",
}


@dataclass(frozen=True)
class Sampler:
    """How noise becomes a picture.

    Attributes
    ----------
    name : {"ddim", "ancestral"}
        DDIM comes with few steps; ancestral sampling is DDPM's own and wants more.
    steps : int
        Calls of the network.
    eta : float
        Noise that DDIM adds on the way, 0 (none) to 1 (as much as ancestral sampling).
    """

    name: SamplerName = "ddim"
    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in get_args(SamplerName):
            raise UsageError(f"there is no sampler {self.name!r}; choose {' or '.join(get_args(SamplerName))}")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta is {self.eta}; choose 0 (no noise on the way) to 1 (as much as ancestral sampling)")
        if self.eta and self.name != "ddim":
            raise UsageError("eta belongs to ddim; ancestral sampling has noise of its own: leave eta out")


@dataclass(frozen=True)
class NoiseProcess:
    """What a sampler must know of a recipe.

    Attributes
    ----------
    abar : (T,) float64
        Signal share of every timestep.
    predicts : {"noise", "image"}
        What the network answers.
    learned : bool
        It predicts the variance of a step too.
    bounds : callable
        Range of what the network sees of clean images.
    to_pixels : callable
        Images of what the network sees: of Haar coefficients, for example.
    """

    abar: Tensor
    predicts: Predicts
    learned: bool
    bounds: Callable[[Tensor], Bounds]
    to_pixels: Callable[[Tensor], Tensor]


def noise_process(card: BackboneCard) -> NoiseProcess:
    """The noise process that a backbone was trained on.

    Raises
    ------
    UsageError
        If it was trained on something else, with the reason.
    """
    name, recipe = card.recipe["name"], load_recipe(card.recipe)
    abar = getattr(recipe, "abar", None)
    fixed = getattr(recipe, "fixed_t", 0)
    if name in _REASONS or abar is None or not recipe.t_max:
        reason = _REASONS.get(name, "its recipe knows no noise process")
    elif fixed:
        reason = f"it was trained at the timestep {fixed} alone"
    else:
        return NoiseProcess(
            abar, getattr(recipe, "predict", "noise"), getattr(recipe, "learn_sigma", False),
            recipe.bounds, recipe.to_pixels,
        )  # fmt: skip
    raise UsageError(
        f"{card.name} cannot make pictures: {reason}; "
        "choose a backbone of the recipe ddpm, or of maskdm fine-tuned with ratio=0"
    )


def sample_size(card: BackboneCard, size: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Height and width of the pictures: as asked, or the crops that trained the network for (0, 0).

    Raises
    ------
    UsageError
        If the network takes no pictures of that size.
    """
    config = card.network()
    fixed = int(getattr(config, "image_size", 0))
    stride = config.total_stride
    if size == (0, 0):
        side = fixed or usual_side(card)
        return side, side
    if fixed and size != (fixed, fixed):
        raise UsageError(
            f"{card.name} makes pictures of {fixed},{fixed} pixels alone (its positions are learned); leave --size out"
        )
    if min(size) < stride or size[0] % stride or size[1] % stride:
        near = [max(stride, round(side / stride) * stride) for side in size]
        raise UsageError(
            f"--size {size[0]},{size[1]} cannot be made by {card.name}: choose multiples of {stride}, "
            f"for example {near[0]},{near[1]}"
        )
    return size


def usual_side(card: BackboneCard) -> int:
    """Side of the crops that trained the network, in pixels of its working scale; of an imported one a guess."""
    stride = card.network().total_stride
    side = int(card.training.get("config", {}).get("crop", SIDE))
    return max(stride, side // stride * stride)


def generate(
    backbone: Backbone, numbers: Sequence[int], sampler: Sampler, *, seed: int, size: tuple[int, int]
) -> Iterator[Sampled]:
    """Make the pictures of these numbers together; yields every step, and `pictures` of the last one are the result.

    Raises
    ------
    UsageError
        If the backbone cannot make pictures, or not in so many steps.
    """
    process = noise_process(backbone.card)
    t_max = len(process.abar)
    if not 1 <= sampler.steps <= t_max:
        raise UsageError(
            f"{sampler.steps} steps are asked for, and {backbone.card.name} has {t_max} timesteps; choose 1 to {t_max}"
        )
    draws = [torch.Generator().manual_seed(_seed(seed, number)) for number in numbers]
    shape = (backbone.in_channels, *size)
    noise = torch.stack([torch.randn(shape, generator=each) for each in draws]).to(backbone.device)
    times = spaced_times(t_max, sampler.steps)
    bounds = process.bounds(noise)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return backbone.predict(x, t)

    if sampler.name == "ddim":
        yield from ddim(
            model, noise, process.abar, times, generator=draws, eta=sampler.eta, predicts=process.predicts, bounds=bounds
        )
    else:
        yield from ancestral(
            model, noise, process.abar, times, generator=draws, predicts=process.predicts, bounds=bounds,
            variance="learned" if process.learned else "posterior",
        )  # fmt: skip


def pictures(process: NoiseProcess, x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` in [-1, 1], on the CPU, of what a sampler made."""
    return process.to_pixels(x.float()).clamp(-1, 1).cpu()


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
