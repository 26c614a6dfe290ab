"""Denoising pretraining (Brempong et al. 2022): predict the noise in a picture; DDeP trains the decoder alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from mdm_studio.diffusion.objectives import mse_loss
from mdm_studio.engine.recipes import Example, Recipe
from mdm_studio.errors import UsageError


@dataclass(frozen=True)
class DeP(Recipe):
    """Denoising pretraining of encoder and decoder.

    The picture is scaled as in diffusion, ``sqrt(g) x + sqrt(1 - g) eps``, so that its variance stays, and the network answers
    with eps; judged by the mean squared error. There is one amount of noise, and features are taken of the picture without any.

    Attributes
    ----------
    gamma : float
        Part of the picture's variance; 0.95 in table 4 of the paper, between 0 and 1.
    """

    network: ClassVar[str] = "denoiser"
    # Adam without weight decay, cosine, as in the paper; its 6e-5 to 1e-4 are for 100 epochs, our usual 3e-4 for short runs
    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4, "weight_decay": 0.0}
    cosine: ClassVar[bool] = True
    feature_timesteps: ClassVar[tuple[int, ...]] = (0,)
    freezes_encoder: ClassVar[bool] = False

    gamma: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise UsageError(f"gamma {self.gamma} is the picture's part of the variance: it lies between 0 and 1")

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> Example:
        """Add noise; the target is the noise."""
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        seen = math.sqrt(self.gamma) * x + math.sqrt(1 - self.gamma) * noise
        return Example(x, seen, noise, t, noise=noise)

    def loss(self, prediction: Tensor, example: Example) -> Tensor:
        """Mean squared error of the noise."""
        return mse_loss(prediction, example.target)

    def restored(self, prediction: Tensor, example: Example) -> Tensor:
        """The picture without the noise that the network sees in it."""
        clean = (example.seen - math.sqrt(1 - self.gamma) * prediction) / math.sqrt(self.gamma)
        return clean.clamp(-1, 1)


@dataclass(frozen=True)
class DDeP(DeP):
    """Decoder denoising pretraining: as DeP, with an encoder that somebody has trained, and that stays as it is."""

    freezes_encoder: ClassVar[bool] = True
