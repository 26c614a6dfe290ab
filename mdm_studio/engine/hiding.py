"""How much of a picture is hidden from a backbone in its own way, and how well it restores what was hidden.

The network was trained to restore what its recipe hides, so there it knows its training images best, if it knows them at all.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mdm_studio.engine.backbones import Backbone
from mdm_studio.engine.recipes import Example, Recipe

_FLAT = 1e-3  # variance, in [-1, 1]: four grey levels of 256. A flatter picture is not divided by less


@dataclass(frozen=True)
class Hiding:
    """One way to hide: a recipe at a timestep; `words` says what is hidden."""

    words: str
    recipe: Recipe
    t: int


@dataclass(frozen=True)
class Restored:
    """What a backbone makes of pictures ``(B, C, H, W)``.

    Attributes
    ----------
    seen, image : (B, C, H, W)
        What it saw and what it made of it, in [-1, 1].
    judged : (B, 1, H, W) bool
        Pixels that it had to find out: hidden ones, or all of them under noise.
    error : (B,)
        Mean squared error there.
    variance : (B,)
        The true picture's variance there, what a guess of its mean colour would get.
    """

    seen: Tensor
    image: Tensor
    judged: Tensor
    error: Tensor
    variance: Tensor

    @property
    def relative(self) -> float:
        """Error over all of the pictures as a share of their variance: pictures that are hard for everybody count alike."""
        return float(self.error.mean() / (self.variance.mean() + _FLAT))


def hidings(recipe: Recipe, name: str, levels: tuple[float, ...]) -> list[Hiding]:
    """How `recipe` hides these shares of a picture; one way alone where it was trained at a single one.

    Parameters
    ----------
    name : str
        Of the recipe.
    levels : tuple of float
        Shares of the patches, or of the variance where noise is added.
    """
    fixed = int(getattr(recipe, "fixed_t", 0))
    abar = getattr(recipe, "abar", None)
    if isinstance(abar, Tensor):
        left_out = float(getattr(recipe, "ratio", 0.0))
        more = f", {left_out:.0%} of the patches left out" if left_out else ""
        times = [fixed] if fixed else [int((abar > 1 - level).sum().clamp(max=len(abar) - 1)) for level in levels]
        return [Hiding(f"noise, {1 - float(abar[t]):.0%} of the variance{more}", recipe, t) for t in times]
    if not recipe.t_max and hasattr(recipe, "ratio"):
        return [
            Hiding(f"{level:.0%} of the patches hidden", dataclasses.replace(recipe, ratio=level), 0)  # type: ignore[call-arg]
            for level in levels
        ]
    if not recipe.t_max:
        gamma = getattr(recipe, "gamma", None)
        return [Hiding("as in training" if gamma is None else f"noise, {1 - gamma:.0%} of the variance", recipe, 0)]
    times = [fixed] if fixed else [round(level * recipe.t_max) for level in levels]
    what = "of the patches hidden" if name == "mdm" else "of the timesteps"
    return [Hiding(f"{t / recipe.t_max:.0%} {what}", recipe, t) for t in times]


@torch.inference_mode()
def restore(backbone: Backbone, hiding: Hiding, x: Tensor, generator: Generator) -> Restored:
    """Hide parts of pictures ``(B, C, H, W)`` in [-1, 1] and let the backbone restore them; all of it comes back on the CPU."""
    t = torch.full((len(x),), hiding.t, device=backbone.device)
    example = hiding.recipe.corrupt(x.to(backbone.device), t, generator)
    prediction = backbone.predict(example.seen, example.t, example.hidden)
    image = hiding.recipe.restored(prediction, example).float().cpu()
    judged = _judged(example, x).cpu()
    weights = judged / judged.sum(dim=(2, 3), keepdim=True).clamp(min=1)  # (B, 1, H, W), sums to 1
    error = ((image - x) ** 2 * weights).sum(dim=(2, 3)).mean(dim=1)
    mean = (x * weights).sum(dim=(2, 3), keepdim=True)
    variance = ((x - mean) ** 2 * weights).sum(dim=(2, 3)).mean(dim=1)
    to_pixels = getattr(hiding.recipe, "to_pixels", lambda each: each)  # of coefficients
    return Restored(to_pixels(example.seen).float().clamp(-1, 1).cpu(), image, judged, error, variance)


def _judged(example: Example, x: Tensor) -> Tensor:
    """Pixels ``(B, 1, H, W)`` that the network had to find out."""
    if example.hidden is None:
        if example.noise is not None:
            return torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool)
        return (example.seen != example.image).any(dim=1, keepdim=True)
    hidden = _pixels(example.hidden, x.shape[2], x.shape[3])
    return hidden if example.noise is None else ~hidden  # under noise the patches left out are not predicted either


def _pixels(hidden: Tensor, height: int, width: int) -> Tensor:
    """Hidden patches ``(B, N)`` of square pictures as pixels; of two kinds of tokens at a place, either."""
    count = hidden.shape[1]
    side = math.isqrt(count)
    kinds = 1 if side * side == count else 2  # approximation and details of a wavelet transform
    side = math.isqrt(count // kinds)
    grid = hidden.view(len(hidden), kinds, side, side).any(dim=1, keepdim=True)
    return F.interpolate(grid.float(), size=(height, width), mode="nearest") > 0
