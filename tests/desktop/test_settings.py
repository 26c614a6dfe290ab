"""What the program remembers, and that a damaged file never stops it."""

import json
from dataclasses import asdict

import pytest

from mdm_studio.desktop.settings import Settings, SettingsFile, read_settings


@pytest.fixture
def path(tmp_path):
    return tmp_path / "settings.json"


def test_what_was_changed_is_there_the_next_time(path):
    first = SettingsFile(path)
    assert (first.value, first.problem) == (Settings(), "")
    first.change(theme="light", recent=("/a", "/b"), told_of_jobs=True)
    again = SettingsFile(path)
    assert again.value == first.value
    assert again.value.recent == ("/a", "/b")
    assert json.loads(path.read_text())["version"] == 1


def test_nothing_is_written_before_something_changes(path):
    SettingsFile(path).change(theme="dark")
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\xff", '"text"'])
def test_a_damaged_file_is_kept_aside_and_stops_nothing(path, text):
    path.write_text(text, "utf-8")
    settings = SettingsFile(path)
    assert settings.value == Settings()
    assert "damaged" in settings.problem
    assert path.with_suffix(".damaged.json").read_text("utf-8") == text
    settings.change(theme="light")
    assert SettingsFile(path).value.theme == "light"


@pytest.mark.parametrize(
    ("name", "value"),
    [("theme", "pink"), ("theme", 3), ("recent", "no"), ("recent", [1]), ("told_of_jobs", 1), ("docks", None)],
)
def test_what_cannot_be_used_gets_its_default_and_the_rest_stays(name, value):
    good = {**asdict(Settings()), "folder": "/here"}
    settings, problem = read_settings(json.dumps({**good, name: value}))
    assert settings == Settings(folder="/here")
    assert name in problem


def test_fields_of_another_version_are_passed_over():
    assert read_settings('{"version": 99, "theme": "light", "unheard": 1}') == (Settings(theme="light"), "")


def test_a_place_that_cannot_be_written_is_said_and_lasts_until_the_end(tmp_path):
    (tmp_path / "file").write_text("")
    settings = SettingsFile(tmp_path / "file" / "settings.json")
    assert settings.change(theme="light").theme == "light"
    assert settings.value.theme == "light"
    assert "not kept" in settings.problem
