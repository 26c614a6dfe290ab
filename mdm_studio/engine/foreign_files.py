"""Checkpoints of others, read as tensors by name: no code in them runs, and no more memory is taken than they are large."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mdm_studio.engine.import_maskdm import averaged_weights, network_weights
from mdm_studio.errors import CheckpointError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_KINDS = frozenset(
    [
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    ]
)
_SHARED = 4  # times its size that the tensors of a file may have together: several names for one weight
_ROOM = 1 << 20  # and bytes besides
_COPIES, _WORKING = 3, 512 << 20  # of a file, and bytes besides, that reading it may take
_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError, NotImplementedError, SafetensorError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What readers raise on damaged files."""


def read_foreign(path: Path) -> dict[str, Tensor]:
    """State dict of a ``.pt`` or ``.safetensors`` file, without the wrappers that training scripts add.

    Raises
    ------
    CheckpointError
        If it is damaged, holds code, or anything but dense tensors of real numbers.
    """
    size = _check_file(path)
    try:
        with _limited_memory(_COPIES * size + _WORKING):
            state = _load(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors (pickled code), which is never run here; ask for a file with the state dict alone"
        ) from error
    except _BROKEN as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint ({_line(error)}); download it again") from error
    if isinstance(state, dict):
        state = averaged_weights(state)
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors; save model.state_dict() and import that")
    tensors = {str(name).removeprefix("module."): value.detach() for name, value in state.items()}
    _check_tensors(tensors, size, path)
    try:
        return network_weights(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds tensors that do not fit together ({_line(error)}); download it again") from error


def _check_file(path: Path) -> int:
    """Size of a file that may be read; a folder, a named pipe and an empty file may not."""
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no file; give the checkpoint itself")
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; check the path") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({_line(error)}); check the path") from error
    if not size:
        raise CheckpointError(f"{path} is empty; download it again")
    return size


@contextlib.contextmanager
def _limited_memory(room: int) -> Iterator[None]:
    """Let this process take no more than `room` bytes besides what it has: a few bytes of pickle may ask for any amount.

    Linux alone; elsewhere nothing is limited.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = taken + room if soft == resource.RLIM_INFINITY else min(taken + room, soft)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _load(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path):
        _check_archive(path)
    # torch warns of pickle protocols: no use here; training scripts put their options beside the weights
    harmless = torch.serialization.safe_globals([argparse.Namespace])
    with warnings.catch_warnings(action="ignore", category=UserWarning), harmless:
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_archive(path: Path) -> None:
    """PyTorch stores its entries as they are; what is packed, or said to be larger than the file, would fill the memory."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries are packed, which PyTorch does not do")
        if (changed := archive.testzip()) is not None:  # PyTorch itself does not look
            raise ValueError(f"{' '.join(changed.split())[:100]} is not what was saved")


def _check_tensors(tensors: Mapping[str, Tensor], size: int, path: Path) -> None:
    """Dense tensors of real numbers on the CPU, which together are not much larger than their file."""
    total = 0
    for name, value in tensors.items():
        odd = value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in _KINDS or value.is_quantized
        if odd:
            what = f"{value.dtype}, {value.layout}, on {value.device}".replace("torch.", "")
            raise CheckpointError(
                f"{path} holds a tensor that is no weight ({' '.join(name.split())[:120]}: {what}); save model.state_dict() "
                "of the plain network and import that"
            )
        total += value.numel() * value.element_size()
    if total > _SHARED * size + _ROOM:
        raise CheckpointError(f"{path} has {size} bytes and claims to hold {total} bytes of tensors; download it again")


def _line(error: BaseException) -> str:
    """A message of a library on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
