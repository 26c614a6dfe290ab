"""Strokes on disk: what was painted comes back, only painted chunks exist, damage stays where it is."""

import errno
import os
import time

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import _local

from mdm_studio.errors import FolderLostError, OutputError, ProjectError
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.label_record import missing_strokes, read_record, record_path
from mdm_studio.io.label_store import CHUNK, StoredLabels, chunks_touching, label_image
from mdm_studio.io.zarr_store import FolderStore

ALL = slice(None)
rectangles = st.tuples(*(st.integers(0, 1300) for _ in range(4)), st.integers(0, 255))


def files(folder):
    return sorted(path.relative_to(folder / "0").as_posix() for path in folder.glob("0/c/**/*") if path.is_file())


def paint(store, index, rows, cols, value):
    store.write(index, rows, cols, np.full((rows.stop - rows.start, cols.stop - cols.start), value, np.uint8))


@settings(max_examples=25, deadline=None)
@given(strokes=st.lists(st.tuples(st.integers(0, 1), rectangles), max_size=5), stacked=st.booleans())
def test_random_rectangles_come_back(tmp_path_factory, strokes, stacked):
    folder = tmp_path_factory.mktemp("labels") / "a.ome.zarr"
    shape = (1100, 1300)
    expected = np.zeros((2, *shape), np.uint8)
    store = StoredLabels(folder, (2,) if stacked else (), shape)
    for plane, (y0, x0, y1, x1, value) in strokes:
        index = (plane,) if stacked else ()
        rows, cols = slice(min(y0, y1), max(y0, y1)), slice(min(x0, x1), max(x0, x1))
        expected[index or (0,)][rows, cols] = value
        part = expected[index or (0,)][rows, cols]
        store.write(index, rows, cols, part)
    for opened in (store, StoredLabels(folder, store.stack_shape, shape)):
        for index in np.ndindex(*store.stack_shape):
            assert np.array_equal(opened.read(index, ALL, ALL), expected[index or (0,)])
            assert np.array_equal(opened.read(index, slice(500, 600), slice(-5, None)), expected[index or (0,)][500:600, -5:])
        painted = list(opened.painted_chunks())
        assert len(painted) == len(files(folder))
        assert all(opened.read(*place).any() for place in painted)
        assert sum(opened.read(*place).sum(dtype=int) for place in painted) == expected.sum(dtype=int)
        assert opened.damaged == []


def test_chunks_are_those_that_a_region_touches():
    assert list(chunks_touching((1030, 1024), slice(511, 513), slice(600, 601))) == [
        (slice(0, 512), slice(512, 1024)),
        (slice(512, 1024), slice(512, 1024)),
    ]
    assert list(chunks_touching((1030, 1024), slice(-1, None), slice(0, 1))) == [(slice(1024, 1030), slice(0, 512))]
    assert list(chunks_touching((1030, 1024), slice(5, 5), ALL)) == []
    assert len(list(chunks_touching((1030, 1024), ALL, ALL))) == 6


def test_only_painted_chunks_exist_and_others_are_plain_zarr(tmp_path):
    store = StoredLabels(tmp_path / "a.ome.zarr", (2, 3), (16_384, 16_384))
    assert not (tmp_path / "a.ome.zarr").exists()
    assert list(store.painted_chunks()) == []
    paint(store, (1, 2), slice(600, 610), slice(16_000, 16_384), 3)
    assert files(tmp_path / "a.ome.zarr") == ["c/1/2/1/31"]
    assert list(store.painted_chunks()) == [((1, 2), slice(512, 1024), slice(15_872, 16_384))]
    array = zarr.open_array(tmp_path / "a.ome.zarr" / "0", mode="r")
    assert (array.shape, array.chunks, array.dtype) == ((2, 3, 16_384, 16_384), (1, 1, 512, 512), np.uint8)
    assert array[1, 2, 600, 16_000] == 3
    paint(store, (1, 2), slice(512, 1024), slice(15_000, 16_384), 0)
    assert files(tmp_path / "a.ome.zarr") == []


def test_a_large_array_is_restored_in_time_for_its_painted_chunks(tmp_path):
    store = StoredLabels(tmp_path / "a.ome.zarr", (100,), (16_384, 16_384))
    for k in range(5):
        paint(store, (20 * k,), slice(1000 * k, 1000 * k + 9), slice(3000, 3010), 1)
    start = time.perf_counter()
    opened = StoredLabels(tmp_path / "a.ome.zarr", (100,), (16_384, 16_384))
    assert sum(opened.read(*place).sum() for place in opened.painted_chunks()) == 5 * 90
    assert time.perf_counter() - start < 2  # 102,400 chunks would take minutes


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_a_damaged_chunk_is_named_and_the_others_stay(tmp_path, damage):
    store = StoredLabels(tmp_path / "a.ome.zarr", (), (1024, 1024))
    noise = np.random.default_rng(0).integers(0, 3, (1024, 1024), np.uint8)
    store.write((), ALL, ALL, noise)
    chunk = tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "1"
    chunk.write_bytes(damage(chunk.read_bytes()))
    opened = StoredLabels(tmp_path / "a.ome.zarr", (), (1024, 1024))
    for _ in range(2):
        found = opened.read((), ALL, ALL)
        assert not found[:512, 512:].any()
        found[:512, 512:] = noise[:512, 512:]
        assert np.array_equal(found, noise)
        assert len(opened.damaged) == 1
        assert str(chunk) in opened.damaged[0]
    damaged = chunk.read_bytes()
    paint(opened, (), slice(0, 2), slice(600, 602), 9)
    assert chunk.with_name("1.damaged").read_bytes() == damaged
    assert len(list(opened.painted_chunks())) == 4
    assert opened.read((), slice(0, CHUNK), slice(CHUNK, None)).sum() == 4 * 9


@pytest.mark.parametrize("what", ["folder", "link to itself"])
def test_a_chunk_that_is_no_file_is_named(tmp_path, what):
    StoredLabels(tmp_path / "a.ome.zarr", (), (64, 64)).write((), ALL, ALL, np.ones((64, 64), np.uint8))
    chunk = tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "0"
    chunk.unlink()
    chunk.mkdir() if what == "folder" else chunk.symlink_to(chunk.name)
    opened = StoredLabels(tmp_path / "a.ome.zarr", (), (64, 64))
    assert not opened.read((), ALL, ALL).any()
    assert "is no file" in opened.damaged[0]
    paint(opened, (), slice(0, 2), slice(0, 2), 9)
    assert opened.read((), ALL, ALL).sum() == 4 * 9


@pytest.mark.parametrize("damage", ["{", "", "[]", '{"zarr_format": 3}', None])
def test_a_damaged_description_costs_no_strokes(tmp_path, damage):
    store = StoredLabels(tmp_path / "a.ome.zarr", (2,), (600, 700))
    paint(store, (1,), slice(0, 600), slice(0, 700), 5)
    path = tmp_path / "a.ome.zarr" / "0" / "zarr.json"
    path.unlink() if damage is None else path.write_text(damage)
    opened = StoredLabels(tmp_path / "a.ome.zarr", (2,), (600, 700))
    assert (opened.read((1,), ALL, ALL) == 5).all()
    assert len(opened.damaged) == (damage is not None)
    assert path.with_name("zarr.json.damaged").exists() == (damage is not None)
    assert (StoredLabels(tmp_path / "a.ome.zarr", (2,), (600, 700)).read((1,), ALL, ALL) == 5).all()


def test_a_bad_sector_is_damage_and_a_lost_drive_is_not(tmp_path, monkeypatch):
    store = StoredLabels(tmp_path / "a.ome.zarr", (), (100, 100))
    paint(store, (), slice(0, 5), slice(0, 5), 1)

    def fail(code):
        def get(path, *options):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(_local, "_get", get)

    fail(errno.EIO)
    assert not store.read((), ALL, ALL).any()
    assert len(store.damaged) == 1
    fail(errno.ENOTCONN)
    with pytest.raises(ProjectError, match="check the drive"):
        store.read((), ALL, ALL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json", "0/c/0/0"])
def test_a_named_pipe_is_not_waited_for(tmp_path, name):
    folder = tmp_path / "a.ome.zarr"
    paint(StoredLabels(folder, (), (600, 700)), (), slice(0, 600), slice(0, 700), 1)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    opened = StoredLabels(folder, (), (600, 700))
    opened.describe(label_image("a", ()))
    paint(opened, (), slice(0, 5), slice(0, 5), 2)
    again = StoredLabels(folder, (), (600, 700))
    assert (again.read((), slice(0, 5), slice(0, 5)) == 2).all()
    assert (again.read((), slice(512, 600), ALL) == 1).all()


def test_strokes_that_went_away_are_told_and_not_made_anew(tmp_path):
    store = StoredLabels(tmp_path / "labels" / "a.ome.zarr", (), (100, 100), within=tmp_path)
    paint(store, (), slice(0, 5), slice(0, 5), 1)
    (tmp_path / "labels").rename(tmp_path / "moved")
    with pytest.raises(FolderLostError, match="moved or removed"):
        paint(store, (), slice(0, 5), slice(0, 5), 2)
    assert os.listdir(tmp_path) == ["moved"]


def test_labels_of_another_shape_are_refused(tmp_path):
    paint(StoredLabels(tmp_path / "a.ome.zarr", (), (100, 100)), (), slice(0, 5), slice(0, 5), 1)
    with pytest.raises(ProjectError, match=r"\(100, 100\).*\(100, 101\)"):
        StoredLabels(tmp_path / "a.ome.zarr", (), (100, 101))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_leaves_the_old_chunk(tmp_path, monkeypatch, code):
    store = StoredLabels(tmp_path / "a.ome.zarr", (), (100, 100))
    paint(store, (), slice(0, 5), slice(0, 5), 1)

    def fail(*options, **more):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "_put", fail)
        with pytest.raises(OutputError, match=r"full|read-only"):
            paint(store, (), slice(0, 5), slice(0, 5), 2)
        with pytest.raises(OutputError, match=r"full|read-only"):
            paint(StoredLabels(tmp_path / "b.ome.zarr", (), (9, 9)), (), slice(0, 5), slice(0, 5), 2)
    assert (store.read((), slice(0, 5), slice(0, 5)) == 1).all()


def test_what_a_killed_process_left_is_removed(tmp_path):
    paint(StoredLabels(tmp_path / "a.ome.zarr", (), (100, 100)), (), slice(0, 5), slice(0, 5), 1)
    (tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "0.1234.partial").touch()
    (tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "9").touch()  # a stray file outside the plane
    store = StoredLabels(tmp_path / "a.ome.zarr", (), (100, 100))
    assert len(list(store.painted_chunks())) == 1
    assert files(tmp_path / "a.ome.zarr") == ["c/0/0", "c/0/9"]


@pytest.mark.parametrize(
    ("index", "block"),
    [((), np.zeros((4, 5), np.uint8)), ((), np.zeros((5, 5), int)), ((0,), np.zeros((5, 5), np.uint8))],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, index, block):
    with pytest.raises(ValueError, match=r"fit|no plane"):
        StoredLabels(tmp_path / "a.ome.zarr", (), (100, 100)).write(index, slice(0, 5), slice(0, 5), block)


CLASSES = (LabelClass(1, "ground", "#e69f00"), LabelClass(7, "Zellkern", "#000001"))


@pytest.mark.parametrize("stack", [(), (2,), (3, 2), (2, 2, 2)])
def test_the_folder_is_an_ome_zarr_label_image(tmp_path, stack):
    from ome_zarr_models.v05.image_label import ImageLabel

    folder = tmp_path / "labels" / "cells.ome.zarr"
    store = StoredLabels(folder, stack, (60, 50))
    store.describe(label_image("cells", CLASSES, stack, (0.5, 0.25), "micrometer"))
    assert not folder.exists()
    index = tuple(n - 1 for n in stack)
    paint(store, index, slice(5, 7), slice(5, 9), 7)
    found = ImageLabel.from_zarr(zarr.open_group(folder, mode="r"))
    assert [color.label_value for color in found.ome_attributes.image_label.colors] == [1, 7]
    assert found.ome_attributes.multiscales[0].axes[-1].unit == "micrometer"
    store.describe(label_image("cells", CLASSES[:1], stack))
    assert '"Zellkern"' not in (folder / "zarr.json").read_text()
    (folder / "zarr.json").unlink()
    again = StoredLabels(folder, stack, (60, 50))
    again.describe(label_image("cells", (), stack))
    assert ImageLabel.from_zarr(zarr.open_group(folder, mode="r")).ome_attributes.image_label.colors is None
    assert again.read(index, ALL, ALL).sum() == 2 * 4 * 7


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_napari_shows_the_classes_in_their_colours(tmp_path, capsys):
    from napari_ome_zarr import napari_get_reader

    store = StoredLabels(tmp_path / "project" / "labels" / "cells.ome.zarr", (2,), (600, 700))
    store.describe(label_image("cells", CLASSES, (2,), (0.5, 0.25), "micrometer"))
    paint(store, (1,), slice(5, 7), slice(600, 604), 7)
    ((levels, options, kind),) = napari_get_reader(str(store.folder))()
    assert (kind, len(levels), levels[0].shape) == ("labels", 1, (2, 600, 700))
    assert np.asarray(levels[0]).sum() == 2 * 4 * 7
    assert options["colormap"][7] == [0, 0, 1 / 255, 1]
    assert options["properties"]["class"] == ["ground", "Zellkern"]
    assert (options["scale"], options["axis_labels"]) == ([1, 0.5, 0.25], ("z", "y", "x"))
    capsys.readouterr()


def test_the_record_lists_the_chunks_that_hold_strokes(tmp_path):
    folder = tmp_path / "a.ome.zarr"
    store = StoredLabels(folder, (2,), (600, 700))
    paint(store, (1,), slice(0, 600), slice(0, 600), 5)
    paint(store, (1,), slice(0, 512), slice(0, 512), 0)
    assert read_record(folder) == {"1/0/1", "1/1/0", "1/1/1"}
    (folder / "0" / "c" / "1" / "0" / "1").unlink()
    assert "1 of 3 files are not there" in missing_strokes(folder, 77)
    paint(StoredLabels(folder, (2,), (600, 700)), (0,), slice(0, 9), slice(0, 9), 1)  # elsewhere: it is missing all the same
    assert "1 of 4 files are not there" in missing_strokes(folder, 77)
    paint(store, (1,), slice(0, 9), slice(600, 609), 1)  # anew
    assert missing_strokes(folder, 77) == ""
    paint(store, (1,), slice(0, 600), slice(0, 700), 0)
    paint(store, (0,), slice(0, 600), slice(0, 700), 0)
    assert (read_record(folder), missing_strokes(folder, 77)) == (frozenset(), "")  # erased, whatever the project counted


def test_strokes_of_an_earlier_version_are_recorded_when_they_are_opened(tmp_path):
    folder = tmp_path / "a.ome.zarr"
    paint(StoredLabels(folder, (), (100, 100)), (), slice(0, 5), slice(0, 5), 1)
    record_path(folder).unlink()
    StoredLabels(folder, (), (100, 100))
    assert read_record(folder) == {"0/0"}
    record_path(folder).unlink()
    paint(StoredLabels(folder, (), (100, 100)), (), slice(0, 5), slice(0, 5), 0)
    assert (read_record(folder), missing_strokes(folder, 25)) == (frozenset(), "")


@pytest.mark.parametrize("value", [1, 0])
def test_a_program_that_is_killed_between_chunk_and_record_leaves_no_listed_chunk_that_is_missing(tmp_path, monkeypatch, value):
    from mdm_studio.io import label_store

    folder = tmp_path / "a.ome.zarr"
    store = StoredLabels(folder, (), (100, 100))
    if not value:
        paint(store, (), slice(0, 5), slice(0, 5), 1)

    def killed(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(label_store, "write_record", killed)
    with pytest.raises(RuntimeError, match="killed"):
        paint(store, (), slice(0, 5), slice(0, 5), value)
    monkeypatch.undo()
    assert files(folder) == ["c/0/0"]
    assert missing_strokes(folder, 25) == ""
    StoredLabels(folder, (), (100, 100))
    assert read_record(folder) == {"0/0"}


def test_a_damaged_record_is_kept_and_made_anew(tmp_path):
    folder = tmp_path / "a.ome.zarr"
    paint(StoredLabels(folder, (), (100, 100)), (), slice(0, 5), slice(0, 5), 1)
    record_path(folder).write_text('{"chunks": ["../../x"]}')
    assert "a.painted.json is damaged" in missing_strokes(folder, 25)
    store = StoredLabels(folder, (), (100, 100))
    assert len(store.damaged) == 1
    assert read_record(folder) == {"0/0"}
    assert (tmp_path / "a.painted.json.damaged").read_text() == '{"chunks": ["../../x"]}'
