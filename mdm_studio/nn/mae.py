"""Masked autoencoder (He et al. 2022): a vision transformer that sees some patches of an image and predicts the others.

Written from the paper; the keys and the order of the state dict are those of its published checkpoints. The encoder computes
the visible patches alone, which is what makes training cheap; a light decoder, used in pretraining only, sees a learned token
in the place of each hidden patch. Features are the outputs of encoder blocks with nothing hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from mdm_studio.errors import UsageError
from mdm_studio.nn.layers import NormStatistics
from mdm_studio.nn.network import Network, NetworkConfig
from mdm_studio.nn.patches import PatchEmbed, visible_patches
from mdm_studio.nn.vit_layers import ViTBlock
from mdm_studio.nn.windows import by_windows

_MOST_BLOCKS = 12  # read by default: the last 12 of 24 in Baranchuk et al. 2022 and Pan et al. 2023


@dataclass(frozen=True)
class MAEConfig(NetworkConfig):
    """Shape of a masked autoencoder.

    Attributes
    ----------
    image_size : int
        Side of the images it is trained on; positions are those of this size, larger images are read by windows.
    patch : int
        Side of a patch in pixels: the stride of its features. 8 in Pan et al. 2023; 16 in the MAE paper, at 224 pixels.
    dim, depth, heads
        Channels, blocks and attention heads of the encoder; channels in multiples of 32, as fast CPUs like them.
    decoder_dim, decoder_depth, decoder_heads
        Those of the decoder.
    eps
        Of every layer norm; 1e-6 in the published models.
    """

    image_size: int = 128
    patch: int = 8
    dim: int = 192
    depth: int = 8
    heads: int = 6
    decoder_dim: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 3
    mlp_ratio: float = 4.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.image_size % self.patch:
            raise UsageError(
                f"images of {self.image_size} pixels cannot be cut into patches of {self.patch}; choose a multiple of the patch"
            )
        for what, dim, heads in (("dim", self.dim, self.heads), ("decoder_dim", self.decoder_dim, self.decoder_heads)):
            if dim % heads or dim % 4:
                raise UsageError(f"{what} is {dim} with {heads} heads; it must be a multiple of the heads and of 4")

    @property
    def patches(self) -> int:
        """Patches of an image, N."""
        return (self.image_size // self.patch) ** 2

    @property
    def n_blocks(self) -> int:
        """Number of encoder blocks; 0 is the first."""
        return self.depth

    @property
    def total_stride(self) -> int:
        """Side of a patch."""
        return self.patch

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of a block's map: the same for all."""
        return self.dim, self.patch

    @property
    def default_blocks(self) -> tuple[int, ...]:
        """The last half of the encoder, 12 blocks at most."""
        return tuple(range(self.depth - min(max(self.depth // 2, 1), _MOST_BLOCKS), self.depth))

    @property
    def window(self) -> int:
        """Positions are those of the size it is trained on."""
        return self.image_size

    def for_crop(self, side: int) -> Self:
        """The same network for images of `side` pixels."""
        return replace(self, image_size=side)


SIZES: Mapping[str, MAEConfig] = {
    # trains on two CPU cores: 256 tokens of a crop of 128, of which 64 are computed
    "mae-tiny": MAEConfig(),
    # ViT-B and ViT-L at 256 pixels with patches of 8, and the decoder of the MAE paper: a GPU
    "mae-base": MAEConfig(
        image_size=256, dim=768, depth=12, heads=12, decoder_dim=512, decoder_depth=8, decoder_heads=16
    ),
    "mae-large": MAEConfig(
        image_size=256, dim=1024, depth=24, heads=16, decoder_dim=512, decoder_depth=8, decoder_heads=16
    ),
}


class MaskedAutoencoder(Network):
    """Masked autoencoder.

    Parameters
    ----------
    config : MAEConfig
        Shape of the network.
    """

    config_type: ClassVar[type[NetworkConfig]] = MAEConfig
    sizes: ClassVar[Mapping[str, NetworkConfig]] = SIZES
    config: MAEConfig

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        self.config = config
        side = config.image_size // config.patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(_positions(config.dim, side), requires_grad=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_dim))
        self.decoder_pos_embed = nn.Parameter(_positions(config.decoder_dim, side), requires_grad=False)
        self.patch_embed = PatchEmbed(config.in_channels, config.patch, config.dim)
        self.blocks = nn.ModuleList(
            ViTBlock(config.dim, config.heads, mlp_ratio=config.mlp_ratio, eps=config.eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.decoder_embed = nn.Linear(config.dim, config.decoder_dim)
        self.decoder_blocks = nn.ModuleList(
            ViTBlock(config.decoder_dim, config.decoder_heads, mlp_ratio=config.mlp_ratio, eps=config.eps)
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(config.decoder_dim, eps=config.eps)
        self.decoder_pred = nn.Linear(config.decoder_dim, config.patch**2 * config.out_channels)
        self._start()

    def _start(self) -> None:
        """Random start of the paper's appendix A.1: Xavier-uniform for all linear layers, the patch embedding among them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))  # a view: fills the weight itself
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, x: Tensor, timesteps: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Predict all patches ``(B, N, patch * patch * out_channels)`` of images ``(B, C, side, side)``, see `to_patches`.

        Parameters
        ----------
        timesteps : Tensor
            Not looked at: there are none here.
        hidden : (B, N) bool or None
            Patches that the encoder does not see, as many in every image of the batch; None hides nothing.

        Raises
        ------
        ValueError
            If the images have another size than ``config.image_size``, or rows of `hidden` another number of patches.
        """
        tokens = self._embedded(x)
        shown = None if hidden is None else visible_patches(hidden)
        if shown is not None:
            tokens = tokens.gather(1, shown[:, :, None].expand(-1, -1, tokens.shape[2]))
        for last in self._encode(tokens):
            h = last
        return self._decode(self.norm(h), shown)

    def features(
        self, x: Tensor, timesteps: Tensor, blocks: Collection[int], *, statistics: NormStatistics | None = None
    ) -> dict[int, Tensor]:
        """Outputs of encoder blocks with nothing hidden, before the final norm, ``{block: (B, dim, H/patch, W/patch)}``.

        Images of another size than it was trained on are read by windows, see `by_windows`. `statistics` has no meaning here:
        layer norms look at single tokens.
        """
        last, cells = max(blocks), self.config.image_size // self.config.patch

        def run(window: Tensor) -> dict[int, Tensor]:
            found: dict[int, Tensor] = {}
            for block, h in enumerate(self._encode(self._embedded(window))):
                if block in blocks:
                    found[block] = h[:, 1:].transpose(1, 2).reshape(len(h), -1, cells, cells)  # without the class token
                if block == last:
                    break
            return found

        return by_windows(x, self.config.image_size, self.config.patch, run)

    def _embedded(self, x: Tensor) -> Tensor:
        """Tokens of all patches with their positions, ``(B, N, dim)``."""
        side = self.config.image_size
        if x.shape[2:] != (side, side):
            raise ValueError(f"images of {x.shape[2]} x {x.shape[3]}: this network was made for {side} x {side}")
        tokens: Tensor = self.patch_embed(x) + self.pos_embed[:, 1:]
        return tokens

    def _encode(self, tokens: Tensor) -> Iterator[Tensor]:
        """Put the class token first and yield each encoder block's output, ``(B, 1 + n, dim)``, as it is computed."""
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        h = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            h = block(h)
            yield h

    def _decode(self, latent: Tensor, shown: Tensor | None) -> Tensor:
        """Predictions ``(B, N, p * p * C)`` from what the encoder made of the class token and of the patches `shown`."""
        h = self.decoder_embed(latent)  # (B, 1 + n, decoder_dim)
        if shown is not None:
            places = shown[:, :, None].expand(-1, -1, h.shape[2])
            everywhere = self.mask_token.to(h.dtype).repeat(len(h), self.config.patches, 1)
            h = torch.cat([h[:, :1], everywhere.scatter(1, places, h[:, 1:])], dim=1)
        h = h + self.decoder_pos_embed
        for block in self.decoder_blocks:
            h = block(h)
        out: Tensor = self.decoder_pred(self.decoder_norm(h))[:, 1:]
        return out


def _positions(dim: int, side: int) -> Tensor:
    """Fixed sine and cosine positions ``(1, 1 + side * side, dim)``: zero for the class token; then columns, then rows.

    Each axis has half of the channels, ``[sin | cos]`` of ``position / 10000^(2 i / (dim / 2))``.
    """
    quarter = dim // 4
    rates = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates  # (side, dim / 4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    across = axis[None].expand(side, -1, -1)  # (rows, columns, dim / 2)
    down = axis[:, None].expand(-1, side, -1)
    grid = torch.cat([across, down], dim=2).flatten(0, 1)  # (side * side, dim)
    return torch.cat([grid.new_zeros(1, dim), grid]).float()[None]
