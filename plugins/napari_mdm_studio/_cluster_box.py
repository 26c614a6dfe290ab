"""A cell of the explorer, enlarged, and what can be done with its clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import QPainter, QPixmap
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_mdm_studio._explorer_matrix import CLUSTER_COLORS, fitted_rect, pixmap_of, rgb_of
from napari_mdm_studio._widgets import Section, button, label, note, row, swatch

if TYPE_CHECKING:
    from mdm_studio.io.classifier_file import LabelClass
    from mdm_studio.services.live_explore import Explorer, ExplorerCell
    from napari_mdm_studio._session_home import SessionHome

_HEIGHT = 190
_OTHERS = 3  # clusters that are not chosen are shown at a third of their brightness
_NEW = 0


class ClusterPicture(QWidget):
    """The clusters of a cell; a click chooses one, and the others are dimmed."""

    clicked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Selected cell, enlarged")
        self.setToolTip("Click a cluster to choose it.")
        self._cell: ExplorerCell | None = None
        self._picture = QPixmap()
        self.hide()

    def show_cell(self, cell: ExplorerCell | None, cluster: int) -> None:
        """Show a cell with one of its clusters bright; 0 for all."""
        self._cell = cell
        self.setVisible(cell is not None)
        if cell is None:
            return
        rgb = rgb_of(cell.picture)
        if cell.k and cluster:
            rgb = np.where((cell.picture == cluster)[..., None], rgb, rgb // _OTHERS)
        self._picture = pixmap_of(rgb)
        self.setCursor(Qt.CursorShape.PointingHandCursor if cell.k else Qt.CursorShape.ArrowCursor)
        self.update()

    def _place(self) -> QRect:
        return fitted_rect(self._picture.size(), self.rect())

    def paintEvent(self, event: Any) -> None:
        """Nearest scaling, proportions kept."""
        painter = QPainter(self)
        painter.drawPixmap(self._place(), self._picture)
        painter.end()

    def cluster_at(self, point: QPoint) -> int:
        """Cluster under a point of the widget; 0 for none."""
        place = self._place()
        if self._cell is None or not self._cell.k or not place.contains(point):
            return 0
        height, width = self._cell.picture.shape
        y, x = point.y() - place.top(), point.x() - place.left()
        return int(self._cell.picture[y * height // place.height(), x * width // place.width()])

    def mousePressEvent(self, event: Any) -> None:
        """Choose the cluster under the mouse."""
        cluster = self.cluster_at(event.position().toPoint())
        if cluster:
            self.clicked.emit(cluster)

    def sizeHint(self) -> QSize:
        """Qt's hook."""
        return QSize(300, _HEIGHT)


class ClusterBox(Section):
    """Make a cluster of the selected cell a class."""

    def __init__(self, home: SessionHome, explorer: Explorer) -> None:
        super().__init__("Make a cluster a class")
        self._home, self._explorer = home, explorer
        self._cell: ExplorerCell | None = None
        self._asked = ""
        self.caption = note()
        self.caption.setAccessibleName("Selected cell")
        self.picture = ClusterPicture()
        self.cluster, self.into = QComboBox(), QComboBox()
        for box, name, tooltip in (
            (self.cluster, "Cluster", "The cluster, with its share of the tile."),
            (self.into, "Class", "The class that its pixels become labels of."),
        ):
            box.setAccessibleName(name)
            box.setToolTip(tooltip)
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(6)
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        tooltip = "The cluster's pixels in this tile that have no label yet become labels of the class, for you to correct."
        self.make = button("Ma&ke it a class", tooltip, self._make)
        self.undo = button("Un&do", "Take back the last change of classes.", self._undo, small=True)
        self.said = note()
        self.said.setAccessibleName("What was done")
        self.said.hide()
        self.body.addWidget(self.caption)
        self.body.addWidget(self.picture)
        self.body.addLayout(row(self.cluster, label("bec&omes", self.into), self.into))
        self.body.addLayout(row(self.make, self.undo))
        self.body.addWidget(self.said)
        self.picture.clicked.connect(self._clicked)
        self.cluster.currentIndexChanged.connect(self._chosen)
        self.list_classes(home.session.classes)
        self.show_cell(None)

    def show_cell(self, cell: ExplorerCell | None) -> None:
        """Offer the clusters of a cell."""
        again = cell is not None and self._cell is not None and cell.k == self._cell.k
        chosen = self.chosen() if again else 0
        self._cell = cell
        self.cluster.blockSignals(True)
        self.cluster.clear()
        for number in range(1, cell.k + 1) if cell else ():
            share = float(np.mean(cell.picture == number)) if cell else 0.0
            self.cluster.addItem(swatch(CLUSTER_COLORS[number - 1]), f"{number} ({share:.0%})", number)
        self.cluster.setCurrentIndex(max(0, self.cluster.findData(chosen)))
        self.cluster.blockSignals(False)
        if cell is None:
            self.caption.setText("Choose a cell of the matrix first.")
        else:
            more = "Click a cluster to choose it." if cell.k else "Components have no clusters: switch to clusters first."
            self.caption.setText(f"{cell.place.capitalize()}. {more}")
        for widget in (self.cluster, self.into, self.make):
            widget.setEnabled(bool(cell and cell.k))
        self.picture.show_cell(cell, self.chosen() if chosen else 0)

    def shows(self, block: int, timestep: int) -> bool:
        """Whether it offers the clusters of this cell."""
        return self._cell is not None and (self._cell.block, self._cell.timestep) == (block, timestep)

    def chosen(self) -> int:
        """The cluster that is chosen; 0 for none."""
        return int(self.cluster.currentData() or 0)

    def _clicked(self, cluster: int) -> None:
        self.cluster.setCurrentIndex(self.cluster.findData(cluster))
        self._chosen()

    def _chosen(self, index: int = 0) -> None:
        self.picture.show_cell(self._cell, self.chosen())

    def list_classes(self, classes: Sequence[LabelClass]) -> None:
        """Offer the classes there are, and a new one."""
        chosen = self.into.currentData()
        self.into.clear()
        for each in classes:
            self.into.addItem(swatch(each.color), each.name, each.value)
        self.into.addItem("new class", _NEW)
        self.into.setCurrentIndex(max(0, self.into.findData(chosen)) if chosen else self.into.count() - 1)

    def _make(self) -> None:
        cell, value = self._cell, int(self.into.currentData() or _NEW)
        if cell is None or not cell.k:
            return
        cluster = self.chosen()
        if self._home.attempt(self._explorer.cluster_to_class, cell, cluster, value or None):
            name = self.into.currentText() if value else "a new class"
            self._asked = f"Cluster {cluster} became labels of {name}."

    def _undo(self) -> None:
        self._home.history.undo_classes()
        self.said.hide()

    def tell_done(self, failed: str = "") -> None:
        """The labels are written, or `failed` says why not."""
        if self._asked or failed:
            self.said.setText(failed or self._asked)
            self.said.show()
            self._asked = ""
