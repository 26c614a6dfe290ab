"""What every network has in common, so that pretraining and feature extraction need not know which one it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from mdm_studio.nn.layers import NormStatistics


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network: JSON values alone, so that it can stand in a card and in a job.

    Attributes
    ----------
    in_channels, out_channels : int
        Channels of the images it reads, and of what it predicts.
    """

    in_channels: int = 3
    out_channels: int = 3

    @property
    def n_blocks(self) -> int:
        """Number of blocks that features can be taken of."""
        raise NotImplementedError

    @property
    def total_stride(self) -> int:
        """Heights and widths of inputs are multiples of it."""
        raise NotImplementedError

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of a block's map."""
        raise NotImplementedError

    def block_name(self, block: int) -> str:
        """Name of a block where it comes from a network of others; empty for ours."""
        return ""

    @property
    def default_blocks(self) -> tuple[int, ...]:
        """Blocks that are read unless a card says otherwise."""
        return tuple(range(max(self.n_blocks - 4, 0), self.n_blocks))

    @property
    def window(self) -> int:
        """Side of the windows that it reads images by, see `mdm_studio.nn.windows`; 0 if it takes any size at once."""
        return 0

    @property
    def halo(self) -> int:
        """Pixels seen around a tile unless a card says otherwise, so that its features agree with those of the whole image."""
        return 64

    def for_crop(self, side: int) -> Self:
        """The same network for training on crops of `side` pixels; networks with learned positions change with it."""
        return self

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From JSON values, which know no tuples.

        Raises
        ------
        TypeError
            If a value has a name that this version does not know.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{k: _tuples(v) if k in known else v for k, v in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


class Network(nn.Module):
    """A network that predicts while it is pretrained, and whose blocks give features afterwards.

    Attributes
    ----------
    config_type : type of NetworkConfig
        Its configuration.
    sizes : mapping of str to NetworkConfig
        Shapes that have a name; the first is the usual one.
    pools_norms : bool
        Its norms look at the whole input and can borrow the statistics of a whole image, see `NormStatistics`.
    own_bf16 : bool
        Its forward pass takes bfloat16 convolutions as they are; others run under autocast.
    """

    config_type: ClassVar[type[NetworkConfig]]
    sizes: ClassVar[Mapping[str, NetworkConfig]]
    pools_norms: ClassVar[bool] = False
    own_bf16: ClassVar[bool] = False
    config: NetworkConfig

    def forward(self, x: Tensor, timesteps: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Predict from images ``(B, C, H, W)`` at ``(B,)`` timesteps; `hidden` ``(B, N)`` marks patches that are left out."""
        raise NotImplementedError

    def features(
        self, x: Tensor, timesteps: Tensor, blocks: Collection[int], *, statistics: NormStatistics | None = None
    ) -> dict[int, Tensor]:
        """Maps of the blocks asked for, ``{block: (B, C_b, H/s, W/s)}``, for images of any multiple of the total stride."""
        raise NotImplementedError
