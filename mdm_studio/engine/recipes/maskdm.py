"""MaskDM (Lei et al. 2023): predict the noise in the few patches that are shown; the others cost nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mdm_studio.diffusion.corruptions import T_MAX, add_noise
from mdm_studio.diffusion.schedules import ScheduleName
from mdm_studio.diffusion.token_masks import Masking, token_mask
from mdm_studio.diffusion.wavelet import haar, haar_bounds, inverse_haar
from mdm_studio.engine.recipes import Example, Place, Recipe
from mdm_studio.engine.recipes.ddpm import DDPM
from mdm_studio.errors import UsageError
from mdm_studio.nn.network import NetworkConfig
from mdm_studio.nn.uvit import UViTConfig, coefficients


@dataclass(frozen=True)
class MaskDM(Recipe):
    """Masked diffusion with a U-ViT: denoising score matching on the visible patches alone.

    Stage one hides most patches, which makes its steps cheap. Stage two starts from its weights and hides none (``ratio=0``),
    which is common denoising diffusion: after it the network can draw whole images.

    Attributes
    ----------
    masking : {"patch", "block", "crop"}
        Which patches are hidden together, see `mdm_studio.diffusion.token_masks`.
    ratio : float
        Share of the patches that is hidden in every image; 0 hides none.
    block : int
        Side of a block in patches, for block masking.
    schedule : {"cosine", "linear"}
        How noise grows with the timestep.
    patch : int
        Side of a patch, in pixels, or in coefficients with `wavelet`: that of the network.
    wavelet : bool
        Noise is added to Haar coefficients instead of pixels, as in the paper's high-resolution experiments: a property of the
        network.
    """

    network: ClassVar[str] = "uvit"
    # as published; the crop is what the smallest network takes a step of in a second on two cores
    defaults: ClassVar[Mapping[str, Any]] = {"betas": (0.99, 0.99), "weight_decay": 0.03, "crop": 64}
    predict: ClassVar[str] = "noise"

    masking: Masking = "patch"
    ratio: float = 0.9
    block: int = 4
    schedule: ScheduleName = "cosine"
    patch: int = 4
    wavelet: bool = False
    t_max: int = T_MAX

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise UsageError(f"the share of hidden patches is {self.ratio}; choose 0 to below 1, for example ratio=0.9")

    def for_network(self, network: NetworkConfig) -> Recipe:
        """The recipe with the patches and coefficients of this U-ViT."""
        return replace(self, patch=network.patch, wavelet=network.wavelet) if isinstance(network, UViTConfig) else self

    @property
    def abar(self) -> Tensor:
        """Signal share of every timestep, ``(T,)`` float64."""
        return self._noising.abar

    @property
    def feature_key(self) -> Mapping[str, Any]:
        """Schedule and noise."""
        return self._noising.feature_key

    @property
    def _noising(self) -> DDPM:
        return DDPM(schedule=self.schedule, t_max=self.t_max)

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> Example:
        """Add the noise of timestep t, then hide patches of the noisy image; the target is the noise.

        With `wavelet`, approximation and details each hide patches of their own; the first half of ``hidden`` is the former's.
        """
        clean = haar(x) if self.wavelet else x
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        seen = add_noise(clean, t, noise, self.abar)
        if not self.ratio:
            return Example(x, seen, noise, t, noise=noise)
        stride = self.patch * (2 if self.wavelet else 1)
        grid = x.shape[2] // stride, x.shape[3] // stride
        masks = [
            token_mask(self.masking, len(x), grid, self.ratio, generator, block=self.block)
            for _ in range(2 if self.wavelet else 1)
        ]
        hidden = torch.cat(masks, dim=1).to(x.device)
        return Example(x, self._greyed(seen, hidden), noise, t, hidden=hidden, noise=noise)

    def loss(self, prediction: Tensor, example: Example) -> Tensor:
        """Mean squared error over the visible patches; with `wavelet` that of the approximation plus that of the details."""
        errors = (prediction.float() - example.target.float()) ** 2
        shown = torch.ones_like(errors)
        if example.hidden is not None:
            shown = self._shown(example.hidden, errors).expand_as(errors)
        if not self.wavelet:
            return _mean_of(errors, shown)
        kinds, seen = coefficients(errors, errors.shape[1]), coefficients(shown, shown.shape[1])
        return _mean_of(kinds[0], seen[0]) + _mean_of(kinds[1], seen[1])

    def restored(self, prediction: Tensor, example: Example) -> Tensor:
        """The image that follows from the predicted noise where patches are visible, mid-grey elsewhere."""
        abar = self.abar.to(example.t.device)[example.t.long()][:, None, None, None]
        clean = (example.seen - (1 - abar).sqrt().to(prediction.dtype) * prediction) / abar.sqrt().to(prediction.dtype)
        clean = clean.clamp(*(torch.as_tensor(bound, device=clean.device) for bound in self.bounds(clean)))
        if example.hidden is not None:
            clean = self._greyed(clean, example.hidden)
        return self.to_pixels(clean).clamp(-1, 1)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Images of coefficients, with `wavelet`."""
        return inverse_haar(x) if self.wavelet else x

    def bounds(self, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Those of the coefficients, with `wavelet`."""
        return haar_bounds(x) if self.wavelet else (-1.0, 1.0)

    def feature_input(self, x: Tensor, t: int, places: Sequence[Place]) -> Tensor:
        """The image, or its coefficients, with the noise of timestep `t`, the same for all images; nothing is hidden."""
        return self._noising.feature_input(haar(x) if self.wavelet else x, t, places)

    def _shown(self, hidden: Tensor, like: Tensor) -> Tensor:
        """1 where a pixel or coefficient is visible, 0 elsewhere: ``(B, 1, H, W)``."""
        stride = self.patch * (2 if self.wavelet else 1)
        cells = (~hidden).view(len(hidden), -1, like.shape[2] // stride, like.shape[3] // stride).to(like.dtype)
        shown = cells.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)  # (B, kinds, H or H/2, W or W/2)
        if not self.wavelet:
            return shown
        return F.pixel_shuffle(torch.cat([shown[:, :1], shown[:, 1:].expand(-1, 3, -1, -1)], dim=1), 2)

    def _greyed(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Mid-grey, or its coefficients, in the place of hidden patches."""
        shown = self._shown(hidden, x)
        grey = haar(torch.zeros_like(x)) if self.wavelet else torch.zeros_like(x)
        return x * shown + grey * (1 - shown)


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over those of ``(B, C, H, W)`` where `chosen` is 1; ``(B,)``."""
    return (values * chosen).sum((1, 2, 3)) / chosen.sum((1, 2, 3))
