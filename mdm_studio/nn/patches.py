"""Images as rows of patches, in raster order: what networks of tokens read and predict."""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """One token a patch."""

    def __init__(self, channels: int, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """From ``(B, C, H, W)`` to ``(B, N, dim)`` in raster order."""
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


def to_patches(x: Tensor, patch: int) -> Tensor:
    """Cut images ``(B, C, H, W)`` into ``(B, N, patch * patch * C)``: raster order; in a patch rows, columns, channels."""
    b, c, height, width = x.shape
    cut = x.reshape(b, c, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)  # (B, h, w, p, p, C)


def from_patches(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Images ``(B, C, H, W)`` of patches: the inverse of `to_patches`."""
    grid = patches.reshape(len(patches), height // patch, width // patch, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, height, width)


def visible_patches(hidden: Tensor) -> Tensor:
    """Indices ``(B, n)`` of the patches that are not hidden, ascending, from ``(B, N)`` bool.

    Raises
    ------
    ValueError
        If the images of the batch do not hide equally many.
    """
    counts = (~hidden).sum(1)
    if (counts != counts[0]).any():
        raise ValueError(f"a batch must hide equally many patches of every image, not all but {counts.tolist()}")
    return (~hidden).nonzero()[:, 1].view(len(hidden), -1)
