import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.errors import OutputError
from mdm_studio.io import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    atomic.make_folder(tmp_path / "deep")
    with atomic.replacing(tmp_path / "deep" / "a.bin") as unfinished:
        unfinished.write_bytes(b"new")
        assert unfinished.parent == tmp_path / "deep"
        assert unfinished.name.startswith(".")
        assert not (tmp_path / "deep" / "a.bin").exists()
    assert names(tmp_path / "deep") == ["a.bin"]
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"new"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_text(target, "old")

    def fail_half_way() -> None:
        with atomic.replacing(target) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert names(tmp_path) == ["a.txt"]
    assert target.read_text() == "old"


def test_a_folder_replaces_a_folder_and_a_file(tmp_path: Path) -> None:
    for old in ("nothing", "folder", "file"):
        target = tmp_path / old
        if old == "folder":
            target.mkdir()
            (target / "old.txt").touch()
        if old == "file":
            target.touch()
        with atomic.replacing(target) as unfinished:
            unfinished.mkdir()
            (unfinished / "new.txt").touch()
        assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["file", "folder", "nothing"]


def test_a_folder_that_fails_is_removed(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic.replacing(tmp_path / "a.zarr") as unfinished:
            unfinished.mkdir()
            (unfinished / "zarr.json").touch()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail_half_way()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"), (errno.EIO, "/output error")],
)
def test_errors_of_the_system_become_ours_with_the_reason(tmp_path: Path, code: int, words: str) -> None:
    def fail() -> None:
        with atomic.replacing(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(OutputError, match=rf"a\.txt: .*{words}") as caught:
        fail()
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == []


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="folder"):
        atomic.write_text(tmp_path / "out" / "a.txt", "x")


@pytest.mark.parametrize("letter", ["n", "\N{CJK UNIFIED IDEOGRAPH-4E2D}"])
def test_names_of_the_longest_length_work(tmp_path: Path, letter: str) -> None:
    atomic.write_text(tmp_path / (letter * (250 // len(letter.encode())) + ".txt"), "x")
    assert len(names(tmp_path)) == 1


def test_a_folder_that_has_gone_is_not_made_again(tmp_path: Path) -> None:
    target = tmp_path / "moved" / "a.txt"
    for write in (atomic.write_text, atomic.write_json):
        with pytest.raises(OutputError, match="not there"):
            write(target, "x")
    with pytest.raises(OutputError, match="not there"):
        atomic.make_folder(target.parent / "deep", within=target.parent)
    assert names(tmp_path) == []


def test_a_folder_is_made_below_one_that_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        atomic.make_folder(tmp_path / "a" / "b", within=tmp_path)
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "file").touch()
    with pytest.raises(OutputError, match="file"):
        atomic.make_folder(tmp_path / "a" / "file" / "c", within=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_names_that_are_no_text_are_written_and_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.json")
    atomic.write_json(tmp_path / name, {name: [name]})
    assert json.loads((tmp_path / name).read_text("utf-8")) == {name: [name]}
    atomic.write_text(tmp_path / name, name)
    assert (tmp_path / name).read_text("utf-8") == "caf\\udce9\n.json"
    assert names(tmp_path) == [name]


def test_json_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"µ": [1, 2.5, None]})
    with pytest.raises(TypeError):
        atomic.write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "µ": [\n    1,\n    2.5,\n    null\n  ]\n}\n'


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=1000))
def test_bytes_round_trip(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "data.bin"
    atomic.write_bytes(path, data)
    assert path.read_bytes() == data
