"""MDM (Pan, Chen and Shi 2023): hide patches according to the timestep, restore the image, judge by SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from mdm_studio.diffusion.corruptions import T_MAX, Rounding, hide_patches, masked_patches, patch_mask
from mdm_studio.diffusion.objectives import mse_loss, ssim_loss
from mdm_studio.engine.recipes import Example, Recipe

Objective = Literal["ssim", "mse"]


@dataclass(frozen=True)
class MDM(Recipe):
    """Masked diffusion model: restores hidden patches.

    Features are taken of the whole image: nothing hidden, though the network is told the timestep. Hiding patches then, as the
    released code does with a new random mask at each call, makes predictions differ between calls and between neighbouring
    tiles.

    Attributes
    ----------
    patch : int
        Side of a hidden square in pixels; 8 in the paper, 4 and 16 in its table 7.
    rounding : {"paper", "released"}
        How the number of hidden patches is rounded, see `masked_patches`.
    window : int
        Window of SSIM in pixels; 5 in the released code.
    objective : {"ssim", "mse"}
        How restored and true image are compared; table 4 of the paper has both.
    fixed_t : int
        Train at this timestep alone, the "vanilla" variant of table 3; 0 draws it anew for each crop.
    """

    patch: int = 8
    rounding: Rounding = "paper"
    window: int = 5
    t_max: int = T_MAX
    objective: Objective = "ssim"
    fixed_t: int = 0

    def draw_timesteps(self, n: int, generator: Generator) -> Tensor:
        """Uniform over 0..T-1, or the fixed one."""
        return torch.full((n,), self.fixed_t) if self.fixed_t else super().draw_timesteps(n, generator)

    def corrupt(self, x: Tensor, t: Tensor, generator: Generator) -> Example:
        """Hide ``t / (T + 1)`` of the patches; the target is the whole image."""
        n_patches = (x.shape[2] // self.patch) * (x.shape[3] // self.patch)
        ranks = torch.rand(len(x), n_patches, generator=generator).to(x.device)
        hidden = patch_mask(ranks, masked_patches(t, n_patches, self.rounding, self.t_max))
        return Example(x, hide_patches(x, hidden, self.patch), x, t)

    def loss(self, prediction: Tensor, example: Example) -> Tensor:
        """Over all pixels, hidden or not."""
        if self.objective == "ssim":
            return ssim_loss(prediction, example.target, self.window)
        return mse_loss(prediction, example.target)
