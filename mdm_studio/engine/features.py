"""Feature maps of an image, tile by tile: computed once, kept in a cache, never upsampled.

Each tile is independent: it is seen with a halo, and one cell more than its core is kept on every side, so that bilinear
sampling inside the core needs no neighbour. Tiles can therefore be computed, cached, predicted and lost in any order.

The network's group norms look at their whole input. For an image of several tiles their statistics are pooled once over evenly
spread windows of the image and lent to every tile, so that neighbouring tiles agree.

Two kinds of maps stand side by side: decoder blocks of the backbone, which looks at the image at one or several working scales
(the image binned by 1, 2, 4 or 8), and the classical filter bank. Strides are always those in image pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdm_studio.arrays import Image, IntensityWindow, bin_pixels, fit_channels, normalise
from mdm_studio.engine.backbones import Backbone
from mdm_studio.engine.filter_bank import HALO as FILTER_HALO
from mdm_studio.engine.filter_bank import SIGMAS, Stride, filter_bank, filter_channels
from mdm_studio.engine.intensity import plane_window
from mdm_studio.engine.recipes import Place
from mdm_studio.engine.tiles import TileGrid, map_size
from mdm_studio.errors import BackboneError, UsageError
from mdm_studio.io.feature_cache import EntryKey, FeatureCache, TileStore
from mdm_studio.io.images import Plane
from mdm_studio.nn.layers import NormStatistics
from mdm_studio.nn.pixel_mlp import FeatureMap

MARGIN = 1  # cells kept around a core: what bilinear interpolation at the core's border reaches for
_WINDOW = 128  # side of the windows that norm statistics are pooled over: many small ones know more of an image than few
_MIN_WINDOWS, _MAX_WINDOWS = 2, 64
_VERSION = 1  # of the way features are computed: part of the cache key
_RESCALED = "-2"  # part of it for types of values that were scaled otherwise before: values for no data, large and tiny ones

Scale = Literal[1, 2, 4, 8]
"""Working scale: pixels of the image, along each side, that become one pixel of what the backbone sees."""


@dataclass(frozen=True)
class BlockMap:
    """A decoder block at a timestep and a working scale; `stride` is in image pixels."""

    block: int
    timestep: int
    scale: int
    channels: int
    stride: int

    @property
    def name(self) -> str:
        """Name of its array in the cache."""
        return f"b{self.block:02d}-t{self.timestep:04d}" + (f"-s{self.scale}" if self.scale > 1 else "")


@dataclass(frozen=True)
class FilterMap:
    """The filters of one stride, see `mdm_studio.engine.filter_bank`."""

    channels: int
    stride: Stride

    @property
    def name(self) -> str:
        """Name of its array in the cache."""
        return f"filters-s{self.stride}"


MapSpec = BlockMap | FilterMap


@dataclass(frozen=True)
class FeatureSettings:
    """Which features are read, and how.

    Attributes
    ----------
    blocks, timesteps : tuple of int
        Decoder blocks and timesteps; maps are ordered scale by scale, timestep by timestep, blocks ascending.
    tile, halo : int
        Core and halo of a tile in pixels.
    precision : {"fp32", "bf16"}
        Of the convolutions; part of the cache key, because features differ by 1 to 2 %.
    scales : tuple of int
        Working scales the backbone looks at the image in: 4 shows it the image binned by 4.
    filters : bool
        Read the classical filter bank too, after the blocks. With `filters`, `blocks` may be empty.
    inverted : bool
        Look at the image with dark and bright exchanged: a second view of the same labels, see `mdm_studio.services.fitting`.
    """

    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    tile: int = 512
    halo: int = 64
    precision: Literal["fp32", "bf16"] = "fp32"
    scales: tuple[int, ...] = (1,)
    filters: bool = False
    inverted: bool = False

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        *,
        blocks: Sequence[int] | None = None,
        timesteps: Sequence[int] | None = None,
        scales: Sequence[int] | None = None,
        filters: bool | None = None,
        tile: int | None = None,
    ) -> FeatureSettings:
        """The backbone's defaults, with what is given put in their place.

        Raises
        ------
        UsageError
            If a block, timestep or working scale does not exist, or nothing is left to read.
        """
        card = backbone.card
        chosen = tuple(sorted(set(card.blocks if blocks is None else blocks)))
        times = tuple(dict.fromkeys(card.timesteps if timesteps is None else timesteps))
        sizes = tuple(sorted(set(card.scales if scales is None else scales)))
        with_filters = card.filters if filters is None else filters
        wrong = [b for b in chosen if not 0 <= b < backbone.n_blocks]
        if wrong or not (chosen or with_filters):
            raise UsageError(
                f"blocks {wrong or 'none'}: {card.name} has blocks 0 to {backbone.n_blocks - 1}; none at all need --filters"
            )
        odd = [size for size in sizes if size not in get_args(Scale)]
        if odd or not sizes:
            raise UsageError(f"working scales {odd or 'none'}: the image can be binned by 1 (as it is), 2, 4 or 8")
        late = [t for t in times if not 0 <= t <= backbone.recipe.t_max]
        if late or not times:
            raise UsageError(
                f"timesteps {late or 'none'}: {card.name} takes timesteps 0 (nothing hidden) to {backbone.recipe.t_max}"
            )
        precision: Literal["fp32", "bf16"] = "bf16" if backbone.bf16 else "fp32"
        return cls(chosen, times, card.tile if tile is None else tile, card.halo, precision, sizes, with_filters)

    def specs(self, backbone: Backbone) -> list[MapSpec]:
        """One spec a map, in the order of the feature vector: scale, timestep, block; then the filters, finest first."""
        maps: list[MapSpec] = [
            BlockMap(block, t, scale, channels, stride * scale)
            for scale in self.scales
            for t in self.timesteps
            for block in self.blocks
            for channels, stride in [backbone.block_shape(block)]
        ]
        if self.filters:
            maps += [FilterMap(filter_channels(backbone.in_channels, stride), stride) for stride in SIGMAS]
        return maps

    def sources(self, backbone: Backbone) -> list[int]:
        """Channels of each source, in the order of the feature vector: the backbone at each working scale, and the filters."""
        of_blocks = len(self.timesteps) * sum(backbone.block_shape(block)[0] for block in self.blocks)
        of_filters = sum(filter_channels(backbone.in_channels, stride) for stride in SIGMAS)
        return [of_blocks] * (len(self.scales) if self.blocks else 0) + [of_filters] * self.filters

    def alignment(self, backbone: Backbone) -> int:
        """Sides of tiles are multiples of it, so that cells of every map begin where tiles do."""
        return math.lcm(backbone.total_stride * max(self.scales), max(SIGMAS) if self.filters else 1)

    def digest(self, backbone: Backbone) -> str:
        """Hex digest of what changes the values of a map; which maps are read does not."""
        choice = dict.fromkeys(("blocks", "timesteps", "scales", "filters"))
        facts = asdict(self) | choice | {"version": _VERSION, "intensity": backbone.card.intensity}
        if backbone.recipe.feature_key:
            facts["recipe"] = dict(backbone.recipe.feature_key)
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


class PlaneFeatures:
    """Features of one plane: taken from the store where they are, computed where they are not.

    Parameters
    ----------
    backbone : Backbone
        Gives the features.
    plane : Plane
        Raw pixels ``(C, H, W)``.
    settings : FeatureSettings
        Which maps, which tiles.
    cache : FeatureCache or None
        Where maps are kept; None computes them anew each time.

    Raises
    ------
    ChannelsError
        If the backbone cannot read the plane's channels.
    """

    def __init__(self, backbone: Backbone, plane: Plane, settings: FeatureSettings, cache: FeatureCache | None = None) -> None:
        self.backbone, self.plane, self.settings = backbone, plane, settings
        _, self.height, self.width = plane.shape
        align = settings.alignment(backbone)
        self.grid = TileGrid.of(self.height, self.width, tile=settings.tile, halo=settings.halo, align=align)
        self.specs = settings.specs(backbone)
        fit_channels(
            np.empty((plane.shape[0], 0, 0), plane.dtype), backbone.in_channels, name=plane.name
        )  # fail before any work
        self.store: TileStore | None = None if cache is None else self._entry(cache)
        self._window: IntensityWindow | None = None
        self._image_key: int | None = None
        self._statistics: dict[tuple[int, int], NormStatistics] = {}

    def _entry(self, cache: FeatureCache) -> TileStore:
        key = EntryKey(
            image=self.plane.digest() + (_RESCALED if self.plane.dtype.kind == "f" or self.plane.dtype.itemsize > 2 else ""),
            backbone=self.backbone.card.digest,
            settings=self.settings.digest(self.backbone),
            grid=self.grid.shape,
            tile=self.grid.tile,
            margin=MARGIN,
        )
        entry = cache.entry(key)
        entry.describe(image=self.plane.name, backbone=self.backbone.card.name)
        return entry

    @property
    def nbytes(self) -> int:
        """Bytes of all maps of the plane as float16, before compression and without margins."""
        sizes = [math.prod(map_size(self.height, self.width, spec.stride)) for spec in self.specs]
        return 2 * sum(spec.channels * size for spec, size in zip(self.specs, sizes, strict=True))

    def missing(self) -> list[tuple[int, int]]:
        """Tiles of which some map is not in the store, row by row."""
        return (
            list(self.grid)
            if self.store is None
            else [t for t in self.grid if not all(self.store.has(s, *t) for s in self.specs)]
        )

    def compute(self, tiles: Sequence[tuple[int, int]] | None = None) -> Iterator[tuple[int, int]]:
        """Compute and store the missing tiles (of `tiles`, or all of them); yields each as it is done."""
        wanted = self.missing() if tiles is None else [t for t in tiles if t in set(self.missing())]
        for tile in wanted:
            self.maps(*tile)
            yield tile

    def maps(self, row: int, col: int, specs: Sequence[MapSpec] | None = None) -> list[FeatureMap]:
        """Maps of a tile, those of `specs` or all, in that order; float32 tensors on the CPU holding float16 precision."""
        wanted = self.specs if specs is None else specs
        kept = {spec: self._stored(spec, row, col) for spec in wanted}
        lacking = [spec for spec in wanted if kept[spec] is None]
        if lacking:
            made = self._extract_tile(row, col, lacking)
            kept |= made
            if self.store and not self.plane.changed():  # else they would be kept as those of the pixels that were there before
                for spec, values in made.items():
                    self.store.write_tile(spec, row, col, values)
        return [self._feature_map(spec, kept[spec], row, col) for spec in wanted]

    def _stored(self, spec: MapSpec, row: int, col: int) -> NDArray[np.float16] | None:
        if self.store is None:
            return None
        rows, cols = self.grid.cells(row, col, spec.stride, MARGIN)
        return self.store.read_tile(spec, row, col, (rows.stop - rows.start, cols.stop - cols.start))

    def _feature_map(self, spec: MapSpec, values: NDArray[np.float16] | None, row: int, col: int) -> FeatureMap:
        assert values is not None
        rows, cols = self.grid.cells(row, col, spec.stride, MARGIN)
        full = map_size(self.height, self.width, spec.stride)
        return FeatureMap(torch.from_numpy(values.astype(np.float32)), spec.stride, (rows.start, cols.start), full)

    @property
    def window(self) -> IntensityWindow:
        """How raw values are scaled.

        Raises
        ------
        EmptyPlaneError
            If the plane has no finite pixel.
        """
        if self._window is None:
            self._window = plane_window(self.plane, self.backbone.card.intensity)
        return self._window

    def brightness(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Mean of the normalised channels ``(h, w)``, 0 to 1."""
        brightness: NDArray[np.float32] = (self._image(rows, cols).mean(axis=0) + 1) / 2
        return brightness

    # ---- computing ---------------------------------------------------------------------------------------------------

    def _image(self, rows: slice, cols: slice) -> Image:
        """A window of the normalised image with the backbone's channels; outside the image it is mirrored."""
        sizes = (self.height, self.width)
        inside = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip((rows, cols), sizes, strict=True)]
        image = fit_channels(normalise(self.plane.read(*inside), self.window), self.backbone.in_channels, name=self.plane.name)
        outside = [(i.start - s.start, s.stop - i.stop) for i, s in zip(inside, (rows, cols), strict=True)]
        padded: Image = np.pad(image, [(0, 0), *outside], mode="symmetric")
        return -padded if self.settings.inverted else padded

    def _extract_tile(self, row: int, col: int, specs: Sequence[MapSpec]) -> dict[MapSpec, NDArray[np.float16]]:
        rows, cols = self.grid.core(row, col)
        found: dict[MapSpec, NDArray[np.float16]] = {}
        for scale in self.settings.scales:
            blocks = [spec for spec in specs if isinstance(spec, BlockMap) and spec.scale == scale]
            if blocks:
                found |= self._extract(rows, cols, scale, blocks)
        filters = [spec for spec in specs if isinstance(spec, FilterMap)]
        return found | self._run_filters(rows, cols, filters) if filters else found

    def _extract(self, rows: slice, cols: slice, scale: int, specs: Sequence[BlockMap]) -> dict[MapSpec, NDArray[np.float16]]:
        """Maps of a region of the image, one margin of cells around it; halves the region when the device is out of memory."""
        try:
            return self._run(rows, cols, scale, specs)
        except torch.OutOfMemoryError as error:
            halves = _halves(rows, cols, self.backbone.total_stride * scale)
            if halves is None:
                raise BackboneError(
                    f"{self.backbone.card.name} does not fit into the memory of {self.backbone.device} even for the "
                    "smallest tile; "
                    "use --device cpu or a smaller backbone"
                ) from error
            if self.backbone.device.type == "cuda":
                torch.cuda.empty_cache()
            axis, *regions = halves
            first, second = (self._extract(*region, scale, specs) for region in regions)
            return {spec: _joined(axis, first[spec], second[spec]) for spec in specs}

    def _run(self, rows: slice, cols: slice, scale: int, specs: Sequence[BlockMap]) -> dict[MapSpec, NDArray[np.float16]]:
        align, window = self.backbone.total_stride, self.backbone.net.config.window
        border = 0 if window else scale * align  # mirrored: keeps the zeros of convolutions away from the image's own pixels
        step = max(window // 2 // align, 1) * align  # windows lie alike in a tile and in its neighbours, see by_windows
        halo = scale * max(-(-self.settings.halo // step), 1) * step
        seen = [
            slice(max(s.start - halo, -border), min(s.stop + halo, n + border))
            for s, n in ((rows, self.height), (cols, self.width))
        ]
        x = torch.from_numpy(self.seen(seen, scale))[None]  # (1, C, h, w)
        out: dict[MapSpec, NDArray[np.float16]] = {}
        for t in dict.fromkeys(spec.timestep for spec in specs):
            wanted = {spec.block: spec for spec in specs if spec.timestep == t}
            found = self.backbone.features(x, t, wanted.keys(), self._lent(t, scale), [self._place(seen, scale)])
            for block, spec in wanted.items():
                out[spec] = _half(self._cropped(found[block][0], spec.stride, rows, cols, seen))
        return out

    def _run_filters(self, rows: slice, cols: slice, specs: Sequence[FilterMap]) -> dict[MapSpec, NDArray[np.float16]]:
        coarsest = max(SIGMAS)
        seen = [
            slice(max(s.start - FILTER_HALO, 0), min(s.stop + FILTER_HALO, n))
            for s, n in ((rows, self.height), (cols, self.width))
        ]
        image = _padded(self._image(*seen), coarsest)
        copies = self.backbone.in_channels if self.plane.shape[0] == 1 else 1  # a grey plane's channels are all the same
        out: dict[MapSpec, NDArray[np.float16]] = {}
        for spec in specs:
            maps = torch.from_numpy(filter_bank(image[: len(image) // copies], spec.stride)).repeat(copies, 1, 1)
            out[spec] = _half(self._cropped(maps, spec.stride, rows, cols, seen))
        return out

    def seen(self, window: Sequence[slice], scale: int) -> Image:
        """What the backbone sees of a window: the normalised image, binned, its sides multiples of the total stride."""
        return np.ascontiguousarray(bin_pixels(_padded(self._image(*window), self.backbone.total_stride * scale), scale))

    def _cropped(self, values: Tensor, stride: int, rows: slice, cols: slice, seen: Sequence[slice]) -> Tensor:
        """Cut a region's cells, margin included, out of a map ``(C, h, w)`` of everything that was seen."""
        spans = []
        for core, window, size in ((rows, seen[0], self.height), (cols, seen[1], self.width)):
            first = max(core.start // stride - MARGIN, 0) - window.start // stride
            last = min(-(-core.stop // stride) + MARGIN, -(-size // stride)) - window.start // stride
            spans.append(slice(first, last))
        return values[:, spans[0], spans[1]]

    @property
    def image_key(self) -> int:
        """Names the image in a `Place`; 0 where nobody asks."""
        if self._image_key is None:  # a digest reads the whole image
            self._image_key = int(self.plane.digest()[:8], 16) if self.backbone.recipe.per_image else 0
        return self._image_key

    def _place(self, window: Sequence[slice], scale: int) -> Place:
        """Where a window lies, for recipes that add noise."""
        return Place(window[0].start // scale, window[1].start // scale, self.image_key)

    def _lent(self, t: int, scale: int) -> NormStatistics | None:
        """Norm statistics of the whole image at a timestep and scale; None for an image of one tile, which has its own."""
        if len(self.grid) == 1 or not self.backbone.net.pools_norms:
            return None
        if (t, scale) not in self._statistics:
            windows = _spread(self.height, self.width, _WINDOW * scale)
            x = torch.from_numpy(np.stack([self.seen(window, scale) for window in windows]))
            statistics = NormStatistics().rewind(recording=True)
            places = [self._place(window, scale) for window in windows]
            self.backbone.features(x, t, {max(self.settings.blocks)}, statistics, places)
            self._statistics[t, scale] = statistics
        return self._statistics[t, scale].rewind(recording=False)


def _joined(axis: int, a: NDArray[np.float16], b: NDArray[np.float16]) -> NDArray[np.float16]:
    """Two neighbouring regions as one: each gives up the margin it has on the other's side."""
    return np.concatenate([np.delete(a, np.s_[-MARGIN:], axis + 1), np.delete(b, np.s_[:MARGIN], axis + 1)], axis + 1)


def _half(values: Tensor) -> NDArray[np.float16]:
    """Float16 on the CPU; values beyond float16 are clipped instead of becoming infinite."""
    limit = torch.finfo(torch.float16).max
    array: NDArray[np.float16] = values.float().clamp(-limit, limit).half().contiguous().cpu().numpy()
    return array


def _padded(image: Image, align: int) -> Image:
    """Mirror an image at its lower and right border until its sides are multiples of `align`."""
    short = [-size % align for size in image.shape[1:]]
    padded = np.pad(image, ((0, 0), (0, short[0]), (0, short[1])), mode="symmetric") if any(short) else image
    return np.ascontiguousarray(padded)


def _halves(rows: slice, cols: slice, align: int) -> tuple[int, tuple[slice, slice], tuple[slice, slice]] | None:
    """Cut a region in two across its longer side, at a multiple of `align`; None if it is too small."""
    heights = (rows.stop - rows.start, cols.stop - cols.start)
    axis = int(heights[1] > heights[0])
    span = (rows, cols)[axis]
    middle = (span.start + span.stop) // 2 // align * align
    if heights[axis] < 4 * align or not span.start < middle < span.stop:
        return None
    parts = [slice(span.start, middle), slice(middle, span.stop)]
    regions = [(part, cols) if axis == 0 else (rows, part) for part in parts]
    return axis, regions[0], regions[1]


def _spread(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Windows of `side` pixels spread evenly over an image: about a quarter of its pixels, at most 64 windows."""
    side_y, side_x = min(side, height), min(side, width)
    wanted = min(max(height * width // (4 * side_y * side_x), _MIN_WINDOWS), _MAX_WINDOWS)
    n_y = max(1, round(math.sqrt(wanted * height / width)))
    n_x = max(1, round(wanted / n_y))
    starts_y = np.linspace(0, height - side_y, n_y + 2)[1:-1] if n_y > 0 else np.array([0.0])
    starts_x = np.linspace(0, width - side_x, n_x + 2)[1:-1] if n_x > 0 else np.array([0.0])
    return [(slice(int(y), int(y) + side_y), slice(int(x), int(x) + side_x)) for y in starts_y for x in starts_x]
