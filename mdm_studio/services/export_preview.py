"""What an export would make of an image: a part of it, in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.arrays import Pixels
from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.objects import number_objects
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import UsageError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import BasePlane, Plane, open_image
from mdm_studio.services.batch import background_of
from mdm_studio.services.classifier import load_classifier
from mdm_studio.services.export_request import PredictOptions
from mdm_studio.services.image_kinds import differences

PREVIEW = 1024
"""Rows and columns that a preview shows, at most."""


def preview(
    classifier: Path,
    path: Path,
    options: PredictOptions,
    *,
    backbone: str | None = None,
    device: str = "auto",
    centre: tuple[int, int] | None = None,
    cache: FeatureCache | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[Any]]:
    """Predict a part of an image's first plane; nothing is written, and `options.out` does not matter.

    Parameters
    ----------
    classifier, path : Path
        FILE.mdm and the image.
    options : PredictOptions
        Whether and how objects are found; smoothing.
    backbone, device : str
        As in `mdm_studio.services.export_request.ExportRequest`.
    centre : (int, int), optional
        Row and column that the part lies around, as far as the image goes; the middle of the image by default.
    cache : FeatureCache, optional
        Where features of the whole image may be already.
    stop : callable
        Asked after every tile.

    Returns
    -------
    dict
        "image" (C, h, w) raw pixels, "mask" (h, w) class values, "probabilities" (K, h, w), "uncertainty" (h, w), and "objects"
        (h, w) numbers if `options` has objects; h and w are `PREVIEW` at most. "corner" (2,): row and column of
        the first pixel.

    Raises
    ------
    MDMStudioError
        If the classifier or the image cannot be used, or if `stop` says True.

    Notes
    -----
    Inside, the pixels are those of the export; near the border of a part the network sees a mirror instead of the rest of the
    image.
    """
    fitted = load_classifier(classifier, backbone=backbone, device=device)
    with open_image(path, fitted.info.channels) as image:
        differences(fitted.info, image, str(path))
        part = _Part(image.plane(0), centre)
        raw = part.read(slice(None), slice(None))
        shape = raw.shape[1:]
        values = np.array([each.value for each in fitted.info.classes])
        labels = np.zeros(shape, np.int64)
        probabilities = np.zeros((len(values), *shape), np.float32)
        uncertainty = np.zeros(shape, np.float32)
        smooth = fitted.info.smooth if options.smooth is None else options.smooth
        # a part is known by its own pixels alone, and its features by those of the whole
        source = PlaneFeatures(fitted.backbone, part, fitted.settings, cache if part.whole else None)
        for rows, cols, found in predict_plane(fitted.ensemble, source, smooth=smooth):
            labels[rows, cols] = found.labels
            probabilities[:, rows, cols], uncertainty[rows, cols] = found.probabilities, found.uncertainty
            if stop():
                raise UsageError("the preview was stopped")
    mask = values.astype(np.uint8 if values.max() < 256 else np.uint16)[labels]
    maps: dict[str, NDArray[Any]] = {"image": raw, "mask": mask, "probabilities": probabilities, "uncertainty": uncertainty}
    maps["corner"] = np.array(part.corner)
    if options.objects is not None:
        likely = np.take_along_axis(probabilities, labels[None], axis=0)[0]
        maps["objects"] = number_objects(mask, options.objects, background_of(options, values.tolist()), likely)
    return maps


class _Part(BasePlane):
    """A part of a plane, seen in the light of the whole: its intensities are scaled as in the export."""

    def __init__(self, plane: Plane, centre: tuple[int, int] | None) -> None:
        channels, *sides = plane.shape
        size = [min(side, PREVIEW) for side in sides]
        super().__init__((channels, size[0], size[1]), plane.dtype, rgb=plane.rgb, name=plane.name)
        middle = centre or [side // 2 for side in sides]
        self._plane, self.whole = plane, size == sides
        self.corner = [
            min(max(0, at - length // 2), side - length) for at, length, side in zip(middle, size, sides, strict=True)
        ]

    def sample(self, max_pixels: int = 1 << 20) -> Pixels:
        return self._plane.sample(max_pixels)

    def changed(self) -> bool:
        return self._plane.changed()

    def _region(self, rows: slice, cols: slice) -> Pixels:
        top, left = self.corner
        window = slice(rows.start + top, rows.stop + top), slice(cols.start + left, cols.stop + left)
        return self._plane.read(*window)[:, :: rows.step, :: cols.step]
