"""The colours of our own pages and menus: those of napari's two themes, so that both look like one program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

from mdm_studio.desktop.settings import Theme


@dataclass(frozen=True)
class Colors:
    """A theme's colours, as ``#rrggbb``."""

    ground: str
    raised: str
    edge: str
    text: str
    quiet: str
    accent: str
    accent_text: str
    warning: str


DARK: Final = Colors("#23242b", "#2e333e", "#424a54", "#f0f1f2", "#a6adb6", "#4560c4", "#ffffff", "#e3b617")
LIGHT: Final = Colors("#f3f1f0", "#ffffff", "#cfccca", "#1e1e21", "#62646a", "#3a55b8", "#ffffff", "#8a6a00")
_EVERYWHERE: Final = "QDialogButtonBox, QMessageBox { dialogbuttonbox-buttons-have-icons: 0; }"  # black on dark, else


def colors_of(theme: Theme) -> Colors:
    """The colours of a theme; "system" asks Qt what the desktop has."""
    if theme == "system":
        theme = "light" if QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Light else "dark"
    return DARK if theme == "dark" else LIGHT


def palette_of(colors: Colors) -> QPalette:
    """The same for Qt's own widgets: dialogs, menus, what napari does not colour."""
    palette, role, group = QPalette(), QPalette.ColorRole, QPalette.ColorGroup
    for each, color in (
        (role.Window, colors.ground),
        (role.WindowText, colors.text),
        (role.Base, colors.raised),
        (role.AlternateBase, colors.ground),
        (role.Text, colors.text),
        (role.Button, colors.raised),
        (role.ButtonText, colors.text),
        (role.BrightText, colors.text),
        (role.ToolTipBase, colors.raised),
        (role.ToolTipText, colors.text),
        (role.PlaceholderText, colors.quiet),
        (role.Highlight, colors.accent),
        (role.HighlightedText, colors.accent_text),
        (role.Link, colors.accent if colors is LIGHT else "#8fa8ff"),
        (role.Light, colors.edge),
        (role.Midlight, colors.edge),
        (role.Mid, colors.edge),
        (role.Dark, colors.edge),
    ):
        palette.setColor(each, QColor(color))
    for each in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(group.Disabled, each, QColor(colors.quiet).darker(140) if colors is DARK else QColor("#a8a6a4"))
    return palette


def sheet_of(colors: Colors) -> str:
    """Style of our own pages; its rules name our widgets, because napari's window is a child of ours."""
    return f"""
    #startPage, #startPage QScrollArea, #startPage QScrollArea > QWidget > QWidget {{
        background: {colors.ground}; color: {colors.text};
    }}
    #startPage QLabel, #busyPage QLabel, #banner QLabel {{ color: {colors.text}; background: transparent; }}
    #startPage QLabel[quiet="true"], #busyPage QLabel[quiet="true"] {{ color: {colors.quiet}; }}
    #startPage QLabel[heading="true"] {{ color: {colors.quiet}; font-weight: 600; letter-spacing: 1px; }}
    #startPage QPushButton[card="true"] {{
        background: {colors.raised}; border: 1px solid {colors.edge}; border-radius: 8px; padding: 0; text-align: left;
    }}
    #startPage QPushButton[card="true"]:hover, #startPage QPushButton[card="true"]:focus {{
        border: 1px solid {colors.accent};
    }}
    #startPage QPushButton[card="true"]:pressed {{ background: {colors.edge}; }}
    #startPage QPushButton[card="true"][chief="true"] {{ background: {colors.accent}; border: 1px solid {colors.accent}; }}
    #startPage QPushButton[card="true"][chief="true"]:focus {{ border: 1px solid {colors.text}; }}
    #startPage QPushButton[card="true"][chief="true"] {{ color: {colors.accent_text}; }}
    #startPage QListWidget {{
        background: {colors.raised}; color: {colors.text}; border: 1px solid {colors.edge}; border-radius: 8px; padding: 4px;
        outline: none;
    }}
    #startPage QListWidget:focus {{ border: 1px solid {colors.accent}; }}
    #startPage #dropArea {{ border: 2px dashed {colors.edge}; border-radius: 8px; }}
    #startPage #dropArea[over="true"] {{ border: 2px dashed {colors.accent}; background: {colors.raised}; }}
    #busyPage {{ background: {colors.ground}; }}
    #banner {{ background: {colors.raised}; border-bottom: 1px solid {colors.edge}; }}
    """


def wear(application: QApplication, theme: Theme) -> Colors:
    """Colour the whole application and give its colours; the style is Fusion, which takes any palette on every system."""
    hints = application.styleHints()
    schemes = {"dark": Qt.ColorScheme.Dark, "light": Qt.ColorScheme.Light, "system": Qt.ColorScheme.Unknown}
    if hasattr(hints, "setColorScheme"):  # the frame of the window, where the system lets programs choose
        hints.setColorScheme(schemes[theme])
    if application.style().objectName().lower() != "fusion":
        application.setStyle("Fusion")
    colors = colors_of(theme)
    application.setPalette(palette_of(colors))
    application.setStyleSheet(_EVERYWHERE)
    return colors
