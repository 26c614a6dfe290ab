"""Which patches MaskDM hides (Lei et al. 2023, section 3): single ones, blocks of them, or all but a square.

Each function makes the masks of a whole batch, ``(B, rows * cols)`` bool in raster order, True = hidden, as many in every row.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from mdm_studio.diffusion.corruptions import patch_mask
from mdm_studio.errors import UsageError

Masking = Literal["patch", "block", "crop"]


def token_mask(
    masking: Masking, n: int, grid: tuple[int, int], ratio: float, generator: Generator, *, block: int = 4
) -> Tensor:
    """Masks for `n` images of ``(rows, cols)`` patches.

    Parameters
    ----------
    ratio : float
        Share of the patches that is hidden, rounded as by each kind of masking.
    block : int
        Side of a block in patches, for block masking.

    Raises
    ------
    UsageError
        If nothing would stay visible, or the blocks do not tile the grid.
    """
    if not 0 <= ratio < 1:
        raise UsageError(f"the share of hidden patches is {ratio}; choose one from 0 to below 1, for example ratio=0.9")
    if masking == "patch":
        return patch_masks(n, grid, ratio, generator)
    return block_masks(n, grid, ratio, generator, block) if masking == "block" else crop_masks(n, grid, ratio, generator)


def patch_masks(n: int, grid: tuple[int, int], ratio: float, generator: Generator) -> Tensor:
    """Hide ``int(ratio N)`` of the N patches, wherever they are."""
    total = grid[0] * grid[1]
    ranks = torch.rand(n, total, generator=generator)
    return patch_mask(ranks, torch.full((n,), int(ratio * total)))


def block_masks(n: int, grid: tuple[int, int], ratio: float, generator: Generator, block: int) -> Tensor:
    """Hide ``int(ratio N) // block^2`` squares of ``block x block`` patches that do not overlap."""
    rows, cols = grid
    if rows % block or cols % block:
        raise UsageError(
            f"{rows} x {cols} patches cannot be cut into blocks of {block} x {block}; choose another block or size of crops"
        )
    coarse = rows // block, cols // block
    ranks = torch.rand(n, coarse[0] * coarse[1], generator=generator)
    blocks = patch_mask(ranks, torch.full((n,), int(ratio * rows * cols) // block**2)).view(n, *coarse)
    return blocks.repeat_interleave(block, 1).repeat_interleave(block, 2).flatten(1)


def crop_masks(n: int, grid: tuple[int, int], ratio: float, generator: Generator) -> Tensor:
    """Hide all but a rectangle of the grid's proportions, ``int(side sqrt(1 - ratio))`` patches a side, placed at random."""
    seen = []
    for side in grid:
        shown = max(int(side * (1 - ratio) ** 0.5), 1)
        first = torch.randint(side - shown + 1, (n, 1), generator=generator)
        places = torch.arange(side)
        seen.append((places >= first) & (places < first + shown))  # (n, side)
    return ~(seen[0][:, :, None] & seen[1][:, None, :]).flatten(1)
