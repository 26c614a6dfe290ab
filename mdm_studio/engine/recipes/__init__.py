"""Recipes of pretraining: what is hidden from the network, and how its answer is judged. One file each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from mdm_studio.nn.network import NetworkConfig


@dataclass(frozen=True)
class Example:
    """A batch as a recipe shows it to the network.

    Attributes
    ----------
    image : Tensor
        The images themselves, ``(B, C, H, W)`` in [-1, 1].
    seen : Tensor
        What the network sees, ``(B, C, H, W)``.
    target : Tensor
        What it should answer; the shape is the recipe's own.
    t : Tensor
        Timesteps, ``(B,)``.
    hidden : Tensor or None
        Patches that a network of tokens leaves out, ``(B, N)`` bool in raster order.
    noise : Tensor or None
        The noise in `seen`, where there is some.
    """

    image: Tensor
    seen: Tensor
    target: Tensor
    t: Tensor
    hidden: Tensor | None = None
    noise: Tensor | None = None


@dataclass(frozen=True)
class Place:
    """Where a window of an image lies: what is random must not differ between tiles that overlap.

    Attributes
    ----------
    row, col : int
        Its top left, in pixels of the working scale; negative in a mirrored border.
    image : int
        Names the image.
    """

    row: int = 0
    col: int = 0
    image: int = 0


@dataclass(frozen=True)
class Recipe:
    """What pretraining hides and how the loss is taken; the base of all recipes, itself one that trains nothing.

    A recipe is a frozen dataclass: its fields are its settings and must be JSON values.

    Attributes
    ----------
    network : str
        Kind of network that it trains, a name of ``mdm_studio.backbones``.
    defaults : mapping
        Fields of `mdm_studio.engine.pretrain.PretrainConfig` that it wants otherwise.
    cosine : bool
        Let the learning rate fall to 0 over the steps of a run, where their number is known.
    freezes_encoder : bool
        Of networks over an encoder of others: leave it as it is.
    feature_timesteps : tuple of int
        Timesteps that features are taken at unless a card says otherwise.
    t_max : int
        Number of timesteps T; training draws t from 0..T-1, features may be taken at 0..T. 0 where there are none.
    """

    network: ClassVar[str] = "unet"
    defaults: ClassVar[Mapping[str, Any]] = {}
    cosine: ClassVar[bool] = False
    freezes_encoder: ClassVar[bool] = False
    feature_timesteps: ClassVar[tuple[int, ...]] = (50,)

    t_max: int = 0

    @property
    def per_image(self) -> bool:
        """Whether what is seen of an image when features are taken depends on more than its window: `Place.image` is wanted."""
        return False

    @property
    def feature_key(self) -> Mapping[str, Any]:
        """Settings that change what is seen when features are taken: a part of the key of cached features."""
        return {}

    def for_network(self, network: NetworkConfig) -> Recipe:
        """The recipe for this network; what both know of, such as the size of a patch, is said by the network."""
        return self

    def out_channels(self, in_channels: int) -> int:
        """Channels that the network predicts for an image of `in_channels`."""
        return in_channels

    def draw_timesteps(self, n: int, generator: Generator) -> Tensor:
        """Timesteps to train `n` crops at, ``(n,)`` int64: uniform, or 0 where there are none."""
        return torch.randint(max(self.t_max, 1), (n,), generator=generator)

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> Example:
        """What the network sees and what it should answer, for images ``(B, C, H, W)`` at timesteps ``(B,)``."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, example: Example) -> Tensor:
        """Loss of each sample, ``(B,)``."""
        raise NotImplementedError

    def restored(self, prediction: Tensor, example: Example) -> Tensor:
        """The images that the network believes in, ``(B, C, H, W)`` in [-1, 1], for pictures."""
        return prediction

    def to_pixels(self, x: Tensor) -> Tensor:
        """What the network sees or draws as images in [-1, 1]; recipes that look at something else turn it back."""
        return x

    def bounds(self, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Lowest and highest value of what is drawn, for samplers."""
        return -1.0, 1.0

    def feature_input(self, x: Tensor, t: int, places: Sequence[Place]) -> Tensor:
        """What the network sees when features of ``(B, C, H, W)`` are taken at timestep `t`; one place for each of B."""
        return x


def seeded(*numbers: int) -> Generator:
    """A generator on the CPU that depends on `numbers` alone."""
    seed = 0
    for number in numbers:  # a linear congruential step each, so that (1, 2) and (2, 1) differ
        seed = (seed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(seed)
