"""The judge of the campaign sees what it is to see; a judge that finds everything well would be worth nothing."""

import os
import pickle
import random
import signal
import sys
import time
import zipfile

import pytest

from mdm_studio.errors import InputError
from tests.faults import mutations, oracle
from tests.faults.kinds import canary, service, wants

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # of threads, which no child uses
]


def fails():
    raise KeyError("x")


def warns():
    sys.stderr.write("reader.py:7: UserWarning: odd tag\n")


def says_nothing():
    sys.exit(1)


def crashes():
    os.kill(os.getpid(), signal.SIGUSR1)  # no signal that pytest tells of


def is_wrong():
    wants(False, "another mask")


def refuses():
    raise InputError("a.png cannot be read: it is cut off; replace it")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (fails, "traceback: KeyError"),
        (warns, "leak: "),
        (says_nothing, "exit code 1 without one line"),
        (crashes, "crash: ended by SIGUSR1"),
        (is_wrong, "silently wrong: WRONG another mask"),
        (lambda: sys.exit(3), "exit code 3"),
        (lambda: time.sleep(60), "hang"),
        (service(refuses), ""),
        (lambda: None, ""),
    ],
)
def test_each_way_to_end(tmp_path, entry, words):
    ended = oracle.run(entry, tmp_path / "log", 1.0 if words == "hang" else 60.0)
    found = "; ".join(each for each in oracle.problems(ended) if not each.startswith("memory"))
    assert found.startswith(words) if words else found == ""


def test_memory_and_files(tmp_path, monkeypatch):
    (tmp_path / "case" / "in").mkdir(parents=True)
    for name in ("kept", "changed", "gone"):
        (tmp_path / "case" / "in" / name).write_text("")
    before = oracle.snapshot(tmp_path / "case")

    def entry():
        for name in ("in/changed", "new", "out.txt", "out/mask.png", "out/.mask.png.1.part"):
            (tmp_path / "case" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "case" / name).write_text("x")
        (tmp_path / "case" / "in" / "gone").unlink()

    ended = oracle.run(entry, tmp_path / "log")
    found = set(oracle.touched(before, oracle.snapshot(tmp_path / "case"), ("out",)))
    assert found == {
        "changed: in/changed",
        "removed: in/gone",
        "written: new",
        "written: out.txt",
        "left behind: out/.mask.png.1.part",
    }
    monkeypatch.setattr(oracle, "MEMORY", 1 << 20)
    assert "memory: " in "; ".join(oracle.problems(ended))


def test_code_that_is_run_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not canary(tmp_path)
    pickle.loads(pickle.dumps(mutations.Payload())).close()
    assert canary(tmp_path)


@pytest.mark.parametrize("name", ["a.json", "a.mdm", "a.safetensors", "a.tif", "a.npy", "a.csv", "a.png", "a.pt"])
def test_a_seed_spoils_a_file_the_same_way_again(tmp_path, name):
    made = []
    for folder in ("one", "two"):
        path = tmp_path / folder / name
        path.parent.mkdir()
        for seed in range(30):
            path.unlink(missing_ok=True)
            with zipfile.ZipFile(path, "w") as archive:  # of any name: no way may stumble over what is spoilt already
                archive.writestr(zipfile.ZipInfo("classifier.json"), b'{"a": [1, {"b": null}]}' * (seed % 3))
            words = mutations.spoil(random.Random(seed), path)
            made.append((words, path.read_bytes() if path.is_file() and not path.is_symlink() else b""))
            if path.is_dir():
                path.rmdir()
    assert made[:30] == made[30:]
    assert len({words for words, _ in made}) > 4
