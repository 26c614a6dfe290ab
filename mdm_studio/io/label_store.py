"""Strokes on disk: an OME-Zarr 0.5 label image of which only the painted chunks exist.

::

    NAME.ome.zarr/
      zarr.json            a group: axes, pixel size, names and colours of the classes, as OME-Zarr has them
      0/zarr.json          shape: stack + (H, W), uint8, chunks 1 x ... x 512 x 512, zstd with a checksum, fill 0
      0/c/3/0/7            painted chunk: plane 3, rows 0 to 511, columns 3584 to 4095
    NAME.painted.json      which chunks there are: Zarr does not tell one that was lost from an empty one

Zarr writes a chunk under a temporary name and renames it, and removes a chunk that is all 0, so that a killed program leaves
whole chunks only. What OME-Zarr programs read, napari with its reader among them, opens the folder with its colours.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import FolderLostError, OutputError, ProjectError
from mdm_studio.io.atomic import make_folder, output_error, write_text
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.json_files import read_small_file
from mdm_studio.io.label_record import chunk_names, read_record, record_path, write_record
from mdm_studio.io.quiet import quiet

if TYPE_CHECKING:  # zarr is imported by whoever opens labels first: a window that opens does not wait for it
    import zarr

CHUNK = 512
"""Rows and columns of a chunk: a stroke touches one or two, and one is written in a few milliseconds."""

LEVEL = "0"
"""Name of the array within the group."""
SUFFIX = ".ome.zarr"
_ZARR = "zarr.json"

# Stack axes by their number: OME-Zarr knows these letters alone. A viewer's array does not say what its axes are.
_AXES = ("", "z", "tz", "tcz")
_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

# what zarr, its codecs and JSON raise for damaged bytes
_UNDECODABLE = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
_Place = tuple[int | slice, ...]


def chunks_touching(shape: tuple[int, int], rows: slice, cols: slice) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the chunks of a plane that a region touches, clipped to the plane.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the plane.
    rows, cols : slice
        The region; slices as NumPy's, without a step.

    Examples
    --------
    >>> list(chunks_touching((600, 600), slice(510, 514), slice(0, 1)))
    [(slice(0, 512, None), slice(0, 512, None)), (slice(512, 600, None), slice(0, 512, None))]
    """
    (top, bottom, _), (left, right, _) = rows.indices(shape[0]), cols.indices(shape[1])
    if top >= bottom or left >= right:
        return
    for y in range(top - top % CHUNK, bottom, CHUNK):
        for x in range(left - left % CHUNK, right, CHUNK):
            yield slice(y, min(y + CHUNK, shape[0])), slice(x, min(x + CHUNK, shape[1]))


class StoredLabels:
    """The strokes of one image on disk. Threads may share it; processes may not (see `mdm_studio.io.folder_lock`).

    Parameters
    ----------
    folder : Path
        The ``.ome.zarr`` folder; made with the first chunk.
    stack_shape, shape : tuple of int, (int, int)
        Lengths of the image's stack axes, and the height and width of a plane.
    within : Path, optional
        A folder above that must be there when `folder` is made: the project's. Without it whatever is missing is made.

    Attributes
    ----------
    damaged : list of str
        What could not be read so far, in words; it was read as empty.

    Raises
    ------
    ProjectError
        If the folder holds labels of another shape, or cannot be read.
    """

    def __init__(
        self, folder: Path, stack_shape: tuple[int, ...], shape: tuple[int, int], *, within: Path | None = None
    ) -> None:
        self.stack_shape, self.shape = tuple(stack_shape), (shape[0], shape[1])
        self.damaged: list[str] = []
        self._spoilt: set[Path] = set()  # files that could not be read
        self._lock = threading.RLock()
        self._about = label_image(folder.name.removesuffix(SUFFIX), (), self.stack_shape)
        self.relocate(folder, within)

    def relocate(self, folder: Path, within: Path | None) -> None:
        """Go on in another folder, where it was moved or is still to be made; see the parameters of the class.

        Raises
        ------
        ProjectError
            If it holds labels of another shape, or cannot be read.
        """
        with self._lock:
            self.folder, self._within = folder, within
            self._array: zarr.Array[Any] | None = None
            self._told = ""  # what is on disk, as far as is known
            if (folder / LEVEL).exists():
                self._array = self._open()
                with contextlib.suppress(OSError, OutputError):  # of strokes that are not in it yet; with the next one, then
                    self._record(*chunk_names(folder, len(self.stack_shape) + 2))
            for partial in folder.rglob("*.partial"):  # a process was killed while it wrote
                partial.unlink(missing_ok=True)

    def describe(self, text: str) -> None:
        """Say what the labels mean: a text that `label_image` made. It is written with the first chunk, or now.

        Raises
        ------
        OutputError
            If the system refuses.
        """
        with self._lock:
            self._about = text
            if self._array is not None:
                self._write_about()

    def write(self, index: tuple[int, ...], rows: slice, cols: slice, block: NDArray[np.uint8]) -> None:
        """Put the strokes of a region.

        Parameters
        ----------
        index : tuple of int
            Position in the stack.
        rows, cols : slice
            The region, inside the plane. Whole chunks (see `chunks_touching`) are the quickest; of others the rest is kept.
        block : (h, w) uint8
            Its labels; 0 is unlabelled.

        Raises
        ------
        ValueError
            If `block` is not uint8, it and the region differ in size, or there is no such plane.
        FolderLostError
            If the labels that were here have gone.
        OutputError
            If the system refuses (disk full, read-only folder, ...). Chunks written before stay written.

        Notes
        -----
        A chunk that was found damaged is kept beside the new one under a name that ends in ``.damaged``.
        """
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), cols.indices(self.shape[1])
        self._check(index)
        if block.dtype != np.uint8 or block.shape != (bottom - top, right - left):
            where = f"rows {top}:{bottom}, columns {left}:{right}"
            raise ValueError(f"a block of shape {block.shape}, type {block.dtype} does not fit into {where}: uint8 is wanted")
        with self._lock:
            for y, x in chunks_touching(self.shape, rows, cols):
                inner_y, inner_x = _overlap(y, top, bottom), _overlap(x, left, right)
                part = block[_shift(inner_y, top), _shift(inner_x, left)]
                if (inner_y, inner_x) != (y, x):
                    whole = self.read(index, y, x)
                    whole[_shift(inner_y, y.start), _shift(inner_x, x.start)] = part
                    part = whole
                place: _Place = (*index, y, x)
                try:
                    self._check_there()
                    painted = bool(part.any())
                    if not painted:
                        self._record(erased=self._name(index, y, x))
                    self._keep_damaged(self._chunk(index, y, x))
                    self._writable()[place] = np.ascontiguousarray(part)
                    if painted:
                        self._record(self._name(index, y, x))
                except OSError as error:
                    raise output_error(self._chunk(index, y, x), error) from error

    def read(self, index: tuple[int, ...], rows: slice, cols: slice) -> NDArray[np.uint8]:
        """The strokes of a region, ``(h, w)`` uint8; damaged chunks are 0 and named in `damaged`.

        Raises
        ------
        ProjectError
            If the disk cannot be read.
        """
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), cols.indices(self.shape[1])
        self._check(index)
        found = np.zeros((max(0, bottom - top), max(0, right - left)), np.uint8)
        for y, x in chunks_touching(self.shape, rows, cols):
            chunk = self._read_chunk(index, y, x)
            if chunk is not None:
                inner_y, inner_x = _overlap(y, top, bottom), _overlap(x, left, right)
                part = chunk[_shift(inner_y, y.start), _shift(inner_x, x.start)]
                found[_shift(inner_y, top), _shift(inner_x, left)] = part
        return found

    def painted_chunks(self) -> Iterator[tuple[tuple[int, ...], slice, slice]]:
        """Position in the stack, rows and columns of every chunk on disk, in order; takes time for those only."""
        names = chunk_names(self.folder, len(self.stack_shape) + 2)
        places = sorted(tuple(map(int, name.split("/"))) for name in names)
        for *index, row, col in places:
            if all(i < n for i, n in zip(index, self.stack_shape, strict=True)):  # a stray file is no chunk
                y, x = row * CHUNK, col * CHUNK
                yield from ((tuple(index), *spans) for spans in chunks_touching(self.shape, slice(y, y + 1), slice(x, x + 1)))

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Let nothing be written in the ``with`` block, so that a copy that is made in it is of one moment."""
        with self._lock:
            yield

    def _read_chunk(self, index: tuple[int, ...], y: slice, x: slice) -> NDArray[np.uint8] | None:
        path = self._chunk(index, y, x)
        place: _Place = (*index, y, x)
        with self._lock:
            if self._array is None or not os.path.lexists(path):
                return None
            if not path.is_file():  # zarr would take it for a chunk that is not there
                self._note(path, "is no file")
                return None
            try:
                return np.asarray(self._array[place], np.uint8)
            except OSError as error:
                if error.errno != errno.EIO:  # a bad sector spoils this chunk alone
                    raise ProjectError(f"cannot read the labels {path} ({error}); check the drive") from error
                self._note(path, f"cannot be read ({error})")
            except _UNDECODABLE as error:
                self._note(path, f"is damaged ({error})")
        return None

    def _note(self, path: Path, what: str) -> None:
        self._spoilt.add(path)
        text = f"{path} {what}"
        if text not in self.damaged:
            self.damaged.append(text)

    def _keep_damaged(self, path: Path) -> None:
        """Put a file that could not be read beside what is to take its name: somebody may know how to mend it."""
        if path in self._spoilt or (os.path.lexists(path) and not path.is_file()):
            with contextlib.suppress(FileNotFoundError):
                path.rename(_free_name(path))
            self._spoilt.discard(path)

    def _check_there(self) -> None:
        if self._array is not None and not (self.folder / LEVEL / _ZARR).exists():
            raise FolderLostError(f"the strokes {self.folder} were moved or removed while they were open")

    def _record(self, *written: str, erased: str = "") -> None:
        """Keep the record of the chunks; where there is none it begins with those that are there."""
        path = record_path(self.folder)
        try:
            recorded = read_record(self.folder)
        except (OSError, ValueError) as error:
            self._note(path, f"is damaged ({error})")
            self._keep_damaged(path)
            recorded = None
        known = chunk_names(self.folder, len(self.stack_shape) + 2) if recorded is None else recorded
        now = known.union(written) - {erased}
        if now != recorded and (known or now):
            write_record(self.folder, now)

    def _write_about(self) -> None:
        if self._told != self._about:
            path = self.folder / _ZARR
            with contextlib.suppress(OSError, ValueError):
                self._told = read_small_file(path).decode("utf-8")
            if self._told != self._about:
                self._keep_damaged(path)
                write_text(path, self._about)
            self._told = self._about

    def _chunk(self, index: tuple[int, ...], y: slice, x: slice) -> Path:
        return self.folder.joinpath(LEVEL, "c", self._name(index, y, x))

    @staticmethod
    def _name(index: tuple[int, ...], y: slice, x: slice) -> str:
        return "/".join(map(str, (*index, y.start // CHUNK, x.start // CHUNK)))

    def _check(self, index: tuple[int, ...]) -> None:
        if len(index) != len(self.stack_shape) or not all(0 <= i < n for i, n in zip(index, self.stack_shape, strict=True)):
            raise ValueError(f"there is no plane {index} in a stack of shape {self.stack_shape}")

    def _open(self) -> zarr.Array[Any]:
        """The array on disk; its description is written anew if it is damaged, and the chunks stay."""
        import zarr

        from mdm_studio.io.zarr_store import FolderStore

        path = self.folder / LEVEL / _ZARR
        if not path.exists():
            return self._writable()
        try:
            if not path.is_file():
                raise ValueError("it is no regular file")  # a named pipe would be waited for for ever
            with quiet():  # a damaged description makes zarr warn before it raises
                array = zarr.open_array(FolderStore(self.folder / LEVEL, durable=True), mode="r+")
        except _UNDECODABLE as error:
            self._note(path, f"is damaged ({' '.join(str(error).split())}) and was written anew")
            self._keep_damaged(path)
            return self._writable()
        except OSError as error:
            raise ProjectError(f"cannot read the labels {path} ({error}); check the drive") from error
        wanted = (*self.stack_shape, *self.shape)
        if array.shape != wanted or array.chunks != self._chunks or array.dtype != np.uint8:
            raise ProjectError(
                f"the labels {self.folder} have the shape {array.shape}, type {array.dtype} and chunks {array.chunks}, and the "
                f"image wants {wanted}, uint8 and {self._chunks}: move the folder away if the image was replaced"
            )
        return array

    @property
    def _chunks(self) -> tuple[int, ...]:
        return (*(1 for _ in self.stack_shape), CHUNK, CHUNK)

    def _writable(self) -> zarr.Array[Any]:
        import zarr
        from zarr.codecs import ZstdCodec

        from mdm_studio.io.zarr_store import FolderStore

        if self._array is None:
            make_folder(self.folder / LEVEL, within=self._within)
            try:
                self._write_about()
                self._array = zarr.create_array(
                    FolderStore(self.folder / LEVEL, durable=True),
                    shape=(*self.stack_shape, *self.shape),
                    chunks=self._chunks,
                    dtype="uint8",
                    fill_value=0,
                    compressors=ZstdCodec(level=1, checksum=True),
                    dimension_names=list(_axes(len(self.stack_shape))),
                )
            except OSError as error:
                raise output_error(self.folder, error) from error
        return self._array


def label_image(
    name: str,
    classes: Sequence[LabelClass],
    stack_shape: tuple[int, ...] = (),
    pixel_size: tuple[float, float] = (1.0, 1.0),
    unit: str = "",
) -> str:
    """The ``zarr.json`` of a group that OME-Zarr 0.5 takes for a label image; see `StoredLabels.describe`.

    Parameters
    ----------
    name : str
        For people.
    classes : sequence of LabelClass
        Their names and colours.
    stack_shape : tuple of int
        How many stack axes there are; more than three have no name in OME-Zarr and are called d0, d1, ...
    pixel_size, unit : (float, float), str
        Height and width of a pixel, and the unit as OME-Zarr spells it; empty if it is not known.
    """
    names = _axes(len(stack_shape))
    units = {"y": unit, "x": unit} if unit else {}
    axes = [{"name": axis, "type": _KINDS.get(axis, "space")} | _named("unit", units.get(axis)) for axis in names]
    scale = [*(1.0 for _ in stack_shape), *map(float, pixel_size)]
    dataset = {"path": LEVEL, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    label: dict[str, Any] = {
        "version": "0.5",
        "colors": [{"label-value": each.value, "rgba": [*bytes.fromhex(each.color[1:]), 255]} for each in classes],
        "properties": [{"label-value": each.value, "class": each.name} for each in classes],
    }
    if not classes:  # an empty list is not allowed
        label = {"version": "0.5"}
    ome = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": [dataset]}],
        "image-label": label,
    }
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}, indent=2) + "\n"


def _axes(stack: int) -> tuple[str, ...]:
    return (*(_AXES[stack] if stack < len(_AXES) else (f"d{number}" for number in range(stack))), "y", "x")


def _named(name: str, value: str | None) -> dict[str, str]:
    return {name: value} if value else {}


def _free_name(path: Path) -> Path:
    """A name beside `path` for what was found damaged there."""
    names = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(f"{path.name}.damaged{name}")).exists())


def _overlap(chunk: slice, start: int, stop: int) -> slice:
    return slice(max(chunk.start, start), min(chunk.stop, stop))


def _shift(span: slice, origin: int) -> slice:
    return slice(span.start - origin, span.stop - origin)
