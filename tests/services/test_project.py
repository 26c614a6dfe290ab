"""A project on disk: it comes back as it was, refuses what it must not touch, and keeps what it can."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.config import user_data_dir
from mdm_studio.errors import OutputError, ProjectError
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.services.project import ImageFacts, Project, ProjectState, image_key

ALL = slice(None)
FACTS = ImageFacts("cells", "/data/cells.tif", (3,), (600, 700), "uint16")
STATE = ProjectState(
    (LabelClass(1, "Zellkern", "#e69f00"), LabelClass(7, "µm", "#000001")),
    {"backbone": "mdm-nuclei", "blocks": [8, 9], "smooth": 0, "channels": None},
    {"ab12": FACTS},
    {"zoom": 1.5, "center": [0.0, 2.0]},
)
OPEN = """
import sys, time
from mdm_studio.services.project import Project
project = Project.open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""

texts = st.text(max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
tables = st.dictionaries(texts, values, max_size=3)
sizes = st.integers(1, 10**6)
shares = st.floats(0, 1)
facts = st.builds(
    ImageFacts,
    texts,
    st.none() | texts,
    st.lists(sizes, max_size=3).map(tuple),
    st.tuples(sizes, sizes),
    st.just("uint8"),
    channels=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    painted=st.integers(0, 2**60),
    reviewed=st.booleans(),
    uncertainty=st.none() | st.floats(0, 9),
    shares=st.dictionaries(st.integers(1, 255), shares, max_size=3),
    ranked=st.integers(0, 2**60),
)
classes = st.builds(LabelClass, st.integers(1, 255), texts, st.just("#aabbcc"))
states = st.builds(
    ProjectState,
    st.lists(classes, max_size=4, unique_by=lambda each: each.value).map(tuple),
    tables,
    st.dictionaries(st.from_regex("[0-9a-f]{16}", fullmatch=True), facts, max_size=3),
    tables,
    tables,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=100, deadline=None)
@given(state=states)
def test_any_state_comes_back(state):
    assert ProjectState.from_json(state.to_json()) == state
    assert ProjectState.from_json(state.to_json(Path("/data/project")), Path("/data/project")) == state


def test_a_file_name_that_is_no_text(tmp_path):
    state = ProjectState(images={"ab12": ImageFacts("\udcff", "/data/\udcff.tif", (), (5, 5), "uint8")})
    with Project.open(tmp_path / "a") as project:
        project.save_state(state)
        assert image_key(state.images["ab12"], np.zeros(3, np.uint8))
    with Project.open(tmp_path / "a") as project:
        assert project.state == state


def test_a_project_comes_back(tmp_path):
    with Project.open(tmp_path / "new" / "project") as project:
        assert (project.state, project.warnings) == (ProjectState(), ())
        assert project.classifier == tmp_path / "new" / "project" / "classifier.mdm"
        project.save_state(STATE)
        assert project.state == STATE
        labels = project.open_labels("ab12", FACTS)
        assert project.open_labels("ab12", FACTS) is labels is project.labels("ab12")
        labels.write((2,), slice(5, 7), slice(0, 3), np.full((2, 3), 7, np.uint8))
    assert names(tmp_path / "new" / "project") == ["labels", "project.json"]
    with Project.open(tmp_path / "new" / "project") as project:
        assert project.state == STATE
        assert project.open_labels("ab12", FACTS).read((2,), ALL, ALL).sum() == 6 * 7
        assert project.open_labels("other", FACTS).read((2,), ALL, ALL).sum() == 0


def test_a_second_process_is_told_who_has_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(ProjectError, match=f"process {process.pid}\\b"):
            Project.open(tmp_path / "a")
        process.kill()
    Project.open(tmp_path / "a").close()


def test_a_recovery_project_leaves_nothing_if_nothing_was_saved():
    with Project.automatic("ab12") as project:
        assert project.folder == user_data_dir() / "projects" / "ab12"
        with pytest.raises(ProjectError, match=str(os.getpid())):
            Project.automatic("ab12")
    assert not project.folder.exists()
    with Project.automatic("ab12") as project:
        project.save_state(STATE)
    with Project.automatic("ab12") as project:
        assert project.state == STATE


@pytest.mark.parametrize("key", ["", "..", "a/b", "a\\b", "a.zarr", "x" * 101])
def test_a_key_stays_in_its_folder(tmp_path, key):
    with Project.open(tmp_path / "a") as project, pytest.raises(ProjectError, match="no key"):
        project.open_labels(key, FACTS)
    with pytest.raises(ProjectError, match="no key"):
        Project.automatic(key)


def test_a_newer_version_is_refused_and_stays(tmp_path):
    text = json.dumps({"version": 3, "novelty": True})
    (tmp_path / "project.json").write_text(text)
    with pytest.raises(ProjectError, match=r"project\.json.*version 3.*up to 2.*update"):
        Project.open(tmp_path)
    assert (names(tmp_path), (tmp_path / "project.json").read_text()) == (["project.json"], text)


@pytest.mark.parametrize("text", ["[]", '{"name": "another program"}', '{"version": "1.0"}', "3"])
def test_projects_of_other_programs_are_refused_and_stay(tmp_path, text):
    (tmp_path / "project.json").write_text(text)
    with pytest.raises(ProjectError, match="no project of MDM Studio"):
        Project.open(tmp_path)
    assert (names(tmp_path), (tmp_path / "project.json").read_text()) == (["project.json"], text)


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ProjectError, match=r"thesis\.tex.*empty folder"):
        Project.open(tmp_path)
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(OutputError):
        Project.open(tmp_path / "thesis.tex")


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"version": 1}', b'{"version": 1, "classes": [3]}'])
def test_a_damaged_state_is_set_aside_and_the_strokes_are_kept(tmp_path, damage):
    with Project.open(tmp_path / "a") as project:
        project.save_state(STATE)
        project.open_labels("ab12", FACTS).write((0,), slice(0, 1), slice(0, 1), np.ones((1, 1), np.uint8))
    (tmp_path / "a" / "project.json").write_bytes(damage)
    with Project.open(tmp_path / "a") as project:
        assert project.state == ProjectState()
        assert len(project.warnings) == 1
        assert "project.damaged.json" in project.warnings[0]
    assert (tmp_path / "a" / "project.damaged.json").read_bytes() == damage
    with Project.open(tmp_path / "a") as project:
        assert project.warnings == ()
        assert project.open_labels("ab12", FACTS).read((0,), ALL, ALL).sum() == 1


def test_damaged_labels_are_named(tmp_path):
    with Project.open(tmp_path / "a") as project:
        project.open_labels("ab12", FACTS).write((0,), ALL, ALL, np.ones((600, 700), np.uint8))
        (tmp_path / "a" / "labels" / "cells-ab12.ome.zarr" / "0" / "c" / "0" / "0" / "1").write_bytes(b"")
        assert project.labels("ab12").read((0,), ALL, ALL).sum() == 600 * 700 - 512 * 188
        assert len(project.warnings) == 1


def test_labels_of_an_image_of_another_shape(tmp_path):
    with Project.open(tmp_path / "a") as project:
        project.open_labels("ab12", FACTS).write((0,), ALL, ALL, np.ones((600, 700), np.uint8))
        with pytest.raises(ProjectError, match="shape"):
            project.open_labels("ab12", ImageFacts("cells", None, (), (600, 700), "uint16"))
        assert project.labels("ab12").stack_shape == (3,)


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with Project.open(tmp_path / "a") as project:
        project.save_state(STATE)
        with pytest.raises(TypeError):
            project.save_state(ProjectState(settings={"x": object()}))
        assert project.state == STATE
    with Project.open(tmp_path / "a") as project:
        assert project.state == STATE


def test_save_as(tmp_path):
    with Project.open(tmp_path / "a") as project:
        project.save_state(STATE)
        project.classifier.write_bytes(b"classifier")
        project.open_labels("ab12", FACTS).write((1,), slice(0, 9), slice(0, 9), np.ones((9, 9), np.uint8))
        (tmp_path / "empty").mkdir()
        for target in (tmp_path / "deep" / "b", tmp_path / "empty"):
            project.copy_to(target)
            with Project.open(target) as copy:
                assert copy.state == STATE
                assert copy.classifier.read_bytes() == b"classifier"
                assert copy.open_labels("ab12", FACTS).read((1,), ALL, ALL).sum() == 81
        for target in (tmp_path / "a", tmp_path / "empty"):
            with pytest.raises(ProjectError, match="not an empty folder"):
                project.copy_to(target)
        with pytest.raises(ProjectError, match="within"):
            project.copy_to(tmp_path / "a" / "labels" / "b")
    assert names(tmp_path / "empty") == ["classifier.mdm", "labels", "project.json"]


def test_save_as_of_what_was_never_saved(tmp_path):
    with Project.automatic("ab12") as project:
        project.copy_to(tmp_path / "a")
    assert names(tmp_path / "a") == ["project.json"]


def test_a_key_tells_images_apart_and_lasts():
    sample = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    key = image_key(FACTS, sample)
    assert key == "a975615ee0383b3a"
    assert image_key(ImageFacts("cells", None, (3,), (600, 700), "uint16"), sample.astype(">u2")) == key
    others = [
        image_key(FACTS, sample + 1),
        image_key(FACTS, sample.reshape(1, 4, 3)),
        image_key(ImageFacts("cells 2", None, (3,), (600, 700), "uint16"), sample),
        image_key(ImageFacts("cells", None, (), (600, 700), "uint16"), sample),
        image_key(ImageFacts("cells", None, (3,), (700, 600), "uint16"), sample),
        image_key(ImageFacts("cells", None, (3,), (600, 700), "int16"), sample),
    ]
    assert len({key, *others}) == 7


def test_no_torch_is_loaded():
    code = "import sys, mdm_studio.services.autosave; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
