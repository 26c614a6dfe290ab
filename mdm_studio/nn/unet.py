"""The ADM UNet (Dhariwal and Nichol 2021), key for key the one behind the papers' checkpoints.

Every option that changes the state dict or the numbers is here, so that weights of guided-diffusion, ddpm-segmentation
(Baranchuk et al. 2022) and MDM (Pan et al. 2023) load as they are. Two things are ours: an optional pixel-unshuffle stem for
small networks, and `UNet.features`, which runs the decoder only as deep as the blocks asked for.

Decoder blocks are numbered 0 (deepest) to ``n_blocks - 1`` (shallowest), as in the papers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm_studio.nn.layers import GroupNorm, NormStatistics, convolve_doubled, timestep_embedding, zero_init
from mdm_studio.nn.network import Network, NetworkConfig


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Shape of an ADM UNet.

    Attributes
    ----------
    model_channels, channel_mult
        Channels of level ``l`` are ``model_channels * channel_mult[l]``; multiples of 32, because other counts fall off the
        fast bfloat16 convolutions of CPUs.
    attention_ds
        Downsampling factors (after the stem) at which residual blocks are followed by self-attention.
    num_heads, num_head_channels
        Attention heads, or channels of one head when `num_head_channels` is not -1.
    new_attention_order
        Split queries, keys and values before the heads; released ADM weights need False.
    stem
        Pixel-unshuffle factor before the first convolution (and its inverse after the last); 1 in the papers.
    norm_groups
        Groups of every group norm; 32 in the papers.
    """

    model_channels: int = 64
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_ds: tuple[int, ...] = ()
    middle_attention: bool = True
    num_heads: int = 1
    num_head_channels: int = 64
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    new_attention_order: bool = False
    num_classes: int | None = None
    dropout: float = 0.0
    stem: int = 1
    norm_groups: int = 32

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        return len(self.channel_mult) * (self.num_res_blocks + 1)

    @property
    def total_stride(self) -> int:
        """Stride of the deepest level; inputs are padded to a multiple of it."""
        return int(self.stem * 2 ** (len(self.channel_mult) - 1))

    def channels(self, level: int) -> int:
        """Channels at `level` (0 = full resolution after the stem)."""
        return int(self.model_channels * self.channel_mult[level])

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of the output of decoder block `block`."""
        per_level = self.num_res_blocks + 1
        level = len(self.channel_mult) - 1 - block // per_level
        upsamples = block % per_level == self.num_res_blocks and level > 0
        return self.channels(level), int(self.stem * 2 ** (level - upsamples))


_PAPER = UNetConfig(channel_mult=(1, 1, 2, 2, 4, 4), attention_ds=(8, 16, 32), dropout=0.0)

SIZES: dict[str, UNetConfig] = {
    # trains on two CPU cores: stride 2 at its finest; no attention, so that tiles agree with the whole image; one residual
    # block a level, because twice the steps in the same time are worth more than depth; groups of 8 channels and more
    "small": UNetConfig(channel_mult=(1, 2, 2, 4), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8),
    # half the channels of small at its finest level, the same depth: about 1.8 times the crops a second and twice as fast an
    # extraction on two CPU cores in bfloat16
    "lean": UNetConfig(
        model_channels=32, channel_mult=(1, 2, 4, 8), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8
    ),
    # a day on one GPU
    "base": UNetConfig(model_channels=96, channel_mult=(1, 2, 3, 4), attention_ds=(8,), num_head_channels=96, stem=2),
    # Pan et al. 2023: 192 channels, predicts the image
    "mdm-192": replace(_PAPER, model_channels=192),
    # Baranchuk et al. 2022: 256 channels, predicts noise and variance
    "adm-256": replace(_PAPER, model_channels=256, out_channels=6, dropout=0.1),
}


class _Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution (the ``resblock_updown=False`` path)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class _Downsample(nn.Module):
    """Strided convolution (the ``resblock_updown=False`` path)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class _ResBlock(nn.Module):
    """Residual block with time conditioning (scale-shift or additive), optionally doubling or halving its input."""

    def __init__(
        self,
        config: UNetConfig,
        emb_channels: int,
        channels: int,
        out_channels: int,
        resample: Literal["up", "down", "no"] = "no",
    ) -> None:
        super().__init__()
        self.scale_shift = config.use_scale_shift_norm
        self.resample = resample
        self.in_layers = nn.Sequential(
            GroupNorm(config.norm_groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels * (2 if self.scale_shift else 1)))
        self.out_layers = nn.Sequential(
            GroupNorm(config.norm_groups, out_channels),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection: nn.Module = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x

    def forward(self, x: Tensor, emb: Tensor, statistics: NormStatistics | None) -> Tensor:
        norm, act, conv = self.in_layers
        h = act(norm(x, statistics))
        if self.resample == "up" and self.training and x.device.type == "cpu":  # features keep the published order of sums
            h = convolve_doubled(h, conv)
        else:
            h = conv(self._resampled(h))
        film = self.emb_layers(emb)[:, :, None, None].to(h.dtype)  # (B, C or 2C, 1, 1)
        norm, act, drop, conv = self.out_layers
        if self.scale_shift:
            scale, shift = film.chunk(2, dim=1)
            h = torch.addcmul(shift, norm(h, statistics), 1 + scale)
        else:
            h = norm(h + film, statistics)
        out: Tensor = self.skip_connection(self._resampled(x)) + conv(drop(act(h)))
        return out


class _AttentionBlock(nn.Module):
    """Self-attention over all positions; `new_order` splits q, k, v before the heads."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.heads = config.num_heads if config.num_head_channels == -1 else channels // config.num_head_channels
        self.new_order = config.new_attention_order
        self.norm = GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, statistics: NormStatistics | None) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x, statistics).reshape(b, c, -1))  # (B, 3C, T)
        if self.new_order:
            q, k, v = qkv.unflatten(1, (3, self.heads, -1)).unbind(1)  # each (B, nh, hs, T)
        else:
            q, k, v = qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)  # each (B, nh, hs, T)
        h = F.scaled_dot_product_attention(q.mT, k.mT, v.mT)  # (B, nh, T, hs)
        h = self.proj_out(h.mT.reshape(b, c, -1))  # (B, C, T)
        out: Tensor = x + h.reshape(b, c, height, width)
        return out


class _Stage(nn.Sequential):
    """Layers of one input, middle or output block, each called with what it takes."""

    def forward(self, x: Tensor, emb: Tensor, statistics: NormStatistics | None) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, _ResBlock):
                x = layer(x, emb, statistics)
            elif isinstance(layer, _AttentionBlock):
                x = layer(x, statistics)
            else:
                x = layer(x)
        return x


class UNet(Network):
    """ADM UNet.

    Parameters
    ----------
    config : UNetConfig
        Shape of the network.

    Notes
    -----
    A fresh network outputs zero: the last convolution and every residual branch start at zero, as published.
    """

    config_type = UNetConfig
    sizes = SIZES
    pools_norms = True
    own_bf16 = True
    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        emb_channels = config.model_channels * 4
        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if config.num_classes is not None:
            self.label_emb = nn.Embedding(config.num_classes, emb_channels)
        skips = self._build_encoder(emb_channels)
        deepest = config.channels(len(config.channel_mult) - 1)
        middle: list[nn.Module] = [_ResBlock(config, emb_channels, deepest, deepest)]
        if config.middle_attention:
            middle.append(_AttentionBlock(config, deepest))
        self.middle_block = _Stage(*middle, _ResBlock(config, emb_channels, deepest, deepest))
        self._build_decoder(emb_channels, skips)
        self.out = nn.Sequential(
            GroupNorm(config.norm_groups, config.channels(0)),
            nn.SiLU(),
            zero_init(nn.Conv2d(config.channels(0), config.out_channels * config.stem**2, 3, padding=1)),
        )

    def _build_encoder(self, emb_channels: int) -> list[int]:
        """Fill ``input_blocks``; return the channels of every skip connection, shallowest first."""
        config, channels = self.config, self.config.channels(0)
        stem = nn.Conv2d(config.in_channels * config.stem**2, channels, 3, padding=1)
        self.input_blocks = nn.ModuleList([_Stage(stem)])
        skips, ds = [channels], 1
        for level in range(len(config.channel_mult)):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [_ResBlock(config, emb_channels, channels, config.channels(level))]
                channels = config.channels(level)
                if ds in config.attention_ds:
                    layers.append(_AttentionBlock(config, channels))
                self.input_blocks.append(_Stage(*layers))
                skips.append(channels)
            if level < len(config.channel_mult) - 1:
                down: nn.Module = _Downsample(channels)
                if config.resblock_updown:
                    down = _ResBlock(config, emb_channels, channels, channels, "down")
                self.input_blocks.append(_Stage(down))
                skips.append(channels)
                ds *= 2
        return skips

    def _build_decoder(self, emb_channels: int, skips: list[int]) -> None:
        config = self.config
        channels = config.channels(len(config.channel_mult) - 1)
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(config.channel_mult))):
            for i in range(config.num_res_blocks + 1):
                out_channels = config.channels(level)
                layers: list[nn.Module] = [_ResBlock(config, emb_channels, channels + skips.pop(), out_channels)]
                channels = out_channels
                if 2**level in config.attention_ds:
                    layers.append(_AttentionBlock(config, channels))
                if level and i == config.num_res_blocks:
                    up: nn.Module = _Upsample(channels)
                    if config.resblock_updown:
                        up = _ResBlock(config, emb_channels, channels, channels, "up")
                    layers.append(up)
                self.output_blocks.append(_Stage(*layers))

    def forward(self, x: Tensor, timesteps: Tensor, classes: Tensor | None = None, *, hidden: Tensor | None = None) -> Tensor:
        """Predict from ``(B, in_channels, H, W)`` at ``(B,)`` timesteps; returns ``(B, out_channels, H, W)``.

        H and W are multiples of ``config.total_stride``.
        """
        for _, h in self._decode(x, timesteps, classes, None):
            last = h
        out: Tensor = self.out(last)
        return F.pixel_shuffle(out, self.config.stem) if self.config.stem > 1 else out

    def features(
        self,
        x: Tensor,
        timesteps: Tensor,
        blocks: Collection[int],
        *,
        statistics: NormStatistics | None = None,
        classes: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Outputs of the decoder blocks asked for, ``{block: (B, C_b, H/s, W/s)}``.

        The decoder stops after the deepest-numbered block of `blocks`. `statistics` lends the group norms of a whole image
        to one of its tiles (see `NormStatistics`).
        """
        found: dict[int, Tensor] = {}
        last = max(blocks)
        for block, h in self._decode(x, timesteps, classes, statistics):
            if block in blocks:
                found[block] = h
            if block == last:
                break
        return found

    def _decode(
        self, x: Tensor, timesteps: Tensor, classes: Tensor | None, statistics: NormStatistics | None
    ) -> Iterator[tuple[int, Tensor]]:
        """Run the encoder and the middle, then yield each decoder block's output as it is computed."""
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels))
        if classes is not None:
            emb = emb + self.label_emb(classes)
        h = F.pixel_unshuffle(x, self.config.stem) if self.config.stem > 1 else x
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            h = stage(h, emb, statistics)
            skips.append(h)
        h = self.middle_block(h, emb, statistics)
        for block, stage in enumerate(self.output_blocks):
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, statistics)
            yield block, h
