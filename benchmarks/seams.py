"""Seams: tiled features against an untiled run of the same image, at tile borders and inside.

    python benchmarks/seams.py [FOLDER of images] [--backbone NAME]

Images are put side by side to one of about 1000 x 1000 pixels (default: the bundled sample). Differences are in units of each
map's standard deviation over the image. With lent statistics the group norms of all tiles use those of the whole image.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch

from mdm_studio.arrays import fit_channels
from mdm_studio.config import DEFAULT_BACKBONE, resource
from mdm_studio.engine.backbones import find_backbone, load_backbone
from mdm_studio.engine.features import MARGIN, FeatureSettings, PlaneFeatures
from mdm_studio.engine.tiles import map_size
from mdm_studio.io.images import ArrayPlane, find_images, open_image

SIDE = 1000
BORDER = 4  # pixels on each side of a tile border that count as border


def mosaic(folder: str) -> ArrayPlane:
    """Images side by side, each repeated to 250 x 250, as one of 1000 x 1000."""
    tiles = []
    for path in find_images([folder]):
        with open_image(path) as image:
            raw = image.plane().read(slice(0, 250), slice(0, 250))
        raw = fit_channels(raw, 3, name=path.name)
        tiles.append(np.pad(raw, ((0, 0), (0, 250 - raw.shape[1]), (0, 250 - raw.shape[2])), mode="symmetric"))
    n = SIDE // 250
    rows = [np.concatenate([tiles[(n * r + c) % len(tiles)] for c in range(n)], axis=2) for r in range(n)]
    return ArrayPlane(np.concatenate(rows, axis=1), rgb=True, name="mosaic")


def stitched(source: PlaneFeatures, index: int) -> torch.Tensor:
    """One map of the whole image, margins cut away."""
    spec = source.specs[index]
    whole = torch.empty(spec.channels, *map_size(source.height, source.width, spec.stride))
    for tile in source.grid:
        rows, cols = source.grid.cells(*tile, spec.stride, 0)
        found = source.maps(*tile)[index]
        y, x = rows.start - found.origin[0], cols.start - found.origin[1]
        assert 0 <= y <= MARGIN
        whole[:, rows, cols] = found.values[:, y : y + rows.stop - rows.start, x : x + cols.stop - cols.start]
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=str(resource("samples/nuclei/images")))
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--halos", default="16,32,64,128")
    args = parser.parse_args()
    backbone = load_backbone(find_backbone(args.backbone))
    plane = mosaic(args.folder)
    settings = FeatureSettings.of(backbone)
    untiled = PlaneFeatures(backbone, plane, dataclasses.replace(settings, tile=SIDE))
    assert len(untiled.grid) == 1
    wholes = [stitched(untiled, index) for index in range(len(untiled.specs))]
    print(f"{SIDE} x {SIDE} in tiles of {args.tile}, backbone {backbone.card.name}; mean (largest) difference")
    for halo in map(int, args.halos.split(",")):
        for lent in (True, False):
            tiled = PlaneFeatures(backbone, plane, dataclasses.replace(settings, tile=args.tile, halo=halo))
            if not lent:
                tiled._lent = lambda t: None  # noqa: SLF001 - the point of the comparison
            for index, (spec, whole) in enumerate(zip(tiled.specs, wholes, strict=True)):
                gap = (stitched(tiled, index) - whole).abs() / whole.std(dim=(1, 2), keepdim=True)
                near = np.zeros(SIDE // spec.stride, bool)
                for edge in range(args.tile, SIDE, args.tile):
                    near[(edge - BORDER) // spec.stride : (edge + BORDER) // spec.stride] = True
                border = torch.from_numpy(near[:, None] | near[None])
                at, inside = gap[:, border], gap[:, ~border]
                print(
                    f"halo {halo:3d}  {'lent' if lent else 'own '} statistics  block {spec.block}: border {at.mean():.4f} "
                    f"({at.max():.2f})  inside {inside.mean():.4f} ({inside.max():.2f})"
                )


if __name__ == "__main__":
    main()
