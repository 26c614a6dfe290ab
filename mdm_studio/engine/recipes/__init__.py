"""Recipes of pretraining: what is hidden from the network, and how its answer is judged. One file each."""

from __future__ import annotations

from typing import Protocol

from torch import Generator, Tensor


class Recipe(Protocol):
    """What pretraining hides and how the loss is taken.

    A recipe is a frozen dataclass: its fields are its settings and must be JSON values.
    """

    @property
    def t_max(self) -> int:
        """Number of timesteps T; training draws t from 0..T-1."""
        ...

    def out_channels(self, in_channels: int) -> int:
        """Channels that the network predicts for an image of `in_channels`."""
        ...

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """What the network sees and what it should answer, for images ``(B, C, H, W)`` at timesteps ``(B,)``."""
        ...

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, ``(B,)``."""
        ...

    def feature_input(self, x: Tensor, t: int) -> Tensor:
        """What the network sees when features of ``(B, C, H, W)`` are taken at timestep `t`."""
        ...
