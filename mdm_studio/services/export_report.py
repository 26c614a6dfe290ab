"""``export.json``: what an export did, with which program, classifier and settings, image by image."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import mdm_studio
from mdm_studio.io.atomic import write_json
from mdm_studio.io.classifier_file import ClassifierInfo
from mdm_studio.services.export_record import REPORT, Record
from mdm_studio.services.export_request import ExportRequest, FileResult

VERSION = 1
_LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "zarr", "tifffile", "pillow", "pyarrow", "distributed")
_NOT_REACHED = "not reached"


class Report:
    """Gathers what `export.json` will say; `write` may be called at any time, and writes it whole.

    Parameters
    ----------
    request : ExportRequest
        With absolute paths.
    info, digest : ClassifierInfo, str
        The classifier and its digest.
    smooth : int
        Radius of the filter that is used.
    """

    def __init__(self, request: ExportRequest, info: ClassifierInfo, digest: str, smooth: int) -> None:
        self._request, self._info, self._digest, self._smooth = request, info, digest, smooth
        self._began, self._clock = datetime.now(UTC), time.perf_counter()
        self._results: dict[Path, FileResult] = {}

    def add(self, result: FileResult) -> None:
        """Take the result of an image."""
        self._results[result.image] = result

    @property
    def results(self) -> Sequence[FileResult]:
        """Results so far, in the order they came."""
        return list(self._results.values())

    def write(self, record: Record, state: Literal["done", "stopped", "failed"], message: str = "") -> None:
        """Write `export.json` into the folder of the masks.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        out = self._request.options.out
        images = [self._image(path) for path in self._request.images]
        states = [each["state"] for each in images]
        write_json(
            out / REPORT,
            {
                "kind": "mdm-studio export",
                "version": VERSION,
                "state": state,
                "message": message,
                "began": self._began.isoformat(timespec="seconds"),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.perf_counter() - self._clock, 3),
                "counts": {each: states.count(each) for each in dict.fromkeys(states)},
                "program": {"mdm-studio": mdm_studio.__version__, "python": platform.python_version(), **_versions()},
                "classifier": self._classifier(),
                "settings": self._settings(),
                "failures": {str(path): each.message for path, each in self._results.items() if each.state == "failed"},
                "images": images,
                "files": record.as_json(),
            },
        )

    def _classifier(self) -> dict[str, Any]:
        info = self._info
        return {
            "file": str(self._request.classifier),
            "digest": self._digest,
            "classes": [asdict(each) for each in info.classes],
            "backbone": info.backbone,
            "backbone_digest": info.backbone_digest,
            "blocks": list(info.blocks),
            "timesteps": list(info.timesteps),
            "scales": list(info.scales),
            "filters": info.filters,
            "precision": info.precision,
            "channels": info.channels,
            "fitted_on": None if info.images is None else asdict(info.images),
        }

    def _settings(self) -> dict[str, Any]:
        facts = self._request.to_json()
        settings: dict[str, Any] = facts["options"] | {key: facts[key] for key in ("device", "workers", "scheduler")}
        settings["smooth"] = self._smooth
        return settings

    def _image(self, path: Path) -> dict[str, Any]:
        result = self._results.get(path)
        if result is None:
            return {"image": str(path), "state": _NOT_REACHED}
        out = self._request.options.out
        return {
            "image": str(path),
            "state": result.state,
            "message": result.message,
            "seconds": round(result.seconds, 3),
            "differs": result.differs,
            "objects": result.objects,
            "pixels": {str(value): count for value, count in result.pixels.items()},
            "left_out": list(result.left_out),
            "notes": list(result.notes),
            "outputs": {kind: file.relative_to(out).as_posix() for kind, file in result.outputs.items()},
        }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # distributed is optional
            continue
    return found
