"""Feature maps on disk: float16 at their own stride, zarr v3, content-addressed, one file a tile and map.

::

    ROOT/v1/ab/abcdef.../          one entry: an image, a backbone, a way of extracting
        entry.json                 what it is; its modification time is when it was last used
        b06-t0050/                 zarr v3 array (C, rows * ph, cols * pw) of one map, here of block 6 at timestep 50
            c/0/3/7                tile (3, 7): one chunk, one file, zstd with a checksum

A tile is the unit of computing, writing and reading, so it is one chunk; a shard around it would only add an index. Zarr writes
a chunk under a temporary name and renames it, so a tile is there whole or not at all, whoever is killed, and two processes may
share a cache. A tile that does not decode (its checksum is wrong) is deleted and counts as missing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import CacheError, OutputError
from mdm_studio.io.atomic import make_folder, write_bytes, write_json
from mdm_studio.io.json_files import read_json
from mdm_studio.io.names import one_line
from mdm_studio.io.quiet import quiet

if TYPE_CHECKING:  # zarr is imported by whoever reads or writes first: a window that opens does not wait for it
    import zarr

_logger = logging.getLogger(__name__)

_told: set[str] = set()  # caches that this process has told of already

_VERSION = "v1"
_ENTRY = "entry.json"
_PARTIAL = ".partial"  # what zarr calls a file it is writing
_STALE_SECONDS = 3600  # an unfinished file of this age belongs to a process that is gone
# what zarr, its codecs and JSON raise for damaged bytes
_UNDECODABLE = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
_CONFIG = {"write_empty_chunks": True}  # a tile of zeros is a result, not a gap
_PAUSE_SECONDS = 300  # until a cache that could not be written is tried again
_LOW_WATER = 0.9  # eviction frees a tenth of the budget, so that it does not run at every tile


class MapSpec(Protocol):
    """One feature map: its name in an entry, its channels, and its stride in image pixels."""

    @property
    def name(self) -> str:
        """Name of its array in an entry."""
        ...

    @property
    def channels(self) -> int:
        """C."""
        ...

    @property
    def stride(self) -> int:
        """Image pixels from one cell to the next."""
        ...


@dataclass(frozen=True)
class EntryKey:
    """What an entry's features were computed from.

    Attributes
    ----------
    image, backbone, settings : str
        Hex digests of the pixels, of the weights, and of the way of extracting.
    grid : tuple of int
        Rows and columns of tiles.
    tile : tuple of int
        Height and width of a tile's core in pixels.
    margin : int
        Cells kept around a core.
    """

    image: str
    backbone: str
    settings: str
    grid: tuple[int, int]
    tile: tuple[int, int]
    margin: int

    @property
    def digest(self) -> str:
        """Hex digest that names the entry."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=16).hexdigest()

    def cells(self, stride: int) -> tuple[int, int]:
        """Largest height and width of a tile in cells, margins included."""
        return self.tile[0] // stride + 2 * self.margin, self.tile[1] // stride + 2 * self.margin


@dataclass(frozen=True)
class EntryInfo:
    """An entry for people: what it holds, its bytes, and when it was last used (seconds since 1970)."""

    digest: str
    image: str
    backbone: str
    maps: int
    tiles: int
    bytes: int
    last_used: float


@dataclass(frozen=True)
class CacheReport:
    """What cleaning did: entries and bytes removed, tiles checked and found damaged."""

    entries: int = 0
    bytes: int = 0
    checked: int = 0
    damaged: int = 0


class TileStore(Protocol):
    """Where the tiles of one plane are kept."""

    def has(self, spec: MapSpec, row: int, col: int) -> bool:
        """Whether a tile is there (whole or not)."""
        ...

    def read_tile(self, spec: MapSpec, row: int, col: int, shape: tuple[int, int]) -> NDArray[np.float16] | None:
        """A tile's cells ``(C, *shape)``; None if it is missing or damaged."""
        ...

    def write_tile(self, spec: MapSpec, row: int, col: int, values: NDArray[np.float16]) -> None:
        """Keep a tile's cells ``(C, h, w)``."""
        ...


class FeatureCache:
    """Feature maps of many images in one folder.

    Parameters
    ----------
    root : Path
        Its folder; made when something is written.
    max_bytes : int, optional
        Size budget: the least recently used entries are removed when it is passed, except those in use by this process.
    optional : bool
        Do without where the folder cannot be read or written, which only costs time: that is said once, as a warning of this
        module's logger, and tried again after a while. Otherwise it is a `CacheError`.

    Raises
    ------
    CacheError
        If `root` is a file, and the cache is not optional.
    """

    def __init__(self, root: Path, max_bytes: int | None = None, *, optional: bool = False) -> None:
        self.root, self.max_bytes, self.optional = root, max_bytes, optional
        self._pausing_until = -math.inf  # on time.monotonic
        if os.path.exists(root) and not root.is_dir():
            with self.forgiving():
                raise CacheError(f"the cache {root} is a file and a folder is wanted; choose another --cache")
        self._lock = threading.Lock()
        self._bytes: int | None = None  # estimate of what is on disk; None until something is written
        self._in_use: weakref.WeakValueDictionary[str, CacheEntry] = weakref.WeakValueDictionary()

    @property
    def pausing(self) -> bool:
        """Whether nothing is written for a while, because it could not be."""
        return time.monotonic() < self._pausing_until

    @contextlib.contextmanager
    def forgiving(self) -> Iterator[None]:
        """Do without the cache when it refuses, if it is optional."""
        try:
            yield
        except CacheError as error:
            if not self.optional:
                raise
            self._pausing_until = time.monotonic() + _PAUSE_SECONDS
            if str(self.root) not in _told:
                _told.add(str(self.root))
                _logger.warning("%s", one_line(f"{error}. Features are computed anew where they are needed."))

    def is_usable(self) -> bool:
        """Whether something can be written there now."""
        with self.forgiving(), _writing(self.root):
            make_folder(self.root)
            write_bytes(self.root / ".try", b"")
            (self.root / ".try").unlink()
        return not self.pausing

    def entry(self, key: EntryKey) -> CacheEntry:
        """The entry of `key`, marked as used now; it is safe from eviction as long as somebody holds it."""
        with self._lock:
            entry = self._in_use.get(key.digest)
            if entry is None:
                folder = self.root / _VERSION / key.digest[:2] / key.digest
                entry = self._in_use[key.digest] = CacheEntry(self, folder, key)
        entry.touch()
        return entry

    def wrote(self, n_bytes: int) -> None:
        """Count written bytes and evict when the budget is passed."""
        if self.max_bytes is None:
            return
        with self._lock:
            self._bytes = sum(info.bytes for info in self.entries()) if self._bytes is None else self._bytes + n_bytes
            if self._bytes > self.max_bytes:
                removed = self._evict(int(_LOW_WATER * self.max_bytes))
                self._bytes = None if removed.entries == 0 else self._bytes - removed.bytes

    def entries(self) -> list[EntryInfo]:
        """Every entry, least recently used first."""
        found = [_describe(folder) for folder in (self.root / _VERSION).glob("*/*")]
        return sorted((info for info in found if info), key=lambda info: info.last_used)

    def prune(self, max_bytes: int) -> CacheReport:
        """Remove the least recently used entries until at most `max_bytes` are left, and what killed processes left."""
        swept = self._sweep()
        with self._lock:
            removed = self._evict(max_bytes)
            self._bytes = None
        return CacheReport(removed.entries, removed.bytes + swept)

    def clear(self) -> CacheReport:
        """Remove every entry that is not in use."""
        return self.prune(0)

    def verify(self) -> Iterator[CacheReport]:
        """Read every tile and delete the damaged ones; yields the running count after each entry."""
        self._sweep()
        checked = damaged = 0
        for info in self.entries():
            folder = self._folder(info.digest)
            for array in sorted(path for path in folder.iterdir() if path.is_dir()):
                for chunk in sorted((array / "c").glob("*/*/*")):
                    checked += 1
                    damaged += not _decodes(array, chunk)
            yield CacheReport(checked=checked, damaged=damaged)

    def _folder(self, digest: str) -> Path:
        return self.root / _VERSION / digest[:2] / digest

    def _evict(self, max_bytes: int) -> CacheReport:
        entries = self.entries()
        total = sum(info.bytes for info in entries)
        removed = freed = 0
        for info in entries:
            if total - freed <= max_bytes:
                break
            if info.digest in self._in_use:
                continue
            shutil.rmtree(self._folder(info.digest), ignore_errors=True)
            removed, freed = removed + 1, freed + info.bytes
        return CacheReport(removed, freed)

    def _sweep(self) -> int:
        """Remove unfinished files that nobody will finish; return their bytes."""
        freed = 0
        for path in (self.root / _VERSION).rglob(f"*{_PARTIAL}"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                if time.time() - facts.st_mtime > _STALE_SECONDS:
                    path.unlink()
                    freed += facts.st_size
        return freed


class CacheEntry:
    """Tiles of one image; made by `FeatureCache.entry`. A `TileStore`."""

    def __init__(self, cache: FeatureCache, folder: Path, key: EntryKey) -> None:
        self._cache, self._folder, self._key = cache, folder, key
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def describe(self, **names: str) -> None:
        """Names for people (image, backbone), written with the first tile."""
        self._names = names

    def touch(self) -> None:
        """Mark as used now; a cache that may not be written keeps its times."""
        with contextlib.suppress(OSError):
            os.utime(self._folder / _ENTRY)

    def has(self, spec: MapSpec, row: int, col: int) -> bool:
        """Whether a tile is there (whole or not)."""
        return os.path.exists(self._chunk(spec, row, col))

    def read_tile(self, spec: MapSpec, row: int, col: int, shape: tuple[int, int]) -> NDArray[np.float16] | None:
        """A tile's cells ``(C, *shape)`` float16; None if it is missing or damaged (a damaged one is deleted)."""
        with self._cache.forgiving():
            return self._read_tile(spec, row, col, shape)
        return None

    def _read_tile(self, spec: MapSpec, row: int, col: int, shape: tuple[int, int]) -> NDArray[np.float16] | None:
        chunk = self._chunk(spec, row, col)
        if not os.path.exists(chunk):
            return None
        rows, cols = self._spans(spec, row, col)
        try:
            values = np.asarray(self._opened(spec, "r")[:, rows, cols])
        except FileNotFoundError:  # evicted by another process just now
            return None
        except OSError as error:
            raise CacheError(f"cannot read {chunk} of the feature cache ({error}); check the drive, or --no-cache") from error
        except _UNDECODABLE:
            _delete(chunk)
            return None
        if np.isnan(values[0, 0, 0]):  # the fill value: the chunk went away between the look and the read
            return None
        return values[:, : shape[0], : shape[1]]

    def write_tile(self, spec: MapSpec, row: int, col: int, values: NDArray[np.float16]) -> None:
        """Keep a tile's cells ``(C, h, w)``; smaller than the grid's tiles at the image's border.

        Raises
        ------
        CacheError
            If the disk is full or the folder may not be written, and the cache is not optional.
        """
        if not self._cache.pausing:
            with self._cache.forgiving():
                self._write_tile(spec, row, col, values)

    def _write_tile(self, spec: MapSpec, row: int, col: int, values: NDArray[np.float16]) -> None:
        height, width = self._key.cells(spec.stride)
        if values.shape[0] != spec.channels or values.shape[1] > height or values.shape[2] > width:
            raise ValueError(f"a tile of shape {values.shape} does not fit into ({spec.channels}, {height}, {width})")
        whole = np.zeros((spec.channels, height, width), np.float16)
        whole[:, : values.shape[1], : values.shape[2]] = values
        rows, cols = self._spans(spec, row, col)
        with _writing(self._folder):
            self._array(spec)[:, rows, cols] = whole
            with self._lock:
                if not (self._folder / _ENTRY).exists():
                    make_folder(self._folder)  # somebody may have removed the cache: it begins anew
                    write_json(self._folder / _ENTRY, {"key": asdict(self._key), "names": self._names})
            self._cache.wrote(whole.nbytes)

    def _spans(self, spec: MapSpec, row: int, col: int) -> tuple[slice, slice]:
        height, width = self._key.cells(spec.stride)
        return slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width)

    def _chunk(self, spec: MapSpec, row: int, col: int) -> Path:
        return self._folder / spec.name / "c" / "0" / str(row) / str(col)

    def _array(self, spec: MapSpec) -> zarr.Array[Any]:
        """The map's array for writing; made anew if it is missing (first tile, or evicted by another process) or damaged."""
        from zarr.errors import ContainsArrayError

        path = self._folder / spec.name
        with self._lock:
            if os.path.lexists(path / "zarr.json"):
                try:
                    return self._opened(spec, "r+")
                except (*_UNDECODABLE, IsADirectoryError):
                    shutil.rmtree(path)
            try:
                return self._create(spec, path)
            except ContainsArrayError:  # another process has made it just now
                return self._opened(spec, "r+")

    def _opened(self, spec: MapSpec, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
        """The map's array; ValueError if it is not as we make it, which gives other numbers without an error."""
        import zarr
        from zarr.codecs import BytesCodec

        with quiet():  # a damaged description makes zarr warn before it raises
            array = zarr.open_array(self._folder / spec.name, mode=mode, config=_CONFIG)
        found = array.shape, array.chunks, array.dtype, array.filters, array.serializer
        if found != (*self._layout(spec), np.dtype(np.float16), (), BytesCodec()) or not np.isnan(array.fill_value):
            raise ValueError("the array is not one of these features")
        return array

    def _layout(self, spec: MapSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape of a map's array and of its chunks."""
        (height, width), (n_rows, n_cols) = self._key.cells(spec.stride), self._key.grid
        return (spec.channels, n_rows * height, n_cols * width), (spec.channels, height, width)

    def _create(self, spec: MapSpec, path: Path) -> zarr.Array[Any]:
        import zarr
        from zarr.codecs import ZstdCodec

        shape, chunks = self._layout(spec)
        return zarr.create_array(
            path,
            shape=shape,
            chunks=chunks,
            dtype="float16",
            fill_value=float("nan"),
            compressors=ZstdCodec(level=1, checksum=True),
            config=_CONFIG,  # type: ignore[arg-type]
            overwrite=False,
        )


@dataclass(frozen=True)
class _Described:
    names: dict[str, str]


def _describe(folder: Path) -> EntryInfo | None:
    """Facts about an entry; None if it is just being removed. One whose file is damaged has no names and counts as old."""
    names, last_used = dict[str, str](), 0.0
    with contextlib.suppress(OSError, ValueError):
        names = read_json(folder / _ENTRY, _Described).names
        last_used = (folder / _ENTRY).stat().st_mtime
    try:
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    except OSError:
        return None
    tiles = sum(1 for _ in folder.glob("*/c/*/*/*"))
    maps = sum(1 for _ in folder.glob("*/zarr.json"))
    return EntryInfo(folder.name, names.get("image", ""), names.get("backbone", ""), maps, tiles, sum(sizes), last_used)


def _decodes(array: Path, chunk: Path) -> bool:
    """Whether a chunk can be read; one that cannot is deleted."""
    import zarr

    row, col = int(chunk.parent.name), int(chunk.name)
    try:
        with quiet():
            opened = zarr.open_array(array, mode="r")
        height, width = opened.chunks[1:]
        np.asarray(opened[:, row * height : (row + 1) * height, col * width : (col + 1) * width])
    except _UNDECODABLE:
        _delete(chunk)
        return False
    return True


def _delete(chunk: Path) -> None:
    with contextlib.suppress(OSError):  # a cache that may only be read keeps its damaged tile
        chunk.unlink()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing into a `CacheError` that tells what to do."""
    try:
        yield
    except OutputError as error:
        raise CacheError(f"{error}; or choose another folder with --cache") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(path)).free
            raise CacheError(
                f"the disk of the feature cache is full ({free / 1e6:.0f} MB left at {path}); free some with "
                "`mdm-studio cache prune --max-size 5GB` or choose another folder with --cache"
            ) from error
        raise CacheError(
            f"the feature cache cannot be written at {path} ({error.strerror}); choose another folder with --cache"
        ) from error


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))
