"""Peak memory of `features`, `fit` and `predict` on one large image.

    python benchmarks/memory.py --side 1000          limit 2 GB
    python benchmarks/memory.py --side 20000 --height 1536 --skip features     three rows of tiles: what smoothing holds
    python benchmarks/memory.py --side 20000 --skip features     limit 4 GB; the features would fill tens of GB of disk

A tiled TIFF of the given side is made of the bundled images, with strokes in one corner. Each command runs as a process of its
own; the figure is the operating system's count of its largest resident size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mdm_studio.config import DEFAULT_BACKBONE, resource

TILE = 256


def make_image(path: Path, labels: Path, height: int, side: int) -> None:
    """A mosaic of the sample as a tiled TIFF, and a label map with the strokes of its first tile."""
    sample = resource("samples/nuclei")
    name = "tissue-white"
    picture = np.asarray(Image.open(sample / "images" / f"{name}.png").convert("RGB"))[:TILE, :TILE]

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for _ in range(-(-height // TILE) * -(-side // TILE)):
            yield picture

    tifffile.imwrite(path, tiles(), shape=(height, side, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", bigtiff=True)
    strokes = np.zeros((height, side), np.uint8)
    some = np.asarray(Image.open(sample / "strokes" / f"{name}.png"))[:TILE, :TILE]
    strokes[: some.shape[0], : some.shape[1]] = some[:height, :side]
    tifffile.imwrite(labels, strokes, compression="zlib", tile=(TILE, TILE))


def peak(command: list[str]) -> tuple[float, float]:
    """Largest resident size in MB and wall seconds of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mdm_studio", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--height", type=int, help="other than the side")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--skip", default="", help="commands to leave out, for example features")
    args = parser.parse_args()
    height = args.height or args.side
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        make_image(folder / "images" / "large.tif", folder / "labels" / "large.tif", height, args.side)
        images, classifier = str(folder / "images"), str(folder / "a.mdm")
        cache = ["--cache", str(folder / "cache")]
        shared = ["--backbone", args.backbone, "--precision", args.precision]
        commands = {
            "features": ["features", images, *shared, *cache],
            "fit": ["fit", images, str(folder / "labels"), "--out", classifier, *shared, *cache],
            "predict": ["predict", classifier, images, "--out", str(folder / "masks"), *cache],
        }
        for name, command in commands.items():
            if name not in args.skip.split(","):
                megabytes, seconds = peak(command)
                print(f"{args.side} x {height}  {name:9s} peak {megabytes:7.0f} MB   {seconds:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
