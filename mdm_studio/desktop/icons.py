"""The program's icon, and the line drawings of the start page."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from mdm_studio.config import resource
from mdm_studio.errors import InputError

NAME: Final = "mdm-studio"
SIZES: Final = (16, 24, 32, 48, 64, 128, 256, 512)

_SHAPES: Final = {
    "new_project": '<path d="M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z M12 10v6 M9 13h6"/>',
    "open_project": '<path d="M3 18V7a2 2 0 0 1 2-2h4l2 2h7a2 2 0 0 1 2 2v1 M3 18l3-8h16l-3 8a2 2 0 0 1-2 1H5a2 2 0 0 1-2-1"/>',
    "open_images": '<path d="M4 5h16v14H4z M4 16l5-5 4 4 3-3 4 4"/><circle cx="15.5" cy="9" r="1.6"/>',
    "open_samples": '<path d="M9 3h6 M10 3v6l-5.5 9.5A1.7 1.7 0 0 0 6 21h12a1.7 1.7 0 0 0 1.5-2.5L14 9V3 M7.5 15h9"/>',
}


def program_icon() -> QIcon:
    """The icon in all its sizes; empty where this installation lost it, which stops nobody from working."""
    icon = QIcon()
    try:
        folder = resource("icons")
    except InputError:
        return icon
    for size in SIZES:
        icon.addFile(str(folder / f"{NAME}-{size}.png"))
    return icon


def drawing(name: str, color: str, size: int = 24) -> QIcon:
    """A line drawing in a colour; sharp on screens of twice the resolution too."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="{color}" stroke-width="1.7" '
        f'stroke-linejoin="round" stroke-linecap="round">{_SHAPES[name]}</svg>'
    )
    picture = QPixmap(QSize(2 * size, 2 * size))
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, 2 * size, 2 * size))
    painter.end()
    picture.setDevicePixelRatio(2)
    return QIcon(picture)
