"""A project that is moved, removed or replaced while it is open: nothing is written to what is there now, nothing is lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdm_studio.errors import FolderLostError, ProjectError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.folder_lock import LOCK_FILE
from mdm_studio.services.keeper import Keeper
from mdm_studio.services.live_core import LiveImage
from mdm_studio.services.live_plan import PlaneKey, Window
from mdm_studio.services.project import Project
from mdm_studio.services.strokes import StrokeIndex

SIDE = 64
posix = pytest.mark.skipif(os.name != "posix", reason="an open folder cannot be moved there")
OPEN = """
import sys, time
from mdm_studio.services.project import Project
project = Project.open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


class Painter:
    """A keeper with one image that is painted row by row, as a session does it."""

    def __init__(self, folder: Path, name: str = "cells") -> None:
        self.told: list[str] = []
        self.changes: list[str] = []
        self.strokes = StrokeIndex()
        self.keeper = Keeper(folder, self.strokes, self.told.append, lambda: self.told.append("saved"))
        self.keeper.lost_changed.connect(self.changes.append)
        self.labels = np.zeros((SIDE, SIDE), np.uint8)
        pixels = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
        self.image = LiveImage(name, ArrayImage(pixels, name=name), self.labels)
        _, chunks = self.keeper.opened(self.image)
        for _, window, block in chunks:
            self.labels[window.rows, window.cols] = block
        self.strokes.mark_known(name)
        self.keeper.change(lambda state: state)

    def paint(self, row: int) -> None:
        self.labels[row] = 1 + row % 3
        window = Window(0, SIDE, 0, SIDE)
        self.strokes.update(PlaneKey(self.image.key, 0), window, self.labels)
        self.keeper.mark(self.image.key, 0, window)

    def close(self) -> None:
        self.keeper.close()


@pytest.fixture
def painter(tmp_path):
    painter = Painter(tmp_path / "project")
    painter.paint(1)
    painter.keeper.retry()
    yield painter
    painter.close()


def on_disk(folder: Path) -> list[int]:
    """Rows that are painted in a project that nobody has open."""
    painter = Painter(folder)
    rows = np.flatnonzero(painter.labels.any(axis=1)).tolist()
    assert all((painter.labels[row] == 1 + row % 3).all() for row in rows)
    painter.close()
    return rows


def files(folder: Path) -> dict[str, bytes]:
    """Files of a folder but for its lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def lose(painter: Painter) -> None:
    """Paint where nothing can be saved, and be told so, once."""
    for row in (2, 3):
        painter.paint(row)
        with pytest.raises(FolderLostError):
            painter.keeper.retry()
    assert len(painter.told) == len(painter.changes) == 1
    assert painter.keeper.lost == painter.told[0]
    assert painter.keeper.unsaved()


@posix
def test_a_renamed_project_is_told_of_and_gone_on_with(painter, tmp_path):
    painter.keeper.project.folder.rename(tmp_path / "renamed")
    lose(painter)
    assert "moved or removed" in painter.keeper.lost
    assert os.listdir(tmp_path) == ["renamed"]
    if sys.platform != "win32":
        assert painter.keeper.found == tmp_path / "renamed"
    painter.keeper.relocate(tmp_path / "renamed")
    assert (painter.keeper.lost, painter.changes[-1], painter.keeper.folder) == ("", "", tmp_path / "renamed")
    painter.paint(4)
    painter.close()
    assert os.listdir(tmp_path) == ["renamed"]
    assert on_disk(tmp_path / "renamed") == [1, 2, 3, 4]


@posix
def test_a_project_that_comes_back_is_saved_without_a_question(painter, tmp_path):
    (tmp_path / "project").rename(tmp_path / "renamed")
    lose(painter)
    (tmp_path / "renamed").rename(tmp_path / "project")
    painter.keeper.retry()
    assert painter.told[1:] == ["saved"]
    painter.close()
    assert on_disk(tmp_path / "project") == [1, 2, 3]


@posix
def test_a_drive_that_is_back_gets_what_had_not_reached_it(painter, tmp_path):
    shutil.copytree(tmp_path / "project", tmp_path / "drive", ignore=shutil.ignore_patterns(LOCK_FILE))
    painter.paint(2)
    painter.keeper.retry()
    shutil.rmtree(tmp_path / "project")
    painter.keeper.change(lambda state: state)  # strokes are not pending
    with pytest.raises(FolderLostError):
        painter.keeper.retry()
    (tmp_path / "drive").rename(tmp_path / "project")
    painter.keeper.retry()
    painter.close()
    assert on_disk(tmp_path / "project") == [1, 2]


@posix
def test_a_drive_that_is_back_without_its_strokes(painter, tmp_path):
    shutil.copytree(tmp_path / "project", tmp_path / "drive", ignore=shutil.ignore_patterns(LOCK_FILE, "labels"))
    shutil.rmtree(tmp_path / "project")
    (tmp_path / "project").mkdir()  # the empty mount point
    lose(painter)
    assert files(tmp_path / "project") == {}
    (tmp_path / "project").rmdir()
    (tmp_path / "drive").rename(tmp_path / "project")
    painter.paint(4)
    with pytest.raises(FolderLostError, match="strokes"):
        painter.keeper.retry()
    painter.keeper.save_as(tmp_path / "copy")
    assert painter.keeper.lost == ""
    painter.close()
    assert on_disk(tmp_path / "copy") == [1, 2, 3, 4]


@posix
@pytest.mark.parametrize("how", ["another project", "a copy of long ago", "other files", "a file"])
def test_what_is_there_instead_is_left_alone(painter, tmp_path, how):
    folder = tmp_path / "project"
    if how == "a copy of long ago":
        shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns(LOCK_FILE))
        painter.keeper.change_image(next(iter(painter.keeper.state.images)), reviewed=True)
        painter.keeper.retry()
    elif how == "another project":
        other = Painter(tmp_path / "other")
        other.paint(9)
        other.close()
    elif how == "other files":
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.tex").touch()
    else:
        (tmp_path / "other").touch()
    folder.rename(tmp_path / "mine")
    (tmp_path / "other").rename(folder)
    before = files(folder)
    lose(painter)
    with pytest.raises(ProjectError):
        painter.keeper.relocate(folder)
    painter.keeper.relocate(tmp_path / "mine")
    painter.close()
    assert files(folder) == before
    assert on_disk(tmp_path / "mine") == [1, 2, 3]


@pytest.mark.parametrize("moved", [pytest.param(True, marks=posix), False])
def test_a_copy_has_all_strokes(painter, tmp_path, moved):
    if moved:
        (tmp_path / "project").rename(tmp_path / "renamed")
        (tmp_path / "renamed" / "classifier.mdm").touch()
    else:
        shutil.rmtree(tmp_path / "project")
    lose(painter)
    painter.keeper.save_as(tmp_path / "copy")
    assert (painter.keeper.lost, painter.changes[-1], painter.keeper.folder) == ("", "", tmp_path / "copy")
    painter.paint(5)
    painter.close()
    assert on_disk(tmp_path / "copy") == [1, 2, 3, 5]
    assert (tmp_path / "copy" / "classifier.mdm").exists() == moved
    assert not (tmp_path / "project").exists()


def test_a_project_that_was_emptied_or_written_by_another_program(painter, tmp_path):
    path = tmp_path / "project" / "project.json"
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"reviewed": false', b'"reviewed": true'))
    lose(painter)
    assert "another program" in painter.keeper.lost
    assert b'"reviewed": true' in path.read_bytes()
    path.unlink()
    with pytest.raises(FolderLostError, match="removed"):
        painter.keeper.retry()
    path.write_bytes(text)
    painter.keeper.retry()
    painter.close()
    assert on_disk(tmp_path / "project") == [1, 2, 3]


@posix
def test_a_lock_that_a_cleaner_removed_is_made_anew(painter, tmp_path):
    (tmp_path / "project" / LOCK_FILE).unlink()
    painter.paint(2)
    painter.keeper.retry()
    with pytest.raises(ProjectError, match=f"process {os.getpid()}"):
        Project.open(tmp_path / "project")
    painter.close()
    assert on_disk(tmp_path / "project") == [1, 2]


@posix
def test_a_second_window_that_came_in_is_not_written_over(painter, tmp_path):
    (tmp_path / "project" / LOCK_FILE).unlink()
    command = [sys.executable, "-c", OPEN, str(tmp_path / "project")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        lose(painter)
        assert f"process {process.pid}" in painter.keeper.lost
        process.kill()
    painter.keeper.retry()
    painter.close()
    assert on_disk(tmp_path / "project") == [1, 2, 3]


def test_images_that_moved_with_it_are_found(tmp_path):
    (tmp_path / "data").mkdir()
    source = tmp_path / "data" / "cells.png"
    source.touch()
    painter = Painter(tmp_path / "data" / "project")
    key = next(iter(painter.keeper.state.images))
    painter.keeper.change_image(key, source=str(source))
    painter.keeper.retry()
    (tmp_path / "data").rename(tmp_path / "moved")
    painter.keeper.relocate(tmp_path / "moved" / "project")
    assert painter.keeper.state.images[key].source == str(tmp_path / "moved" / "cells.png")
    painter.close()
