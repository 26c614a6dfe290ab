"""What was painted is on disk two seconds later, whatever happens to the program; what fails is told and tried again."""

import errno
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.errors import OutputError, ProjectError
from mdm_studio.io import atomic
from mdm_studio.io.zarr_store import FolderStore
from mdm_studio.services.autosave import Autosave
from mdm_studio.services.project import ImageFacts, Project, ProjectState

ALL = slice(None)
SHAPE = (1100, 1300)
FACTS = ImageFacts("cells", None, (2,), SHAPE, "uint8")
STATE = ProjectState(view={"zoom": 2})


class Painted:
    """A project whose labels are painted here, with what the autosave reports."""

    def __init__(self, folder, **options):
        self.project = Project.open(folder)
        self.labels = {key: np.zeros((2, *SHAPE), np.uint8) for key in ("one", "two")}
        for key in self.labels:
            self.project.open_labels(key, FACTS)
        self.told, self.reads = [], []
        options = {"delay": 0.05, "retry": 60} | options
        told = {"on_problem": self.told.append, "on_recovery": lambda: self.told.append("recovered")}
        self.autosave = Autosave(self.project, self.read, **options, **told)

    def read(self, key, index, rows, cols):
        self.reads.append((key, index, rows, cols))
        return self.labels[key][index][rows, cols]

    def paint(self, value=1, rows=slice(0, 9), cols=slice(0, 9), key="one", index=(0,)):
        self.labels[key][index][rows, cols] = value
        self.autosave.mark(key, index, rows, cols)

    def on_disk(self, key="one", index=(0,)):
        return self.project.labels(key).read(index, ALL, ALL)

    def wait(self, what, seconds=10):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.005)

    def close(self):
        self.autosave.close()
        self.project.close()


@pytest.fixture
def painted(tmp_path):
    painted = Painted(tmp_path / "project")
    yield painted
    painted.close()


def fail(code):
    def refuse(*options, **more):
        raise OSError(code, os.strerror(code))

    return refuse


def test_changes_are_saved_in_the_background(painted):
    painted.paint(3, slice(510, 514), slice(0, 4), index=(1,))
    painted.autosave.mark_state(STATE)
    assert painted.autosave.pending == 3  # two chunks and the state
    painted.wait(lambda: painted.autosave.pending == 0)
    assert painted.on_disk(index=(1,)).sum() == 16 * 3
    assert sorted(painted.reads, key=str) == [
        ("one", (1,), slice(0, 512), slice(0, 512)),
        ("one", (1,), slice(512, 1024), slice(0, 512)),
    ]
    painted.autosave.flush()
    assert painted.project.state == STATE
    assert painted.told == []


def test_painting_on_does_not_put_the_saving_off(tmp_path):
    painted = Painted(tmp_path / "project", delay=0.2)
    start = time.monotonic()
    while not painted.on_disk()[0, 0]:
        painted.paint(1)
        time.sleep(0.01)
        assert time.monotonic() - start < 5
    assert time.monotonic() - start >= 0.2
    painted.close()


def test_flush_writes_at_once_and_reading_is_not_repeated(tmp_path):
    painted = Painted(tmp_path / "project", delay=60)
    for column in range(100):
        painted.paint(1, cols=slice(column, column + 1))
    painted.autosave.flush()
    assert (painted.autosave.pending, len(painted.reads)) == (0, 1)
    painted.autosave.flush()
    assert len(painted.reads) == 1
    painted.paint(0)
    painted.close()
    assert painted.on_disk().sum() == 9 * 91
    assert not painted.autosave._thread.is_alive()
    painted.autosave.close()


def test_nothing_touched_is_nothing_to_save(painted):
    painted.autosave.mark("one", (0,), slice(5, 5), ALL)
    assert painted.autosave.pending == 0
    with pytest.raises(KeyError):
        painted.autosave.mark("three", (0,), ALL, ALL)
    with pytest.raises(TypeError):
        painted.autosave.mark_state(ProjectState(view={"x": object()}))


def test_a_state_is_saved_as_it_was_marked(tmp_path):
    painted = Painted(tmp_path / "project", delay=60)
    view = {"zoom": 2}
    painted.autosave.mark_state(ProjectState(view=view))
    view["zoom"] = 3
    painted.close()
    assert painted.project.state == STATE


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_a_disk_that_refuses_is_told_once_and_nothing_is_lost(tmp_path, monkeypatch, code, words):
    painted = Painted(tmp_path / "project", retry=0.05)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "_put", fail(code))
        patch.setattr(atomic, "_flush", fail(code))
        painted.paint(1)
        painted.paint(2, key="two")
        painted.autosave.mark_state(STATE)
        painted.wait(lambda: len(painted.reads) > 8)  # tried again and again
        assert len(painted.told) == 1
        assert words in painted.told[0]
        assert painted.autosave.pending == 3
        with pytest.raises(OutputError, match=words):
            painted.autosave.flush()
        assert painted.autosave.pending == 3
        painted.paint(3, key="two")
    painted.wait(lambda: painted.autosave.pending == 0)
    painted.autosave.flush()
    assert painted.told[1:] == ["recovered"]
    assert (painted.on_disk("one").sum(), painted.on_disk("two").sum()) == (81, 3 * 81)
    painted.close()
    with Project.open(tmp_path / "project") as project:
        assert project.state == STATE


def test_a_new_change_tries_again_before_the_retry_is_due(painted, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "_put", fail(errno.ENOSPC))
        painted.paint(1)
        painted.wait(lambda: painted.told)
    painted.paint(2, slice(600, 601), slice(600, 601))
    painted.wait(lambda: painted.autosave.pending == 0)
    assert painted.on_disk().sum() == 83


def test_a_newer_state_is_not_undone_by_a_failed_one(tmp_path, monkeypatch):
    painted = Painted(tmp_path / "project", delay=60)
    save = painted.project.save_state

    def refuse(state):
        painted.autosave.mark_state(STATE)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(painted.project, "save_state", refuse)
    painted.autosave.mark_state(ProjectState())
    with pytest.raises(OutputError):
        painted.autosave.flush()
    monkeypatch.setattr(painted.project, "save_state", save)
    painted.close()
    assert painted.project.state == STATE


def test_an_image_that_cannot_be_read_does_not_stop_the_others(painted):
    array = painted.labels.pop("one")
    painted.autosave.mark("one", (0,), slice(0, 1), slice(0, 1))
    painted.paint(2, key="two")
    painted.autosave.mark_state(STATE)
    with pytest.raises(ProjectError, match=r"image one .*KeyError"):
        painted.autosave.flush()
    assert painted.on_disk("two").sum() == 2 * 81
    assert painted.project.state == STATE
    assert painted.autosave.pending == 1
    painted.labels["one"] = array


def test_close_ends_the_thread_even_if_nothing_can_be_written(tmp_path, monkeypatch):
    painted = Painted(tmp_path / "project", delay=60)
    painted.paint(1)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "_put", fail(errno.ENOSPC))
        with pytest.raises(OutputError):
            painted.autosave.close()
    assert not painted.autosave._thread.is_alive()
    assert painted.autosave.pending == 1
    painted.close()
    assert painted.on_disk().sum() == 81


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_fails_does_not_end_the_saving(tmp_path, monkeypatch):
    class UnforeseenError(Exception):
        pass

    painted = Painted(tmp_path / "project", retry=0.05)
    painted.autosave._on_problem = lambda message: (_ for _ in ()).throw(UnforeseenError)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "_put", fail(errno.ENOSPC))
        painted.paint(1)
        first = painted.autosave._thread
        painted.wait(lambda: painted.autosave._thread is not first)
    painted.wait(lambda: painted.autosave.pending == 0)
    painted.close()


def test_many_threads_mark_and_flush(tmp_path):
    painted = Painted(tmp_path / "project", delay=0.001)
    random = np.random.default_rng(0)
    places = random.integers(0, 1000, (4, 60, 2))

    def work(thread):
        for row, col in places[thread]:
            painted.paint(thread + 1, slice(row, row + 3), slice(col, col + 3), key="two", index=(thread % 2,))
            if row % 20 == 0:
                painted.autosave.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    painted.close()
    for index in (0, 1):
        assert np.array_equal(painted.on_disk("two", (index,)), painted.labels["two"][index])


rectangles = st.tuples(st.integers(0, 1), *(st.integers(0, 1300) for _ in range(4)), st.integers(0, 255))


@settings(max_examples=20, deadline=None)
@given(strokes=st.lists(rectangles, max_size=8))
def test_random_rectangles_come_back(tmp_path_factory, strokes):
    folder = tmp_path_factory.mktemp("projects") / "a"
    painted = Painted(folder, delay=0.001)
    for plane, y0, x0, y1, x1, value in strokes:
        painted.paint(value, slice(min(y0, y1), max(y0, y1)), slice(min(x0, x1), max(x0, x1)), index=(plane,))
    painted.close()
    with Project.open(folder) as project:
        labels = project.open_labels("one", FACTS)
        restored = np.zeros((2, *SHAPE), np.uint8)
        for index, rows, cols in labels.painted_chunks():
            restored[index][rows, cols] = labels.read(index, rows, cols)
        assert np.array_equal(restored, painted.labels["one"])


PAINT = """
import sys, time
import numpy as np
from mdm_studio.services.autosave import Autosave
from mdm_studio.services.project import ImageFacts, Project

side = 2048
project = Project.open(sys.argv[1])
project.open_labels("image", ImageFacts("image", None, (), (side, side), "uint8"))
labels = np.zeros((side, side), np.uint8)
autosave = Autosave(project, lambda key, index, rows, cols: labels[rows, cols], on_problem=print, on_recovery=print)
for stroke in range(1_000_000):
    row, col = divmod(stroke * 40503 % side**2, side)  # everywhere, and nowhere twice
    labels[row, col] = 1 + stroke % 255
    autosave.mark("image", (), slice(row, row + 1), slice(col, col + 1))
    print(stroke, time.time(), flush=True)
    time.sleep(0.002)
"""


def test_strokes_older_than_two_seconds_survive_a_kill(tmp_path):
    side = 2048
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", PAINT, str(tmp_path / "project")], stdout=log)
        try:
            deadline = time.monotonic() + 60
            while len((tmp_path / "log").read_text().splitlines()) < 1000:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(2)
        finally:
            process.kill()
            killed = time.time()
            process.wait()
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()[:-1]]
    kept = [int(stroke) for stroke, when in lines if float(when) < killed - 2]
    assert len(kept) > 500
    expected = np.zeros((side, side), np.uint8)
    for stroke in kept:
        expected[divmod(stroke * 40503 % side**2, side)] = 1 + stroke % 255
    with Project.open(tmp_path / "project") as project:
        labels = project.open_labels("image", ImageFacts("image", None, (), (side, side), "uint8"))
        restored = labels.read((), ALL, ALL)
        assert labels.damaged == []
    assert np.array_equal(restored[expected > 0], expected[expected > 0])
