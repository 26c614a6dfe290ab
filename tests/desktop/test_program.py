"""The real program in a process of its own: it starts, does what a user asks, and ends well."""

import json
import os
import subprocess
import sys

import pytest

from mdm_studio.desktop.settings import Settings, read_settings

pytestmark = [pytest.mark.gui, pytest.mark.timeout(400)]


def program(repository, *command, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=repository,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=350,
    )
    return done.returncode, done.stdout + done.stderr


def test_it_starts_with_damaged_settings_and_ends(repository, tmp_path):
    data, times = tmp_path / "data", tmp_path / "times.json"
    data.mkdir()
    (data / "settings.json").write_text("{ damaged")
    code, said = program(repository, "-m", "mdm_studio", MDM_STUDIO_START_TIMES=times, MDM_STUDIO_DATA=data)
    assert (code, said) == (0, "")
    read = json.loads(times.read_text())
    assert read["painted"] < read["usable"]
    assert (data / "settings.damaged.json").read_text() == "{ damaged"
    settings, problem = read_settings((data / "settings.json").read_text())
    assert problem == ""
    assert settings.geometry != Settings().geometry
    assert not list((data / "crash-reports").iterdir())


def test_what_is_not_there_is_said_before_a_window_opens(repository, tmp_path):
    code, said = program(repository, "-m", "mdm_studio", "app", tmp_path / "no.png")
    assert code == 1
    assert len(said.strip().splitlines()) == 1
    assert "not there" in said


@pytest.mark.slow
def test_a_user_labels_the_samples_closes_them_and_goes_on(repository, tmp_path):
    code, said = program(repository, "-m", "tests.desktop.user", tmp_path, MDM_STUDIO_DATA=tmp_path / "data")
    assert code == 0, said
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["title"] == "Nuclei samples - MDM Studio"
    assert seen["docks"] == ["images", "segment", "pretrain", "export"]
    assert seen["painted"] > 20
    assert seen["closed"] == ["nothing", "MDM Studio"]
    assert seen["restored"] == seen["painted"]
    assert seen["arrangement"]
    assert len(seen["warnings"]) == 1
    assert "open in another window or program" in seen["warnings"][0]
    settings, _ = read_settings((tmp_path / "data" / "settings.json").read_text())
    assert settings.theme == "light"
    assert [path.rpartition("/")[2] for path in settings.recent] == ["Nuclei samples"]
    assert not list((tmp_path / "data" / "crash-reports").iterdir())
