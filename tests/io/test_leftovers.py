"""What killed processes leave is removed by the next writer, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdm_studio.io.atomic import replacing, write_bytes
from mdm_studio.io.checkpoints import write_checkpoint
from mdm_studio.io.leftovers import is_unfinished, remove_leftovers, unfinished_name
from mdm_studio.io.processes import is_alive, own_name, process_name

KILLED = """
import os, sys
from pathlib import Path
from mdm_studio.io import atomic
folder = Path(sys.argv[1])
def end(*_): os.kill(os.getpid(), 9)
with atomic.replacing(folder / "a.bin") as unfinished:
    unfinished.write_bytes(b"half")
    with atomic.replacing(folder / "result") as made:
        made.mkdir()
        (made / "new").touch()
        if sys.argv[2] == "between":
            atomic.remove = end
        else:
            end()
"""


def kill_a_writer(folder: Path, where: str = "within") -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, folder, where], timeout=60, env=os.environ, check=False)
    assert run.returncode == -9


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_process_is_known_by_more_than_its_number():
    assert is_alive(own_name()) is True
    pid, begin, machine = own_name().split("-")
    assert is_alive(f"{pid}-{int(begin) + 100}-{machine}") is False  # its number was given again
    assert is_alive(f"{pid}-{begin}-00000000") is None
    for name in ("", "12", "x-y-z", f"{2**40}-1-{machine}"):
        assert is_alive(name) in (None, False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = process_name(child.pid)
        assert is_alive(name) is True
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, though nobody has taken note of it
        assert is_alive(name) is False
    assert is_alive(name) is False


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    for file in ("mine.part", ".notes.part", ".a.bin.part", ".hidden"):
        (tmp_path / file).touch()
    living = tmp_path / unfinished_name("b.bin")
    living.touch()
    kill_a_writer(tmp_path)
    assert sum(is_unfinished(name) for name in names(tmp_path)) == 3
    write_bytes(tmp_path / "c.bin", b"")
    assert names(tmp_path) == sorted(["mine.part", ".notes.part", ".a.bin.part", ".hidden", living.name, "c.bin"])


def test_a_folder_that_was_being_replaced_is_not_lost(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "old").touch()
    kill_a_writer(tmp_path, "between")
    aside = next(path for path in tmp_path.iterdir() if path.name.endswith(".old"))
    (tmp_path / "result").rename(aside.with_suffix(".part"))  # as if it had been killed between the two renames
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["result"]
    assert names(tmp_path / "result") == ["new"]


def test_what_another_machine_writes_stays_for_a_day(tmp_path):
    theirs, old = tmp_path / ".a.12-34-00000000.0123abcd.part", tmp_path / ".a.12-34-00000000.0123abce.part"
    former = tmp_path / ".a.0123abcd.part"  # of an earlier version
    for path in (theirs, old, former):
        path.touch()
    os.utime(old, (1, 1))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([theirs.name, former.name])
    remove_leftovers(tmp_path / "nowhere")


def test_names_of_many_bytes_have_room(tmp_path):
    name = "\N{MICROSCOPE}" * 60
    with replacing(tmp_path / name) as unfinished:
        unfinished.touch()
        assert is_unfinished(unfinished.name)
    assert names(tmp_path) == [name]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such bits")
def test_weights_may_be_read_by_whom_the_umask_lets(tmp_path):
    torch = pytest.importorskip("torch")
    old = os.umask(0o027)
    try:
        write_checkpoint(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(old)
    assert names(tmp_path) == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
