"""The bench of a live session: carries out the tasks of the plan and keeps what they give.

A bench belongs to one backbone and one choice of features; another choice gets another bench, and what is still running on the
old one ends unseen. Several threads may carry out different tasks at once: the lock is held for looking and storing only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mdm_studio.engine.backbones import Backbone, find_backbone, find_by_digest, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings, FilterMap, MapSpec, PlaneFeatures
from mdm_studio.engine.heads import EnsembleConfig, Prediction, predict_points, predict_window, sample_features, subsample
from mdm_studio.engine.smoothing import guided_filter
from mdm_studio.errors import BackboneError
from mdm_studio.io.classifier_file import ClassifierInfo, LabelClass
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import Plane
from mdm_studio.nn.pixel_mlp import FeatureMap, PixelMLPEnsemble
from mdm_studio.services.classifier import Classifier
from mdm_studio.services.live_heads import (
    BLOCK_PIXELS,
    LiveHead,
    Sample,
    learn_all,
    learn_slice,
    lesson,
    preview_parts,
)
from mdm_studio.services.live_kinds import LiveKinds
from mdm_studio.services.live_plan import (
    COARSE,
    Extract,
    Facts,
    Head,
    Learn,
    Made,
    PlaneKey,
    Predict,
    Prepare,
    Settle,
    Stage,
    Task,
    Tile,
    Window,
)
from mdm_studio.services.strokes import BLOCK, Block, StrokeIndex
from mdm_studio.services.tile_memory import (
    CoarseTile,
    TileMaps,
    TileMemory,
    coarse_features,
    coarse_pixels,
    with_absent,
)

MEMBERS, HIDDEN = 6, (64, 32)
"""Members of a live ensemble, and widths of their layers: as good as the published ones (benchmarks/NOTES.md) and quicker."""
_THREADS = torch.get_num_threads()  # as OMP_NUM_THREADS or the number of cores has it
_EXACT_BYTES = 384 << 20  # unsmoothed probabilities that are kept: 40 classes on a large screen
_BAND = 64  # rows predicted at a time: between bands a newer stroke is noticed


class Images(Protocol):
    """Where the pixels of planes come from, and where drawings go: a session."""

    @property
    def strokes(self) -> StrokeIndex:
        """What is painted on them."""
        ...

    def plane(self, key: PlaneKey) -> Plane:
        """Raw pixels of a plane."""
        ...

    def show(self, drawing: Drawing) -> None:
        """Put a drawing into the pictures."""
        ...


@dataclass(frozen=True)
class Drawing:
    """A piece of picture that is ready to be shown.

    Attributes
    ----------
    plane : PlaneKey
    window : Window
        Image pixels.
    step : int
        Image pixels a value.
    labels : (h, w) uint8
        Class values.
    probabilities : (K, h, w) float32
        Of ``values``.
    values : tuple of int
        Class values in this order.
    uncertainty : (h, w) float32
        In nats.
    """

    plane: PlaneKey
    window: Window
    step: int
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    values: tuple[int, ...]
    uncertainty: NDArray[np.float32]


@dataclass
class _Exact:
    """Unsmoothed result of a tile, kept until the tiles beside it are there."""

    made: Made
    found: Prediction


@dataclass
class Bench:
    """Everything computed for one choice of features.

    Parameters
    ----------
    backbone, settings, config, smooth
        What is read and how it is learnt.
    images : Images
        Planes by key.
    strokes : StrokeIndex
        Shared by all benches of a session.
    cache : FeatureCache or None
        Features on disk.
    memory : int
        Bytes of features in memory.
    draw : callable
        Gets every `Drawing`, on the thread that made it.
    fixed : Classifier or None
        What it shows, whatever is painted: it learns nothing.
    last : bool
        Nothing newer is expected soon, so it draws beyond the view too.
    """

    backbone: Backbone
    settings: FeatureSettings
    config: EnsembleConfig
    smooth: int
    images: Images
    strokes: StrokeIndex
    cache: FeatureCache | None
    memory: int
    draw: Callable[[Drawing], None]
    fixed: Classifier | None = None
    last: bool = True
    head: LiveHead | None = None
    first_number: int = 1
    broken: set[Tile | PlaneKey] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.tiles = TileMemory(self.memory)
        self.specs = self.settings.specs(self.backbone)
        self._filters = [spec for spec in self.specs if isinstance(spec, FilterMap)]
        self._of_blocks = sum(spec.channels for spec in self.specs if not isinstance(spec, FilterMap))
        self.staged = bool(self._filters) and len(self._filters) < len(self.specs)
        self.sources = tuple(self.settings.sources(self.backbone))
        self.planes: dict[PlaneKey, PlaneFeatures] = {}
        self._openings: dict[str, int] = {}  # how often an image was dropped
        self._stored: dict[Tile, Stage] = {}
        self._samples: dict[Block, Sample] = {}
        self._made: dict[Tile, Made] = {}
        self._exact: dict[Tile, _Exact] = {}
        self._doubt: dict[Tile, tuple[Window, NDArray[np.float32]]] = {}
        self.kinds = LiveKinds(self.backbone.card.intensity)

    # ---- what is there -----------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in which features come."""
        return (Stage.FILTERS, Stage.ALL) if self.staged else (Stage.ALL,)

    @property
    def margin(self) -> int:
        """Pixels around a window that its picture depends on."""
        return 2 * self.smooth

    def facts(self) -> Facts:
        """For the plan."""
        with self.lock:
            maps, coarse = self.tiles.stages()
            head = self.head.facts if self.head else None
            grids = {key: source.grid for key, source in self.planes.items()}
            made, stored = dict(self._made), dict(self._stored)
            return Facts(grids, maps, coarse, stored, self._sampled(), made, head, frozenset(self.broken))

    def _sampled(self) -> dict[Tile, Stage]:
        stages: dict[Tile, Stage] = {}
        for block, painted in self.strokes:
            if block.plane in self.planes:
                tile = block.tile(self.planes[block.plane].grid)
                sample = self._samples.get(block)
                have = sample.stage if sample and sample.version == painted.version else Stage.NONE
                stages[tile] = min(stages.get(tile, Stage.ALL), have)
        return stages

    def doubt(self) -> dict[Tile, tuple[Window, NDArray[np.float32]]]:
        """Uncertainty of the tiles that have a picture, at every fourth pixel."""
        with self.lock:
            return dict(self._doubt)

    def is_quick(self, task: Extract) -> bool:
        """Whether the head may do it: features that lie in the cache, which takes a tenth of a second.

        Until the network's features of the strokes are there, the filters too: the first picture of all waits for nothing else.
        """
        if task.stage is Stage.FILTERS and (self.head is None or self.head.facts.stage is Stage.FILTERS):
            return True
        if self._stored.get(task.tile, Stage.NONE) >= task.stage:
            return True
        source = self.planes.get(task.tile.plane)
        if source is None or source.store is None:
            return False
        if not all(source.store.has(spec, task.tile.row, task.tile.col) for spec in self._specs(task.stage)):
            return False
        with self.lock:
            self._stored[task.tile] = max(task.stage, self._stored.get(task.tile, Stage.NONE))
        return True

    def drop_head(self) -> None:
        """Forget the head: what it learnt is not painted any more."""
        with self.lock:
            if self.head is not None and not self.head.facts.loaded:
                self.first_number = self.head.facts.number + 1
                self.head = None
                self._made.clear()
                self._exact.clear()
                self._doubt.clear()

    def redraw(self, image: str | None = None) -> None:
        """Draw the pictures of an image, or of all, again: another output is wanted, or another bench has drawn there."""
        with self.lock:
            for tile in [tile for tile in self._made if image in (tile.plane.image, None)]:
                del self._made[tile]

    def forget(self, image: str) -> None:
        """Drop an image."""
        with self.lock:
            self._openings[image] = self._openings.get(image, 0) + 1
            self.broken = {what for what in self.broken if (what.plane if isinstance(what, Tile) else what).image != image}
            self.tiles.forget(image)
            self.planes = {key: source for key, source in self.planes.items() if key.image != image}
            self._samples = {block: sample for block, sample in self._samples.items() if block.plane.image != image}
            for kept in (self._stored, self._made, self._exact, self._doubt):
                for tile in [tile for tile in kept if tile.plane.image == image]:
                    del kept[tile]

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def carry_out(self, task: Task, stale: Callable[[], bool], report: Callable[[float], None], *, head: bool) -> None:
        """Do a task.

        Parameters
        ----------
        head : bool
            On the head's thread: it computes on one core and the other thread on all others. Two pools of threads that share
            cores wait for each other at every step and take ten times as long.
        stale : callable
            Asked between pieces of work; when True the task is given up.
        report : callable
            Gets the loss while training.
        """
        use_threads(1 if head else max(_THREADS - 1, 1))
        if isinstance(task, Prepare):
            self._prepare(task.plane)
        elif isinstance(task, Extract):
            self._extract(task.tile, task.stage)
        elif isinstance(task, Learn):
            self._learn(task, stale, report)
        elif isinstance(task, Predict):
            self._predict(task, stale)
        else:
            self._settle(task)

    def _prepare(self, key: PlaneKey) -> None:
        opening = self._openings.get(key.image, 0)
        source = PlaneFeatures(self.backbone, self.images.plane(key), self.settings, self.cache)
        with self.lock:
            if self._openings.get(key.image, 0) == opening:  # else it was opened with other channels meanwhile
                self.planes[key] = source

    def _extract(self, tile: Tile, stage: Stage) -> None:
        source = self.planes[tile.plane]
        have = self.tiles.maps(tile)
        known = {} if have is None else dict(zip(self._specs(have.stage), have.maps, strict=True))
        lacking = [spec for spec in self._specs(stage) if spec not in known]
        found = dict(zip(lacking, map(_halved, source.maps(tile.row, tile.col, lacking)), strict=True))
        maps = TileMaps(stage, tuple((known | found)[spec] for spec in self._specs(stage)))
        coarse = self._coarse_tile(source, tile, maps)
        with self.lock:
            if self.planes.get(tile.plane) is not source:
                return  # the image was closed, or opened with other channels
            self.tiles.put(tile, maps, coarse)
            if source.store is not None:
                self._stored[tile] = max(stage, self._stored.get(tile, Stage.NONE))

    def _specs(self, stage: Stage) -> list[MapSpec]:
        return self.specs if stage is Stage.ALL else list(self._filters)

    def _coarse_tile(self, source: PlaneFeatures, tile: Tile, maps: TileMaps) -> CoarseTile:
        rows, cols = source.grid.core(tile.row, tile.col)
        features = with_absent(coarse_features(maps.maps, rows, cols).half(), 0 if maps.stage is Stage.ALL else self._of_blocks)
        known = self.tiles.coarse(tile)
        if known is not None:
            return CoarseTile(maps.stage, features, known.brightness)
        brightness = source.brightness(rows, cols)
        at = np.ix_(coarse_pixels(0, len(brightness)), coarse_pixels(0, brightness.shape[1]))
        return CoarseTile(maps.stage, features, np.ascontiguousarray(brightness[at]))

    def _learn(self, task: Learn, stale: Callable[[], bool], report: Callable[[float], None]) -> None:
        samples = self._gather(task)
        read = slice(None) if task.stage is Stage.ALL else slice(self._of_blocks, None)
        what = lesson(samples, read, self.sources if task.stage is Stage.ALL else self.sources[-1:], self.config.seed)
        if len(what.values) < 2:
            return
        old, staged = self.head, self.staged and task.stage is Stage.ALL
        if task.converge:
            last = learn_all(what, self.config, stale, lambda step: report(float(np.mean(step.losses))))
            if last is None:
                return
            ensemble, loss, steps = last.snapshot(), float(np.mean(last.losses)), last.iteration + 1
        else:
            warm = old if old and old.values == what.values and old.facts.stage is task.stage else None
            (ensemble, loss), steps = learn_slice(what, self.config, warm, task.labels), 0
        parts = preview_parts(ensemble, len(what.sources), staged)
        number = old.facts.number + 1 if old else self.first_number
        needs = Stage.FILTERS if task.stage is Stage.FILTERS or Stage.FILTERS in parts else Stage.ALL
        facts = Head(number, task.labels, task.stage, needs, task.tiles, converged=task.converge)
        training = {
            "images": what.images,
            "pixels": sum(what.painted.values()),
            "pixels_per_class": {str(value): count for value, count in what.painted.items()},
            "invert": False,
            "iterations": steps,
        }
        learnt = {block.plane: self.planes[block.plane].plane for block in samples if block.plane in self.planes}
        seen = self.kinds.seen(learnt.values())
        with self.lock:
            if self.head is old:  # else a classifier was loaded meanwhile
                self.head = LiveHead(facts, what.values, ensemble, parts, loss, training, seen)

    def _gather(self, task: Learn) -> dict[Block, Sample]:
        """Samples of the task's tiles; only blocks that a stroke changed, or that have more features now, are read again."""
        for block, painted in self.strokes:
            source = self.planes.get(block.plane)
            if source is None or (tile := block.tile(source.grid)) not in task.tiles:
                continue
            old = self._samples.get(block)
            if old and old.version == painted.version and old.stage >= task.stage:
                continue
            maps = self.tiles.maps(tile)
            if maps is None or maps.stage < task.stage:
                continue
            chosen = subsample(painted.values, BLOCK_PIXELS, self.config.seed)
            features = sample_features(maps.maps, painted.rows[chosen], painted.cols[chosen])
            if maps.stage is not Stage.ALL:
                features = with_absent(features[None], self._of_blocks)[0]
            with self.lock:
                self._samples[block] = Sample(painted.version, maps.stage, features, painted.values[chosen])
        current = {block: painted.version for block, painted in self.strokes}
        with self.lock:
            self._samples = {block: s for block, s in self._samples.items() if block in current}
            return {
                block: sample
                for block, sample in self._samples.items()
                if block.plane in self.planes
                and sample.version == current[block]
                and sample.stage >= task.stage
                and block.tile(self.planes[block.plane].grid) in task.tiles
            }

    def _predict(self, task: Predict, stale: Callable[[], bool]) -> None:
        head, source = self.head, self.planes[task.tile.plane]
        if head is None or head.facts.number != task.head:
            return
        if task.step >= COARSE:
            found = self._predict_coarse(task, head, source)
        else:
            found = self._predict_fine(task, head, stale)
        if found is None:
            return
        made = Made(task.head, task.step, task.window, final=not self.smooth)
        radius = self.smooth // task.step
        drawn = found
        if radius:
            guide = self._guide(source, task)
            drawn = _smoothed(found, guide, radius)
        with self.lock:
            if self.planes.get(task.tile.plane) is not source:
                return
        self._show(task.tile.plane, task.window, task.step, drawn, head)
        with self.lock:
            self._made[task.tile] = made
            self._doubt[task.tile] = (task.window, _every(found.uncertainty, task.step))
            self._exact = {tile: kept for tile, kept in self._exact.items() if kept.made.head == task.head}
            if not task.preview and self.smooth:
                self._exact.pop(task.tile, None)
                self._exact[task.tile] = _Exact(made, found)
                for tile, old in _drop_oldest(self._exact).items():  # it stays smoothed for itself
                    if self._made.get(tile) == old.made:
                        self._made[tile] = replace(old.made, final=True)

    def _predict_coarse(self, task: Predict, head: LiveHead, source: PlaneFeatures) -> Prediction | None:
        coarse = self.tiles.coarse(task.tile)
        if coarse is None:
            return None
        ensemble = head.ensemble
        if task.preview:
            part = head.previews.get(min(coarse.stage, head.facts.stage))
            ensemble = part if part is not None else head.previews[Stage.ALL]
        rows, cols = source.grid.core(task.tile.row, task.tile.col)
        at = [
            _coarse_places(start - core.start, stop - core.start, task.step)
            for start, stop, core in (
                (task.window.top, task.window.bottom, rows),
                (task.window.left, task.window.right, cols),
            )
        ]
        features = coarse.features[torch.from_numpy(at[0])[:, None], torch.from_numpy(at[1])]
        if head.facts.stage is Stage.FILTERS:
            features = features[:, :, self._of_blocks :]
        found = _as_image(predict_points(ensemble, features.reshape(-1, features.shape[2]).float()), len(at[0]), len(at[1]))
        if ensemble.members == 1 < head.ensemble.members:  # of many: how much they disagree is not known yet
            found = replace(found, uncertainty=np.zeros_like(found.uncertainty))
        return found

    def _predict_fine(self, task: Predict, head: LiveHead, stale: Callable[[], bool]) -> Prediction | None:
        kept = self.tiles.maps(task.tile)
        if kept is None:
            return None
        maps: Iterable[FeatureMap] = kept.maps
        if head.facts.stage is Stage.FILTERS and kept.stage is Stage.ALL:
            maps = kept.maps[len(self.specs) - len(self._filters) :]
        maps = list(maps)
        bands: list[Prediction] = []
        for top in range(task.window.top, task.window.bottom, _BAND):
            if stale():
                return None
            rows = slice(top, min(top + _BAND, task.window.bottom))
            if task.step == 1:
                bands.append(predict_window(head.ensemble, maps, rows, task.window.cols))
            else:
                features = coarse_features(maps, rows, task.window.cols, task.step)
                points = predict_points(head.ensemble, features.flatten(0, 1))
                bands.append(_as_image(points, *features.shape[:2]))
        return Prediction(
            np.concatenate([band.labels for band in bands]),
            np.concatenate([band.probabilities for band in bands], axis=1),
            np.concatenate([band.uncertainty for band in bands]),
        )

    def _guide(self, source: PlaneFeatures, task: Predict) -> NDArray[np.float32]:
        """Brightness of a window at every ``step``-th pixel."""
        coarse = self.tiles.coarse(task.tile)
        if task.step >= COARSE and coarse is not None:
            rows, cols = source.grid.core(task.tile.row, task.tile.col)
            at = [
                _coarse_places(task.window.top - rows.start, task.window.bottom - rows.start, task.step),
                _coarse_places(task.window.left - cols.start, task.window.right - cols.start, task.step),
            ]
            return np.ascontiguousarray(coarse.brightness[np.ix_(*at)])
        return _middles(source.brightness(task.window.rows, task.window.cols), task.step)

    def _settle(self, task: Settle) -> None:
        """Smooth the tiles' results again, each with what the tiles around it show where the filter reaches."""
        head, source = self.head, self.planes[task.plane]
        if head is None or head.facts.number != task.head:
            return
        with self.lock:
            mine = {t: e for t, e in self._exact.items() if t.plane == task.plane and e.made.head == task.head}
        pieces = {t: e for t, e in mine.items() if e.made.step == task.step and not e.made.window.cut(task.window).empty}
        radius = max(self.smooth // task.step, 1) if self.smooth >= task.step else 0
        for exact in pieces.values():  # of a whole slide not every tile in sight is there
            part = exact.made.window.cut(task.window)
            self._show(task.plane, part, task.step, _settled(pieces.values(), part, task, source, radius), head)
        with self.lock:
            for tile, exact in pieces.items():
                if self._made.get(tile) == exact.made:
                    self._made[tile] = replace(exact.made, final=True)

    def _show(self, plane: PlaneKey, window: Window, step: int, found: Prediction, head: LiveHead) -> None:
        source = self.planes.get(plane)
        if source is not None and not self.kinds.fits(source.plane, head.seen):
            found = Prediction(found.labels, np.zeros_like(found.probabilities), np.zeros_like(found.uncertainty))
            nothing = np.zeros(found.labels.shape, np.uint8)
            self.draw(Drawing(plane, window, step, nothing, found.probabilities, head.values, found.uncertainty))
            return
        labels = np.asarray(head.values, np.uint8)[found.labels]
        self.draw(Drawing(plane, window, step, labels, found.probabilities, head.values, found.uncertainty))

    # ---- classifiers -------------------------------------------------------------------------------------------------

    def classifier(self, classes: Mapping[int, LabelClass], name: str, channels: tuple[int, ...] | None) -> Classifier | None:
        """The converged head as a classifier; None if none reads all features. `name` is the backbone's, or its folder."""
        head = self.head
        if head is None or not head.facts.converged or head.facts.stage is not Stage.ALL:
            return None
        if self.fixed is not None:
            named = tuple(classes[value] for value in head.values)
            return replace(self.fixed, info=replace(self.fixed.info, classes=named, channels=channels, smooth=self.smooth))
        settings, card = self.settings, self.backbone.card
        info = ClassifierInfo(
            classes=tuple(classes[value] for value in head.values),
            backbone=name,
            backbone_digest=card.digest,
            blocks=settings.blocks,
            timesteps=settings.timesteps,
            tile=settings.tile,
            halo=settings.halo,
            precision=settings.precision,
            scales=settings.scales,
            filters=settings.filters,
            smooth=self.smooth,
            channels=channels,
            unlabelled=0,
            ensemble=asdict(self.config),
            training=dict(head.training),
            noise=str(card.recipe.get("noise", "")),
            images=head.seen,
        )
        return Classifier(info, head.ensemble, self.backbone)

    def take(self, classifier: Classifier, labels: int) -> None:
        """Go on with a classifier from a file; it stands for the strokes of generation `labels`."""
        ensemble, sources = classifier.ensemble, len(self.sources)
        parts = preview_parts(ensemble, sources, self.staged and _reads_apart(ensemble, self._of_blocks, sources))
        needs = Stage.FILTERS if Stage.FILTERS in parts else Stage.ALL
        with self.lock:
            number = self.head.facts.number + 1 if self.head else self.first_number
            facts = Head(number, labels, Stage.ALL, needs, converged=True, loaded=True)
            values = tuple(each.value for each in classifier.info.classes)
            info = classifier.info
            self.head = LiveHead(facts, values, ensemble, parts, float("nan"), info.training, info.images)


def _drop_oldest(exact: dict[Tile, _Exact]) -> dict[Tile, _Exact]:
    """Take out the oldest results, but never the newest, until the rest fits into `_EXACT_BYTES`."""
    held = sum(each.found.probabilities.nbytes for each in exact.values())
    dropped = {}
    for tile in list(exact)[:-1]:
        if held <= _EXACT_BYTES:
            break
        dropped[tile] = exact.pop(tile)
        held -= dropped[tile].found.probabilities.nbytes
    return dropped


def _settled(pieces: Iterable[_Exact], part: Window, task: Settle, source: PlaneFeatures, radius: int) -> Prediction:
    """A part of the view, smoothed across the borders of tiles."""
    reach, step = 2 * radius * task.step, task.step
    window = Window(part.top - reach, part.bottom + reach, part.left - reach, part.right + reach).cut(task.window)
    height, width = -(-(window.bottom - window.top) // step), -(-(window.right - window.left) // step)
    probabilities = uncertainty = None
    for exact in pieces:
        near = exact.made.window.cut(window)
        if near.empty:
            continue
        if probabilities is None or uncertainty is None:
            probabilities = np.zeros((len(exact.found.probabilities), height, width), np.float32)
            uncertainty = np.zeros((height, width), np.float32)
        there, here = _places(near, window, step), _places(near, exact.made.window, step)
        probabilities[:, there[0], there[1]] = exact.found.probabilities[:, here[0], here[1]]
        uncertainty[there] = exact.found.uncertainty[here]
    assert probabilities is not None  # the part itself is among the pieces
    assert uncertainty is not None
    if radius:
        guide = _middles(source.brightness(window.rows, window.cols), step)
        guided_filter(probabilities, guide, radius, out=probabilities)
    rows, cols = _places(part, window, step)
    found = probabilities[:, rows, cols]
    return Prediction(found.argmax(0), found, uncertainty[rows, cols])


def use_threads(count: int) -> None:
    """Let torch compute on so many cores in the calling thread."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def leave_a_core() -> None:
    """Compute on all cores but the head's, as the features' thread does; see `Bench.carry_out`."""
    use_threads(max(_THREADS - 1, 1))


def named(name: str, digest: str) -> str:
    """Name, or else folder, of the backbone with these weights; `name` is what it was called where a classifier was fitted.

    Raises
    ------
    BackboneError
        If it is not here.
    """
    folder = find_by_digest(digest, name)
    try:
        return name if find_backbone(name) == folder else str(folder)
    except BackboneError:
        return str(folder)


def load(name: str, device: str, interrupt: Callable[..., None], noise: str = "") -> Backbone:
    """Load a backbone by name or folder; `interrupt` is called between its modules and may raise."""
    backbone = load_backbone(find_backbone(name), device=pick_device(device), noise=noise)
    for module in backbone.net.modules():
        module.register_forward_pre_hook(interrupt)
    return backbone


def make_bench(
    backbone: Backbone,
    chosen: Mapping[str, Any],
    smooth: int,
    session: Images,
    cache: FeatureCache | None,
    memory: int,
) -> Bench:
    """A bench for the features that are `chosen` (arguments of `FeatureSettings.of`; None is the backbone's default)."""
    settings = _in_blocks(FeatureSettings.of(backbone, **chosen), backbone)
    config = EnsembleConfig.of(dense=False, members=MEMBERS, hidden=HIDDEN)
    return Bench(backbone, settings, config, smooth, session, session.strokes, cache, memory, session.show)


def make_fixed_bench(
    classifier: Classifier, smooth: int, session: Images, cache: FeatureCache | None, memory: int, *, last: bool
) -> Bench:
    """A bench that shows a classifier, whatever is painted."""
    settings = _in_blocks(classifier.settings, classifier.backbone)
    config = EnsembleConfig.of(dense=False, members=1)
    shared = (session, session.strokes, cache, memory, session.show)
    return Bench(classifier.backbone, settings, config, smooth, *shared, fixed=classifier, last=last)


def _in_blocks(settings: FeatureSettings, backbone: Backbone) -> FeatureSettings:
    """With tiles that end where blocks of strokes and cells of every map do, also where strides are no powers of two."""
    whole = math.lcm(BLOCK, settings.alignment(backbone))
    tile = -(-settings.tile // BLOCK) * BLOCK
    return replace(settings, tile=max(tile // whole, 1) * whole)


def _reads_apart(ensemble: PixelMLPEnsemble, of_blocks: int, sources: int) -> bool:
    """Whether the member of the last source reads the filters alone, as `EnsembleConfig.one_source` has it."""
    return ensemble.members >= sources and not bool(ensemble.linear1.weight[sources - 1, :, :of_blocks].any())


def _halved(feature_map: FeatureMap) -> FeatureMap:
    return replace(feature_map, values=feature_map.values.half())


def _coarse_places(start: int, stop: int, step: int) -> NDArray[np.int64]:
    """Places in a coarse tile of the middles of steps of ``start .. stop - 1`` (pixels of the core)."""
    last = -(-stop // COARSE) - 1
    places: NDArray[np.int64] = np.minimum(np.arange(start, stop, step) // COARSE + step // (2 * COARSE), last)
    return places


def _middles(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Every `step`-th pixel ``(h, w)`` of a window, from the middles of the steps."""
    if step == 1:
        return values
    at = np.ix_(coarse_pixels(0, values.shape[0], step), coarse_pixels(0, values.shape[1], step))
    return np.ascontiguousarray(values[at])


def _every(uncertainty: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Thinned to every fourth image pixel; a coarser picture stays as it is."""
    return uncertainty[:: COARSE // step, :: COARSE // step].copy() if step < COARSE else uncertainty


def _as_image(points: Prediction, height: int, width: int) -> Prediction:
    return Prediction(
        points.labels.reshape(height, width),
        points.probabilities.reshape(-1, height, width),
        points.uncertainty.reshape(height, width),
    )


def _smoothed(found: Prediction, guide: NDArray[np.float32], radius: int) -> Prediction:
    probabilities = guided_filter(found.probabilities, guide, radius)
    return Prediction(probabilities.argmax(0), probabilities, found.uncertainty)


def _places(part: Window, whole: Window, step: int) -> tuple[slice, slice]:
    """Where a part lies in a raster of `whole` at `step`."""
    return (
        slice((part.top - whole.top) // step, -(-(part.bottom - whole.top) // step)),
        slice((part.left - whole.left) // step, -(-(part.right - whole.left) // step)),
    )
