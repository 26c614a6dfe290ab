"""FILE.mdm: what is written is read."""

import json
import zipfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mdm_studio.io.classifier_file import (
    ClassifierInfo,
    EmbeddedBackbone,
    LabelClass,
    SeenImages,
    read_classifier,
    read_embedded,
    write_classifier,
)

_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_CLASSES = st.lists(
    st.builds(LabelClass, st.integers(0, 65535), _NAMES, st.just("#a0b1c2")),
    min_size=1,
    max_size=4,
    unique_by=lambda c: c.value,
).map(tuple)
_NUMBERS = st.lists(st.integers(0, 1000), min_size=1, max_size=4, unique=True).map(tuple)
_SEEN = st.builds(
    SeenImages,
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    rgb=st.booleans(),
    dtypes=st.lists(_NAMES, max_size=3).map(tuple),
    intensity=st.sampled_from(["percentile", "range"]),
    pixel_um=st.none() | st.tuples(*[st.floats(1e-6, 1e6)] * 2),
)


@given(
    info=st.builds(
        ClassifierInfo,
        classes=_CLASSES,
        backbone=_NAMES,
        backbone_digest=_NAMES,
        blocks=_NUMBERS,
        timesteps=_NUMBERS,
        tile=st.integers(16, 1024),
        halo=st.integers(0, 128),
        precision=st.sampled_from(["fp32", "bf16"]),
        scales=_NUMBERS,
        filters=st.booleans(),
        channels=st.none() | _NUMBERS,
        unlabelled=st.none() | st.integers(0, 255),
        images=st.none() | _SEEN,
    ),
    values=arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e3, 1e3, width=32)),
)
@settings(max_examples=25, deadline=None)
def test_round_trip(tmp_path_factory, info, values):
    path = tmp_path_factory.mktemp("mdm") / "a.mdm"
    write_classifier(path, info, {"weight": values.T})  # not contiguous
    found, tensors = read_classifier(path)
    assert found == info
    assert np.array_equal(tensors["weight"], values.T)


def test_earlier_versions_are_read_as_what_they_were(tmp_path):
    """1: the image was seen as it is, and blocks were all there was. 2: every classifier was an ensemble over a backbone."""
    path = tmp_path / "a.mdm"
    info = ClassifierInfo((LabelClass(1, "a", "#000000"),), "b", "d", (6,), (50,), 512, 64, "fp32")
    write_classifier(path, info, {"weight": np.zeros(1, np.float32)})
    with zipfile.ZipFile(path) as archive:
        facts, tensors = json.loads(archive.read("classifier.json")), archive.read("ensemble.safetensors")
    lacking = {3: ("images",), 2: ("images", "head", "embedded"), 1: ("images", "head", "embedded", "scales", "filters")}
    for version, unknown in lacking.items():
        old = {key: value for key, value in facts.items() if key not in unknown} | {"version": version}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("classifier.json", json.dumps(old))
            archive.writestr("ensemble.safetensors", tensors)
        assert read_classifier(path)[0] == info


def test_a_backbone_comes_along(tmp_path):
    path = tmp_path / "a.mdm"
    info = ClassifierInfo((LabelClass(1, "a", "#000000"),), "b", "d", (0,), (50,), 512, 64, "fp32", embedded=True)
    backbone = EmbeddedBackbone({"name": "b"}, {"inner.weight": np.ones((2, 3), np.float16).T, "steps": np.array(7)})
    write_classifier(path, info, {"weight": np.zeros(1, np.float32)}, backbone)
    found = read_embedded(path)
    assert read_classifier(path)[0] == info
    assert found.card == {"name": "b"}
    assert found.digest == backbone.digest
    assert found.weights["inner.weight"].dtype == np.float16
    assert found.weights["steps"].shape == ()
    other = EmbeddedBackbone({}, {**backbone.weights, "steps": np.array(8)})
    assert other.digest != backbone.digest
