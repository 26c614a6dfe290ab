"""Help: first steps, keys, what is new, a report for those who can mend something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mdm_studio.config import resource
from mdm_studio.desktop.about import about_box
from mdm_studio.desktop.crash import about_this_installation, list_reports, reports_folder
from mdm_studio.desktop.dialogs import TextDialog
from mdm_studio.errors import InputError

if TYPE_CHECKING:
    from mdm_studio.desktop.studio import Studio

_CANVAS: Final = (
    ("Hold Space", "Move the image with the mouse"),
    ("Mouse wheel", "Zoom"),
    ("[ and ]", "Smaller and larger brush"),
    ("Ctrl+Z, Ctrl+Shift+Z", "Undo and redo a stroke"),
    ("Home", "See everything"),
)


def page(name: str) -> str:
    """A bundled page; a word in its place where this installation lost it."""
    try:
        return resource(name).read_text("utf-8")
    except (InputError, OSError) as error:
        return f"This page cannot be read: {error}"


def show_first_steps(studio: Studio) -> None:
    """Show the first steps."""
    _show(TextDialog(studio.window, "First steps", page("first_steps.md")))


def show_whats_new(studio: Studio) -> None:
    """Show what is new."""
    _show(TextDialog(studio.window, "What is new", page("whats_new.md")))


def show_shortcuts(studio: Studio) -> None:
    """Show every key there is."""
    _show(TextDialog(studio.window, "Keyboard shortcuts", shortcuts(studio)))


def show_report(studio: Studio) -> None:
    """Show what one should send along with the description of a problem."""
    reports = list_reports(reports_folder())
    text = f"{about_this_installation()}\n\n" + (
        reports[-1].read_text("utf-8", errors="replace") if reports else "No error has been met so far.\n"
    )
    head = (
        "**Report a problem.** Say what you did, what you expected and what happened, and send the text below along. "
        "It names the versions and the latest error, and the paths that stand in its traceback."
    )
    folder = reports_folder() if reports else None
    _show(TextDialog(studio.window, "Report a problem", text, head=head, plain=True, folder=folder))


def show_about(studio: Studio) -> None:
    """Show the about box."""
    about_box(studio.window).exec()


def shortcuts(studio: Studio) -> str:
    """Every key, as an HTML page made of the menus' own data."""
    from mdm_studio.desktop.menus import MENUS, walk

    lines = list(walk(MENUS, studio))
    menus = [(item.keys, item.title) for _, item in lines if item.keys]
    canvas = [(item.canvas_key, item.title) for _, item in lines if item.canvas_key]
    return f"<h3>Anywhere</h3>{_table(menus)}<h3>In the canvas</h3>{_table([*canvas, *_CANVAS])}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    plain = [(keys, title.replace("&", "").rstrip(".")) for keys, title in rows]
    lines = [f"<tr><td width='190'><b>{keys}</b></td><td>{title}</td></tr>" for keys, title in plain]
    return f"<table cellpadding='3'>{''.join(lines)}</table>"


def _show(dialog: TextDialog) -> None:
    dialog.setModal(False)
    dialog.open()
