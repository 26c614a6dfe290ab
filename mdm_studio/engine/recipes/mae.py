"""Masked autoencoder (He et al. 2022): hide most patches for good, predict them, judge by the squared error there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from mdm_studio.diffusion.corruptions import hide_patches, patch_mask
from mdm_studio.engine.recipes import Example, Recipe
from mdm_studio.errors import UsageError
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.nn.network import NetworkConfig
from mdm_studio.nn.patches import from_patches, to_patches

_EPS = 1e-6  # beside a patch's variance, as published


@dataclass(frozen=True)
class MAE(Recipe):
    """Masked autoencoder: the same share of patches is hidden in every image; there are no timesteps.

    Attributes
    ----------
    ratio : float
        Share of the patches that is hidden.
    normalise : bool
        Compare patches brought to mean 0 and (unbiased) variance 1 each, which the paper found to give better features.
    patch : int
        Side of a patch in pixels: that of the network.
    """

    network: ClassVar[str] = "mae"
    defaults: ClassVar[Mapping[str, Any]] = {"betas": (0.9, 0.95), "weight_decay": 0.05}
    feature_timesteps: ClassVar[tuple[int, ...]] = (0,)
    cosine: ClassVar[bool] = True

    ratio: float = 0.75
    normalise: bool = True
    patch: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise UsageError(f"the share of hidden patches is {self.ratio}; choose one between 0 and 1, for example ratio=0.75")

    def for_network(self, network: NetworkConfig) -> Recipe:
        """The recipe with the patches of this network."""
        return replace(self, patch=network.patch) if isinstance(network, MAEConfig) else self

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> Example:
        """Hide patches at random, ``int(N (1 - ratio))`` stay; the target is every patch, ``(B, N, patch * patch * C)``."""
        n_patches = (x.shape[2] // self.patch) * (x.shape[3] // self.patch)
        n_hidden = n_patches - int(n_patches * (1 - self.ratio))
        if not 0 < n_hidden < n_patches:
            raise UsageError(
                f"of {n_patches} patches {n_hidden} would be hidden: some must be hidden and some stay; "
                "choose larger crops, smaller patches or another ratio"
            )
        ranks = torch.rand(len(x), n_patches, generator=generator)
        hidden = patch_mask(ranks, torch.full((len(x),), n_hidden)).to(x.device)
        target = to_patches(x, self.patch)
        if self.normalise:
            mean, spread = _moments(target)
            target = (target - mean) / spread
        return Example(x, hide_patches(x, hidden, self.patch), target, t, hidden=hidden)

    def loss(self, prediction: Tensor, example: Example) -> Tensor:
        """Mean squared error over the hidden patches."""
        if prediction.shape != example.target.shape:
            raise UsageError(
                f"the network predicts patches of shape {tuple(prediction.shape[1:])} and the recipe has "
                f"{tuple(example.target.shape[1:])}; give the recipe the patch of the network"
            )
        assert example.hidden is not None
        errors = (prediction.float() - example.target.float()).square().mean(2)  # (B, N)
        return (errors * example.hidden).sum(1) / example.hidden.sum(1)

    def restored(self, prediction: Tensor, example: Example) -> Tensor:
        """The image with what the network predicts in the hidden places.

        A network that predicts normalised patches knows nothing of their brightness and contrast, so these are lent by the
        image itself.
        """
        assert example.hidden is not None
        true = to_patches(example.image, self.patch)
        if self.normalise:
            mean, spread = _moments(true)
            prediction = prediction * spread + mean
        patches = torch.where(example.hidden[:, :, None], prediction.to(true.dtype), true)
        return from_patches(patches, self.patch, *example.image.shape[2:]).clamp(-1, 1)


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each patch, ``(B, N, 1)``."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + _EPS).sqrt()
