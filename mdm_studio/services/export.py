"""Masks of many images, and all that goes with them: the export of `predict`, the window and the jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.services.export_request import ExportRequest, FileResult, PredictOptions, TileProgress

if TYPE_CHECKING:
    from mdm_studio.io.job_folder import JobFolder

__all__ = ["ExportRequest", "FileResult", "PredictOptions", "TileProgress", "export", "preview", "run"]

PREVIEW = 1024
"""Rows and columns that `preview` looks at, at most."""


def run(folder: JobFolder, *, stop: Callable[[], bool]) -> Iterator[Any]:
    """The job "export"."""
    raise NotImplementedError


def export(request: ExportRequest, *, stop: Callable[[], bool] = lambda: False) -> Iterator[TileProgress | FileResult]:
    """Predict every image of a request."""
    raise NotImplementedError


def preview(
    classifier: Path, path: Path, options: PredictOptions, *, backbone: str | None = None, device: str = "auto"
) -> dict[str, NDArray[np.generic]]:
    """One image, in memory, nothing written.

    Returns
    -------
    dict
        "image" (C, h, w) raw pixels, "mask" (h, w) class values, "probabilities" (K, h, w), "uncertainty" (h, w), and "objects"
        (h, w) numbers if `options` has objects: of the middle of the first plane, `PREVIEW` pixels a side at most.
    """
    raise NotImplementedError
