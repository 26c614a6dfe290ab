"""Make the bundled sample: ten CC0 images of nuclei, true masks, and strokes as a person would paint on five of them.

    python scripts/make_samples.py DATA/dsb2018 resources/samples/nuclei

DATA/dsb2018 is BBBC038v1, stage 1, with corrected masks (images/, masks/ with nucleus instances, index.csv).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.draw import disk, line

PAINTED = {
    "fluorescence-small": "64eeef16fdc4",
    "fluorescence-large": "ff599c7301da",
    "fluorescence-round": "4d4ebfcae437",
    "tissue-purple": "cbca32daaae3",
    "tissue-white": "4590d7d47f52",
}
HELD_OUT = {
    "test-fluorescence-small": "3bf7873f1182",
    "test-fluorescence-large": "4c032609d377",
    "test-fluorescence-round": "7b5987a24dd5",
    "test-tissue-purple": "2dd3356f2dcf",
    "test-tissue-white": "947c0d94c821",
}
GROUND, NUCLEUS = 1, 2
STROKES, RADIUS = 4, 2


def stroke(inside: NDArray[np.bool_], length: float, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A straight stroke of a round brush that stays well inside a region."""
    deep = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] > RADIUS + 0.5
    ys, xs = np.nonzero(deep if deep.any() else inside)
    start = rng.integers(len(ys))
    far = np.hypot(ys - ys[start], xs - xs[start])
    end = rng.choice(np.flatnonzero(far <= length))
    rows, cols = line(ys[start], xs[start], ys[end], xs[end])
    drawn = np.zeros(inside.shape, bool)
    for y, x in zip(rows, cols, strict=True):
        drawn[disk((y, x), RADIUS + 0.5, shape=inside.shape)] = True
    return np.nonzero(drawn & inside)


def paint(instances: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Label map with a few strokes on the ground and through a few nuclei."""
    labels = np.zeros(instances.shape, np.uint8)
    ids, sizes = np.unique(instances[instances > 0], return_counts=True)
    large = ids[sizes >= np.median(sizes)]
    for nucleus in rng.choice(large, size=min(STROKES + 1, len(large)), replace=False):
        labels[stroke(instances == nucleus, 30, rng)] = NUCLEUS
    for _ in range(STROKES):
        labels[stroke(instances == 0, 50, rng)] = GROUND
    return labels


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "strokes"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for name, prefix in (PAINTED | HELD_OUT).items():
        image = next((source / "images").glob(f"{prefix}*.png"))
        shutil.copyfile(image, target / "images" / f"{name}.png")
        shutil.copyfile(source / "masks" / image.name, target / "masks" / f"{name}.png")
        if name in PAINTED:
            labels = paint(np.asarray(Image.open(source / "masks" / image.name)), rng)
            Image.fromarray(labels).save(target / "strokes" / f"{name}.png")


if __name__ == "__main__":
    main()
