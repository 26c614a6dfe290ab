"""Features of tiles in memory: whole for a while, and at every fourth pixel, a small part of that, for much longer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdm_studio.engine.heads import sample_features
from mdm_studio.nn.pixel_mlp import FeatureMap
from mdm_studio.services.live_plan import COARSE, Stage, Tile

Kept = TypeVar("Kept", "TileMaps", "CoarseTile")


@dataclass(frozen=True)
class TileMaps:
    """Feature maps of a tile, in the order of the specs of their stage, float16."""

    stage: Stage
    maps: tuple[FeatureMap, ...]

    @property
    def nbytes(self) -> int:
        """In memory."""
        return sum(m.values.nbytes for m in self.maps)


@dataclass(frozen=True)
class CoarseTile:
    """Every fourth pixel of a tile's core: features ``(h, w, D)`` float16 (absent channels are 0) and brightness ``(h, w)``."""

    stage: Stage
    features: Tensor
    brightness: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """In memory."""
        return self.features.nbytes + self.brightness.nbytes


class TileMemory:
    """Least recently used tiles are forgotten when `max_bytes` are passed; a third of them is for coarse tiles."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._maps: OrderedDict[Tile, TileMaps] = OrderedDict()
        self._coarse: OrderedDict[Tile, CoarseTile] = OrderedDict()
        self._limits = (max_bytes * 2 // 3, max_bytes // 3)

    def put(self, tile: Tile, maps: TileMaps, coarse: CoarseTile) -> None:
        """Keep a tile, in the place of what was there."""
        with self._lock:
            _put(self._maps, tile, maps, self._limits[0])
            _put(self._coarse, tile, coarse, self._limits[1])

    def maps(self, tile: Tile) -> TileMaps | None:
        """Whole maps, None if forgotten."""
        with self._lock:
            return _get(self._maps, tile)

    def coarse(self, tile: Tile) -> CoarseTile | None:
        """Every fourth pixel, None if forgotten."""
        with self._lock:
            return _get(self._coarse, tile)

    def stages(self) -> tuple[dict[Tile, Stage], dict[Tile, Stage]]:
        """Stages of whole and of coarse tiles."""
        with self._lock:
            return {t: m.stage for t, m in self._maps.items()}, {t: c.stage for t, c in self._coarse.items()}

    def forget(self, image: str) -> None:
        """Drop an image."""
        with self._lock:
            for kept in (self._maps, self._coarse):
                for tile in [tile for tile in kept if tile.plane.image == image]:
                    del kept[tile]


def _put(kept: OrderedDict[Tile, Kept], tile: Tile, value: Kept, limit: int) -> None:
    kept.pop(tile, None)
    kept[tile] = value
    total = sum(each.nbytes for each in kept.values())
    while total > limit and len(kept) > 1:
        total -= kept.popitem(last=False)[1].nbytes


def _get(kept: OrderedDict[Tile, Kept], tile: Tile) -> Kept | None:
    if tile in kept:
        kept.move_to_end(tile)
    return kept.get(tile)


def coarse_pixels(start: int, stop: int, step: int = COARSE) -> NDArray[np.int64]:
    """Pixels of ``start .. stop - 1`` that stand for steps of `step`: their middles."""
    first = np.arange(start, stop, step)
    pixels: NDArray[np.int64] = np.minimum(first + step // 2, stop - 1)
    return pixels


def coarse_features(maps: Sequence[FeatureMap], rows: slice, cols: slice, step: int = COARSE) -> Tensor:
    """Features ``(h, w, D)`` float32 at the middles of steps of a window."""
    y, x = coarse_pixels(rows.start, rows.stop, step), coarse_pixels(cols.start, cols.stop, step)
    grid = np.meshgrid(y, x, indexing="ij")
    return sample_features(maps, grid[0], grid[1]).view(len(y), len(x), -1)


def with_absent(features: Tensor, absent: int) -> Tensor:
    """Put `absent` channels of zeros before those of ``(h, w, D)``."""
    return torch.cat([features.new_zeros(*features.shape[:2], absent), features], dim=2) if absent else features
