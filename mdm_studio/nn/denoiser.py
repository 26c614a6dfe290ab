"""Networks of decoder denoising pretraining (DeP and DDeP, Brempong et al. 2022): an encoder of others, and a decoder.

The encoder is any ``AutoBackbone`` of `transformers`. The decoder doubles the size block by block, joins the encoder's maps
where they have its stride, and ends at full resolution, where the noise is predicted. Blocks are numbered from 0 (deepest), as
in a UNet; the last one is at full resolution.

Widths are those of the paper; what each block is made of (two convolutions with batch norms) follows TransUNet, because the
paper does not say. Batch norms also make tiles agree: they do not look at their input. One thing is ours: the picture itself
joins the finest block, because most encoders have no map finer than stride 4, and noise cannot be guessed from its neighbours:
without it the loss of the size "tiny" stood at 0.98 after 250 steps of 8 crops, with it at 0.08.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm_studio.nn.hub import Encoder, EncoderConfig
from mdm_studio.nn.layers import NormStatistics, zero_init
from mdm_studio.nn.network import Network
from mdm_studio.nn.windows import by_windows


def _resnet(embedding: int, hidden: tuple[int, ...], depths: tuple[int, ...], layer: str) -> dict[str, Any]:
    """Values of a ResNet of `transformers`, all of them, so that another version's defaults change nothing."""
    return {
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": embedding,
        "hidden_sizes": list(hidden),
        "depths": list(depths),
        "layer_type": layer,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "out_features": ["stem", "stage1", "stage2", "stage3", "stage4"],
    }


@dataclass(frozen=True)
class DenoiserConfig(EncoderConfig):
    """An encoder and the decoder over it.

    Attributes
    ----------
    widths : tuple of int
        Channels of the decoder's blocks, deepest first. An encoder of a small stride has fewer blocks: the last ones.
    frozen_encoder : bool
        The encoder is not trained, and its batch norms keep the statistics that they came with.
    """

    widths: tuple[int, ...] = (1024, 512, 256, 128, 64)
    frozen_encoder: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the decoder's blocks: the encoder's largest, halved as often as there are widths, to 1.

        An odd stride goes to its largest divisor below: 14, 7, 2, 1.
        """
        deepest = max(self.map_strides)
        chain = [deepest]
        while chain[-1] > 1:
            chain.append(max(d for d in range(1, chain[-1] // 2 + 1) if deepest % d == 0))
        return tuple(chain[-len(self.widths) :])

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        return len(self.strides)

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of the output of a decoder block."""
        return self.widths[block - self.n_blocks], self.strides[block]

    @property
    def default_blocks(self) -> tuple[int, ...]:
        """All but the one at full resolution, which takes most of the time and is nearest to the noise."""
        return tuple(range(max(self.n_blocks - 1, 1)))

    def joined(self, block: int) -> tuple[int, ...]:
        """The encoder's maps that join a decoder block as skip connections."""
        return tuple(i for i in self.telling_maps if self.map_strides[i] == self.strides[block] < max(self.map_strides))

    @property
    def deepest_maps(self) -> tuple[int, ...]:
        """The encoder's maps that the decoder begins with."""
        return tuple(i for i in self.telling_maps if self.map_strides[i] == max(self.map_strides))


_RESNET_50 = DenoiserConfig(
    model=_resnet(64, (256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck"),
    maps=("stem", "stage1", "stage2", "stage3", "stage4"),
    map_channels=(64, 256, 512, 1024, 2048),
    map_strides=(4, 4, 8, 16, 32),
)

SIZES: dict[str, DenoiserConfig] = {
    # trains on two CPU cores; meant for trying things out and for DeP: its encoder begins with random weights
    "tiny": replace(
        _RESNET_50,
        model=_resnet(32, (32, 64, 128, 256), (1, 1, 1, 1), "basic"),
        map_channels=(32, 32, 64, 128, 256),
        widths=(128, 96, 64, 64, 32),
    ),
    # Brempong et al. 2022, who use a hybrid of ResNet and ViT as encoder
    "1x": _RESNET_50,
    "2x": replace(_RESNET_50, widths=(2048, 1024, 512, 256, 128)),
    "3x": replace(_RESNET_50, widths=(3072, 1536, 768, 384, 192)),
}


class _Block(nn.Module):
    """Brings what comes from below to its own size, joins skip connections, convolves twice."""

    def __init__(self, channels: int, joined: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels + joined, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, skips: list[Tensor], size: tuple[int, int], beside: Tensor | None) -> Tensor:
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        x = self.conv1(torch.cat([x, *skips], dim=1) if skips else x)
        x = F.relu(self.norm1(x if beside is None else x + beside))
        out: Tensor = F.relu(self.norm2(self.conv2(x)))
        return out


class Denoiser(Network):
    """Encoder and decoder that predict the noise in an image.

    A fresh decoder predicts 0: the last convolution starts at zero.
    """

    config_type = DenoiserConfig
    sizes: ClassVar[Mapping[str, DenoiserConfig]] = SIZES
    config: DenoiserConfig

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        if config.frozen_encoder:
            self.encoder.requires_grad_(False)
        channels = sum(config.map_channels[i] for i in config.deepest_maps)
        self.decoder = nn.ModuleList()
        for block in range(config.n_blocks):
            width, _ = config.block_shape(block)
            self.decoder.append(_Block(channels, sum(config.map_channels[i] for i in config.joined(block)), width))
            channels = width
        self.picture = nn.Conv2d(config.in_channels, channels, 3, padding=1, bias=False)
        self.out = zero_init(nn.Conv2d(channels, config.out_channels, 3, padding=1))
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Train or not; a frozen encoder stays in evaluation mode, or its batch norms would drift with every batch."""
        super().train(mode)
        if self.config.frozen_encoder:
            self.encoder.eval()
        return self

    def forward(self, x: Tensor, timesteps: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Predict the noise in ``(B, in_channels, H, W)``; there is one amount of noise, so timesteps do not matter."""
        for _, h in self._decode(x):
            last = h
        out: Tensor = self.out(last)
        return out

    def features(
        self, x: Tensor, timesteps: Tensor, blocks: Collection[int], *, statistics: NormStatistics | None = None
    ) -> dict[int, Tensor]:
        """Outputs of the decoder blocks asked for; the decoder stops after the last of them."""
        found: dict[int, Tensor] = {}
        for block, h in self._decode(x):
            if block in blocks:
                found[block] = h
            if block == max(blocks):
                break
        return found

    def _decode(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Run the encoder, then yield each decoder block's output as it is computed."""
        config = self.config
        maps = self._encode(x.expand(-1, len(config.mean), -1, -1) if config.in_channels == 1 else x)
        deepest = [maps[i] for i in config.deepest_maps]
        h = torch.cat(deepest, dim=1) if len(deepest) > 1 else deepest[0]
        for block, layer in enumerate(self.decoder):
            size = (x.shape[2] // config.strides[block], x.shape[3] // config.strides[block])
            beside = self.picture(x) if block == config.n_blocks - 1 else None
            h = layer(h, [maps[i] for i in config.joined(block)], size, beside)
            yield block, h

    def _encode(self, x: Tensor) -> Mapping[int, Tensor]:
        if not self.config.side:
            return dict(enumerate(self.encoder(x)))
        return by_windows(x, self.config.side, self.config.total_stride, lambda window: dict(enumerate(self.encoder(window))))
