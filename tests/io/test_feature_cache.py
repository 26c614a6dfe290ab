"""The cache: whole tiles or none, damage noticed, a budget kept, several users at once."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mdm_studio.errors import CacheError
from mdm_studio.io.feature_cache import CacheEntry, EntryKey, FeatureCache

SPEC = SimpleNamespace(name="b06-t0050", channels=4, stride=2)
SIDE = 18  # cells of a tile of 32 pixels at stride 2, with a margin of one


def _key(image="image", grid=(2, 3)):
    return EntryKey(image, "backbone", "settings", grid, (32, 32), 1)


def _tile(seed=0, height=SIDE, width=SIDE):
    return np.random.default_rng(seed).normal(size=(4, height, width)).astype(np.float16)


def _entry(tmp_path, image="image", **options):
    entry = FeatureCache(tmp_path, **options).entry(_key(image))
    entry.describe(image=image, backbone="tiny")
    return entry


@pytest.mark.parametrize("size", [(SIDE, SIDE), (17, 5), (1, 1)])
def test_round_trip(tmp_path, size):
    entry, values = _entry(tmp_path), _tile(0, *size)
    assert not entry.has(SPEC, 1, 2)
    assert entry.read_tile(SPEC, 1, 2, size) is None
    entry.write_tile(SPEC, 1, 2, values)
    assert entry.has(SPEC, 1, 2)
    found = _entry(tmp_path).read_tile(SPEC, 1, 2, size)
    assert found.dtype == np.float16
    assert np.array_equal(found, values)


def test_a_tile_of_zeros_is_a_tile(tmp_path):
    entry = _entry(tmp_path)
    entry.write_tile(SPEC, 0, 0, np.zeros((4, SIDE, SIDE), np.float16))
    assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)).sum() == 0


def test_wrong_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not fit"):
        _entry(tmp_path).write_tile(SPEC, 0, 0, _tile(0, SIDE + 1))


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"", lambda b: bytes(x ^ 255 for x in b)])
def test_damaged_tile_is_missing_and_deleted(tmp_path, damage):
    entry = _entry(tmp_path)
    entry.write_tile(SPEC, 0, 1, _tile())
    chunk = next(tmp_path.rglob("c/0/0/1"))
    chunk.write_bytes(damage(chunk.read_bytes()))
    assert entry.read_tile(SPEC, 0, 1, (SIDE, SIDE)) is None
    assert not entry.has(SPEC, 0, 1)


def test_verify_finds_the_damaged_one(tmp_path):
    entry = _entry(tmp_path)
    for col in range(3):
        entry.write_tile(SPEC, 0, col, _tile(col))
    next(tmp_path.rglob("c/0/0/1")).write_bytes(b"nonsense")
    reports = list(FeatureCache(tmp_path).verify())
    assert (reports[-1].checked, reports[-1].damaged) == (3, 1)
    assert next(FeatureCache(tmp_path).verify()).damaged == 0


def test_damaged_metadata_is_made_anew(tmp_path):
    entry = _entry(tmp_path)
    entry.write_tile(SPEC, 0, 0, _tile())
    next(tmp_path.rglob("zarr.json")).write_text("{")
    assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is None
    entry.write_tile(SPEC, 0, 0, _tile())
    assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4, 90, 36]},  # another array, in which numbers would be found at other places
        {"shape": [True]},
        {"fill_value": 0.0},
        {"fill_value": [1, "a"]},
        {"data_type": "float32"},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "zstd", "configuration": {"level": 1}}]},
        {"codecs": 7},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 9, 18]}}},
        {"chunk_key_encoding": {"a": 1}},
    ],
)
def test_metadata_that_says_something_else_is_damaged(tmp_path, change):
    entry = _entry(tmp_path)
    entry.write_tile(SPEC, 1, 2, _tile(1))
    (about,) = tmp_path.glob("v1/*/*/*/zarr.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    assert entry.read_tile(SPEC, 1, 2, (SIDE, SIDE)) is None
    entry.write_tile(SPEC, 0, 0, _tile(2))
    np.testing.assert_array_equal(entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)), _tile(2))


def test_another_process_makes_the_array_first(tmp_path, monkeypatch):
    entry, other, create = _entry(tmp_path), _entry(tmp_path), CacheEntry._create

    def late(self, spec, path):
        monkeypatch.undo()
        other.write_tile(SPEC, 0, 1, _tile(3))
        return create(self, spec, path)

    monkeypatch.setattr(CacheEntry, "_create", late)
    entry.write_tile(SPEC, 0, 0, _tile(1))
    for place, seed in (((0, 0), 1), ((0, 1), 3)):
        np.testing.assert_array_equal(entry.read_tile(SPEC, *place, (SIDE, SIDE)), _tile(seed))


def test_entry_evicted_by_another_process_is_made_anew(tmp_path):
    entry = _entry(tmp_path)
    entry.write_tile(SPEC, 0, 0, _tile())
    FeatureCache(tmp_path).clear()
    assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is None
    entry.write_tile(SPEC, 0, 1, _tile())
    assert [(info.image, info.tiles) for info in FeatureCache(tmp_path).entries()] == [("image", 1)]


def test_least_recently_used_goes_first(tmp_path):
    cache = FeatureCache(tmp_path)
    for number, name in enumerate("abc"):
        entry = cache.entry(_key(name))
        entry.describe(image=name, backbone="tiny")
        entry.write_tile(SPEC, 0, 0, _tile(number))
        path = next(path for path in tmp_path.rglob("entry.json") if name in path.read_text().split('"names"')[1])
        os.utime(path, (number, number))
        del entry
    cache.entry(_key("a"))  # used again
    each = cache.entries()[0].bytes
    assert cache.prune(int(1.5 * each)).entries == 2
    assert [info.image for info in cache.entries()] == ["a"]


def test_budget_holds_while_writing_and_spares_what_is_in_use(tmp_path):
    cache = FeatureCache(tmp_path, max_bytes=20_000)
    held = cache.entry(_key("held"))
    held.describe(image="held", backbone="tiny")
    held.write_tile(SPEC, 0, 0, _tile())
    for number in range(20):
        entry = cache.entry(_key(f"image {number}"))
        entry.describe(image=str(number), backbone="tiny")
        entry.write_tile(SPEC, 0, 0, _tile(number))
        del entry
    assert sum(info.bytes for info in cache.entries()) < 40_000  # metadata is not counted: it matters for tiny tiles only
    assert held.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is not None


def test_clear_and_unfinished_files(tmp_path):
    _entry(tmp_path).write_tile(SPEC, 0, 0, _tile())
    stale, fresh = tmp_path / "v1" / "a.partial", tmp_path / "v1" / "b.partial"
    stale.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(stale, (0, 0))
    cache = FeatureCache(tmp_path)
    assert cache.clear().entries == 1
    assert cache.entries() == []
    assert not stale.exists()
    assert fresh.exists()


def test_a_file_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="is a file"):
        FeatureCache(tmp_path / "file")


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "full.*cache prune"), (errno.EROFS, "--cache"), (errno.EACCES, "--cache")]
)
def test_what_the_system_refuses_is_said_in_words(tmp_path, monkeypatch, code, words):
    entry = _entry(tmp_path)

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("zarr.create_array", refuse)
    with pytest.raises(CacheError, match=words):
        entry.write_tile(SPEC, 0, 0, _tile())


def test_an_optional_cache_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        cache = FeatureCache(root, 10**6, optional=True)
        entry = cache.entry(_key("image"))
        for _ in range(2):
            entry.write_tile(SPEC, 0, 0, _tile())
            assert not entry.has(SPEC, 0, 0)
            assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is None
        assert cache.pausing
        assert not cache.is_usable()
        assert len(caplog.messages) == 1
        assert "computed anew" in caplog.messages[0]
        caplog.clear()
    assert FeatureCache(tmp_path / "good", optional=True).is_usable()


def test_a_cache_that_is_removed_begins_anew(tmp_path):
    entry = FeatureCache(tmp_path / "cache", optional=True).entry(_key("image"))
    for _ in range(2):
        entry.write_tile(SPEC, 0, 0, _tile())
        assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is not None
        shutil.rmtree(tmp_path / "cache")
        assert entry.read_tile(SPEC, 0, 0, (SIDE, SIDE)) is None


def test_threads_share_an_entry(tmp_path):
    entry = _entry(tmp_path)
    places = [(row, col) for row in range(2) for col in range(3)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda place: entry.write_tile(SPEC, *place, _tile(sum(place))), places))
        found = list(pool.map(lambda place: entry.read_tile(SPEC, *place, (SIDE, SIDE)), places))
    assert all(np.array_equal(values, _tile(sum(place))) for place, values in zip(places, found, strict=True))


_WRITER = """
import sys, numpy as np
from pathlib import Path
from types import SimpleNamespace
from mdm_studio.io.feature_cache import EntryKey, FeatureCache
spec = SimpleNamespace(name="b06-t0050", channels=4, stride=2)
entry = FeatureCache(Path(sys.argv[1])).entry(EntryKey("image", "backbone", "settings", (2, 3), (32, 32), 1))
entry.describe(image="image", backbone="tiny")
values = np.full((4, 18, 18), 5, np.float16)
print("ready", flush=True)
while True:
    for row in range(2):
        for col in range(3):
            entry.write_tile(spec, row, col, values)
"""


def test_killed_writers_leave_whole_tiles_or_none(tmp_path):
    """Two processes write the same entry and are killed; every tile that is there is whole."""
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    while not any(tmp_path.glob("v1/*/*/*/c/*/*/*")):
        time.sleep(0.01)
    time.sleep(0.3)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    entry = _entry(tmp_path)
    present = [(row, col) for row in range(2) for col in range(3) if entry.has(SPEC, row, col)]
    assert present
    for place in present:
        assert (entry.read_tile(SPEC, *place, (SIDE, SIDE)) == 5).all()


class CacheMachine(RuleBasedStateMachine):
    """The cache behaves as a dictionary of tiles."""

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.cache = FeatureCache(Path(self.folder.name))
        self.entry = self.cache.entry(_key())
        self.entry.describe(image="image", backbone="tiny")
        self.model = {}

    @rule(row=st.integers(0, 1), col=st.integers(0, 2), seed=st.integers(0, 99))
    def write(self, row, col, seed):
        self.entry.write_tile(SPEC, row, col, _tile(seed))
        self.model[row, col] = seed

    @rule()
    def reopen(self):
        self.entry = FeatureCache(self.cache.root).entry(_key())
        self.entry.describe(image="image", backbone="tiny")

    @rule()
    def clear_elsewhere(self):
        FeatureCache(self.cache.root).clear()
        self.model = {}

    @invariant()
    def same_as_the_model(self):
        for row in range(2):
            for col in range(3):
                found = self.entry.read_tile(SPEC, row, col, (SIDE, SIDE))
                seed = self.model.get((row, col))
                assert (found is None) == (seed is None)
                assert seed is None or np.array_equal(found, _tile(seed))

    def teardown(self):
        self.folder.cleanup()


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(
    max_examples=5, stateful_step_count=10, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
