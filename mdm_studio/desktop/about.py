"""The about box."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QMessageBox, QWidget

from mdm_studio.desktop.crash import about_this_installation
from mdm_studio.desktop.icons import program_icon

_WORDS = """\
<p style="margin-bottom: 8px">From unlabelled images and a few brush strokes to segmentation masks, with features of masked
diffusion models.</p>
<p style="margin-bottom: 8px">Free software under the BSD 3-Clause License. It stands on napari, Qt, PyTorch, NumPy,
scikit-image and zarr.</p>"""


def about_box(parent: QWidget | None) -> QMessageBox:
    """The about box: name, version, licence, what it stands on."""
    from mdm_studio import __version__

    box = QMessageBox(parent)
    box.setWindowTitle("About MDM Studio")
    box.setIconPixmap(program_icon().pixmap(QSize(96, 96)))
    box.setText(f"<h2 style='margin: 0'>MDM Studio</h2><p style='margin-top: 2px'>Version {__version__}</p>")
    box.setInformativeText(_WORDS)
    box.setDetailedText(about_this_installation())
    box.setStandardButtons(QMessageBox.StandardButton.Close)
    return box
