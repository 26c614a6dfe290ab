"""Limits of what a card, or a job, may ask for: their numbers decide how much memory a network takes.

The largest networks of the papers stay far below every limit here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from mdm_studio.errors import BackboneError, MDMStudioError
from mdm_studio.io.json_files import check_value
from mdm_studio.nn.network import Network, NetworkConfig

Checked = TypeVar("Checked")

_LARGEST = 1 << 20  # of any whole number that tells the shape of something
_MOST = 4096  # entries of a list or an object
_DEEPEST = 20  # levels of lists in lists
_BLOCKS = 1024
_TOKENS = 1 << 16  # patches of an image that positions are learnt for
_STRIDE = 4096
_LAYERS = 1024  # of an encoder of another library, wherever it says how many
_BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MDMStudioError)


def check_numbers(value: Any, where: str = "", depth: int = 0, *, largest: int = _LARGEST) -> None:
    """Complain about numbers, lists and objects that no network and no recipe has: whole numbers up to `largest` are possible.

    Raises
    ------
    ValueError
        With the place.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(value, int) and abs(value) > largest:
        raise ValueError(
            f"{where} is {value:.0e}, and at most {largest} is possible" if abs(value) < 1e300 else f"{where} is huge"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which is no finite number")
    if isinstance(value, Mapping):
        if len(value) > _MOST:
            raise ValueError(f"{where} has {len(value)} entries, and at most {_MOST} are possible")
        for key, item in value.items():
            check_numbers(item, f"{where}.{key}" if where else str(key)[:40], depth + 1, largest=largest)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(value) > _MOST:
            raise ValueError(f"{where} has {len(value)} entries, and at most {_MOST} are possible")
        for item in value:
            check_numbers(item, where, depth + 1, largest=largest)


def check_fields(values: Mapping[str, Any], model: type[Checked], what: str, *, largest: int = _LARGEST) -> None:
    """Complain about values that do not fit the fields of a dataclass, or are out of every range.

    Raises
    ------
    BackboneError
        In words; `what` begins them.
    """
    try:
        check_numbers(values, largest=largest)
        plain = {key: _plain(value) for key, value in values.items()}
        check_value(plain, model)
    except (ValueError, MDMStudioError) as error:
        raise BackboneError(f"{what} makes no sense ({error})") from error
    except TypeError:  # a class of another package with annotations that cannot be checked
        pass


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def check_network(config: NetworkConfig, what: str) -> None:
    """Complain about a network that cannot be built, or that no machine could hold; builds nothing.

    Raises
    ------
    BackboneError
        In words; `what` begins them.
    """
    try:
        blocks, stride = config.n_blocks, config.total_stride
        if not 1 <= blocks <= _BLOCKS:
            raise ValueError(f"{blocks} blocks, and 1 to {_BLOCKS} are possible")
        if not 1 <= stride <= _STRIDE:
            raise ValueError(f"a stride of {stride}, and 1 to {_STRIDE} are possible")
        for block in range(blocks):
            shape = config.block_shape(block)
            if not all(1 <= number <= _LARGEST for number in shape):
                raise ValueError(f"block {block} has {shape[0]} channels at stride {shape[1]}")
        for channels in (config.in_channels, config.out_channels):
            if not 0 <= channels <= _LARGEST:
                raise ValueError(f"{channels} channels")
        patch = getattr(config, "patch", 0)
        if patch and (getattr(config, "image_size", 0) / patch) ** 2 > _TOKENS:
            raise ValueError(f"an image of more than {_TOKENS} patches")
        _check_layers(getattr(config, "model", {}))
    except _BROKEN as error:
        raise BackboneError(f"{what} is of a network that cannot be ({error})") from error


def _check_layers(model: Mapping[str, Any]) -> None:
    """Counts of layers in a configuration of another library."""
    for key, value in model.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(word in str(key) for word in ("layer", "depth", "block", "stage")):
            for number in numbers:
                if isinstance(number, int) and number > _LAYERS:
                    raise ValueError(f"{key} is {number}, and at most {_LAYERS} are possible")


def build_empty(network: type[Network], config: NetworkConfig, what: str) -> Network:
    """A network without memory for its weights.

    Raises
    ------
    BackboneError
        If it cannot be built.
    """
    check_network(config, what)
    try:
        with torch.device("meta"):
            return network(config)
    except (*_BROKEN, RuntimeError, AssertionError) as error:
        if isinstance(error, MDMStudioError):
            raise
        raise BackboneError(f"{what} is of a network that cannot be built ({_line(error)})") from error


def weight_bytes(net: nn.Module) -> int:
    """Bytes of a network's weights in float32."""
    return sum(4 * parameter.numel() for parameter in net.parameters())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
