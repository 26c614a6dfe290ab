"""Archives of ours: a zip of few files, JSON and safetensors, each stored as it is, with sizes checked before they are read.

Stored files are no larger than the archive, so that none of a few megabytes can fill the memory. What another program packed
anew, or somebody made up, is refused in words.
"""

from __future__ import annotations

import contextlib
import stat
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from mdm_studio.io.json_files import parse_json

Model = TypeVar("Model")

MAX_JSON_BYTES = 4 << 20
_MAX_HEADER_BYTES = 4 << 20  # of a safetensors file: room for ten thousands of tensors
_MOST_ENTRIES = 64
_ENCRYPTED = 0x41  # bits of a zip entry's flags

# What `zipfile` and the decoders under it raise for damaged or unusual files, OSError apart
_DAMAGED = (
    zipfile.BadZipFile, ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, OverflowError, MemoryError,
    SafetensorError,
)  # fmt: skip


class _Tensor(msgspec.Struct):
    """A tensor as the header of a safetensors file tells it."""

    dtype: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]


class SealedArchive:
    """An open archive; made by `open_sealed`."""

    def __init__(self, archive: zipfile.ZipFile, bytes_of_file: int) -> None:
        self._archive = archive
        entries = archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise ValueError(f"it holds {len(entries)} files")
        self.names = [entry.filename for entry in entries]
        for entry in entries:
            name = _short(entry.filename)
            if self.names.count(entry.filename) > 1:
                raise ValueError(f"it holds {name} more than once")
            if entry.flag_bits & _ENCRYPTED:
                raise ValueError(f"{name} in it is encrypted")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{name} in it is compressed, packed anew by another program perhaps")
        if sum(entry.file_size for entry in entries) > bytes_of_file:
            raise ValueError("what it holds would be larger than itself")

    def json(self, name: str, model: type[Model]) -> Model:
        """A JSON file of it, checked against `model`; a ValueError if it does not fit, a KeyError if it is missing."""
        if self._archive.getinfo(name).file_size > MAX_JSON_BYTES:
            raise ValueError(f"{name} in it is larger than {MAX_JSON_BYTES} bytes")
        try:
            return parse_json(self._archive.read(name), model)
        except ValueError as error:
            raise ValueError(f"{name} in it: {error}") from error

    def tensors(self, name: str, dtypes: Collection[str]) -> dict[str, NDArray[Any]]:
        """The tensors of a safetensors file of it, of the `dtypes` (as safetensors names them) alone."""
        size = self._archive.getinfo(name).file_size
        with self._archive.open(name) as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"{name} in it is no safetensors file, or cut off")
            header = file.read(length)
        told = parse_json(header, dict[str, Any])
        told.pop("__metadata__", None)
        for key, facts in told.items():
            tensor = _described(facts, f"{_short(key)} of {name}")
            if tensor.dtype not in dtypes:
                raise ValueError(
                    f"{_short(key)} of {name} has the type {_short(tensor.dtype)}, and {_any_of(dtypes)} is wanted"
                )
        return load(self._archive.read(name))


def _described(facts: Any, what: str) -> _Tensor:
    try:
        return msgspec.convert(facts, _Tensor)
    except msgspec.ValidationError as error:
        raise ValueError(f"{what}: {error}") from error


def _any_of(values: Collection[str]) -> str:
    return " or ".join(sorted(values))


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")


@contextlib.contextmanager
def open_sealed(path: Path) -> Iterator[SealedArchive]:
    """Open an archive; whatever is wrong with it, then or while it is read, is a ValueError of one line.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged, was packed anew, or holds what does not fit.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is no regular file")  # a named pipe would be waited for for ever
    try:
        with zipfile.ZipFile(path) as archive:
            yield SealedArchive(archive, facts.st_size)
    except _DAMAGED as error:
        if isinstance(error, KeyError):
            raise ValueError(str(error.args[0]) if error.args else "something is missing in it") from error
        raise ValueError((str(error).strip() or type(error).__name__).splitlines()[0]) from error
