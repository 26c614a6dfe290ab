"""The table of Baranchuk et al.: their released DDPMs on their labelled photographs, where somebody has both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import Points
from numpy.typing import NDArray
from PIL import Image

from mdm_studio.engine.heads import EnsembleConfig, fit_ensemble
from mdm_studio.engine.metrics import confusion, miou, miou_published
from mdm_studio.io.images import ArrayPlane
from paper_tables.protocol import Reader, Rules
from paper_tables.tables import Scene

SIDE = 256
_FEW = 20  # a class with fewer pixels in an image is ignored there, as released
_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Photograph:
    """A picture of 256 x 256 and the class of every pixel."""

    plane: ArrayPlane
    truth: NDArray[np.intp]


def folder_of(data: Path, name: str, half: str) -> Path | None:
    """Folder with pictures and ``.npy`` labels of a half, in either layout."""
    for folder in (data / name / half, data / name / "real" / half):
        if any(folder.glob("*.npy")):
            return folder
    return None


def photographs(folder: Path, scene: Scene, most: int) -> list[Photograph]:
    """The first pictures by name, with labels in which rare classes are ignored."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES):
        labels = path.with_suffix(".npy")
        if labels.is_file() and len(found) < most:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            mask = Image.fromarray(np.load(labels, allow_pickle=False).squeeze().astype(np.uint8))
            truth = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.NEAREST)).astype(np.intp)
            plane = ArrayPlane(pixels.transpose(2, 0, 1), rgb=True, name=path.stem)
            found.append(Photograph(plane, _without_rare(truth, scene)))
    return found


def _without_rare(truth: NDArray[np.intp], scene: Scene) -> NDArray[np.intp]:
    values, counts = np.unique(truth, return_counts=True)
    return np.where(np.isin(truth, values[counts < _FEW]), scene.ignore, truth)


def measure_scene(
    reader: Reader, train: list[Photograph], test: list[Photograph], scene: Scene, seed: int, rules: Rules
) -> dict[str, Any]:
    """Fit on a random part of the labelled pixels, and both readings of the mean IoU, in percent."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for each in train:
        places = rng.permutation(np.flatnonzero(each.truth != scene.ignore))[: max(rules.limit // len(train), 1)]
        rows, cols = np.unravel_index(places, each.truth.shape)
        points = Points(rows, cols, each.truth[rows, cols], np.zeros(len(rows), np.intp))
        x.append(reader.of_plane(each.plane, points))
        y.append(points.truth)
    config = EnsembleConfig.of(dense=True, seed=seed, members=rules.members)
    ensemble = fit_ensemble(torch.from_numpy(np.concatenate(x)), np.concatenate(y), scene.classes, config)
    found = np.stack([reader.mask(ensemble, each.plane) for each in test])
    truth = np.stack([each.truth for each in test])
    classes = range(scene.classes)
    own = confusion(found.reshape(-1, SIDE), truth.reshape(-1, SIDE), [k for k in classes if k != scene.ignore], scene.ignore)
    published = miou_published(found.reshape(-1, SIDE), truth.reshape(-1, SIDE), classes, scene.ignore)
    return {"scores": {"miou": [published], "miou_own": [miou(own)]}, "pixels": len(np.concatenate(y)), "tested": len(test)}
