"""The table of DDeP: whole networks fine-tuned on a share of the labels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import DataSet

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.finetune import FinetuneConfig
from mdm_studio.engine.objects import finished
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.services.fitting import FitRequest, fit
from paper_tables.protocol import Rules, fold, labelled, of_mask


def measure_finetuned(
    backbone: Path, data: DataSet, scale: int, level: str, ten_percent: int, seed: int, rules: Rules, steps: int, device: str
) -> dict[str, Any]:
    """Fine-tune on dense labels of the first images of a fold, and the scores of every test image."""
    begin = time.perf_counter()
    split = fold(data, seed, rules.tests)
    names = labelled(split, level, ten_percent)
    request = FitRequest(
        tuple(str(data.image(name)) for name in names),
        data.root / "masks",
        str(backbone),
        scales=(scale,),
        unlabelled=None,
        objects=True,
        smooth=0,
        device=device,
        head="finetune",
        finetune=FinetuneConfig(steps=steps, seed=seed, class_weight="none"),
    )
    classifier = finished(fit(request, None))
    scores: dict[str, list[float]] = {}
    for name in split.test:
        plane = split.tested_in.plane(name)
        found = np.zeros(plane.shape[1:], np.intp)
        source = PlaneFeatures(classifier.backbone, plane, classifier.settings)
        for rows, cols, tile in predict_plane(classifier.ensemble, source):
            found[rows, cols] = tile.labels  # classes 0 and 1: background and object
        for metric, value in of_mask(found, split.tested_in, name).items():
            scores.setdefault(metric, []).append(value)
    return {"labelled": len(names), "tested": split.test, "seconds": round(time.perf_counter() - begin, 1), "scores": scores}
