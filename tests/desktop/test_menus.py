"""Every line of every menu: named, in words, with keys of its own, and it does something."""

from importlib import import_module
from unittest.mock import MagicMock

import pytest

from mdm_studio.desktop import help_pages
from mdm_studio.desktop.desk import DOCKS, Desk
from mdm_studio.desktop.menus import MENUS, Menu, walk
from mdm_studio.desktop.settings import Settings
from mdm_studio.desktop.studio import Studio
from mdm_studio.desktop.window import MainWindow
from napari_mdm_studio._actions import ACTIONS


def fake_studio():
    studio = MagicMock(spec=Studio)
    studio.window, studio.desk, studio.settings = MagicMock(spec=MainWindow), MagicMock(spec=Desk), MagicMock()
    studio.desk.viewer, studio.desk.home = MagicMock(), MagicMock()
    studio.settings.value = Settings(recent=("/a/one", "/b/two & three"))
    return studio


LINES = list(walk(MENUS, fake_studio()))


@pytest.mark.parametrize(("menu", "item"), LINES, ids=[f"{menu}-{item.name}" for menu, item in LINES])
def test_every_line_does_something_for_the_program(menu, item, monkeypatch):
    dialogs = MagicMock()
    monkeypatch.setattr(help_pages, "TextDialog", dialogs.text)
    monkeypatch.setattr(help_pages, "about_box", dialogs.about)
    monkeypatch.setattr("napari_mdm_studio._actions.action", dialogs.action)
    studio = fake_studio()
    item.run(studio)
    window, desk = studio.window.mock_calls, studio.desk.mock_calls
    assert studio.mock_calls or window or desk or dialogs.mock_calls, "it does nothing"
    if item.checked is not None:
        item.checked(studio)
    assert item.title.strip("&. ")
    assert "\t" not in item.title


def test_names_keys_and_mnemonics_are_unique():
    names = [item.name for _, item in LINES]
    keys = [item.keys for _, item in LINES if item.keys]
    assert len(set(names)) == len(names)
    assert len(set(keys)) == len(keys)
    for menu in MENUS:
        titles = [each.title for each in menu.items if each is not None]
        letters = [title[title.index("&") + 1].lower() for title in titles if "&" in title]
        assert len(letters) == len(titles), menu.title
        assert len(set(letters)) == len(letters), (menu.title, letters)


def test_the_actions_of_the_plugin_are_there_with_their_keys():
    labels = {item.name: item.canvas_key for menu, item in LINES if menu == "Label"}
    assert labels == {each.name: each.key for each in ACTIONS}
    canvas = {each.key for each in ACTIONS if each.key}
    assert not canvas & {item.keys for _, item in LINES}


def test_recent_projects_are_listed():
    (menu,) = [each for menu in MENUS for each in menu.items if isinstance(each, Menu) and each.fill]
    assert [item.title for item in menu.fill(fake_studio())] == ["&1  one", "&2  two && three"]


@pytest.mark.parametrize("plan", DOCKS, ids=lambda plan: plan.name)
def test_every_dock_is_there(plan):
    module, _, name = plan.home.partition(":")
    assert callable(getattr(import_module(module), name))


def test_the_page_of_keys_names_every_key():
    page = help_pages.shortcuts(fake_studio())
    for _, item in LINES:
        for key in (item.keys, item.canvas_key):
            assert f"<b>{key}</b>" in page or not key


def test_a_lost_page_is_said():
    assert "cannot be read" in help_pages.page("no_such_page.md")
    assert help_pages.page("first_steps.md").startswith("# First steps")
