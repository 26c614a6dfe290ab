"""Tensors and facts in one safetensors file: written whole or not at all, read without running anything.

The facts are JSON in the file's own header, so a checkpoint is a single file and its rename is atomic.
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mdm_studio.errors import CheckpointError
from mdm_studio.io.atomic import output_error, replacing
from mdm_studio.io.json_files import parse_json
from mdm_studio.io.leftovers import remove, unfinished_name

_FACTS = "mdm_studio"
_BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)  # what damage may raise
VERSION = 1


def write_checkpoint(path: Path, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write torch tensors and JSON facts to `path`.

    Raises
    ------
    OutputError
        If the file cannot be written (disk full, read-only folder).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    header = {_FACTS: json.dumps({"version": VERSION, **facts})}
    with replacing(path) as unfinished, _own_folder(unfinished) as folder:
        made = folder / "tensors"
        try:
            save_file({name: value.contiguous() for name, value in tensors.items()}, made, metadata=header)
        except SafetensorError as error:  # how the library reports what the system refused, number and all
            number = re.search(r"os error (\d+)", str(error))
            raise output_error(path, OSError(int(number[1]) if number else 0, str(error))) from error
        plain = folder / "plain"
        plain.touch()
        made.chmod(stat.S_IMODE(plain.stat().st_mode))  # the library keeps its files from everybody else
        made.replace(unfinished)


@contextlib.contextmanager
def _own_folder(unfinished: Path) -> Iterator[Path]:
    """A hidden folder that ends with the block: a killed library leaves its own temporary files nowhere else."""
    folder = unfinished.with_name(unfinished_name(unfinished.name.split(".")[1]))
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


class TensorFacts(NamedTuple):
    """What a file says of a tensor: its kind, as safetensors writes it ("F32", "BF16", "I64" ...), and its shape."""

    kind: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorFacts]:
    """Kinds and shapes of the tensors in a safetensors file, without their numbers.

    Raises
    ------
    CheckpointError
        If the file is missing or no whole safetensors file.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        return {name: TensorFacts(each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}


@contextlib.contextmanager
def _opened(path: Path, device: str = "cpu") -> Iterator[Any]:
    """A safetensors file, read by name; what the library says of a bad one in our words."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for for ever
            raise CheckpointError(f"{path} is no file; use another checkpoint")
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}; check the path") from error
    except (*_BROKEN, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({' '.join(str(error).split())[:300]}); use another checkpoint or make "
            "it again"
        ) from error


def read_checkpoint(path: Path, device: str = "cpu", *, prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and facts of a file of `write_checkpoint`; with a `prefix`, only the tensors whose names begin so, without it.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, of another kind or of a newer version.
    """
    with _opened(path, device) as file:
        text = (file.metadata() or {}).get(_FACTS)
        facts = None if text is None else parse_json(text, dict[str, Any])
        names = [name for name in file.keys() if name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    version = None if facts is None else facts.get("version", 0)
    if facts is None or not isinstance(version, int) or version > VERSION:
        raise CheckpointError(f"{path} was not written by this version of MDM Studio; read it with the version that wrote it")
    return tensors, facts
