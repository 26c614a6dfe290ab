"""Render resources/icons/mdm-studio.svg to the sizes and formats that desktops ask for.

    python scripts/make_icons.py

Needs PySide6 and Pillow; no display.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PIL import Image
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

FOLDER = Path(__file__).resolve().parent.parent / "resources" / "icons"
SIZES = (16, 24, 32, 48, 64, 128, 256, 512)


def render(renderer: QSvgRenderer, size: int) -> None:
    picture = QImage(size, size, QImage.Format.Format_ARGB32)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    renderer.render(painter, QRectF(0, 0, size, size))
    painter.end()
    picture.save(str(FOLDER / f"mdm-studio-{size}.png"))


def main() -> None:
    application = QGuiApplication([])
    renderer = QSvgRenderer(str(FOLDER / "mdm-studio.svg"))
    for size in SIZES:
        render(renderer, size)
    largest = Image.open(FOLDER / "mdm-studio-256.png")
    largest.save(FOLDER / "mdm-studio.ico", sizes=[(size, size) for size in SIZES if size <= 256])
    application.quit()


if __name__ == "__main__":
    main()
