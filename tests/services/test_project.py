"""A project on disk: it comes back as it was, refuses what it must not touch, and keeps what it can."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.config import user_data_dir
from mdm_studio.errors import OutputError, ProjectError
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.label_record import record_path
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


def damaged(path, change):
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("change", "words", "wanted"),
    [
        (lambda facts: facts["images"].update(bad=3), "image bad", STATE),
        (lambda facts: facts["images"]["ab12"].update(shape="x"), "image cells", None),
        (lambda facts: facts["classes"].append({"value": 1, "name": "again", "color": "#000000"}), "class 3", STATE),
        (lambda facts: facts["classes"].append({"value": 1e400, "name": [], "color": 1}), "class 3", STATE),
        (lambda facts: facts["settings"].update(scales=[3]), "setting scales", STATE),
        (lambda facts: facts["settings"].update(smooth=10**400), "setting smooth", None),
    ],
)
def test_a_damaged_entry_is_named_and_the_rest_goes_on(tmp_path, change, words, wanted):
    with Project.open(tmp_path) as project:
        project.save_state(STATE)
    text = damaged(tmp_path / "project.json", change)
    with Project.open(tmp_path) as project:
        assert words in project.warnings[0]
        assert "project.damaged.json" in project.warnings[1]
        assert project.state.images.keys() == STATE.images.keys()
        assert project.state.classes == STATE.classes
        if wanted is not None:
            assert project.state == wanted
        project.save_state(project.state)
    assert (tmp_path / "project.damaged.json").read_bytes() == text
    damaged(tmp_path / "project.json", change)
    Project.open(tmp_path).close()
    assert (tmp_path / "project.damaged.json").read_bytes() == text  # the second has a name of its own
    assert (tmp_path / "project.damaged-2.json").exists()


def test_a_colour_that_makes_no_sense_is_the_usual_one(tmp_path):
    with Project.open(tmp_path) as project:
        project.save_state(STATE)
    damaged(tmp_path / "project.json", lambda facts: facts["classes"][0].update(color="#zzzzzz"))
    with Project.open(tmp_path) as project:
        assert project.state.classes[0] == LabelClass(1, "Zellkern", "#e69f00")


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"version": 2, "classes": {}}', b"\xef\xbb\xbf{", b"1" * 5000])
def test_odd_files_are_set_aside_in_one_line(tmp_path, text):
    (tmp_path / "project.json").write_bytes(text)
    try:
        with Project.open(tmp_path) as project:
            (warning,) = project.warnings
        assert (tmp_path / "project.damaged.json").read_bytes() == text
    except ProjectError as error:  # it is no project
        warning = str(error)
        assert (tmp_path / "project.json").read_bytes() == text
    assert len(warning.splitlines()) == 1


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


def painted_project(folder):
    """Strokes of one image in four files; where they are."""
    with Project.open(folder) as project:
        project.open_labels("ab12", FACTS).write((1,), ALL, ALL, np.ones((600, 700), np.uint8))
        project.save_state(ProjectState(images={"ab12": replace(FACTS, painted=420_000), "cd34": FACTS}))
    return folder / "labels" / "cells-ab12.ome.zarr"


LOSSES = {
    "a chunk": (lambda strokes: (strokes / "0" / "c" / "1" / "1" / "0").unlink(), "1 of 4 files are not there"),
    "an empty chunk": (lambda strokes: (strokes / "0" / "c" / "1" / "1" / "0").write_bytes(b""), "1 of 4 files are not there"),
    "a plane": (lambda strokes: shutil.rmtree(strokes / "0" / "c" / "1"), "none are there"),
    "an image": (shutil.rmtree, "none are there"),
    "all": (lambda strokes: shutil.rmtree(strokes.parent), "none are there"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_strokes_whose_files_were_removed_are_named_until_they_are_back(tmp_path, loss):
    strokes = painted_project(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    lose, words = LOSSES[loss]
    lose(strokes)
    for _ in range(2):
        with Project.open(tmp_path / "a") as project:
            (warning,) = project.warnings
            assert warning.startswith(f"the strokes of cells: 420,000 pixels were painted and {words}: ")
            assert "copy of the project" in warning
            assert str(strokes) in warning
            project.open_labels("ab12", FACTS)
            assert (project.lacks_strokes("ab12"), project.lacks_strokes("cd34")) == (True, False)
            project.save_state(project.state)
    shutil.copytree(tmp_path / "copy" / "labels", strokes.parent, dirs_exist_ok=True)
    with Project.open(tmp_path / "a") as project:
        assert project.warnings == ()
        assert project.open_labels("ab12", FACTS).read((1,), ALL, ALL).sum() == 420_000


def test_strokes_that_the_user_erased_or_that_were_never_saved_are_not_missed(tmp_path):
    strokes = painted_project(tmp_path / "a")
    with Project.open(tmp_path / "a") as project:  # killed before the count was saved
        project.open_labels("ab12", FACTS).write((1,), ALL, ALL, np.zeros((600, 700), np.uint8))
    with Project.open(tmp_path / "a") as project:
        assert project.warnings == ()
        project.save_state(ProjectState(images={"ab12": FACTS}))
    record_path(strokes).unlink()  # of an earlier version
    with Project.open(tmp_path / "a") as project:
        assert project.warnings == ()


def test_only_some_images_whose_strokes_are_missing_are_named(tmp_path):
    with Project.open(tmp_path / "a") as project:
        project.save_state(ProjectState(images={f"ab{n}": replace(FACTS, painted=1) for n in range(12)}))
    with Project.open(tmp_path / "a") as project:
        assert len(project.warnings) == 6
        assert project.warnings[-1] == "the strokes of 7 more images are not all there"
