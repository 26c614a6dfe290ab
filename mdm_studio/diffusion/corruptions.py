"""What pretraining hides: patches of the image (MDM) or noise over it (DDPM). Each is a function of the timestep."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

T_MAX = 1000
"""Number of timesteps T; t runs from 0 (nothing hidden) to T - 1 in training."""

Rounding = Literal["paper", "released"]


def masked_patches(t: Tensor, n_patches: int, rounding: Rounding = "paper", t_max: int = T_MAX) -> Tensor:
    """How many of `n_patches` patches are hidden at timesteps `t`; int64, the shape of `t`.

    ``paper``: ``floor(n t / (T + 1))`` (Pan et al. 2023, section 3.2). ``released``: the authors' code keeps
    ``int(n (1 - t / T))`` patches, which hides up to one patch more (52 of 1024 at t = 50, where the paper hides 51).
    """
    if rounding == "paper":
        return t.long() * n_patches // (t_max + 1)
    return n_patches - (n_patches * (1 - t.double() / t_max)).long()


def patch_mask(ranks: Tensor, n_masked: Tensor) -> Tensor:
    """Choose patches to hide: those with the largest noise.

    Parameters
    ----------
    ranks : (B, N) float
        Independent noise, one value a patch.
    n_masked : (B,) int
        Patches to hide in each image.

    Returns
    -------
    (B, N) bool
        True = hidden; row ``b`` holds exactly ``n_masked[b]`` of them.
    """
    order = ranks.argsort(dim=1).argsort(dim=1)  # (B, N): 0 = smallest noise
    return order >= ranks.shape[1] - n_masked[:, None]


def hide_patches(x: Tensor, hidden: Tensor, patch: int) -> Tensor:
    """Set the hidden patches of ``(B, C, H, W)`` to 0 (mid-grey).

    Parameters
    ----------
    hidden : (B, N) bool
        In raster order of the ``H / patch`` by ``W / patch`` grid.

    Raises
    ------
    ValueError
        If H or W is no multiple of `patch`.
    """
    height, width = x.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(
            f"an image of {height} x {width} cannot be cut into patches of {patch} x {patch}; crop or pad it first"
        )
    grid = hidden.reshape(-1, 1, height // patch, width // patch)  # (B, 1, h, w)
    keep = ~grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)  # (B, 1, H, W)
    return x * keep


def add_noise(x: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Forward process of DDPM, ``sqrt(abar_t) x + sqrt(1 - abar_t) noise`` (Ho et al. 2020, equation 4).

    `x` and `noise` are ``(B, C, H, W)``, `t` is ``(B,)`` in 0..T-1, `alphas_cumprod` is ``(T,)`` float64.
    """
    abar = alphas_cumprod.to(t.device)[t.long()][:, None, None, None]
    signal, spread = abar.sqrt().to(x.dtype), (1 - abar).sqrt().to(x.dtype)
    return signal * x + spread * noise
