"""The menus as data, and the one that builds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu, QMenuBar

from mdm_studio.desktop import help_pages
from mdm_studio.desktop.desk import DOCKS, Desk
from mdm_studio.desktop.recent import short
from mdm_studio.desktop.settings import THEMES, Theme
from mdm_studio.desktop.studio import Studio

Needs = Literal["nothing", "images", "project"]
_PRETRAIN: Final = "Teach a backbone your own images, in the background."
_UNDO: Final = "Undo the last stroke, or the last change of classes."
_ROLES: Final = {
    "quit": QAction.MenuRole.QuitRole,
    "about": QAction.MenuRole.AboutRole,
    "preferences": QAction.MenuRole.PreferencesRole,
}


@dataclass(frozen=True)
class Item:
    """A line of a menu.

    Attributes
    ----------
    name : str
        Its key.
    title : str
        In words, with & before its mnemonic.
    run : callable
        Does it.
    keys : str
        The keys that do it from anywhere; empty for none.
    canvas_key : str
        The key that does it unless text is typed; only named here, so that it can be typed there.
    words : str
        The tooltip.
    needs : str
        What must be open: "nothing", "images" (a project does too) or "project".
    checked : callable or None
        Whether it has a tick now; None for a line that has none ever.
    """

    name: str
    title: str
    run: Callable[[Studio], object]
    keys: str = ""
    canvas_key: str = ""
    words: str = ""
    needs: Needs = "nothing"
    checked: Callable[[Studio], bool] | None = None


@dataclass(frozen=True)
class Menu:
    """A menu, or one within another; None among its items is a line between them.

    Attributes
    ----------
    fill : callable or None
        Gives the items each time the menu opens, for what is not known before.
    """

    title: str
    items: tuple[Item | Menu | None, ...] = ()
    fill: Callable[[Studio], Iterable[Item]] | None = None


def with_desk(verb: Callable[[Desk], object], studio: Studio) -> None:
    """Ask the viewer, if there is one."""
    if studio.desk is not None:
        verb(studio.desk)


def _recent(studio: Studio) -> Iterable[Item]:
    for number, each in enumerate(studio.settings.value.recent, start=1):
        folder = Path(each)
        name = folder.name.replace("&", "&&")
        title = f"&{number}  {name}" if number < 10 else name
        yield Item(f"recent_{number}", title, partial(_open, folder), words=short(folder))


def _open(folder: Path, studio: Studio) -> None:
    studio.open_paths([folder])


def _plugin_actions(studio: Studio) -> Iterable[Item]:
    """The actions of the plugin: the same words and keys as in napari."""
    from napari_mdm_studio._actions import ACTIONS

    for each in ACTIONS:
        yield Item(each.name, each.title, partial(_run_plugin_action, each.name), canvas_key=each.key, needs="images")


def _run_plugin_action(name: str, studio: Studio) -> None:
    from napari_mdm_studio._actions import action

    if studio.desk is not None and studio.desk.home is not None:
        action(name).run(studio.desk.home)


def _toggle_dock(name: str, studio: Studio) -> None:
    with_desk(lambda desk: desk.toggle_dock(name), studio)


def _open_dock(name: str, studio: Studio) -> None:
    studio.open_dock(name)


def _is_dock_open(name: str, studio: Studio) -> bool:
    return studio.desk is not None and studio.desk.is_open(name)


def _dock_items() -> Iterable[Item]:
    for plan in DOCKS:
        yield Item(
            f"dock_{plan.name}",
            f"&{plan.title}",
            partial(_toggle_dock, plan.name),
            keys=plan.keys,
            words=f"Open the {plan.title} dock, or hide it.",
            needs="images",
            checked=partial(_is_dock_open, plan.name),
        )


def _set_theme(name: Theme, studio: Studio) -> None:
    studio.set_theme(name)


def _has_theme(name: Theme, studio: Studio) -> bool:
    return studio.settings.value.theme == name


def _theme_items() -> Iterable[Item]:
    for name in THEMES:
        title = {"dark": "&Dark", "light": "&Light", "system": "As the &system"}[name]
        yield Item(f"theme_{name}", title, partial(_set_theme, name), checked=partial(_has_theme, name))


MENUS: Final[tuple[Menu, ...]] = (
    Menu(
        "&File",
        (
            Item("new_project", "&New project from folder...", lambda studio: studio.new_project(), "Ctrl+N"),
            Item("open_project", "&Open project...", lambda studio: studio.open_project(), "Ctrl+O"),
            Menu("Open &recent", fill=_recent),
            Item("open_images", "Open &image files...", lambda studio: studio.open_images(), "Ctrl+Shift+O"),
            Item("open_samples", "Open the &samples", lambda studio: studio.open_samples()),
            None,
            Item("save_as", "Save project &as...", partial(with_desk, Desk.save_project_as), "Ctrl+Shift+S", needs="images"),
            Item("save_classifier", "Save &classifier...", partial(with_desk, Desk.save_classifier), "Ctrl+S", needs="images"),
            Item("load_classifier", "&Load classifier...", partial(with_desk, Desk.load_classifier), needs="images"),
            Item("export", "&Export masks...", partial(_open_dock, "export"), "Ctrl+E", needs="images"),
            None,
            Item("close", "Close &project", lambda studio: studio.close_project(), "Ctrl+W", needs="images"),
            Item("quit", "&Quit", lambda studio: studio.window.close(), "Ctrl+Q"),
        ),
    ),
    Menu(
        "&Edit",
        (
            Item(
                "undo",
                "&Undo",
                partial(with_desk, Desk.undo),
                "Ctrl+Z",
                words="Undo the last stroke or change of classes.",
                needs="images",
            ),
            Item("redo", "&Redo", partial(with_desk, Desk.redo), "Ctrl+Shift+Z", needs="images"),
            None,
            Item("preferences", "&Preferences...", partial(with_desk, Desk.open_preferences), "Ctrl+,", needs="images"),
        ),
    ),
    Menu(
        "&View",
        (
            *_dock_items(),
            None,
            Item("reset_view", "&Reset view", partial(with_desk, Desk.reset_view), "Ctrl+R", needs="images"),
            Item(
                "full_screen",
                "F&ull screen",
                lambda studio: studio.window.toggle_full_screen(),
                "F11",
                checked=lambda studio: studio.window.isFullScreen(),
            ),
            Menu("&Theme", tuple(_theme_items())),
            Item("palette", "&All commands...", partial(with_desk, Desk.open_palette), "Ctrl+Shift+P", needs="images"),
        ),
    ),
    Menu("&Label", fill=_plugin_actions),
    Menu(
        "&Jobs",
        (
            Item("pretrain", "&Pretrain on images...", partial(_open_dock, "pretrain"), words=_PRETRAIN),
            Item("jobs", "&Jobs and their progress", partial(_open_dock, "pretrain")),
        ),
    ),
    Menu(
        "&Help",
        (
            Item("first_steps", "&First steps", help_pages.show_first_steps, "F1"),
            Item("shortcuts", "&Keyboard shortcuts", help_pages.show_shortcuts, "Ctrl+/"),
            Item("whats_new", "&What is new", help_pages.show_whats_new),
            None,
            Item("report", "&Report a problem...", help_pages.show_report),
            Item("about", "&About MDM Studio", help_pages.show_about),
        ),
    ),
)


def walk(menus: Iterable[Menu | Item | None], studio: Studio | None = None) -> Iterable[tuple[str, Item]]:
    """Every line with the name of its menu; those that are filled later only with a `studio`."""
    for each in menus:
        if isinstance(each, Item):
            yield "", each
        elif each is not None:
            inside = [*each.items, *(each.fill(studio) if each.fill and studio is not None else ())]
            for _, item in walk(inside, studio):
                yield each.title.replace("&", ""), item


class Menus(QObject):
    """Builds the menus into a bar and keeps them as the program is.

    Parameters
    ----------
    bar : QMenuBar
        Gets the menus.
    studio : Studio
        What they act on.

    Attributes
    ----------
    menus : dict
        The menus by their titles.
    """

    def __init__(self, bar: QMenuBar, studio: Studio) -> None:
        super().__init__(bar)
        self._studio = studio
        self.menus: dict[str, QMenu] = {}
        self._actions: list[tuple[Item, QAction]] = []
        for menu in MENUS:
            self._build(bar.addMenu(menu.title), menu)
        studio.changed.connect(self.refresh)
        self.refresh()

    def _build(self, target: QMenu, menu: Menu) -> None:
        self.menus[menu.title.replace("&", "")] = target
        target.setToolTipsVisible(True)
        for each in menu.items:
            if each is None:
                target.addSeparator()
            elif isinstance(each, Menu):
                self._build(target.addMenu(each.title), each)
            else:
                self._actions.append((each, self._action(target, each)))
        if menu.fill is not None:
            target.aboutToShow.connect(partial(self._fill, target, menu.fill))
        else:
            target.aboutToShow.connect(self.refresh)

    def _action(self, target: QMenu, item: Item) -> QAction:
        # what stands behind the tab is shown like a shortcut and is none
        action = QAction(f"{item.title}\t{item.canvas_key}" if item.canvas_key else item.title, target)
        action.setMenuRole(_ROLES.get(item.name, QAction.MenuRole.NoRole))
        action.setToolTip(item.words or item.title.replace("&", "").rstrip("."))
        action.setCheckable(item.checked is not None)
        if item.keys:
            action.setShortcut(QKeySequence(item.keys))
        action.triggered.connect(lambda *_: self._run(item))
        target.addAction(action)
        return action

    def _run(self, item: Item) -> None:
        item.run(self._studio)
        self.refresh()

    def _fill(self, target: QMenu, fill: Callable[[Studio], Iterable[Item]]) -> None:
        target.clear()
        for item in fill(self._studio):
            self._set(item, self._action(target, item))
        if target.isEmpty():
            target.addAction("(none yet)").setEnabled(False)

    def refresh(self) -> None:
        """Enable and tick what can be done and what is so."""
        for item, action in self._actions:
            self._set(item, action)

    def _set(self, item: Item, action: QAction) -> None:
        open_now = self._studio.open
        action.setEnabled(item.needs == "nothing" or open_now == "project" or open_now == item.needs)
        if item.checked is not None:
            action.setChecked(item.checked(self._studio))
