"""A network that was fine-tuned on labels: any other network, and logits of classes read from its blocks.

It is a network like all others, with a single block: the logits. What is read of the inner network is what a linear layer
would read of its blocks brought to one size; because bilinear upsampling and a linear layer commute, each block's part is taken
at the block's own cells and only its few logits are upsampled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm_studio import registry
from mdm_studio.nn.layers import NormStatistics
from mdm_studio.nn.network import Network, NetworkConfig

KIND = "finetuned"
"""Its name among ``mdm_studio.backbones``."""


@dataclass(frozen=True)
class FineTunedConfig(NetworkConfig):
    """Shape of a fine-tuned network; `out_channels` counts the classes.

    Attributes
    ----------
    inner : mapping
        ``kind`` and configuration of the network that was fine-tuned, as in its card.
    blocks : tuple of int
        Blocks of it that the logits are read from.
    """

    inner: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[int, ...] = ()

    def inner_type(self) -> type[Network]:
        """Class of the inner network."""
        found: type[Network] = registry.load("backbones", self.inner.get("kind", "unet"))
        return found

    @property
    def inner_config(self) -> NetworkConfig:
        """Shape of the inner network."""
        return self.inner_type().config_type.from_json({k: v for k, v in self.inner.items() if k != "kind"})

    @property
    def n_blocks(self) -> int:
        """The logits alone."""
        return 1

    @property
    def total_stride(self) -> int:
        """That of the inner network."""
        return self.inner_config.total_stride

    def block_shape(self, block: int) -> tuple[int, int]:
        """Classes, and the stride of the finest block that is read."""
        config = self.inner_config
        return self.out_channels, min(config.block_shape(each)[1] for each in self.blocks)

    @property
    def window(self) -> int:
        """That of the inner network."""
        return self.inner_config.window

    @property
    def halo(self) -> int:
        """That of the inner network."""
        return self.inner_config.halo

    @property
    def default_blocks(self) -> tuple[int, ...]:
        """The logits."""
        return (0,)


class Reader(nn.Module):
    """Logits of a block's map: its channels standardised, then weighted."""

    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, channels))
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` of any dtype to ``(B, K, h, w)`` float32."""
        weight = self.weight * self.scale  # (K, C)
        bias = -(weight @ self.shift)
        return F.conv2d(x.float(), weight[:, :, None, None], bias)


class FineTuned(Network):
    """Logits of classes, read from blocks of an inner network.

    Parameters
    ----------
    config : FineTunedConfig
        Which network, which blocks, how many classes.

    Notes
    -----
    The logits are computed in float32 whatever the inner network computes in. Before training they are zero.
    """

    config_type: ClassVar[type[NetworkConfig]] = FineTunedConfig
    sizes: ClassVar[Mapping[str, NetworkConfig]] = {}  # it is made from another network, never by its size
    config: FineTunedConfig

    def __init__(self, config: FineTunedConfig) -> None:
        super().__init__()
        self.config = config
        inner_config = config.inner_config
        self.inner = config.inner_type()(inner_config)
        shapes = {block: inner_config.block_shape(block) for block in config.blocks}
        self.readers = nn.ModuleDict(
            {str(block): Reader(channels, config.out_channels) for block, (channels, _) in shapes.items()}
        )
        self.bias = nn.Parameter(torch.zeros(config.out_channels))
        self._stride = min(stride for _, stride in shapes.values())

    @property
    def pools_norms(self) -> bool:  # type: ignore[override]  # it is as the inner network is
        """Whether the inner network's norms look at its whole input."""
        return self.inner.pools_norms

    @property
    def own_bf16(self) -> bool:  # type: ignore[override]
        """Whether the inner network takes bfloat16 as it is."""
        return self.inner.own_bf16

    def reader(self, block: int) -> Reader:
        """What reads a block."""
        found = self.readers[str(block)]
        assert isinstance(found, Reader)
        return found

    def forward(self, x: Tensor, timesteps: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Logits ``(B, K, H, W)`` of every pixel."""
        logits = self.features(x, timesteps, (0,))[0]
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    def features(
        self, x: Tensor, timesteps: Tensor, blocks: Collection[int], *, statistics: NormStatistics | None = None
    ) -> dict[int, Tensor]:
        """Logits ``{0: (B, K, H/s, W/s)}``."""
        return {0: self.read(self.inner.features(x, timesteps, self.config.blocks, statistics=statistics), x.shape[2:])}

    def read(self, maps: Mapping[int, Tensor], size: torch.Size) -> Tensor:
        """Logits ``(B, K, H/s, W/s)`` of maps of the inner network's blocks, for an input of `size`."""
        cells = [side // self._stride for side in size]
        logits = self.bias[:, None, None]
        with torch.autocast(next(iter(maps.values())).device.type, enabled=False):
            for block, values in maps.items():
                part = self.reader(block)(values)
                if list(part.shape[2:]) != cells:
                    part = F.interpolate(part, size=cells, mode="bilinear", align_corners=False)
                logits = logits + part
        return logits
