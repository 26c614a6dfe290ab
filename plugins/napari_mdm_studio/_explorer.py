"""The Feature explorer dock: what each block sees at each timestep, clusters made into classes, and the advisor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QLabel,
    QLineEdit,
    QProgressBar,
    QRadioButton,
    QSlider,
    QWidget,
)

from mdm_studio.errors import UsageError
from mdm_studio.services.live_explore import Explorer
from napari_mdm_studio._advisor_box import JOB as ADVISOR
from napari_mdm_studio._advisor_box import AdvisorBox
from napari_mdm_studio._cluster_box import ClusterBox
from napari_mdm_studio._explorer_layer import CellLayer
from napari_mdm_studio._explorer_matrix import Matrix, pixmap_of, rgb_of
from napari_mdm_studio._numbers import as_text, parse_numbers
from napari_mdm_studio._session_home import home_of
from napari_mdm_studio._widgets import Dock, Section, button, form, label, note, row, show_row

if TYPE_CHECKING:
    import napari

    from mdm_studio.services.live_explore import ExplorerCell, Mode
    from mdm_studio.services.session import LiveSettings, Status
    from napari_mdm_studio._session_home import SessionHome

_WIDTH = 360
_FEWEST, _USUAL, _MOST = 2, 5, 12
_PAUSE = 300  # ms after the last key on the slider
_BAR = "QProgressBar { max-height: 4px; min-height: 4px; border: 0; border-radius: 2px; }"
_WRONG = "border: 1px solid #d55e00;"
_THUMBNAILS, _CLASS = "thumbnails", "class"


class FeatureExplorer(Dock):
    """Blocks x timesteps as pictures, a cluster as a class, and the advisor.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose images are explored.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.home: SessionHome = home_of(viewer)
        session = self.home.session
        self.explorer = Explorer(session)
        self.setMinimumWidth(_WIDTH)
        self.setAccessibleName("Feature explorer")
        self._cells: dict[tuple[int, int], ExplorerCell] = {}
        self._jobs: frozenset[str] = frozenset()
        self._wanted: tuple[int, int] | None = None  # a cell to open once its picture is there
        self._network = ""  # the backbone that the fields and pictures are of
        self._looked = False  # a first look was taken
        self._later = QTimer(self, singleShot=True, interval=_PAUSE)
        self._later.timeout.connect(self.refresh)
        self.layer = CellLayer(self.home)
        self.choice = ChoiceForm(self)
        self.matrix = Matrix("Blocks and timesteps", ticks=True)
        self.clusters = ClusterBox(self.home, self.explorer)
        self.advisor = AdvisorBox(self.home, self.explorer, self.choice.cells)
        self._build()
        self.matrix.opened.connect(self.open_cell)
        self.matrix.block_ticked.connect(lambda block, on: self._tick("blocks", block, on))
        self.matrix.timestep_ticked.connect(lambda t, on: self._tick("timesteps", t, on))
        self._listen()
        self._settings_changed()
        self._status_changed(session.status)

    def _listen(self) -> None:
        session, explorer, relay = self.home.session, self.explorer, partial(self.home.relay, owner=self)
        relay(explorer.explored, self._explored)
        relay(explorer.advised, self.advisor.take)
        relay(explorer.failed, self._failed)
        relay(explorer.progressed, self._progressed, every=0.1, key=lambda job, *_: job)
        relay(session.jobs_changed, self._jobs_changed)
        relay(session.classes_changed, self.clusters.list_classes, key=lambda *_: None)
        relay(session.settings_changed, self._settings_changed, key=lambda *_: None)
        relay(session.status_changed, self._status_changed, every=0.5, key=lambda *_: None)

    def end(self) -> None:
        """Stop, and let go of the session."""
        self._later.stop()
        self.explorer.stop()
        self.home.lost_dock(self)

    def _build(self) -> None:
        seen = Section("What the blocks see")
        seen.body.addWidget(self.choice)
        self.text = note("Waiting for an image and its backbone.")
        self.text.setAccessibleName("What the explorer is doing")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(_BAR)
        self.bar.setAccessibleName("Share of the pictures that is done")
        self.bar.setEnabled(False)
        self.refresh_button = button("&Refresh", "Look at the middle of the view as it is now.", self.refresh)
        self.cancel = button("&Cancel", "Stop what the explorer and the advisor are computing.", self.explorer.stop)
        self.cancel.setEnabled(False)
        self.read = note()
        self.read.setAccessibleName("What the classifier reads")
        seen.body.addLayout(row(self.refresh_button, self.cancel))
        for part in (self.text, self.bar, self.matrix, self.read):
            seen.body.addWidget(part)
        self.fill(seen, self.clusters, self.advisor)

    # ---- thumbnails --------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the middle of the view."""
        try:
            self._look()
        except UsageError as error:
            self.text.setText(_sentence(str(error)))

    def refresh_soon(self) -> None:
        """Look once the slider rests."""
        self._later.start()

    def _look(self) -> None:
        chosen = self.choice.cells()
        if chosen is None:
            raise UsageError("correct the marked field first")
        blocks, timesteps = chosen
        self._later.stop()
        self.matrix.set_cells(blocks, timesteps, self.explorer.describe, timed=self.explorer.timed)
        self._show_read(self.home.session.settings)
        bound = self.home.bridge.current()
        cells = [(block, t) for block in blocks for t in timesteps]
        mode: Mode = "clusters" if self.choice.clusters.isChecked() else "components"
        self.explorer.explore(cells, k=self.choice.k.value(), mode=mode, image=bound.key if bound else None)
        self._looked = True

    def _explored(self, cell: ExplorerCell) -> None:
        if cell.step == 1:
            self.layer.show(cell)
            return
        place = (cell.block, cell.timestep)
        self._cells[place] = cell
        self.matrix.set_picture(*place, pixmap_of(rgb_of(cell.picture)))
        if place == self._wanted:
            self.open_cell(*place)
        elif self.clusters.shows(*place):
            self.clusters.show_cell(cell)

    def open_cell(self, block: int, timestep: int) -> None:
        """Show a cell over the image and offer its clusters; one that is not there yet is computed first."""
        cell = self._cells.get((block, timestep))
        if cell is None:
            self._wanted = (block, timestep)
            if _THUMBNAILS not in self._jobs:
                self.refresh()
            return
        self._wanted = None
        self.clusters.show_cell(cell)
        try:
            self.explorer.spread(cell)
        except UsageError as error:
            self.text.setText(_sentence(str(error)))

    # ---- what the session says ---------------------------------------------------------------------------------------

    def _progressed(self, job: str, words: str, share: float) -> None:
        if job not in self._jobs:
            return  # it has ended meanwhile
        if job == ADVISOR:
            self.advisor.show_progress(words, share)
            return
        self.text.setText({_THUMBNAILS: "Looking at ", "layer": "Showing "}.get(job, "Now ") + words)
        self.bar.setEnabled(True)
        self.bar.setValue(round(1000 * share))

    def _failed(self, job: str, message: str) -> None:
        if job == ADVISOR:
            self.advisor.show_failure(message)
        elif job == _CLASS:
            self.clusters.tell_done(_sentence(message))
        else:
            self.text.setText(_sentence(message))

    def _jobs_changed(self, jobs: frozenset[str]) -> None:
        ended, self._jobs = self._jobs - jobs, jobs
        self.cancel.setEnabled(bool(jobs))
        if ADVISOR in ended:
            self.advisor.show_idle()
        if _CLASS in ended:
            self.clusters.tell_done()
        if ended and not jobs - {ADVISOR}:
            self.bar.setEnabled(False)
            self.bar.setValue(0)
            self.text.setText(self._what_is_shown())

    def _what_is_shown(self) -> str:
        shown = [cell for place, cell in self._cells.items() if self.matrix.has_picture(*place)]
        if not shown:
            return "Nothing is computed yet: Refresh looks at the middle of the view."
        window, bound = shown[0].window, self.home.bridge.images.get(shown[0].tile.plane.image)
        name = bound.layer.name if bound else shown[0].tile.plane.image
        size = f"{window.right - window.left} x {window.bottom - window.top} px"
        return f"{size} of {name}. Click a cell to see it over the image."

    def _settings_changed(self, _: object = None) -> None:
        settings = self.home.session.settings  # what was chosen since the signal was sent counts already
        if settings.backbone != self._network:
            self._network, self._looked = settings.backbone, False
            self._forget()
        if not self._looked:
            blocks, timesteps = self.explorer.cells()
            if blocks and settings.n_blocks:
                self.choice.offer(blocks, timesteps)
                self.matrix.set_cells(blocks, timesteps, self.explorer.describe, timed=self.explorer.timed)
        self._show_read(settings)

    def _forget(self) -> None:
        """Another backbone: its pictures and scores mean nothing now."""
        self._cells.clear()
        self._wanted = None
        self.choice.offer((), ())
        self.matrix.set_cells((), (), self.explorer.describe)
        self.clusters.show_cell(None)
        self.advisor.forget()

    def _status_changed(self, status: Status) -> None:
        """Take a first look as soon as there is something to look at."""
        if not self._looked and self.matrix.blocks:
            try:
                self._look()
            except UsageError:
                pass  # nothing in view yet

    # ---- what is read ------------------------------------------------------------------------------------------------

    def _show_read(self, settings: LiveSettings) -> None:
        blocks, timesteps = settings.blocks or (), settings.timesteps or ()
        self.matrix.set_read(blocks, timesteps)
        if settings.blocks is None or settings.n_blocks is None:
            self.read.setText("")
        elif not blocks:
            self.read.setText("The classifier reads the classical filters alone. Tick a block to read it.")
        else:
            filters = ", and the classical filters" if settings.filters else ""
            every, at = (" at every ticked t", f" at t {as_text(timesteps)}") if self.explorer.timed else ("", "")
            self.read.setText(f"The classifier reads every ticked block{every} (framed): block {as_text(blocks)}{at}{filters}.")

    def _tick(self, name: str, number: int, on: bool) -> None:
        settings = self.home.session.settings
        read = set(getattr(settings, name) or ())
        chosen = tuple(sorted(read | {number} if on else read - {number}))
        if chosen or (name == "blocks" and settings.filters):
            self.home.attempt(self.home.session.choose, **{name: chosen})
        else:
            self.home.tell(f"One of the {name} at least must be read.")
        self._show_read(self.home.session.settings)


class ChoiceForm(QWidget):
    """Which blocks and timesteps are shown, as clusters (how many) or components."""

    def __init__(self, dock: FeatureExplorer) -> None:
        super().__init__()
        self._dock = dock
        self._rows = rows = form()
        self.setLayout(rows)
        self.blocks, self.timesteps = QLineEdit(), QLineEdit()
        self.blocks.setAccessibleName("Blocks shown")
        self.blocks.setToolTip("Blocks to show, from 0: 7 or 4, 6-8. Return shows them.")
        self.timesteps.setAccessibleName("Timesteps shown")
        self.timesteps.setToolTip("Timesteps to show: how much noise the backbone imagines. Return shows them.")
        for field in (self.blocks, self.timesteps):
            field.returnPressed.connect(dock.refresh)
            field.textEdited.connect(lambda _: self.cells())
        rows.addRow("&Blocks", self.blocks)
        rows.addRow("&Timesteps", self.timesteps)
        self.clusters, self.components = QRadioButton("c&lusters"), QRadioButton("com&ponents")
        self.clusters.setToolTip("K-means clusters of the features; the same thing has the same colour in all cells.")
        self.components.setToolTip("The first three principal components as red, green and blue.")
        self.clusters.setChecked(True)
        self._group = QButtonGroup(self)
        for each in (self.clusters, self.components):
            self._group.addButton(each)
            each.clicked.connect(self._mode_chosen)
        self.k = QSlider(Qt.Orientation.Horizontal)
        self.k.setRange(_FEWEST, _MOST)
        self.k.setPageStep(1)
        self.k.setValue(_USUAL)
        self.k.setAccessibleName("Number of clusters")
        self.k.setToolTip("Number of clusters, 2 to 12.")
        self.count = QLabel(str(_USUAL))
        self.count.setMinimumWidth(self.count.fontMetrics().horizontalAdvance("12"))
        self.k.valueChanged.connect(self._k_changed)
        self.k.sliderReleased.connect(dock.refresh)
        rows.addRow("Show", row(self.clusters, self.components, None))
        rows.addRow(label("&Number", self.k), row(self.k, self.count))

    def _mode_chosen(self) -> None:
        self.k.setEnabled(self.clusters.isChecked())
        self.count.setEnabled(self.clusters.isChecked())
        self._dock.refresh()

    def _k_changed(self, value: int) -> None:
        self.count.setText(str(value))
        if not self.k.isSliderDown():  # keys and wheel; the mouse is waited for
            self._dock.refresh_soon()

    def offer(self, blocks: Any, timesteps: Any) -> None:
        """Fill the fields."""
        show_row(self._rows, self.timesteps, self._dock.explorer.timed)
        for field, numbers in ((self.blocks, blocks), (self.timesteps, timesteps)):
            with QSignalBlocker(field):
                field.setText(as_text(numbers))
                field.setStyleSheet("")

    def cells(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Blocks and timesteps of the fields; None, and a mark, where one is no list of such numbers."""
        n_blocks, latest = self._dock.explorer.limits()
        blocks = parse_numbers(self.blocks.text(), n_blocks - 1)
        timesteps = parse_numbers(self.timesteps.text(), latest)
        for field, numbers in ((self.blocks, blocks), (self.timesteps, timesteps)):
            field.setStyleSheet("" if numbers is not None or not n_blocks else _WRONG)
        return (blocks, timesteps) if blocks and timesteps else None


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
