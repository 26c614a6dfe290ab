"""What a shared checkpoint reveals of the images that trained it, measured by two attacks.

1. **Restoring**: parts of an image are hidden as in pretraining. Does the backbone restore its training images better than
   images it has never seen? The error is the score of a membership attack (`mdm_studio.engine.membership`).
2. **Resembling**: are pictures that it makes from noise, and what it fills into images it has never seen, more like its
   training images than like held-out ones? Every picture is searched in all images (`mdm_studio.engine.likeness`).

Both compare training images with held-out ones of the same kind: what images of a kind have in common reveals nothing of any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from mdm_studio.engine.backbones import Backbone
from mdm_studio.engine.generation import Sampler, noise_process
from mdm_studio.engine.hiding import Hiding, Restored, hidings, restore
from mdm_studio.engine.likeness import Likeness, best_places, shrink, unmirrored
from mdm_studio.engine.membership import Attack, Nearness, attack, nearness, surprise
from mdm_studio.errors import OutputError, UsageError
from mdm_studio.services.privacy_images import SEARCHED, Cut, Shown, choose, divide
from mdm_studio.services.sampling import make_pictures

REPORT, FACTS = "privacy.md", "privacy.json"
LEVELS = (0.9, 0.5)
"""Shares of an image that are hidden: nearly all of it, where only memory can help, and half, where most can be learned."""

Kind = Literal["samples", "restored", "held-out"]
"""Pictures that are searched: made from noise; held-out images nearly all hidden and restored; held-out images themselves."""


@dataclass(frozen=True)
class PrivacyRequest:
    """What is to be measured.

    Attributes
    ----------
    out : Path
        Folder of the report.
    samples : int
        Pictures to make from noise; 0 makes none.
    images : int
        Images of each kind at most, at random.
    crops : int
        Crops of an image, whose errors are averaged.
    steps : int
        Sampler steps a picture.
    """

    out: Path
    samples: int = 64
    images: int = 200
    crops: int = 4
    steps: int = 50
    seed: int = 0
    channels: tuple[int, ...] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Restoring:
    """Result of one way to hide.

    Attributes
    ----------
    words : str
        What was hidden.
    attack : Attack
        By how much larger the error is than usual at the image's contrast.
    difficulty : Attack
        By the contrast alone, which knows no network: should reveal nothing, else the two kinds of images differ.
    errors : (tuple of float, tuple of float)
        Error of each image as a share of its variance, trained and held out.
    surprises : (tuple of float, tuple of float)
        The numbers of the attack, see `mdm_studio.engine.membership.surprise`.
    ssim : (float, float)
        Median structural similarity of restored and true places.
    """

    words: str
    attack: Attack
    difficulty: Attack
    errors: tuple[tuple[float, ...], tuple[float, ...]]
    surprises: tuple[tuple[float, ...], tuple[float, ...]]
    ssim: tuple[float, float]


@dataclass(frozen=True)
class Resembling:
    """Result of searching pictures of one kind.

    Attributes
    ----------
    nearness : Nearness
        How often the nearest image is a training image.
    correlation : (tuple of float, tuple of float)
        Of each picture with its nearest training and its nearest held-out image.
    beyond : int
        Pictures that are more like a training image than every held-out image is.
    """

    kind: Kind
    nearness: Nearness
    correlation: tuple[tuple[float, ...], tuple[float, ...]]
    beyond: int = 0


@dataclass(frozen=True)
class Pair:
    """A picture and its nearest training and held-out windows, ``(C, h, w)`` in [-1, 1], with names and correlation."""

    picture: NDArray[np.float32]
    windows: tuple[NDArray[np.float32], NDArray[np.float32]]
    names: tuple[str, str]
    correlation: tuple[float, float]


@dataclass(frozen=True)
class Example3:
    """An image, what the backbone saw of it and what it made of it, ``(C, h, w)`` in [-1, 1]; `error` is relative."""

    name: str
    trained: bool
    error: float
    pictures: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Findings:
    """Everything that was measured; `names` are those of the images, trained and held out."""

    backbone: str
    digest: str
    recipe: dict[str, Any]
    side: int
    names: tuple[tuple[str, ...], tuple[str, ...]]
    restoring: tuple[Restoring, ...]
    resembling: tuple[Resembling, ...]
    notes: tuple[str, ...]
    settings: dict[str, Any]
    lists_digests: bool
    examples: tuple[Example3, ...] = field(default=(), repr=False)
    pairs: dict[Kind, tuple[Pair, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class PrivacyProgress:
    """Part `done` (0..1) of a stage."""

    stage: str
    done: float


Event = PrivacyProgress | Findings


def measure_privacy(
    backbone: Backbone, images: Sequence[Path], held_out: Sequence[Path], request: PrivacyRequest
) -> Iterator[Event]:
    """Measure, write the report, and give the findings last.

    Raises
    ------
    InputError
        If there are too few images, or it is not known which trained the backbone.
    UsageError
        If the backbone restores nothing.
    OutputError
        If there is a report already that is not to be replaced.
    """
    from mdm_studio.services.privacy_report import write_report

    if (request.out / REPORT).exists() and not request.overwrite:
        raise OutputError(f"{request.out / REPORT} is there already: pass --overwrite to replace it, or choose another --out")
    audit = _Audit(backbone, images, held_out, request)
    yield from audit.restore()
    yield from audit.sample()
    yield from audit.search()
    findings = audit.findings()
    write_report(request.out, findings)
    yield findings


def check_restores(backbone: Backbone) -> None:
    """Make sure that there is something to measure.

    Raises
    ------
    UsageError
        If the backbone has no recipe of ours, so that nothing is known of what it restores.
    """
    if not backbone.card.recipe["name"]:
        raise UsageError(
            f"{backbone.card.name} is an encoder that was trained elsewhere and restores nothing, so that a privacy report has "
            "nothing to measure; it knows nothing of your images either, unless it was trained on them there"
        )


class _Audit:
    """The images, and what has been found out so far."""

    def __init__(self, backbone: Backbone, images: Sequence[Path], held_out: Sequence[Path], request: PrivacyRequest) -> None:
        check_restores(backbone)
        self.backbone, self.request = backbone, request
        card = backbone.card
        sides = divide(card, images, held_out)
        self.cut = Cut.of(card, crops=request.crops, seed=request.seed, channels=request.channels)
        self.notes = list(sides.notes)
        self.kinds: list[list[Shown]] = []
        for paths in (sides.trained, sides.held_out):
            first = sum(len(kind) for kind in self.kinds)
            chosen, unreadable = choose(paths, card, self.cut, request.images, first)
            self.kinds.append(chosen)
            self.notes += [f"Left out: {line}" for line in unreadable]
        self.restoring: list[Restoring] = []
        self.examples: list[Example3] = []
        self.queries: dict[Kind, Tensor] = {}  # pictures to search, (Q, C, h, w)
        self.found: dict[Kind, tuple[Likeness, Likeness]] = {}

    # ------------------------------------------------------------------------------------------------------- restoring

    def restore(self) -> Iterator[PrivacyProgress]:
        """Hide parts of all images in all ways, and see how well the backbone restores them."""
        card = self.backbone.card
        ways = hidings(self.backbone.recipe, card.recipe["name"], LEVELS)
        total = len(ways) * sum(len(kind) for kind in self.kinds)
        done = 0
        for way, hiding in enumerate(ways):
            scores: tuple[list[_Score], list[_Score]] = ([], [])
            for kind, images in enumerate(self.kinds):
                for number, image in enumerate(images):
                    scores[kind].append(self._score(hiding, image, kind, number, first=not way))
                    done += 1
                    yield PrivacyProgress("restoring", done / total)
            self.restoring.append(_restoring(hiding, scores, self.request.seed))
            if not way:
                self._keep(scores, self.restoring[0])

    def _score(self, hiding: Hiding, image: Shown, kind: int, number: int, *, first: bool) -> _Score:
        crops = image.crops()
        seed = np.random.SeedSequence([self.request.seed, kind, number]).generate_state(1)[0]
        restored = restore(self.backbone, hiding, crops, torch.Generator().manual_seed(int(seed)))
        ssim = _ssim(crops, restored)
        shown = (crops[0], restored.seen[0], restored.image[0]) if first else ()
        error, variance = float(restored.error.mean()), float(restored.variance.mean())
        return _Score(image.name, error, restored.relative, variance, ssim, shown)

    def _keep(self, scores: tuple[list[_Score], list[_Score]], result: Restoring) -> None:
        """The examples for the report, best restored first, and the held-out pictures that are searched."""
        for kind, trained in ((0, True), (1, False)):
            for score in (scores[kind][index] for index in np.argsort(result.surprises[kind])[:_ROWS]):
                pictures = [np.asarray(each) for each in score.shown]
                self.examples.append(Example3(score.name, trained, score.relative, (pictures[0], pictures[1], pictures[2])))
        searched = scores[1][:_QUERIES]
        self.queries["restored"] = torch.stack([score.shown[2] for score in searched])
        self.queries["held-out"] = torch.stack([score.shown[0] for score in searched])

    # ------------------------------------------------------------------------------------------------------ resembling

    def sample(self) -> Iterator[PrivacyProgress]:
        """Make pictures from noise, if the backbone can."""
        n = self.request.samples
        if not n:
            return
        try:
            process = noise_process(self.backbone.card)
        except UsageError as error:
            self.notes.append(f"No pictures were made from noise: {str(error).split(';')[0]}.")
            return
        sampler = Sampler(steps=min(self.request.steps, len(process.abar)))
        made: list[NDArray[np.uint8]] = []
        size = (self.cut.side, self.cut.side)
        for event in make_pictures(self.backbone, range(1, n + 1), sampler, seed=self.request.seed, size=size):
            made += event.finished
            yield PrivacyProgress("sampling", event.done / n)
        self.queries["samples"] = torch.from_numpy(np.stack(made)).float() / 127.5 - 1

    def search(self) -> Iterator[PrivacyProgress]:
        """Search all pictures in equally many images of both kinds: the nearest of many is nearer than the nearest of few."""
        count = min(len(kind) for kind in self.kinds)
        searched = [kind[:count] for kind in self.kinds]
        kinds = list(self.queries)
        small = shrink(torch.cat([self.queries[kind] for kind in kinds]), SEARCHED / self.cut.side)
        best: list[list[Likeness]] = [[], []]
        for number in range(count):
            for side in (0, 1):
                best[side].append(_best_of_image(best_places(small, searched[side][number].fields)))
            yield PrivacyProgress("searching", (number + 1) / count)
        joined = [_joined(each) for each in best]
        begin = 0
        for kind in kinds:
            part = slice(begin, begin + len(self.queries[kind]))
            self.found[kind] = (_part(joined[0], part), _part(joined[1], part))
            begin = part.stop

    def findings(self) -> Findings:
        """All of it."""
        card, request = self.backbone.card, self.request
        results = {kind: self._resembling(kind) for kind in self.found}
        limit = max(results["held-out"].correlation[0])
        resembling = [
            dataclasses.replace(result, beyond=int(np.sum(np.array(result.correlation[0]) > limit)))
            for result in results.values()
        ]
        settings = {key: value for key, value in dataclasses.asdict(request).items() if key not in ("out", "overwrite")}
        return Findings(
            card.name, card.digest, card.recipe, self.cut.side,
            (tuple(image.name for image in self.kinds[0]), tuple(image.name for image in self.kinds[1])),
            tuple(self.restoring), tuple(sorted(resembling, key=lambda each: _ORDER.index(each.kind))), tuple(self.notes),
            settings, bool(card.training.get("image_digests")), tuple(self.examples),
            {kind: self._pairs(kind) for kind in self.found},
        )  # fmt: skip

    def _similarities(self, kind: Kind) -> list[NDArray[np.float32]]:
        """Correlation ``(Q, I)`` with training and held-out images; NaN with the image that a picture comes from."""
        both = [each.correlation.copy() for each in self.found[kind]]
        if kind != "samples":  # picture k comes from held-out image k; training image k is left out too, to keep the balance
            own = np.arange(min(both[1].shape))
            for each in both:
                each[own, own] = np.nan
        return both

    def _resembling(self, kind: Kind) -> Resembling:
        to_trained, to_held_out = self._similarities(kind)
        highest = [tuple(np.nanmax(each, axis=1).astype(float).tolist()) for each in (to_trained, to_held_out)]
        return Resembling(kind, nearness(to_trained, to_held_out, self.request.seed), (highest[0], highest[1]))

    def _pairs(self, kind: Kind) -> tuple[Pair, ...]:
        """The pictures that are most like a training image, worst first."""
        both = self._similarities(kind)
        worst = np.argsort(-np.nanmax(both[0], axis=1))[:_ROWS]
        pairs = []
        for query in worst:
            windows, names, values = [], [], []
            for side in (0, 1):
                image = int(np.nanargmax(both[side][query]))
                shown = self.kinds[side][image]
                windows.append(_window(shown, self.found[kind][side].place[query, image], self.cut.side))
                names.append(shown.name)
                values.append(float(both[side][query, image]))
            picture = np.asarray(self.queries[kind][query])
            pairs.append(Pair(picture, (windows[0], windows[1]), (names[0], names[1]), (values[0], values[1])))
        return tuple(pairs)


_QUERIES = 64  # held-out images that are searched themselves and restored; the search takes most of a minute a hundred
_ROWS = 6  # pictures of each kind in the report
_ORDER: tuple[Kind, ...] = ("samples", "restored", "held-out")


@dataclass(frozen=True)
class _Score:
    """How one image was restored; `shown` are its first crop, what was seen of it, and what was made of it."""

    name: str
    error: float
    relative: float
    variance: float
    ssim: float
    shown: tuple[Tensor, ...]


def _restoring(hiding: Hiding, scores: tuple[list[_Score], list[_Score]], seed: int) -> Restoring:
    errors = [tuple(score.relative for score in side) for side in scores]
    variances = [[score.variance for score in side] for side in scores]
    ssim = [float(np.median([score.ssim for score in side])) for side in scores]
    both = surprise([score.error for side in scores for score in side], [*variances[0], *variances[1]]).tolist()
    surprises = tuple(both[: len(scores[0])]), tuple(both[len(scores[0]) :])
    return Restoring(
        hiding.words, attack(*surprises, seed), attack(variances[0], variances[1], seed), (errors[0], errors[1]), surprises,
        (ssim[0], ssim[1]),
    )  # fmt: skip


def _ssim(crops: Tensor, restored: Restored) -> float:
    """Structural similarity of the first crop and what was made of it, where it was judged."""
    side = min(crops.shape[2:])
    if side < _SSIM_WINDOW:
        return float("nan")
    _, full = structural_similarity(  # type: ignore[no-untyped-call]
        crops[0].numpy(), restored.image[0].numpy(), data_range=2.0, channel_axis=0, full=True, win_size=_SSIM_WINDOW
    )
    return float(full.mean(axis=0)[restored.judged[0, 0].numpy()].mean())


_SSIM_WINDOW = 7  # pixels: scikit-image's own


def _best_of_image(found: Likeness) -> Likeness:
    """The best field of one image: ``(Q, 1)``; its number becomes the first of four numbers of the place."""
    field_number = found.correlation.argmax(axis=1)  # (Q,)
    rows = np.arange(len(field_number))
    place = np.concatenate([field_number[:, None], found.place[rows, field_number]], axis=1)  # (Q, 4)
    return Likeness(found.correlation[rows, field_number][:, None], place[:, None])


def _joined(found: Sequence[Likeness]) -> Likeness:
    return Likeness(
        np.concatenate([each.correlation for each in found], axis=1), np.concatenate([each.place for each in found], axis=1)
    )


def _part(found: Likeness, rows: slice) -> Likeness:
    return Likeness(found.correlation[rows], found.place[rows])


def _window(image: Shown, place: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """The place that was found, ``(C, side, side)`` as the network would see it, mirrored to look like the picture."""
    number, row, col, mirroring = (int(value) for value in place)
    whole = image.whole_fields()[number]
    small = image.fields[number]
    starts = [
        min(round(start * size / little), size - side)
        for start, size, little in zip((row, col), whole.shape[1:], small.shape, strict=True)
    ]
    window = whole[:, starts[0] : starts[0] + side, starts[1] : starts[1] + side]
    return unmirrored(window, mirroring)
