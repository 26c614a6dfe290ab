"""U-ViT (Bao et al. 2023) as MaskDM (Lei et al. 2023) trains it: a transformer with long skips whose hidden tokens are dropped.

The time is a token of its own; the first half of the blocks hands its outputs to the second half, last in first out. Hidden
patches are taken out before the first block, so they cost nothing. Keys and order of the state dict are those of MaskDM's
checkpoints.

With ``wavelet`` the network reads and predicts Haar coefficients, interleaved as by `mdm_studio.diffusion.wavelet.haar`: two
kinds of tokens, approximation and details, with an embedding and a head each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm_studio.errors import UsageError
from mdm_studio.nn.layers import NormStatistics, timestep_embedding
from mdm_studio.nn.network import Network, NetworkConfig
from mdm_studio.nn.patches import PatchEmbed, from_patches, visible_patches
from mdm_studio.nn.vit_layers import ViTBlock
from mdm_studio.nn.windows import by_windows

_EPS = 1e-5  # of every layer norm, as in the released code
_EXTRAS = 1  # tokens before the patches: the time
_START = 0.02  # standard deviation of fresh weights


@dataclass(frozen=True)
class UViTConfig(NetworkConfig):
    """Shape of a U-ViT.

    Attributes
    ----------
    image_size : int
        Side of the images it is trained on; positions are those of this size, larger images are read by windows.
    patch : int
        Side of a patch, in pixels, or in coefficients of one kind with `wavelet`.
    dim, heads
        Channels and attention heads; channels in multiples of 32, as fast CPUs like them.
    depth : int
        As the papers count it: ``depth // 2`` blocks before the middle one and as many after it; 12 and 13 both make 13 blocks.
    wavelet : bool
        Read and predict Haar coefficients: a quarter of the tokens an image, twice, for the same patch.
    """

    image_size: int = 64
    patch: int = 4
    dim: int = 192
    depth: int = 8
    heads: int = 6
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    wavelet: bool = False

    def __post_init__(self) -> None:
        if self.image_size % self.total_stride:
            raise UsageError(
                f"images of {self.image_size} pixels cannot be cut into patches of {self.total_stride}; "
                "choose a multiple of the patch"
            )
        if self.dim % self.heads or self.dim % 2 or self.depth < 2:
            raise UsageError(
                f"{self.dim} channels, {self.heads} heads, depth {self.depth}: channels must be even and a multiple of the "
                "heads, the depth 2 or more"
            )
        if self.in_channels != self.out_channels:
            raise UsageError(f"a U-ViT predicts what it reads: {self.in_channels} channels, not {self.out_channels}")

    @property
    def grid(self) -> int:
        """Patches of one kind along a side."""
        return self.image_size // self.total_stride

    @property
    def patches(self) -> int:
        """Tokens of an image, N, the time not counted: the approximation's first, then the details', with `wavelet`."""
        return self.grid**2 * (2 if self.wavelet else 1)

    @property
    def n_blocks(self) -> int:
        """Number of blocks; 0 is the first."""
        return 2 * (self.depth // 2) + 1

    @property
    def total_stride(self) -> int:
        """Side of a patch in pixels."""
        return self.patch * (2 if self.wavelet else 1)

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of a block's map: the same for all; with `wavelet` the tokens of both kinds side by side."""
        return self.dim * (2 if self.wavelet else 1), self.total_stride

    @property
    def window(self) -> int:
        """Positions are those of the size it is trained on."""
        return self.image_size

    def for_crop(self, side: int) -> Self:
        """The same network for images of `side` pixels."""
        return replace(self, image_size=side)


_LARGE = UViTConfig(image_size=256, dim=1024, depth=16, heads=16)

SIZES: Mapping[str, UViTConfig] = {
    # trains on two CPU cores: 256 tokens of a crop of 64
    "uvit-tiny": UViTConfig(),
    "uvit-tiny-wavelet": UViTConfig(wavelet=True, qkv_bias=True),
    # MaskDM's S, B and L at 256 pixels; the paper trains S at 64, so with --crop 64
    "maskdm-s": UViTConfig(image_size=256, dim=512, depth=13, heads=8),
    "maskdm-b": UViTConfig(image_size=256, dim=768, depth=12, heads=12),
    "maskdm-l": _LARGE,
    # its high-resolution experiments
    "maskdm-l-wavelet": replace(_LARGE, wavelet=True, qkv_bias=True),
}


class _Block(ViTBlock):
    """Transformer block; one of the second half first takes in what its partner of the first half handed over."""

    def __init__(self, config: UViTConfig, *, skip: bool = False) -> None:
        super().__init__(config.dim, config.heads, mlp_ratio=config.mlp_ratio, qkv_bias=config.qkv_bias, eps=_EPS)
        self.skip_linear = nn.Linear(2 * config.dim, config.dim) if skip else None

    def forward(self, x: Tensor, handed: Tensor | None = None) -> Tensor:
        """Keep the shape of ``(B, T, C)``; `handed` has the same."""
        if self.skip_linear is not None and handed is not None:
            x = self.skip_linear(torch.cat([x, handed], dim=2))
        return super().forward(x)


class _Trunk(nn.Module):
    """Embedding, positions and blocks."""

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.encoder_pos_embed = nn.Parameter(torch.zeros(1, _EXTRAS + config.patches, config.dim))
        if config.wavelet:
            self.approx_patch_embed = PatchEmbed(config.in_channels, config.patch, config.dim)
            self.detail_patch_embed = PatchEmbed(3 * config.in_channels, config.patch, config.dim)
        else:
            self.patch_embed = PatchEmbed(config.in_channels, config.patch, config.dim)
        self.in_blocks = nn.ModuleList(_Block(config) for _ in range(config.depth // 2))
        self.mid_block = _Block(config)
        self.out_blocks = nn.ModuleList(_Block(config, skip=True) for _ in range(config.depth // 2))
        self.norm = nn.LayerNorm(config.dim, eps=_EPS)
        self.config = config

    def embedded(self, x: Tensor, timesteps: Tensor, shown: Tensor | None) -> Tensor:
        """Tokens with their positions, the time first, ``(B, 1 + n, dim)``; of the patches `shown` ``(B, n)`` if given."""
        if self.config.wavelet:
            approximation, details = coefficients(x, self.config.in_channels)
            tokens = torch.cat([self.approx_patch_embed(approximation), self.detail_patch_embed(details)], dim=1)
        else:
            tokens = self.patch_embed(x)
        tokens = tokens + self.encoder_pos_embed[:, _EXTRAS:]
        if shown is not None:
            tokens = tokens.gather(1, shown[:, :, None].expand(-1, -1, tokens.shape[2]))
        time = timestep_embedding(timesteps, self.config.dim)[:, None] + self.encoder_pos_embed[:, :_EXTRAS]
        return torch.cat([time.to(tokens.dtype), tokens], dim=1)

    def blocks(self, h: Tensor) -> Iterator[Tensor]:
        """Yield each block's output ``(B, 1 + n, dim)`` as it is computed."""
        handed: list[Tensor] = []
        for block in self.in_blocks:
            h = block(h)
            handed.append(h)
            yield h
        h = self.mid_block(h)
        yield h
        for block in self.out_blocks:
            h = block(h, handed.pop())
            yield h


class UViT(Network):
    """U-ViT.

    Parameters
    ----------
    config : UViTConfig
        Shape of the network.
    """

    config_type: ClassVar[type[NetworkConfig]] = UViTConfig
    sizes: ClassVar[Mapping[str, NetworkConfig]] = SIZES
    config: UViTConfig

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Trunk(config)
        values = config.patch**2 * config.out_channels
        if config.wavelet:
            self.approx_to_output = nn.Linear(config.dim, values)
            self.detail_to_output = nn.Linear(config.dim, 3 * values)
        else:
            self.encoder_to_output = nn.Linear(config.dim, values)
        self._start()

    def _start(self) -> None:
        """Truncated normal weights, biases 0; PyTorch's own start for the patch embedding, as in the released code."""
        nn.init.trunc_normal_(self.encoder.encoder_pos_embed, std=_START)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_START)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, timesteps: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Predict ``(B, C, side, side)`` from as much, at ``(B,)`` timesteps.

        Parameters
        ----------
        hidden : (B, N) bool or None
            Patches that are neither seen nor predicted, as many in every image of the batch; the prediction is 0 there.

        Raises
        ------
        ValueError
            If the images have another size than ``config.image_size``, or `hidden` does not fit.
        """
        side = self.config.image_size
        if x.shape[2:] != (side, side):
            raise ValueError(f"images of {x.shape[2]} x {x.shape[3]}: this network was made for {side} x {side}")
        shown = None if hidden is None else self._visible(hidden)
        for last in self.encoder.blocks(self.encoder.embedded(x, timesteps, shown)):
            h = last
        h = self.encoder.norm(h)[:, _EXTRAS:]  # (B, n, dim)
        if not self.config.wavelet:
            return self._image(self.encoder_to_output(h), shown)
        return self._interleaved(h, shown)

    def features(
        self, x: Tensor, timesteps: Tensor, blocks: Collection[int], *, statistics: NormStatistics | None = None
    ) -> dict[int, Tensor]:
        """Outputs of blocks with nothing hidden, ``{block: (B, C_b, H/s, W/s)}``; no block after the last one asked for is run.

        Images of another size than it was trained on are read by windows, see `by_windows`. `statistics` has no meaning here:
        layer norms look at single tokens.
        """
        config, last = self.config, max(blocks)

        def run(window: Tensor) -> dict[int, Tensor]:
            found: dict[int, Tensor] = {}
            tokens = self.encoder.embedded(window, timesteps.repeat(len(window) // len(x)), None)
            for block, h in enumerate(self.encoder.blocks(tokens)):
                if block in blocks:
                    maps = h[:, _EXTRAS:].reshape(len(h), -1, config.grid, config.grid, config.dim)  # (B, kinds, h, w, dim)
                    found[block] = maps.permute(0, 1, 4, 2, 3).flatten(1, 2)
                if block == last:
                    break
            return found

        return by_windows(x, config.image_size, config.total_stride, run)

    def _image(self, answers: Tensor, shown: Tensor | None, side: int = 0) -> Tensor:
        """Images ``(B, C, side, side)`` of the answers ``(B, n, p * p * C)`` for the patches `shown`; 0 elsewhere."""
        side = side or self.config.image_size
        if shown is not None:
            everywhere = answers.new_zeros(len(answers), self.config.grid**2, answers.shape[2])
            answers = everywhere.scatter(1, shown[:, :, None].expand_as(answers), answers)
        return from_patches(answers, self.config.patch, side, side)

    def _visible(self, hidden: Tensor) -> Tensor:
        """Indices ``(B, n)`` of the visible patches; of each kind as many in every image."""
        each = self.config.grid**2
        if hidden.shape[1] != self.config.patches:
            raise ValueError(f"a mask of {hidden.shape[1]} patches: images of this network have {self.config.patches}")
        firsts = range(0, hidden.shape[1], each)
        return torch.cat([visible_patches(hidden[:, first : first + each]) + first for first in firsts], dim=1)

    def _interleaved(self, h: Tensor, shown: Tensor | None) -> Tensor:
        """Coefficients in the place of pixels, from tokens of both kinds; the approximation's come first."""
        each, side = self.config.grid**2, self.config.image_size // 2
        first = each if shown is None else int((shown[0] < each).sum())
        kinds = (None, None) if shown is None else (shown[:, :first], shown[:, first:] - each)
        approximation = self._image(self.approx_to_output(h[:, :first]), kinds[0], side)
        details = self._image(self.detail_to_output(h[:, first:]), kinds[1], side)
        return interleaved(approximation, details)


def coefficients(x: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Approximation ``(B, C, H/2, W/2)`` and details ``(B, 3C, H/2, W/2)`` of interleaved coefficients ``(B, C, H, W)``.

    The details are all channels' horizontal ones, then the vertical, then the diagonal.
    """
    b, _, height, width = x.shape
    squares = F.pixel_unshuffle(x, 2).reshape(b, channels, 4, height // 2, width // 2)
    kinds = squares.transpose(1, 2).flatten(1, 2)  # (B, 4C, H/2, W/2)
    return kinds[:, :channels], kinds[:, channels:]


def interleaved(approximation: Tensor, details: Tensor) -> Tensor:
    """Inverse of `coefficients`."""
    b, channels, height, width = approximation.shape
    kinds = torch.cat([approximation, details], dim=1).reshape(b, 4, channels, height, width)
    return F.pixel_shuffle(kinds.transpose(1, 2).flatten(1, 2), 2)
