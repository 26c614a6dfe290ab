"""Arrays that are needed for a while: in memory while they are small, on the disk when they are not."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from mdm_studio.io.atomic import output_error
from mdm_studio.io.leftovers import unfinished_name

IN_MEMORY = 2048 * 2048
"""Pixels of the largest array that is kept in memory."""
_CHUNK = (128, 1024)  # low, because they are gone through in bands of rows; wide, because they are read in windows, too


class Scratch:
    """Gives arrays ``(H, W)`` of zeros that are read and written by slices; they end with the ``with`` block.

    Parameters
    ----------
    beside : Path
        Large arrays lie in a hidden folder beside this file, which is on the disk that has to have the room anyhow. Its name
        ends as that of every unfinished file, so that the next run sweeps what a killed one left.
    """

    def __init__(self, beside: Path) -> None:
        self._folder = beside.with_name(unfinished_name(beside.name))

    def array(self, name: str, shape: tuple[int, int], dtype: DTypeLike) -> Any:
        """An array: NumPy's, or zarr's, which takes and gives the same slices.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        if shape[0] * shape[1] <= IN_MEMORY:
            return np.zeros(shape, dtype)
        import zarr

        chunks = (min(_CHUNK[0], shape[0]), min(_CHUNK[1], shape[1]))
        try:
            self._folder.mkdir(exist_ok=True)
            place = self._folder / f"{name}.zarr"
            return zarr.create_array(place, shape=shape, dtype=dtype, chunks=chunks, overwrite=True)
        except OSError as error:
            raise output_error(self._folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
