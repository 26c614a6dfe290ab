"""Images and classifiers that the tests of exports share: fitted once."""

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class ExportSet:
    """Three images of two tiles and more, and two classifiers for them; nobody writes into its folder."""

    images: tuple[Path, ...]
    classifier: Path
    other: Path


@pytest.fixture(scope="session")
def export_set(tmp_path_factory, tiny_backbone) -> ExportSet:
    import numpy as np
    from PIL import Image

    from mdm_studio.engine.heads import EnsembleConfig
    from mdm_studio.engine.objects import finished
    from mdm_studio.services.fitting import FitRequest, fit_classifier
    from mdm_studio.testing import blobs

    folder = tmp_path_factory.mktemp("export")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(3):
        image, mask = blobs(100, 150, seed=number)
        Image.fromarray(image).save(folder / "images" / f"field{number}.png")
        strokes = np.where(np.arange(100)[:, None] % 6 == 0, mask, 0).astype(np.uint8)
        Image.fromarray(strokes).save(folder / "labels" / f"field{number}.png")
    for seed, name in enumerate(("a.mdm", "b.mdm")):
        ensemble = EnsembleConfig(members=2, seed=seed)
        request = FitRequest(
            (str(folder / "images"),), folder / "labels", str(tiny_backbone), class_names=("ground", "disc"), ensemble=ensemble
        )
        finished(fit_classifier(request, None)).save(folder / name)
    return ExportSet(tuple(sorted((folder / "images").iterdir())), folder / "a.mdm", folder / "b.mdm")
