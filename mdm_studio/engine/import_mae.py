"""What published checkpoints of masked autoencoders need to become backbones here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mdm_studio.engine.card_checks import check_network
from mdm_studio.errors import UsageError
from mdm_studio.nn.mae import MAEConfig, MaskedAutoencoder

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]
_DECODER = ("mask_token", "decoder_")
_PATCHES = "patch_embed.proj.weight"


def adapt_mae(
    config: MAEConfig, tensors: Mapping[str, Tensor], options: Mapping[str, Any], *, imagenet: bool
) -> tuple[MAEConfig, dict[str, Tensor], str]:
    """Make weights fit for images in [-1, 1], read the sizes that they tell themselves, and complete an encoder alone.

    Parameters
    ----------
    options : mapping
        Fields of the configuration that the user has given: they stand, and a checkpoint that differs is refused later.
    imagenet : bool
        The network was trained on images less ImageNet's mean, divided by its standard deviation, as the published training
        code does. That is folded into the patch embedding, which gives the same features but for rounding.

    Returns
    -------
    config, tensors, note
        `note` says what was put in place of what is missing; it is empty if nothing is.

    Raises
    ------
    UsageError
        If `imagenet` is asked for a network of other than three channels.
    """
    made = dict(tensors)
    if _PATCHES not in made or made[_PATCHES].ndim != 4 or "pos_embed" not in made or made["pos_embed"].ndim != 3:
        return config, made, ""  # refused by name, with all that differs
    _, channels, patch, _ = made[_PATCHES].shape
    if not channels or not patch:
        return config, made, ""
    side = patch * math.isqrt(max(made["pos_embed"].shape[1] - 1, 1))
    told = {"patch": patch, "image_size": side, "in_channels": channels, "out_channels": channels}
    config = dataclasses.replace(config, **(told | {name: value for name, value in options.items() if name in told}))
    check_network(config, "the checkpoint")
    if imagenet:
        made |= _for_plain_pixels(made[_PATCHES], made["patch_embed.proj.bias"])
    if any(name.startswith(_DECODER) for name in made):
        return config, made, ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = MaskedAutoencoder(dataclasses.replace(config, depth=1))  # its decoder is that of the whole network
    made |= {name: value for name, value in small.state_dict().items() if name.startswith(_DECODER)}
    return config, made, "an encoder alone: its decoder is random, so it gives features but restores nothing"


def _for_plain_pixels(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """A patch embedding of ImageNet-normalised images ``((x + 1) / 2 - mean) / std`` as one of x in [-1, 1]."""
    if weight.shape[1] != len(_MEAN):
        raise UsageError(
            f"ImageNet's mean is that of three channels and this network reads {weight.shape[1]}; "
            "say what it was trained on: --option pixels=range (x / 127.5 - 1)"
        )
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (_MEAN, _STD))  # each (C, 1, 1)
    wide = weight.double()
    shifted = bias.double() + (wide * ((0.5 - mean) / std)).sum((1, 2, 3))
    return {_PATCHES: (wide / (2 * std)).to(weight.dtype), "patch_embed.proj.bias": shifted.to(bias.dtype)}
