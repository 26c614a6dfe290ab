"""DDPM (Ho et al. 2020; the backbones of Baranchuk et al. 2022): predict the noise that was added to an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from mdm_studio.diffusion.corruptions import T_MAX, add_noise
from mdm_studio.diffusion.objectives import hybrid_loss, mse_loss, ssim_loss
from mdm_studio.diffusion.schedules import ScheduleName, alphas_cumprod, betas
from mdm_studio.engine.recipes import Example, Place, Recipe, seeded
from mdm_studio.errors import UsageError

_FIELD = 256  # side of the square of noise that is repeated over an image: one of it is what the released code uses
_schedule = cache(alphas_cumprod)
_betas = cache(betas)


@dataclass(frozen=True)
class DDPM(Recipe):
    """Denoising diffusion: predicts the noise in an image.

    Attributes
    ----------
    schedule : {"linear", "cosine"}
        How noise grows with the timestep.
    predict : {"noise", "image"}
        What the network answers; table 4 of Pan et al. 2023 has both.
    objective : {"mse", "ssim"}
        How the answer is judged; SSIM needs ``predict="image"``.
    learn_sigma : bool
        Predict the variance of the reverse step too (Nichol and Dhariwal 2021, equations 15 and 16): twice the channels.
    fixed_t : int
        Train at this timestep alone, the "vanilla" variant of Pan et al., table 3; 0 draws it anew for each crop.
    noise : {"fixed", "per-timestep", "fresh"}
        Of the noise in what is seen when features are taken: the same for all images and timesteps (as published), for all
        images but another for each timestep, or one of each image's own. All repeat from call to call and agree where
        tiles overlap.
    noise_seed : int
        Seed of that noise.
    """

    schedule: ScheduleName = "linear"
    predict: Literal["noise", "image"] = "noise"
    objective: Literal["mse", "ssim"] = "mse"
    learn_sigma: bool = False
    fixed_t: int = 0
    noise: Literal["fixed", "per-timestep", "fresh"] = "fixed"
    noise_seed: int = 0
    t_max: int = T_MAX

    def __post_init__(self) -> None:
        if self.predict == "noise" and self.objective == "ssim":
            raise UsageError("SSIM compares images and this recipe predicts noise; choose predict=image or objective=mse")
        if self.learn_sigma and self.predict == "image":
            raise UsageError("a learned variance goes with predicted noise; choose predict=noise or learn_sigma=false")

    @property
    def per_image(self) -> bool:
        """Fresh noise is that of the image."""
        return self.noise == "fresh"

    @property
    def feature_key(self) -> Mapping[str, Any]:
        """Schedule and noise."""
        return {"schedule": self.schedule, "t_max": self.t_max, "noise": self.noise, "noise_seed": self.noise_seed}

    def out_channels(self, in_channels: int) -> int:
        """Noise or image, and as many channels of variance if that is learned."""
        return in_channels * (2 if self.learn_sigma else 1)

    def draw_timesteps(self, n: int, generator: Generator) -> Tensor:
        """Uniform over 0..T-1, or the fixed one."""
        return torch.full((n,), self.fixed_t) if self.fixed_t else super().draw_timesteps(n, generator)

    @property
    def abar(self) -> Tensor:
        """Signal share of every timestep, ``(T,)`` float64."""
        return _schedule(self.schedule, self.t_max)

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> Example:
        """Add the noise of timestep t; the target is the noise, or the image."""
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        seen = add_noise(x, t, noise, self.abar)
        return Example(x, seen, noise if self.predict == "noise" else x, t, noise=noise)

    def loss(self, prediction: Tensor, example: Example) -> Tensor:
        """Simple loss of Ho et al. 2020 (equation 14), or the hybrid one."""
        if self.objective == "ssim":
            return ssim_loss(prediction, example.target)
        if self.learn_sigma:
            assert example.noise is not None
            variances = _betas(self.schedule, self.t_max)
            return hybrid_loss(prediction, example.image, example.seen, example.t, example.noise, variances)
        return mse_loss(prediction, example.target)

    def restored(self, prediction: Tensor, example: Example) -> Tensor:
        """The image that follows from the predicted noise (Ho et al. 2020, equation 15)."""
        if self.predict == "image":
            return prediction.clamp(-1, 1)
        noise = prediction[:, : example.image.shape[1]]
        abar = self.abar.to(example.t.device)[example.t.long()][:, None, None, None]
        image = (example.seen - (1 - abar).sqrt().to(noise.dtype) * noise) / abar.sqrt().to(noise.dtype)
        return image.clamp(-1, 1)

    def feature_input(self, x: Tensor, t: int, places: Sequence[Place]) -> Tensor:
        """The image with the noise of timestep `t`; t = T is taken as T - 1."""
        step = min(t, self.t_max - 1)
        noise = torch.stack([self._noise_at(place, step, x) for place in places])
        return add_noise(x, torch.full((len(x),), step, device=x.device), noise.to(x.device, x.dtype), self.abar)

    def _noise_at(self, place: Place, t: int, like: Tensor) -> Tensor:
        """Noise ``(C, H, W)`` of a window: a square repeated over the image, so that overlapping tiles see the same."""
        key = {"fixed": (), "per-timestep": (t,), "fresh": (t, place.image)}[self.noise]
        generator = seeded(self.noise_seed, *key) if key else torch.Generator().manual_seed(self.noise_seed)
        square = torch.randn(1, like.shape[1], _FIELD, _FIELD, generator=generator)[0]  # (C, 256, 256)
        rows = torch.arange(place.row, place.row + like.shape[2]) % _FIELD
        cols = torch.arange(place.col, place.col + like.shape[3]) % _FIELD
        return square[:, rows][:, :, cols]
