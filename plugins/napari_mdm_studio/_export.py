"""The Export dock: masks of the whole folder, in a job of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout

from mdm_studio.config import default_cache_dir
from mdm_studio.io.paths import user_path
from mdm_studio.services.export_form import ExportChoices, ExportFacts, Judgement, counted, judge, options_of, pixels_of_area
from mdm_studio.services.export_memory import Memory, read_memory, write_memory
from mdm_studio.services.export_start import Start, keep_classifier, writers
from mdm_studio.services.export_survey import survey
from mdm_studio.services.export_words import describe
from mdm_studio.services.jobs.board import JobBoard
from napari_mdm_studio._export_form import ImagesPart, OutputsPart
from napari_mdm_studio._export_image import LayerSource
from napari_mdm_studio._export_job import JobBox
from napari_mdm_studio._export_preview import Order, PreviewBox
from napari_mdm_studio._session_home import home_of
from napari_mdm_studio._widgets import Dock, button, note
from napari_mdm_studio._worker import Runner

if TYPE_CHECKING:
    import napari

    from mdm_studio.services.export_form import Source
    from mdm_studio.services.jobs.states import JobView
    from napari_mdm_studio._session_home import SessionHome

EXPORT = "Export masks"
"""Name of the dock."""
BROWSER = "Images of the project"
"""Name of the dock that lists the images; it is not imported for that."""
_WIDTH = 340
_PAUSE = 200  # ms after the last change of the form
_STOPS = "QFrame#stops { border: 1px solid #d55e00; border-radius: 4px; background: rgba(213, 94, 0, 45); }"


class Export(Dock):
    """Images, outputs, a preview, and the job.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose images and classifier are offered.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.home: SessionHome = home_of(viewer)
        self.setMinimumWidth(_WIDTH)
        self.setAccessibleName(EXPORT)
        self.runner = Runner()  # of its own: a preview takes seconds, and nobody else is to wait for it
        self.board = JobBoard()
        self.memory = Memory()
        self.facts: ExportFacts | None = None
        self._number, self._starting = 0, False
        self._sources: Sources | None = None  # that are offered
        self.images, self.outputs = ImagesPart(), OutputsPart()
        self.preview = PreviewBox(self.home, self.runner, self._order)
        self.job = JobBox(self.home, self.runner, self.board)
        self.said = Said()
        tooltip = "Write it, in a process of its own: this window stays free, and may be closed."
        self.export = button("E&xport", tooltip, self.start)
        self.fill(self.images, self.outputs, self.preview, self.said, self.export, self.job)
        self._later = QTimer(self, singleShot=True, interval=_PAUSE)
        self._later.timeout.connect(self.look)
        self._listen()
        self.home.has_dock(EXPORT, self)
        self.runner.start(self._remembered, done=self._begin, failed=self.home.warn)

    def _listen(self) -> None:
        for part in (self.images, self.outputs):
            part.changed.connect(self._later.start)
        self.job.changed.connect(self._job_changed)
        self.home.bridge.images_changed.connect(self.offer)
        relay = partial(self.home.relay, key=lambda *_: None, owner=self)
        relay(self.home.session.classes_changed, lambda _: self._later.start())
        if self.home.workspace is not None:
            relay(self.home.workspace.entries_changed, self.offer, every=1.0)
        self.home.closed.connect(self.end)

    def end(self) -> None:
        """Let go of everything; a job lives on."""
        if self._number < 0:
            return
        self._number = -1
        self._later.stop()
        self.home.closed.disconnect(self.end, missing_ok=True)
        self.home.bridge.images_changed.disconnect(self.offer, missing_ok=True)
        self.preview.end()
        self.home.lost_dock(self)
        self.board.close()
        self.runner.close()

    # ---- the form ----------------------------------------------------------------------------------------------------

    def _remembered(self) -> tuple[Memory, JobView | None]:
        memory = read_memory()
        return memory, next((view for view in self.board.jobs() if view.id == memory.job), None)

    def _begin(self, remembered: tuple[Memory, JobView | None]) -> None:
        self.memory, view = remembered
        self.offer()
        choices = self.memory.choices_for(self._root())
        self.images.put(choices)
        self.outputs.put(choices)
        if view is not None:
            self.job.show_view(view)
        self.board.watch()
        self.look()

    @property
    def choices(self) -> ExportChoices:
        """What the form says."""
        return self.outputs.take(self.images.take(ExportChoices()))

    def offer(self) -> None:
        """Offer the images that there are now."""
        sources = Sources.of(self.home)
        if sources != self._sources:
            self._sources = sources
            self.images.offer(sources.counts())
            self._later.start()

    def _root(self) -> Path | None:
        """Beside what the masks go."""
        return Sources.of(self.home).root()

    def look(self) -> None:
        """See what the disk says of the form, and say it."""
        self._number += 1
        number, choices, sources = self._number, self.choices, Sources.of(self.home)
        classes, ours = len(self.home.session.classes), self.job.view.id if self.job.view else ""
        self.runner.start(
            lambda: sources.survey(choices, classes, writers(self.board, but=ours)),  # that it runs is seen below
            done=lambda facts: self._looked(number, choices, facts),
            failed=self.home.warn,
        )

    def _looked(self, number: int, choices: ExportChoices, facts: ExportFacts) -> None:
        if number != self._number:
            return
        self.facts = facts
        judgement = judge(choices, facts)
        self.images.count.setText(counted(len(facts.images), "image") if facts.images else "")
        self.images.count.setVisible(bool(facts.images))
        self.outputs.out.put_usual(str(facts.out) if not choices.out and facts.out != Path() else "")
        self.said.show_judgement(judgement, describe(judgement, facts))
        self._show_export()

    def _show_export(self) -> None:
        busy = self._starting or (self.job.view is not None and self.job.view.living)
        self.export.setEnabled(not busy and self.said.ready)

    def event(self, event: Any) -> bool:
        """Qt's hook: images may have been selected elsewhere since."""
        if event.type() in (QEvent.Type.Enter, QEvent.Type.WindowActivate) and self._number > 0:
            self.offer()
        return super().event(event)

    # ---- preview and job ---------------------------------------------------------------------------------------------

    def _trained(self, path: Path, stop: Callable[[], bool] = lambda: False) -> Path:
        """Keep the classifier that is being trained; on a thread."""
        if self.home.workspace is not None:
            self.home.workspace.classifier_path()
        return keep_classifier(self.home.session, path, stop=stop)

    def _order(self, stop: Callable[[], bool]) -> Order:
        choices, facts = self.choices, self.facts or ExportFacts()

        def classifier(folder: Path) -> Path:
            if choices.classifier == "file":
                return user_path(choices.file)
            return self._trained(folder / "preview.mdm", stop)

        return Order(options_of(choices, Path(), pixels_of_area(choices, facts)), choices.device, classifier, stop)

    def start(self) -> None:
        """Export what the form says."""
        if self._starting or self.facts is None:
            return
        choices, sources, classes = self.choices, Sources.of(self.home), len(self.home.session.classes)
        self._starting = True
        self._show_export()
        self.said.tell("Keeping the classifier...")

        def begin() -> JobView:
            facts = sources.survey(choices, classes, writers(self.board))  # as it is now
            start = Start(choices, facts, partial(self._trained, stop=lambda: self._number < 0), default_cache_dir())
            view = start.onto(self.board)
            write_memory(Memory(choices, str(sources.root() or ""), view.id))
            return view

        self.runner.start(begin, done=self._started, failed=self._not_started)

    def _started(self, view: JobView) -> None:
        self._starting = False
        self.said.tell("")
        self.job.show_view(view)
        self._show_export()

    def _not_started(self, why: str) -> None:
        self._starting = False
        self.said.tell("")
        self.said.stop(why[:1].upper() + why[1:])
        self._show_export()

    def _job_changed(self) -> None:
        self._show_export()
        self._later.start()  # masks are there that were not


@dataclass(frozen=True)
class Sources:
    """The images that a window has, by where they come from; read on the GUI thread, used on another."""

    project: Path | None
    all: tuple[Path, ...]
    chosen: tuple[Path, ...]
    open: tuple[LayerSource, ...]

    @classmethod
    def of(cls, home: SessionHome) -> Sources:
        """Of a window."""
        workspace = home.workspace
        layers = tuple(dict.fromkeys(LayerSource.of(bound.layer) for bound in home.bridge.images.values()))
        if workspace is None:
            return cls(None, (), (), tuple(layer for layer in layers if layer.path))
        paths = {entry.id: entry.path for entry in workspace.entries}
        chosen = tuple(paths[each] for each in _chosen(home) if each in paths)
        return cls(workspace.folder, tuple(paths.values()), chosen if len(chosen) < len(paths) else (), ())

    def counts(self) -> dict[Source, int]:
        """How many images each source has, where it has any."""
        shown = sum(max(1, len(layer.names)) for layer in self.open)
        counts: dict[Source, int] = {"project": len(self.all), "chosen": len(self.chosen), "open": shown}
        return {source: count for source, count in counts.items() if count}

    def root(self) -> Path | None:
        """The project's folder, or that of the first open image."""
        if self.project is not None or not self.open:
            return self.project
        path = Path(self.open[0].path)
        return path if self.open[0].names and path.is_dir() else path.parent

    def images(self, source: Source) -> Sequence[Path]:
        """The images of a source; it may look at the disk."""
        if source == "open":
            return list(dict.fromkeys(file for layer in self.open for file in layer.files()))
        return self.chosen if source == "chosen" else self.all

    def survey(self, choices: ExportChoices, classes: int, writers: Mapping[Path, str]) -> ExportFacts:
        """See `mdm_studio.services.export_survey.survey`."""
        return survey(choices, self.images(choices.source), self.root(), classes=classes, writers=writers)


def _chosen(home: SessionHome) -> Sequence[str]:
    """Ids of the images that are selected in the list of images, if several are, or else of those that its filter shows."""
    page: Any = getattr(home.docks.get(BROWSER), "page", None)
    selected = page.list.chosen() if page is not None else ()
    if len(selected) > 1 or home.project is None:
        return tuple(selected)
    return tuple(home.project.order())


class Said(QFrame):
    """What is to be known before an export starts: what stands in the way stands out."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = False
        self.stops = QFrame()
        self.stops.setObjectName("stops")
        self.stops.setStyleSheet(_STOPS)
        self.stopping = QLabel()
        self.stopping.setWordWrap(True)
        self.stopping.setAccessibleName("What stands in the way of the export")
        inside = QVBoxLayout(self.stops)
        inside.setContentsMargins(8, 6, 8, 6)
        inside.addWidget(self.stopping)
        self.warnings = note()
        self.warnings.setForegroundRole(self.warnings.palette().ColorRole.WindowText)
        self.warnings.setAccessibleName("Warnings")
        self.notes = note()
        self.notes.setAccessibleName("What the export will write")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.stops, self.warnings, self.notes):
            layout.addWidget(part)
            part.hide()

    def show_judgement(self, judgement: Judgement, words: str) -> None:
        """Show what is said of a form."""
        self.ready = judgement.ready
        self.stop("\n".join(judgement.texts("stop")))
        _show(self.warnings, "\n".join(judgement.texts("warning")))
        _show(self.notes, "\n".join(filter(None, (*judgement.texts("note"), words))))

    def stop(self, words: str) -> None:
        """Say what stands in the way; nothing does if `words` is empty."""
        self.stopping.setText(words)
        self.stops.setVisible(bool(words))

    def tell(self, words: str) -> None:
        """Say what is being done."""
        if words:
            self.stop("")
            _show(self.notes, words)


def _show(label: Any, text: str) -> None:
    label.setText(text)
    label.setVisible(bool(text))
