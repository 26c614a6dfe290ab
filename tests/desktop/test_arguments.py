"""What the user gave us to open, where a new project goes, and the list of recent ones."""

from pathlib import Path

import pytest

from mdm_studio.desktop.arguments import Wanted, place_for, sort_out
from mdm_studio.desktop.dialogs import name_problem
from mdm_studio.desktop.recent import MOST, is_project, look_up, short, with_project, without
from mdm_studio.errors import InputError, UsageError


@pytest.fixture
def things(tmp_path):
    project, folder, store = tmp_path / "project", tmp_path / "images", tmp_path / "a.zarr"
    for each in (project, folder, store):
        each.mkdir()
    (project / "project.json").write_text("{}")
    for name in ("a.png", "b.tif", "c.mdm", "d.MDM"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], {}),
        (["project"], {"project": "project"}),
        (["project/project.json"], {"project": "project"}),
        (["project", "c.mdm"], {"project": "project", "classifier": "c.mdm"}),
        (["images"], {"folder": "images"}),
        (["images", "d.MDM"], {"folder": "images", "classifier": "d.MDM"}),
        (["a.png", "a.zarr", "b.tif"], {"images": ["a.png", "a.zarr", "b.tif"]}),
        (["c.mdm"], {"classifier": "c.mdm"}),
    ],
)
def test_everything_is_told_apart(things, names, wanted):
    def place(value):
        return tuple(things / each for each in value) if isinstance(value, list) else things / value

    places = {key: place(value) for key, value in wanted.items()}
    assert sort_out([things / name for name in names]) == Wanted(**places)


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["nothing.png"], InputError, "not there"),
        (["project", "images"], UsageError, "one project or folder"),
        (["c.mdm", "d.MDM"], UsageError, "one at a time"),
        (["images", "a.png"], UsageError, "the folder, or the files"),
    ],
)
def test_what_cannot_be_opened_at_once_is_said(things, names, error, words):
    with pytest.raises(error, match=words):
        sort_out([things / name for name in names])


def test_a_new_project_goes_beside_the_images_under_a_free_name(tmp_path):
    images = tmp_path / "field one"
    assert place_for(images, tmp_path / "documents") == tmp_path / "field one project"
    (tmp_path / "field one project").mkdir()
    assert place_for(images, tmp_path / "documents") == tmp_path / "field one project 2"
    assert place_for(Path("/nowhere/at/all"), tmp_path / "documents").parent == tmp_path / "documents"


@pytest.mark.parametrize("name", ["", "..", "a/b", "what?", "nul\\x"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, name):
    assert "name without" in name_problem(name, tmp_path / "x")


def test_a_place_that_is_taken_is_refused(tmp_path):
    assert name_problem("new", tmp_path / "new") == ""
    assert name_problem("empty", tmp_path) == ""
    (tmp_path / "file").write_text("")
    assert "already" in name_problem("file", tmp_path / "file")
    assert "already" in name_problem("full", tmp_path)


def test_the_latest_project_comes_first_and_once(things):
    recent = ("/b", str(things / "project"), "/c")
    assert with_project(recent, things / "project") == (str(things / "project"), "/b", "/c")
    assert without(recent, Path("/b")) == recent[1:]
    assert len(with_project([f"/{number}" for number in range(50)], Path("/new"))) == MOST
    there = {each.folder: each.there for each in look_up(recent)}
    assert there == {Path("/b"): False, things / "project": True, Path("/c"): False}
    assert not is_project(things / "a.png")


def test_paths_are_short_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert short(tmp_path / "a" / "b") == "~/a/b"
    assert short(tmp_path) == "~"
    assert short(Path("/else/where")) == str(Path("/else/where"))
