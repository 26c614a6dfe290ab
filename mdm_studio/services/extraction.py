"""Features of a whole folder into the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mdm_studio.engine.backbones import Backbone, find_backbone, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings, PlaneFeatures
from mdm_studio.errors import CacheError, InputError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import open_image

SEVERAL = (10, 50, 150)
"""Timesteps that are compared unless somebody names others."""


@dataclass(frozen=True)
class FeatureSource:
    """A loaded backbone and which of its features are wanted."""

    backbone: Backbone
    settings: FeatureSettings


@dataclass(frozen=True)
class TileDone:
    """One tile is in the cache; `files_done` counts images, the current one in part."""

    name: str
    files_done: float


@dataclass(frozen=True)
class PlaneDone:
    """One plane is in the cache, or its image failed (then `message` says why)."""

    name: str
    files_done: float
    plane: int = 0
    tiles: int = 0
    computed: int = 0
    message: str = ""


def load_for_features(
    name: str,
    *,
    blocks: Sequence[int] | Literal["all"] | None = None,
    timesteps: Sequence[int] | Literal["several"] | None = None,
    scales: Sequence[int] | None = None,
    filters: bool | None = None,
    noise: str = "",
    bf16: bool = False,
    device: str = "auto",
) -> FeatureSource:
    """Load a backbone by name or folder and settle which features are read.

    None takes its defaults, "all" every block, "several" the timesteps `SEVERAL` as far as the network has them.
    """
    backbone = load_backbone(find_backbone(name), device=pick_device(device), bf16=bf16, noise=noise)
    chosen = range(backbone.n_blocks) if blocks == "all" else blocks
    times = [t for t in SEVERAL if t <= backbone.recipe.t_max] or None if timesteps == "several" else timesteps
    settings = FeatureSettings.of(backbone, blocks=chosen, timesteps=times, scales=scales, filters=filters)
    return FeatureSource(backbone, settings)


def compute_features(
    source: FeatureSource, paths: Sequence[Path], cache: FeatureCache, channels: tuple[int, ...] | None = None
) -> Iterator[TileDone | PlaneDone]:
    """Put the features of every image into the cache; an image that cannot be used is reported, and the others go on."""
    for number, path in enumerate(paths):
        try:
            with open_image(path, channels) as image:
                for index in range(image.planes):
                    plane = PlaneFeatures(source.backbone, image.plane(index), source.settings, cache)
                    _check_room(plane, cache)
                    missing = plane.missing()
                    for done, _ in enumerate(plane.compute(missing), start=1):
                        yield TileDone(path.name, number + (index + done / len(missing)) / image.planes)
                    yield PlaneDone(path.name, number + (index + 1) / image.planes, index, len(plane.grid), len(missing))
        except (InputError, _TooLargeError) as error:
            yield PlaneDone(path.name, number + 1, message=str(error))


class _TooLargeError(CacheError):
    """The features of one image are larger than the whole cache may be."""


def _check_room(plane: PlaneFeatures, cache: FeatureCache) -> None:
    if cache.max_bytes is not None and plane.nbytes > cache.max_bytes:
        raise _TooLargeError(
            f"the features of {plane.plane.name} take {plane.nbytes / 1e9:.1f} GB and the cache may hold "
            f"{cache.max_bytes / 1e9:.1f} GB: choose fewer --blocks, or leave it out: predict needs no cache for such an image"
        )
