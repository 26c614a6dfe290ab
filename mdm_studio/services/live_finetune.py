"""Fine-tuning in a live session: the whole network learns the strokes, beside everything else, and is shown while it does.

It is a job beside (see `mdm_studio.services.live_core`): a step of it is done whenever nothing in view waits. Now and then a
snapshot takes the place of what is shown. The ensemble is only put aside: going back to it is a matter of a moment, and
painting goes back by itself, because the ensemble answers a stroke and a network that is fine-tuned does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from mdm_studio.errors import UsageError
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.services.class_editing import ClassEditing
from mdm_studio.services.live_plan import PlaneKey

if TYPE_CHECKING:  # torch is imported by the session's own threads
    from mdm_studio.engine.backbones import BackboneCard
    from mdm_studio.engine.features import FeatureSettings
    from mdm_studio.engine.finetune import FinetuneConfig, FinetuneStep, Patch
    from mdm_studio.nn.finetuned import FineTuned
    from mdm_studio.services.classifier import Classifier
    from mdm_studio.services.live_work import Bench

JOB = "finetune"
"""Its name among the session's jobs."""
SHOW_SECONDS = 10.0
"""Of training between two snapshots that are shown, at least; and twice the time that the last one took to draw."""
_QUICK: dict[str, Any] = {}  # settings of fine-tuning that are other than usual
_SHARE = 4  # part of the session's memory for features: logits are few
_Points = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.unsignedinteger[Any]]]


@dataclass(frozen=True)
class FinetuneState:
    """What there is to say about fine-tuning.

    Attributes
    ----------
    phase : {"none", "running", "ready"}
        Ready: there is a fine-tuned network, of this session or from a file.
    shown : bool
        Pictures, and what is saved, exported and suggested, are the fine-tuned network's instead of the ensemble's.
    done : float
        While it runs, 0 to 1.
    note : str
        While it runs, in words.
    outdated : bool
        Strokes were painted that it has not learnt.
    """

    phase: Literal["none", "running", "ready"] = "none"
    shown: bool = False
    done: float = 0.0
    note: str = ""
    outdated: bool = False


@dataclass(frozen=True)
class _Lesson:
    """The strokes to learn: of each plane rows, columns and class values; all values in order, and how many of each."""

    planes: Mapping[PlaneKey, _Points]
    counts: Mapping[int, int]

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(self.counts)


class FineTuning(ClassEditing):
    """Verbs that fine-tune the network and choose what is shown.

    Attributes
    ----------
    finetuning : FinetuneState
        As it is now.
    finetune_changed : Signal
        With the new `FinetuneState`, from a thread of the session's.
    """

    finetune_changed = Signal(FinetuneState)

    def __init__(self, *args: Any, **options: Any) -> None:
        self.finetuning = FinetuneState()
        self._run: object | None = None  # the fine-tuning that goes on
        self._wanted = False  # its snapshots are to be shown
        self._lacked = False  # the network that was there before it lacks strokes
        self._ready: Bench | None = None  # the fine-tuned network that is finished
        self._tuned: Bench | None = None  # the newest one, finished or not
        self._aside: Bench | None = None  # the ensemble's, while another is shown
        self._kept: Path | None = None  # a fine-tuned network of an earlier session
        self._scanning = False
        self._read: tuple[object, ...] = ()
        super().__init__(*args, **options)

    # ---- verbs -------------------------------------------------------------------------------------------------------

    @property
    def reading(self) -> Bench | None:
        """The bench of the features that the ensemble reads, shown or not."""
        return self._aside if self.bench is not None and self.bench.fixed is not None else self.bench

    def finetune(self, *, steps: int = 200, minutes: float = 0.0) -> None:
        """Begin to fine-tune the network on the strokes there are, anew if one is on its way.

        Parameters
        ----------
        steps, minutes
            It ends after so many steps, or minutes of work (0: however many).

        Raises
        ------
        UsageError
            If there is nothing to learn yet, or no backbone.
        """
        if self._backbone is None or self.reading is None:
            raise UsageError("the backbone is not loaded yet: choose an image and wait a moment")
        if len(self.painted) < 2:
            raise UsageError("a network is fine-tuned on strokes of two classes at least: paint a few of another class")
        run = object()
        with self._lock:
            self._run, self._wanted, self._lacked = run, True, self.finetuning.outdated
        self._set_finetuning(phase="running", done=0.0, note="beginning", outdated=False)
        self.run_job(JOB, self._steps_of(run, steps, minutes))

    def cancel_finetune(self) -> None:
        """Stop it and go back to the ensemble; a network that was finished before stays ready."""
        with self._lock:
            if self._run is None:
                return
            self._run = None
            self._jobs.pop(JOB, None)
            self._tuned, self._beside = self._ready, ""
            self._put_back()
        self.jobs_changed.emit(frozenset(self._jobs))
        phase: Literal["ready", "none"] = "ready" if self._ready or self._kept else "none"
        outdated = phase == "ready" and (self._lacked or self.finetuning.outdated)
        self._set_finetuning(phase=phase, shown=False, done=0.0, note="", outdated=outdated)
        self._tell(always=True)
        self._crew.wake()

    def show_finetuned(self, shown: bool) -> None:
        """Show the fine-tuned network, as it is by now, or the ensemble; nothing is lost either way."""
        with self._lock:
            self._wanted, kept = shown, self._kept
            if shown and self._tuned is not None:
                self._put(self._tuned)
            elif shown and kept is not None and self._run is None:
                self._send("features", lambda: self._take_kept(kept))
            elif not shown:
                self._put_back()
        self._set_finetuning(shown=self.bench is not None and self.bench.fixed is not None)
        self._crew.wake()

    # ---- what is shown -----------------------------------------------------------------------------------------------

    def _put(self, bench: Bench) -> None:
        """Show a bench of a fine-tuned network. The lock is held."""
        old = self.bench
        if old is bench:
            return
        if old is None or old.fixed is None:
            self._aside = old
        bench.redraw()
        self.bench, self._stroke_at = bench, None  # no stroke is answered

    def _put_back(self) -> None:
        """Show the ensemble's again. The lock is held."""
        if self.bench is None or self.bench.fixed is None:
            return
        self.bench, self._aside = self._aside, None
        if self.bench is not None and self.bench.head is not None:
            self.bench.redraw()
        else:
            self._erase_pictures()

    def _set_finetuning(self, **changes: Any) -> None:
        with self._lock:
            state = replace(self.finetuning, **changes)
            changed, self.finetuning = state != self.finetuning, state
        if changed and not self._closed:
            self.finetune_changed.emit(state)

    def _take_finetuned(self, classifier: Classifier) -> None:
        """Show a network that was fine-tuned before, with its classes; the ensemble's features are left as they are."""
        bench = self._bench_of(classifier, classifier.info.smooth, last=True)
        self.set_classes(classifier.info.classes)
        with self._lock:
            if self._run is None:
                self._ready = self._tuned = bench
            self._put(bench)
        self._set_finetuning(phase="running" if self._run else "ready", shown=True, outdated=False)
        self._crew.wake()

    def _take_kept(self, path: Path) -> None:
        """Show the network of an earlier session; its classes are those of now."""
        from mdm_studio.services.classifier import load_classifier

        classifier = load_classifier(path, device=self.settings.device)
        bench = self._bench_of(classifier, self.settings.smooth, last=True)
        with self._lock:
            if self._tuned is not None or not self._wanted:
                return
            self._ready = self._tuned = bench
            self._put(bench)
        self._set_finetuning(shown=True)
        self._crew.wake()

    def _offer_finetuned(self, path: Path) -> None:
        """A network of an earlier session can be shown."""
        if self.finetuning.phase == "none" and path.exists():
            self._kept = path
            self._set_finetuning(phase="ready")

    def _keep_finetuned(self, classifier: Classifier) -> None:
        """For subclasses: a network is fine-tuned."""

    def _bench_of(self, classifier: Classifier, smooth: int, *, last: bool) -> Bench:
        from mdm_studio.services import live_work

        for module in classifier.backbone.net.modules():
            module.register_forward_pre_hook(self._interrupt)
        memory, cache = self._memory // _SHARE, self._cache if last else None  # a snapshot is forgotten within moments
        bench = live_work.make_fixed_bench(classifier, smooth, self, cache, memory, last=last)
        bench.take(classifier, self.strokes.generation)
        return bench

    # ---- what else happens -------------------------------------------------------------------------------------------

    def _benches(self) -> list[Bench]:
        """All that may be shown again."""
        with self._lock:
            known = [self.bench, self._aside, self._tuned, self._ready]
        return [bench for number, bench in enumerate(known) if bench is not None and bench not in known[:number]]

    def _new_bench(self) -> None:
        with self._lock:
            shown = self.bench if self.bench is not None and self.bench.fixed is not None else None
        super()._new_bench()
        settings = self.settings
        read = (
            settings.backbone, settings.blocks, settings.timesteps, settings.scales, settings.filters, settings.device,
            settings.noise,
        )  # fmt: skip
        before, self._read = self._read, read
        if shown is None or self.bench is shown:
            return
        with self._lock:
            self._aside = None
            if read == before:  # other smoothing alone: what is shown is smoothed anew
                shown.smooth = settings.smooth
                self._put(shown)
                return
            self._wanted = False
        self._set_finetuning(shown=False)

    def _scan(self, key: str) -> None:
        self._scanning = True  # strokes that are brought back are not painted
        try:
            super()._scan(key)
        finally:
            self._scanning = False

    def _strokes_changed(self) -> None:
        if not self._scanning and self.finetuning.phase != "none":
            self._set_finetuning(outdated=True)
            shown = self.finetuning.shown
            if shown or self._wanted:
                self.show_finetuned(False)
            if shown:
                self.noticed.emit(
                    "the ensemble is shown again, because the fine-tuned network does not know the new strokes: "
                    "fine-tune again when you have painted"
                )
        super()._strokes_changed()

    # ---- the job -----------------------------------------------------------------------------------------------------

    def _steps_of(self, run: object, steps: int, minutes: float) -> Iterator[None]:
        try:
            yield from self._finetune(run, steps, minutes)
        finally:
            if self._run is run and not self._closed:  # it failed
                self.cancel_finetune()

    def _finetune(self, run: object, steps: int, minutes: float) -> Iterator[None]:
        from mdm_studio.engine.finetune import FinetuneConfig, finetune, side_of, with_readers
        from mdm_studio.services.finetuning import read_by_finetuning
        from mdm_studio.services.live_work import leave_a_core

        backbone, settings, lesson = self._backbone, self.settings, self._lesson()
        assert backbone is not None
        config = FinetuneConfig(steps=steps, minutes=minutes, **_QUICK)
        config.check()
        times, scales = (given and given[:1] for given in (settings.timesteps, settings.scales))
        read = read_by_finetuning(backbone, blocks=settings.blocks, timesteps=times, scales=scales)
        net = with_readers(backbone, read.blocks, len(lesson.values))
        patches: list[Patch] = []
        side = side_of(net, config)
        for part in self._patches(lesson, read, side):
            patches += part
            yield
        training = finetune(net, backbone.recipe, read.timesteps[0], patches, config, backbone.device)
        shown_at, waits, hooked = 0.0, SHOW_SECONDS, False
        leave_a_core()
        for step in training:
            if step.ready and not hooked:
                self._let_interrupt(net)
                shown_at, hooked = step.seconds, True
            self._report(run, step, steps)
            last = step.ready and step.done >= 1
            due = step.ready and self._wanted and step.seconds - shown_at > waits
            if last or due:
                self._publish(run, self._classifier(step, backbone.card, read, lesson, config), last=last)
                shown_at, begin = step.seconds, time.perf_counter()
                yield
                waits = max(SHOW_SECONDS, 2 * (time.perf_counter() - begin))
            else:
                yield
            leave_a_core()

    def _lesson(self) -> _Lesson:
        points: dict[PlaneKey, list[_Points]] = {}
        for block, painted in sorted(self.strokes, key=lambda each: each[0]):
            if block.plane.image in self.images:
                points.setdefault(block.plane, []).append((painted.rows, painted.cols, painted.values))
        planes: dict[PlaneKey, _Points] = {}
        for plane, parts in points.items():
            rows, cols, values = (np.concatenate(each) for each in zip(*parts, strict=True))
            planes[plane] = rows, cols, values
        every = np.concatenate([values for *_, values in planes.values()]) if planes else np.empty(0, np.uint8)
        counts = dict(zip(*(each.tolist() for each in np.unique(every, return_counts=True)), strict=True))
        return _Lesson(planes, counts)

    def _patches(self, lesson: _Lesson, read: FeatureSettings, side: int) -> Iterator[list[Patch]]:
        from mdm_studio.engine.features import PlaneFeatures
        from mdm_studio.services.finetuning import CELL, plane_patches, some_cells

        assert self._backbone is not None
        cells: list[tuple[PlaneKey, tuple[int, int]]] = []
        for plane, (rows, cols, _) in lesson.planes.items():
            places = [(at // (CELL * read.scales[0])).tolist() for at in (rows, cols)]
            cells += [(plane, cell) for cell in sorted(set(zip(*places, strict=True)))]
        chosen = some_cells(cells, self._backbone.in_channels, side, read.scales[0], 0)
        for plane, points in lesson.planes.items():
            mine = [cell for key, cell in chosen if key == plane]
            if mine:
                source = PlaneFeatures(self._backbone, self.plane(plane), read)
                yield plane_patches(source, _reading(points, lesson.values), mine, side)

    def _let_interrupt(self, net: FineTuned) -> None:
        """Neither a closing window nor Cancel waits for a step to end."""
        for module in net.modules():
            module.register_forward_pre_hook(self._interrupt)
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._interrupt)  # type: ignore[no-untyped-call]

    def _report(self, run: object, step: FinetuneStep, steps: int) -> None:
        if self._run is not run:
            return
        note = "reading the network as it is"
        if step.ready:
            left = step.seconds / step.done * (1 - step.done) if step.done else 0.0
            note = f"step {step.step} of {steps}, loss {step.loss:.3f}" + (f", about {_spoken(left)} left" if left else "")
        self._beside = f"fine-tuning the network: {note}"
        self._set_finetuning(done=step.done, note=note)
        self._tell()

    def _classifier(
        self, step: FinetuneStep, base: BackboneCard, read: FeatureSettings, lesson: _Lesson, config: FinetuneConfig
    ) -> Classifier:
        from mdm_studio.services.finetuning import ClassifierFacts, fine_tuned
        from mdm_studio.services.image_kinds import ImageKind, seen_images

        assert self._backbone is not None
        table, settings = self.class_table(), self.settings
        classes = tuple(table.get(value) or LabelClass(value, f"class {value}", "#808080") for value in lesson.values)
        training = {
            "images": len({plane.image for plane in lesson.planes}),
            "pixels": sum(lesson.counts.values()),
            "invert": False,
            "pixels_per_class": {str(value): count for value, count in lesson.counts.items()},
            "iterations": step.step,
            "loss": round(step.loss, 5),
            "seconds": round(step.seconds, 3),
        }
        kinds = {ImageKind.of(self.plane(plane)) for plane in lesson.planes}
        seen = seen_images(kinds, base.intensity)
        facts = ClassifierFacts(classes, settings.backbone, settings.smooth, None, 0, config, training, images=seen)
        return fine_tuned(step.snapshot(), base, read, facts, self._backbone.device)

    def _publish(self, run: object, classifier: Classifier, *, last: bool) -> None:
        """Show a snapshot, if it is wanted; the last one is kept in any case."""
        bench = self._bench_of(classifier, self.settings.smooth, last=last)
        with self._lock:
            if self._run is not run:
                return
            self._tuned = bench
            if last:
                self._run, self._ready, self._beside = None, bench, ""
            if self._wanted:
                self._put(bench)
        if last:
            self._set_finetuning(phase="ready", shown=self._wanted, done=1.0, note="")
            self.noticed.emit(
                "the network is fine-tuned, and shown" if self._wanted else "the network is fine-tuned; show it when you like"
            )
            self._keep_finetuned(classifier)
        else:
            self._set_finetuning(shown=self._wanted)
        self._crew.wake()


def _reading(points: _Points, values: tuple[int, ...]) -> Callable[[slice, slice], NDArray[np.int16]]:
    """A function of a window that gives its class indices."""
    from mdm_studio.engine.finetune import UNLABELLED
    from mdm_studio.services.finetuning import class_indices

    rows, cols, classes = points
    indices = class_indices(classes, values)

    def read(window_rows: slice, window_cols: slice) -> NDArray[np.int16]:
        found = np.full((window_rows.stop - window_rows.start, window_cols.stop - window_cols.start), UNLABELLED, np.int16)
        inside = (rows >= window_rows.start) & (rows < window_rows.stop)
        inside &= (cols >= window_cols.start) & (cols < window_cols.stop)
        found[rows[inside] - window_rows.start, cols[inside] - window_cols.start] = indices[inside]
        return found

    return read


def _spoken(seconds: float) -> str:
    return f"{max(round(seconds), 1)} s" if seconds < 90 else f"{round(seconds / 60)} min"
