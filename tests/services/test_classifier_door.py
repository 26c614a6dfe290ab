"""FILE.mdm at the door: what does not fit is one line, before it takes time or memory."""

import json
import random
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load, save

from mdm_studio.errors import ClassifierError
from mdm_studio.io.classifier_file import classifier_digest, read_classifier
from mdm_studio.services.classifier import load_classifier

FACTS, TENSORS = "classifier.json", "ensemble.safetensors"


@pytest.fixture(scope="module")
def parts(export_set):
    with zipfile.ZipFile(export_set.classifier) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def pack(tmp_path):
    def write(entries, method=zipfile.ZIP_STORED):
        path = tmp_path / "x.mdm"
        with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that occur twice
            for name, data in entries:
                archive.writestr(name, data)
        return path

    return write


def refused(path):
    """What is said of a file that is not taken."""
    with pytest.raises(ClassifierError) as caught:
        load_classifier(path)
    words = str(caught.value)
    words.encode()
    assert path.name in words
    assert "\n" not in words
    assert len(words) < 700
    return words


def replaced(value, way, new):
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = replaced(copy[way[0]], way[1:], new)
    return copy


@pytest.mark.parametrize(
    ("way", "new"),
    [
        ((), []),
        ((), None),
        (("version",), "4"),
        (("version",), 5),
        (("version",), True),
        (("classes",), []),
        (("classes",), {}),
        (("classes", 0), None),
        (("classes", 0, "value"), -1),
        (("classes", 0, "value"), 70000),
        (("classes", 0, "value"), 2),
        (("classes", 0, "name"), 5),
        (("classes", 0, "name"), "\ud800"),
        (("classes", 0, "color"), "red"),
        (("classes", 0, "color"), "#12345"),
        (("classes", 0, "color"), "#1234567"),
        (("backbone",), "x" * 5000),
        (("backbone_digest",), "0" * 32),
        (("backbone_digest",), 3),
        (("blocks",), [-1]),
        (("blocks",), [99]),
        (("blocks",), [1, 1, 2]),
        (("blocks",), 7),
        (("timesteps",), [1e400]),
        (("timesteps",), [2000]),
        (("timesteps",), []),
        (("scales",), [3]),
        (("scales",), []),
        (("tile",), 10**9),
        (("tile",), 0),
        (("halo",), 10**9),
        (("halo",), -1),
        (("smooth",), 10**6),
        (("precision",), "fp8"),
        (("filters",), "yes"),
        (("channels",), [-1]),
        (("training",), {"pixels_per_class": {"x": 1}}),
        (("training",), {"pixels_per_class": [1]}),
        (("images", "channels"), []),
        (("images", "channels"), [0]),
        (("images", "intensity"), "guess"),
        (("images", "pixel_um"), [0.5]),
        (("images", "pixel_um"), [-1.0, 1.0]),
        (("embedded",), True),
    ],
)
def test_facts_that_do_not_fit(parts, pack, way, new):
    facts = replaced(json.loads(parts[FACTS]), way, new)
    refused(pack([(FACTS, json.dumps(facts)), (TENSORS, parts[TENSORS])]))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 100_000, b'{"version": 4}', b'{"a": ' * 50_000, b"\xff\xfe", b"1" * 5000, b" " * (5 << 20)]
)
def test_facts_that_are_none(parts, pack, text):
    refused(pack([(FACTS, text), (TENSORS, parts[TENSORS])]))


def changed(tensors, name, value):
    return {**tensors, name: value} if value is not None else {key: each for key, each in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("linear1.weight", lambda x: x.astype(np.float64)),
        ("linear1.weight", lambda x: x.astype(np.float16)),
        ("linear1.weight", lambda x: x.astype(np.int32)),
        ("linear1.weight", lambda x: x[0]),
        ("linear1.weight", lambda x: x[:, :, :-1].copy()),
        ("linear1.weight", lambda x: x[:0]),
        ("linear1.weight", lambda x: np.full_like(x, np.nan)),
        ("linear2.bias", lambda x: x * np.inf),
        ("linear3.weight", lambda x: np.repeat(x, 2, axis=1)),
        ("linear3.weight", lambda x: None),
        ("norm1.running_var", lambda x: -np.abs(x) - 1),
        ("one too many", lambda x: np.zeros(3, np.float32)),
        ("shift", lambda x: np.zeros((1 << 20, 1), np.float32)),
    ],
)
def test_weights_that_do_not_fit(parts, pack, name, change):
    tensors = load(parts[TENSORS])
    refused(pack([(FACTS, parts[FACTS]), (TENSORS, save(changed(tensors, name, change(tensors.get(name)))))]))


def test_sizes_that_multiply_take_no_memory(parts, pack):
    """Two hidden layers of 200,000 units would be joined by weights of 160 GB, of which the file has none."""
    wide = {
        "linear1.weight": np.zeros((1, 200_000, 1), np.float32),
        "linear3.weight": np.zeros((1, 2, 200_000), np.float32),
    }
    path = pack([(FACTS, parts[FACTS]), (TENSORS, save(load(parts[TENSORS]) | wide))])
    tracemalloc.start()
    refused(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 60) + b'{"x":{"dtype":"F32","shape":[1e9],"data_offsets":[0,4]}}    ',
        struct.pack("<Q", 62) + b'{"x":{"dtype":"F32","shape":[99999],"data_offsets":[0,4]}}    ',
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}}      ',
        struct.pack("<Q", 20) + b'{"x":{"dtype":"F32"}',
        struct.pack("<Q", 10) + b'{"x": "y"}',
    ],
)
def test_tensors_that_are_none(parts, pack, header):
    refused(pack([(FACTS, parts[FACTS]), (TENSORS, header)]))


def test_a_zip_bomb_is_not_unpacked(parts, pack):
    bomb = pack([(FACTS, parts[FACTS]), (TENSORS, bytes(64 << 20))], zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 18
    tracemalloc.start()
    assert "compressed" in refused(bomb)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_was_packed_anew_is_said(parts, pack, method):
    assert "packed anew" in refused(pack(parts.items(), method))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([(FACTS, b"{}")], "more than once"),
        ([("a/../../b", b"")], "no part of a classifier"),
        ([("/etc/x", b"")], "no part of a classifier"),
        ([(f"{number}", b"") for number in range(100)], "102 files"),
    ],
)
def test_entries_that_do_not_belong(parts, pack, more, words):
    assert words in refused(pack([*parts.items(), *more]))


def patched(path, find, offset, data):
    raw = bytearray(path.read_bytes())
    start = raw.rindex(find) + offset
    raw[start : start + len(data)] = data
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (8, b"\x01\x00"),  # encrypted
        (8, b"\x40\x00"),
        (10, b"\x63\x00"),  # a method that nobody knows
        (20, struct.pack("<II", 1 << 31, 1 << 31)),  # larger than the file
        (24, struct.pack("<I", 5)),
        (6, b"\xff\xff"),
        (42, struct.pack("<I", 1 << 30)),  # elsewhere
    ],
)
def test_a_directory_that_lies(parts, pack, offset, data):
    refused(patched(pack(parts.items()), b"PK\x01\x02", offset, data))


def test_what_is_no_file(tmp_path):
    import os

    (tmp_path / "x.mdm").mkdir()
    refused(tmp_path / "x.mdm")
    os.mkfifo(tmp_path / "pipe.mdm")
    assert "no regular file" in refused(tmp_path / "pipe.mdm")


def test_damaged_bytes_are_an_error_or_change_nothing(export_set, tmp_path):
    whole = export_set.classifier.read_bytes()
    digest = classifier_digest(*read_classifier(export_set.classifier))
    draw = random.Random(0)
    path = tmp_path / "x.mdm"
    taken = 0
    for number in range(120):
        raw = bytearray(whole)
        if number % 3 == 0:
            del raw[draw.randrange(len(raw)) :]
        else:
            low = 0 if number % 3 == 1 else len(raw) - 250
            raw[draw.randrange(low, len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(raw)
        try:
            info, tensors = read_classifier(path)
        except ClassifierError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            taken += 1
            assert classifier_digest(info, tensors) == digest
    assert taken < 40


VERSION_3 = {
    "version": 3,
    "classes": [{"value": 1, "name": "class 1", "color": "#e69f00"}, {"value": 2, "name": "class 2", "color": "#56b4e9"}],
    "backbone": "mdm-nuclei",
    "backbone_digest": "22882339db8aecf297e251e69a753fe0",
    "blocks": [7],
    "timesteps": [50],
    "tile": 512,
    "halo": 64,
    "precision": "fp32",
    "scales": [1],
    "filters": True,
    "noise": "",
    "smooth": 8,
    "channels": None,
    "unlabelled": 0,
    "ensemble": {"members": 10, "hidden": "auto", "lr": 0.001, "seed": 0},
    "training": {"images": 1, "pixels": 1001, "invert": False, "pixels_per_class": {"1": 555, "2": 446}, "seconds": 2.883},
    "head": "ensemble",
    "embedded": False,
}


def test_a_file_of_version_3_is_read_and_does_not_know_its_images(parts, pack):
    path = pack([(FACTS, json.dumps(VERSION_3, indent=2)), (TENSORS, parts[TENSORS])])
    info, _ = read_classifier(path)
    assert (info.images, info.blocks, info.scales, info.filters, info.smooth) == (None, (7,), (1,), True, 8)
    facts = json.loads(parts[FACTS]) | {"version": 3}
    del facts["images"]
    classifier = load_classifier(pack([(FACTS, json.dumps(facts)), (TENSORS, parts[TENSORS])]))
    assert classifier.info.images is None
    assert classifier.ensemble.n_classes == 2


def test_the_intensities_are_those_of_the_fit(parts, pack, export_set):
    """The same weights may have been imported with another law, which would give other features without a word."""
    facts = replaced(json.loads(parts[FACTS]), ("images", "intensity"), "range")
    assert load_classifier(export_set.classifier).backbone.card.intensity == "percentile"
    path = pack([(FACTS, json.dumps(facts)), (TENSORS, parts[TENSORS])])
    assert load_classifier(path).backbone.card.intensity == "range"


def test_another_classifier_than_wanted_is_refused(export_set):
    digest = classifier_digest(*read_classifier(export_set.classifier))
    assert load_classifier(export_set.classifier, digest=digest)
    with pytest.raises(ClassifierError, match="another classifier than when this was begun"):
        load_classifier(export_set.other, digest=digest)
