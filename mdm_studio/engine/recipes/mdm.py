"""MDM (Pan, Chen and Shi 2023): hide patches according to the timestep, restore the image, judge by SSIM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mdm_studio.diffusion.corruptions import T_MAX, Rounding, hide_patches, masked_patches, patch_mask
from mdm_studio.diffusion.objectives import ssim_loss


@dataclass(frozen=True)
class MDM:
    """Masked diffusion model.

    Attributes
    ----------
    patch : int
        Side of a hidden square in pixels; 8 in the paper.
    rounding : {"paper", "released"}
        How the number of hidden patches is rounded, see `masked_patches`.
    window : int
        Window of SSIM in pixels; 5 in the released code.
    """

    patch: int = 8
    rounding: Rounding = "paper"
    window: int = 5
    t_max: int = T_MAX

    def out_channels(self, in_channels: int) -> int:
        """Predict the image itself."""
        return in_channels

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Hide ``t / (T + 1)`` of the patches; the target is the whole image."""
        n_patches = (x.shape[2] // self.patch) * (x.shape[3] // self.patch)
        ranks = torch.rand(len(x), n_patches, generator=generator).to(x.device)
        hidden = patch_mask(ranks, masked_patches(t, n_patches, self.rounding, self.t_max))
        return hide_patches(x, hidden, self.patch), x

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """SSIM loss over all pixels, hidden or not."""
        return ssim_loss(prediction, target, self.window)

    def feature_input(self, x: Tensor, t: int) -> Tensor:
        """The image as it is: nothing hidden, though the network is told the timestep.

        Hiding patches at extraction, as the released code does with a new random mask at each call, makes predictions differ
        between calls and between neighbouring tiles.
        """
        return x
