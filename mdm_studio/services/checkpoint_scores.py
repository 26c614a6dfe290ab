"""What a pretraining does to the labels given so far: its checkpoints judged by the strokes of a live session.

Each score is the cross-validated balanced accuracy (see `mdm_studio.engine.advisor`) of what would be read after choosing the
checkpoint's backbone, beside that of what is read now, on the same pixels and folds. Strokes grow while a network trains, so
both are kept for each checkpoint: their difference means something even where the strokes of two points differ.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.errors import InputError, LabelsError, MDMStudioError, OutputError, UsageError
from mdm_studio.io.atomic import write_json
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.json_files import read_json
from mdm_studio.services.live_explore import stroke_points
from mdm_studio.services.live_plan import PlaneKey, Tile
from mdm_studio.services.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from mdm_studio.engine.advisor import Score
    from mdm_studio.engine.backbones import Backbone
    from mdm_studio.engine.features import PlaneFeatures
    from mdm_studio.services.live_work import Bench

JOB = "checkpoint scores"
"""Name of it among the jobs of the session."""
_FILE = "scores.json"
_VERSION = 1
_MOST_TILES = 24  # of a second or two each; those with the largest share of a class come first
_Places = dict[PlaneKey, tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class CheckpointScore:
    """How well a checkpoint tells the classes apart, and how well what is read now does.

    Attributes
    ----------
    step : int
        Of the checkpoint.
    score, error : float
        Mean over folds and its standard error, of what would be read after choosing it.
    reference, reference_error : float
        The same of what is read now.
    backbone : str
        Name of the backbone in use.
    pixels, strokes : int
        What they were judged by.
    digest : str
        Of the pixels and of what is read now: the same ones need not be judged again.
    """

    step: int
    score: float
    error: float
    reference: float
    reference_error: float
    backbone: str
    pixels: int
    strokes: int
    digest: str

    @property
    def better(self) -> bool:
        """Whether the checkpoint is better by more than the standard errors explain."""
        return self.score - self.reference > float(np.hypot(self.error, self.reference_error))

    @property
    def worse(self) -> bool:
        """Whether it is worse by more than that."""
        return self.reference - self.score > float(np.hypot(self.error, self.reference_error))

    def words(self) -> str:
        """For people."""
        verdict = "better than" if self.better else "not as good as" if self.worse else "about as good as"
        return (
            f"Step {self.step:,}: {100 * self.score:.1f} \N{PLUS-MINUS SIGN} {100 * self.error:.1f}, {verdict} {self.backbone} "
            f"as it is read now ({100 * self.reference:.1f} \N{PLUS-MINUS SIGN} {100 * self.reference_error:.1f}), on "
            f"{self.strokes} strokes."
        )


def read_scores(folder: JobFolder) -> tuple[CheckpointScore, ...]:
    """Scores of the checkpoints of a job so far, by step; what is damaged is left out, it can be judged again."""
    try:
        values = read_json(folder.root / _FILE, dict[str, Any])
        if values["version"] != _VERSION:
            return ()
        return tuple(sorted((CheckpointScore(**each) for each in values["scores"]), key=lambda score: score.step))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


class CheckpointScorer:
    """Judges checkpoints as a job beside of the session: a step of it is done whenever nothing in view waits.

    Attributes
    ----------
    scored : Signal
        Folder of a job, and all its scores.
    progressed : Signal
        What is being done, in words, and the share that is done.
    failed : Signal
        Why there is no score, in words; the session goes on.
    """

    scored = Signal(object, tuple)
    progressed = Signal(str, float)
    failed = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session

    def score(self, folder: JobFolder) -> None:
        """Judge the newest checkpoint of a job; the answer comes by `scored`, also if it was judged before."""

        def told() -> Iterator[None]:
            try:
                yield from self._score(folder)
            except MDMStudioError as error:  # it concerns this curve alone: painting and predicting go on
                self.failed.emit(str(error))

        self._session.run_job(JOB, told())

    def _score(self, folder: JobFolder) -> Iterator[None]:
        self.progressed.emit("reading the newest checkpoint", 0.0)
        yield
        bench, name = self._session.reading, self._session.settings.backbone
        if bench is None or not bench.planes:
            raise UsageError("no image is chosen yet: choose one and paint two classes to see what this does to your labels")
        points = _fewer(stroke_points(self._session, bench))
        places, classes, strokes = _joined(points)
        step, backbone = _load(folder, bench)
        digest = _digest(places, classes, bench)
        known = {score.step: score for score in read_scores(folder)}
        if step not in known or known[step].digest != digest:
            new, reference = yield from self._compare(bench, backbone, places, classes, strokes)
            pair = (new.mean, new.error, reference.mean, reference.error)
            known[step] = CheckpointScore(step, *pair, name, len(classes), len(np.unique(strokes)), digest)
            with contextlib.suppress(OutputError):  # a full disk must not hide the curve
                values = [asdict(known[each]) for each in sorted(known)]
                write_json(folder.root / _FILE, {"version": _VERSION, "scores": values})
        self.scored.emit(folder.root, tuple(known[each] for each in sorted(known)))

    def _compare(
        self, bench: Bench, backbone: Backbone, places: _Places, classes: NDArray[np.int64], strokes: NDArray[np.int64]
    ) -> Generator[None, None, tuple[Score, Score]]:
        from mdm_studio.engine.advisor import score_sources
        from mdm_studio.engine.features import FeatureSettings, PlaneFeatures

        now = {plane: bench.planes[plane] for plane in places}
        settings = FeatureSettings.of(backbone, tile=bench.settings.tile)
        then = {plane: PlaneFeatures(backbone, self._session.plane(plane), settings) for plane in places}
        scores: list[Score] = []
        for order, (sources, words) in enumerate(((then, "the checkpoint"), (now, self._session.settings.backbone))):
            features = yield from self._features(sources, places, words, order / 2)
            self.progressed.emit(f"judging {words}", order / 2 + 0.45)
            yield
            scores.append(score_sources(features, classes, strokes))
            yield
        return scores[0], scores[1]

    def _features(
        self, planes: dict[PlaneKey, PlaneFeatures], places: _Places, words: str, begin: float
    ) -> Generator[None, None, list[Tensor]]:
        """Features of the places, a tensor for each source: a block at a timestep in all scales, or the filters."""
        import torch

        from mdm_studio.engine.heads import sample_features

        total = sum(len(_tiles(planes[plane], *at)) for plane, at in places.items())
        done, parts = 0, []
        for plane, (rows, cols) in places.items():
            source, found = planes[plane], None
            for (row, col), here in _tiles(source, rows, cols):
                told = f"looking at the strokes with {words}, tile {done + 1} of {total}"
                self.progressed.emit(told, begin + 0.4 * done / total)
                yield
                values = sample_features(source.maps(row, col), rows[here], cols[here])
                found = torch.empty(len(rows), values.shape[1]) if found is None else found
                found[torch.from_numpy(here)] = values
                done += 1
            parts.append(cast("Tensor", found))
        return _by_source(next(iter(planes.values())), torch.cat(parts))


def _load(folder: JobFolder, bench: Bench) -> tuple[int, Backbone]:
    from mdm_studio.engine.backbones import load_backbone
    from mdm_studio.services.pretraining import snapshot

    path = snapshot(folder)
    if path is None:
        raise InputError("there is no checkpoint yet: the first score comes with it")
    return int(path.name.removeprefix("step-")), load_backbone(path, device=bench.backbone.device)


def _tiles(
    source: PlaneFeatures, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> list[tuple[tuple[int, int], NDArray[np.bool_]]]:
    """Tiles that hold some places, and which."""
    height, width = source.grid.tile
    numbers = np.stack([rows // height, cols // width], axis=1)
    return [((int(row), int(col)), (numbers == (row, col)).all(1)) for row, col in np.unique(numbers, axis=0)]


def _by_source(source: PlaneFeatures, features: Tensor) -> list[Tensor]:
    import torch

    from mdm_studio.engine.features import BlockMap

    parts: dict[Any, list[Tensor]] = {}
    widths = [spec.channels for spec in source.specs]
    for spec, part in zip(source.specs, torch.split(features, widths, dim=1), strict=True):
        parts.setdefault((spec.block, spec.timestep) if isinstance(spec, BlockMap) else None, []).append(part)
    return [torch.cat(each, 1) for each in parts.values()]


def _fewer(points: dict[Tile, Any]) -> dict[Tile, Any]:
    """The tiles that matter most, if there are too many: those with the largest shares of a class' pixels."""
    if not points:
        raise LabelsError("nothing is painted yet; paint two strokes at least of each of two classes")
    values, counts = np.unique(np.concatenate([classes for _, _, classes, _ in points.values()]), return_counts=True)
    of_class = dict(zip(values.tolist(), counts.tolist(), strict=True))

    def share(tile: Tile) -> float:
        here, numbers = np.unique(points[tile][2], return_counts=True)
        return float(sum(n / of_class[value] for value, n in zip(here.tolist(), numbers.tolist(), strict=True)))

    return {tile: points[tile] for tile in sorted(points, key=share, reverse=True)[:_MOST_TILES]}


def _joined(points: dict[Tile, Any]) -> tuple[_Places, NDArray[np.int64], NDArray[np.int64]]:
    """Places by plane, and class and stroke of each in that order; LabelsError if they cannot be judged by."""
    from mdm_studio.engine.advisor import stroke_folds

    by_plane: dict[PlaneKey, list[Any]] = {}
    for tile in sorted(points):
        by_plane.setdefault(tile.plane, []).append(points[tile])
    whole = {plane: [np.concatenate(each) for each in zip(*parts, strict=True)] for plane, parts in by_plane.items()}
    classes, strokes = (np.concatenate([each[i] for each in whole.values()]) for i in (2, 3))
    stroke_folds(classes, strokes)  # fail before the features are computed
    return {plane: (each[0], each[1]) for plane, each in whole.items()}, classes, strokes


def _digest(places: _Places, classes: NDArray[np.int64], bench: Bench) -> str:
    digest = hashlib.blake2b(f"{bench.backbone.card.digest} {bench.settings}".encode(), digest_size=8)
    for plane, (rows, cols) in places.items():
        digest.update(repr(plane).encode())
        digest.update(rows.tobytes() + cols.tobytes())
    digest.update(classes.tobytes())
    return digest.hexdigest()
