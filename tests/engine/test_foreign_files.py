"""Checkpoints of strangers: read as dense tensors of real numbers, or refused in one line; nothing in them runs."""

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.engine.foreign_files import read_foreign
from mdm_studio.errors import CheckpointError

SHAPE = (3, 4)
STATE = {"a": torch.ones(SHAPE), "b": torch.zeros(2, dtype=torch.int64)}


def saved(value, *, legacy=False):
    made = io.BytesIO()
    torch.save(value, made, _use_new_zipfile_serialization=not legacy)
    return made.getvalue()


def refused(tmp_path, data, words, name="a.pt"):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_foreign(path)
    assert "\n" not in str(caught.value)


class Code:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


class Greedy:
    def __reduce__(self):
        return bytearray, (10**11,)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not limited")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_few_bytes_take_no_memory(tmp_path, legacy):
    refused(tmp_path, saved({"a": Greedy()}, legacy=legacy), "MemoryError")


def test_wrappers_are_taken_off(tmp_path):
    path = tmp_path / "a.pt"
    for wrapped in (STATE, {"state_dict": STATE}, {"model": {f"module.{name}": value for name, value in STATE.items()}}):
        path.write_bytes(saved(wrapped))
        assert read_foreign(path).keys() == STATE.keys()


@pytest.mark.parametrize("root", [[], 5, None, "x", {}, {"a": 1}, [STATE], {"model": {}}, torch.ones(3)], ids=repr)
def test_roots_that_are_no_state_dict(tmp_path, root):
    refused(tmp_path, saved(root), "holds no state dict")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_never_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, saved({"a": Code()}, legacy=legacy), "never run here")
    refused(tmp_path, pickle.dumps(Code()), "never run here")
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize(
    "odd",
    [
        torch.ones(SHAPE, dtype=torch.complex64),
        torch.ones(SHAPE).to_sparse(),
        torch.empty(SHAPE, device="meta"),
        torch.ones(SHAPE).to(torch.float8_e4m3fn),
    ],
    ids=["complex", "sparse", "meta", "float8"],
)
def test_tensors_that_are_no_weights(tmp_path, odd):
    refused(tmp_path, saved(STATE | {"a": odd}), r"holds a tensor that is no weight \(a: |pickled code|is damaged")


def test_more_tensors_than_bytes(tmp_path):
    refused(tmp_path, saved({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}), "claims to hold")


def test_a_packed_archive_is_not_unpacked(tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(STATE))) as good, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in good.namelist():
            packed.writestr(name, good.read(name))
    refused(tmp_path, made.getvalue(), "its entries are packed")


def test_a_weight_that_has_changed_on_its_way(tmp_path):
    good = saved({"a": torch.full((100,), 1.5)})
    place = good.index(b"\0\0\xc0\x3f" * 50)  # 1.5, in the middle of the weights
    refused(tmp_path, good[: place + 42] + b"\x01" + good[place + 43 :], "is not what was saved")


def test_files_that_are_none(tmp_path):
    refused(tmp_path, b"", "is empty")
    with pytest.raises(CheckpointError, match="no file"):
        read_foreign(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="no file"):
        read_foreign(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pt")
        with pytest.raises(CheckpointError, match="is no file"):
            read_foreign(tmp_path / "pipe.pt")
    old = io.BytesIO()
    with tarfile.open(fileobj=old, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    refused(tmp_path, old.getvalue(), "damaged|never run")


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({}, 2**63),
        ("not JSON", None),
        (
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            None,
        ),
        ({"a": {"dtype": "XX", "shape": [2], "data_offsets": [0, 8]}}, None),
        ({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}}, None),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**63]}}, None),
        ([], None),
    ],
    ids=["size", "text", "overlap", "dtype", "shape", "offsets", "list"],
)
def test_safetensors_that_are_broken(tmp_path, header, size):
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    refused(tmp_path, struct.pack("<Q", size or len(text)) + text + bytes(12), "damaged or no checkpoint", "a.safetensors")


def test_safetensors_without_tensors(tmp_path):
    refused(tmp_path, struct.pack("<Q", 2) + b"{}", "holds no state dict", "a.safetensors")


GOOD = saved(STATE)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(tmp_path_factory, data):
    """Whatever bytes are changed, it is a state dict or one line."""
    made = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(made[: data.draw(st.integers(0, len(made)))] if data.draw(st.booleans()) else made)
    words = ""
    try:
        read_foreign(path)
    except CheckpointError as error:
        words = str(error)
    assert "\n" not in words
