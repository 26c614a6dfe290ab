"""Whatever stands in a JSON file of ours, its reader gives what it promises, or an error of ours; never another one."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdm_studio.desktop.settings import SettingsFile
from mdm_studio.engine.backbones import describe
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs.driver import drive
from mdm_studio.services.jobs.places import look
from mdm_studio.services.project import Project
from tests.faults.makers import Kit, make_kit

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "done", "running", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return make_kit(tmp_path_factory.mktemp("documents") / "kit")


def begin_and_stop(folder: Path) -> None:
    """Begin a job as a worker does, and stop it before its first step."""
    for _ in drive(JobFolder(folder), stop=lambda: True):
        pass


READERS: dict[str, tuple[Callable[[Kit], Path], str, Callable[[Path], object], bool]] = {
    # name: the folder, the file, what reads it, and whether it may refuse
    "project": (lambda kit: kit.project, "project.json", lambda folder: Project.open(folder).close(), True),
    "backbone": (lambda kit: kit.backbone, "backbone.json", describe, True),
    "job": (lambda kit: kit.home / "jobs" / "mine-1234", "job.json", begin_and_stop, True),
    "a job's settings in the list": (
        lambda kit: kit.home / "jobs" / "mine-1234",
        "job.json",
        lambda folder: look("a", folder),
        False,
    ),
    "a job's status": (lambda kit: kit.home / "jobs" / "mine-1234", "status.json", lambda folder: look("a", folder), False),
    "settings": (lambda kit: kit.home, "settings.json", lambda folder: SettingsFile(folder / "settings.json"), False),
}


def places(document, at=()):
    """Where a value can be another one: the whole document, and everything in it."""
    yield at
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield from places(value, (*at, key))


def swapped(document, at, value):
    if not at:
        return value
    changed = document.copy()
    changed[at[0]] = swapped(changed[at[0]], at[1:], value)
    return changed


@pytest.mark.parametrize("name", READERS)
def test_any_value_anywhere(kit, tmp_path, name):
    source, file, read, may_refuse = READERS[name]
    folder = tmp_path / "copy"
    shutil.copytree(source(kit), folder)
    document = json.loads((folder / file).read_text())
    number = 0

    @OPTIONS
    @given(st.sampled_from(list(places(document))), ODD)
    def try_one(at, value):
        nonlocal number
        number += 1
        (folder / file).write_text(json.dumps(swapped(document, at, value)))
        with contextlib.suppress(*([MDMStudioError] if may_refuse else [])):
            read(folder)

    try_one()
    assert number >= 20
