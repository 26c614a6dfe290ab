"""Encoders of others as backbones: whatever `transformers` offers as an ``AutoBackbone``, frozen.

The configuration holds all that is needed to build the network again without a network connection: the library's own
configuration, and what a trial run has shown of its feature maps. `transformers` is imported when a network is built.

Blocks are numbered as the library numbers its stages: 0 is the shallowest. (A decoder's are numbered from the deepest.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from mdm_studio.errors import BackboneError
from mdm_studio.nn.layers import NormStatistics
from mdm_studio.nn.network import Network, NetworkConfig
from mdm_studio.nn.windows import by_windows

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of images in [0, 1], one number a channel: what most encoders are fed with."""

_Config = TypeVar("_Config", bound="EncoderConfig")
_READ_OF_ONE_STRIDE = 4  # maps read by default of an encoder whose maps have all one stride: evenly spread over its depth


@dataclass(frozen=True)
class EncoderConfig(NetworkConfig):
    """An encoder of `transformers` and its feature maps.

    Attributes
    ----------
    model : dict
        The library's configuration: ``model_type`` and all its fields, with every map in ``out_features``.
    maps : tuple of str
        Names of the feature maps, in the order in which the encoder gives them.
    map_channels, map_strides : tuple of int
        Channels and stride of each.
    align : int
        Heights and widths of inputs are multiples of it; all strides divide it.
    side : int
        The only size of image that the encoder takes, or 0 where it takes any: larger ones are then seen in windows.
    mean, std : tuple of float
        Of the channels of an image in [0, 1]; the encoder sees ``(image - mean) / std``.
    """

    model: dict[str, Any] = field(default_factory=dict)
    maps: tuple[str, ...] = ()
    map_channels: tuple[int, ...] = ()
    map_strides: tuple[int, ...] = ()
    align: int = 32
    side: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def total_stride(self) -> int:
        """Heights and widths of inputs are multiples of it."""
        return self.align

    @property
    def halo(self) -> int:
        """Pixels seen around a tile.

        Of random encoders 4 cells at stride 32 leave 0.02 % of difference to the whole image at the deepest map (64 pixels:
        8 %); a transformer sees everything, and differs by half as much as with 64.
        """
        return 128

    @property
    def telling_maps(self) -> tuple[int, ...]:
        """Maps worth reading: the last of each stride, or where all have one stride four evenly spread over the depth."""
        n = len(self.maps)
        if len(set(self.map_strides)) == 1:
            first = int(self.maps[0] == "stem")  # of a transformer: patches before any attention
            picked = min(_READ_OF_ONE_STRIDE, n - first)
            return tuple(first + -(-(i + 1) * (n - first) // picked) - 1 for i in range(picked)) if picked else (n - 1,)
        last = {stride: i for i, stride in enumerate(self.map_strides)}
        return tuple(sorted(i for stride, i in last.items() if stride > 1))  # at stride 1 it is the image itself


@dataclass(frozen=True)
class HubConfig(EncoderConfig):
    """A frozen encoder that gives features: its maps are the blocks."""

    out_channels: int = 0

    @property
    def n_blocks(self) -> int:
        """Number of feature maps."""
        return len(self.maps)

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of a map."""
        return self.map_channels[block], self.map_strides[block]

    def block_name(self, block: int) -> str:
        """The library's name of a map."""
        return self.maps[block]

    @property
    def default_blocks(self) -> tuple[int, ...]:
        """The maps worth reading."""
        return self.telling_maps


class Encoder(nn.Module):
    """An ``AutoBackbone`` that takes images as ours are.

    Parameters
    ----------
    config : EncoderConfig
        The encoder. Weights are random.

    Raises
    ------
    BackboneError
        If `transformers` is not installed or does not know this model.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config.model)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """All maps ``(B, C_i, H/s_i, W/s_i)`` of images ``(B, C, H, W)`` in [-1, 1]; one channel is repeated."""
        mean, std = (torch.tensor(v, dtype=torch.float32, device=x.device) for v in (self.config.mean, self.config.std))
        scale, shift = 0.5 / std, (0.5 - mean) / std  # of [-1, 1]
        maps: tuple[Tensor, ...] = self.model(pixel_values=x * scale[:, None, None] + shift[:, None, None]).feature_maps
        return maps


class HubEncoder(Network):
    """A frozen encoder of `transformers`.

    It stays in evaluation mode and its parameters want no gradients: batch norms must not drift, and nothing is dropped.
    """

    config_type = HubConfig
    sizes: ClassVar[Mapping[str, HubConfig]] = {}  # none: it is imported, never pretrained
    config: HubConfig

    def __init__(self, config: HubConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor, timesteps: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """An encoder predicts nothing.

        Raises
        ------
        BackboneError
            Always.
        """
        raise BackboneError(
            f"the encoder {self.config.model.get('model_type')} gives features and predicts nothing; "
            "pretrain a decoder over it with --recipe ddep"
        )

    def features(
        self, x: Tensor, timesteps: Tensor, blocks: Collection[int], *, statistics: NormStatistics | None = None
    ) -> dict[int, Tensor]:
        """Maps of the blocks asked for; an encoder knows no timesteps and lends no statistics."""
        if not self.config.side:
            return self._maps(x, blocks)
        return by_windows(x, self.config.side, self.config.total_stride, lambda window: self._maps(window, blocks))

    def _maps(self, x: Tensor, blocks: Collection[int]) -> dict[int, Tensor]:
        maps = self.encoder(x)
        return {block: maps[block] for block in blocks}


def transformers_module() -> Any:
    """The library `transformers`.

    Raises
    ------
    BackboneError
        If it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise BackboneError(
            "encoders of Hugging Face need the package transformers, which is not installed; pip install mdm-studio[hub]"
        ) from error
    return transformers


def build_model(values: Mapping[str, Any]) -> nn.Module:
    """An ``AutoBackbone`` of these values with random weights; on the meta device where that is the default one.

    Raises
    ------
    BackboneError
        If `transformers` is not installed or cannot build it.
    """
    library = transformers_module()
    from huggingface_hub.errors import StrictDataclassError  # comes with transformers

    name = values.get("model_type", "")
    facts = {key: value for key, value in values.items() if key != "model_type"}
    try:
        config = library.AutoConfig.for_model(name, **facts)
        if torch.get_default_device().type != "meta":
            model: nn.Module = library.AutoBackbone.from_config(config)
            return model
        from accelerate import init_empty_weights

        # tables that are no weights (positions of a window's pixels) are in no file: they are computed, so never on "meta"
        with torch.device("cpu"), init_empty_weights(include_buffers=False):
            model = library.AutoBackbone.from_config(config)
        return model
    except (StrictDataclassError, ImportError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BackboneError(
            f"transformers {library.__version__} cannot build the encoder {name!r} ({reason[:200]}); it was described by "
            f"version {values.get('transformers_version', 'unknown')}: update transformers, or choose another encoder"
        ) from error


def probed(model: nn.Module, config: _Config) -> _Config:
    """`config` with channels, strides and alignment of the maps that `model` gives, found by trial runs.

    Raises
    ------
    BackboneError
        If its maps do not lie over the image as maps of features do.
    """
    name = config.model.get("model_type", "")
    sizes = [s for s in (*_sides(config.model), 224, 256, 384) if s]
    for side in dict.fromkeys(sizes):
        shapes = _shapes(model, side, side, len(config.mean))
        if shapes:
            break
    else:
        raise BackboneError(
            f"the encoder {name!r} gives no maps of a square image of {', '.join(map(str, dict.fromkeys(sizes)))} pixels; "
            "choose another one"
        )
    if any(side % height or side % width or height != width for _, height, width in shapes):
        raise BackboneError(
            f"maps of the encoder {name!r} are {', '.join(f'{h} x {w}' for _, h, w in shapes)} cells for {side} x {side} "
            "pixels; they must lie over the image in squares: choose another one"
        )
    strides = tuple(side // height for _, height, _ in shapes)
    found = replace(
        config, map_channels=tuple(channels for channels, _, _ in shapes), map_strides=strides, align=math.lcm(*strides)
    )
    for times in (1, 2, 3, 4, 6, 8):
        align = found.align * times
        if all(_fits(model, found, rows * align, cols * align) for rows, cols in ((1, 1), (2, 3), (5, 4))):
            return replace(found, align=align)
    return replace(found, side=side)


def _sides(model: Mapping[str, Any]) -> list[int]:
    """Sizes of image that a configuration names."""
    size = model.get("image_size")
    return [int(s) for s in (size if isinstance(size, list | tuple) else [size]) if isinstance(s, int)]


def _fits(model: nn.Module, config: EncoderConfig, height: int, width: int) -> bool:
    """Whether the maps of an image of this size lie over it as the strides say."""
    wanted = [(c, height // s, width // s) for c, s in zip(config.map_channels, config.map_strides, strict=True)]
    return _shapes(model, height, width, len(config.mean)) == wanted


@torch.no_grad()
def _shapes(model: nn.Module, height: int, width: int, channels: int) -> list[tuple[int, int, int]]:
    """Shapes ``(C, h, w)`` of the maps of one image; none if the model does not take this size."""
    try:
        maps = model.eval()(pixel_values=torch.zeros(1, channels, height, width)).feature_maps
    except (RuntimeError, ValueError, AssertionError, IndexError):  # each model has its own way to say so
        return []
    if any(each.ndim != 4 for each in maps):  # tokens in a row
        return []
    return [(each.shape[1], each.shape[2], each.shape[3]) for each in maps]
