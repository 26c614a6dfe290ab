"""Peak memory of `features`, `fit` and `predict` on one large image, and of an export of everything.

    python benchmarks/memory.py --side 1000          limit 2 GB
    python benchmarks/memory.py --side 20000 --height 1536 --skip features     three rows of tiles: what smoothing holds
    python benchmarks/memory.py --side 20000 --skip features     limit 4 GB; the features would fill tens of GB of disk
    python benchmarks/memory.py --side 20000 --height 256,1024,4096,20000 --skip features,predict      memory against size
    python benchmarks/memory.py --side 1024,2048 --classes 2,34,200 --filters-only --skip features      many classes: limit 2 GB

`export` is `predict` with every output there is: masks, probabilities, uncertainty, objects by watershed with their holes
filled, and tables as CSV and Parquet. With --filters-only the network, whose share does not depend on the image, is left out.

A tiled TIFF of the given side is made of the bundled images, with strokes in one corner: the sample's own, or with --classes
a patch of each of so many classes. Each command runs as a process of its own; the figures are the operating system's count of
its largest resident size, and of its CPU time (user and system), which depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import math
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


def make_image(path: Path, labels: Path, height: int, side: int, classes: int) -> None:
    """A mosaic of the sample as a tiled TIFF, and a label map of its first tile: the strokes, or patches of `classes`."""
    sample = resource("samples/nuclei")
    name = "tissue-white"
    picture = np.asarray(Image.open(sample / "images" / f"{name}.png").convert("RGB"))[:TILE, :TILE]

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for _ in range(-(-height // TILE) * -(-side // TILE)):
            yield picture

    tifffile.imwrite(path, tiles(), shape=(height, side, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", bigtiff=True)
    strokes = np.zeros((height, side), np.uint8)
    some = np.asarray(Image.open(sample / "strokes" / f"{name}.png"))[:TILE, :TILE] if not classes else patches(classes)
    strokes[: some.shape[0], : some.shape[1]] = some[:height, :side]
    tifffile.imwrite(labels, strokes, compression="zlib", tile=(TILE, TILE))


def patches(classes: int) -> NDArray[np.uint8]:
    """A label map of one tile with a square patch of each class, apart from one another."""
    side = TILE // math.ceil(math.sqrt(classes))
    rows, cols = np.mgrid[:TILE, :TILE]
    number = rows // side * (TILE // side) + cols // side
    inside = (rows % side < side // 2) & (cols % side < side // 2) & (number < classes)
    return np.where(inside, number + 1, 0).astype(np.uint8)


def peak(command: list[str]) -> tuple[float, float, float]:
    """Largest resident size in MB, CPU seconds and wall seconds of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mdm_studio", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", default="1000", help="one, or several: 1000,2000,4000")
    parser.add_argument("--height", help="other than the side; one, or several")
    parser.add_argument("--classes", default="0", help="patches of so many classes instead of the sample's strokes; 2,34,200")
    parser.add_argument("--format", default="tiff", help="of the masks of the export")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--filters-only", action="store_true", help="classify by the classical filters: quick")
    parser.add_argument("--skip", default="", help="commands to leave out, for example features")
    args = parser.parse_args()
    sides = [int(side) for side in args.side.split(",")]
    heights = [int(height) for height in args.height.split(",")] if args.height else []
    for side, height in [(side, height) for side in sides for height in heights] or [(side, side) for side in sides]:
        for classes in [int(count) for count in args.classes.split(",")]:
            measure(args, side, height, classes)


def measure(args: argparse.Namespace, side: int, height: int, classes: int) -> None:
    """Run every command on an image of this size, and say what it took."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        make_image(folder / "images" / "large.tif", folder / "labels" / "large.tif", height, side, classes)
        images, classifier = str(folder / "images"), str(folder / "a.mdm")
        cache = ["--cache", str(folder / "cache")]
        shared = ["--backbone", args.backbone, "--precision", args.precision]
        features = ["--blocks", "none", "--filters"] if args.filters_only else []
        everything = ["--probabilities", "--uncertainty", "--objects", "--watershed", "--fill-holes", "--min-size", "20"]
        everything += ["--table-format", "csv,parquet", "--format", args.format]
        commands = {
            "features": ["features", images, *shared, *cache],
            "fit": ["fit", images, str(folder / "labels"), "--out", classifier, *shared, *cache, *features],
            "predict": ["predict", classifier, images, "--out", str(folder / "masks"), *cache],
            "export": ["predict", classifier, images, "--out", str(folder / "export"), *cache, *everything],
        }
        for name, command in commands.items():
            if name not in args.skip.split(","):
                megabytes, cpu, seconds = peak(command)
                what = f"{side} x {height}" + (f"  {classes:3d} classes" if classes else "")
                print(f"{what}  {name:9s} peak {megabytes:7.0f} MB   {cpu:7.1f} CPU-s   {seconds:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
