"""Projects of earlier versions open, keep every stroke, and are written anew only when nothing can be lost."""

import json
import time

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from mdm_studio.config import user_data_dir
from mdm_studio.errors import OutputError
from mdm_studio.io import atomic
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.services.project import ImageFacts, Project, image_key
from mdm_studio.services.session import LiveSettings, Session
from mdm_studio.testing import blobs

ALL = slice(None)


def write_version_1(folder, key="ab12", stack=(), shape=(600, 700), name="cells/µm", source=None):
    """What the program wrote until version 2: an array KEY.zarr for each image."""
    labels = folder / "labels" / f"{key}.zarr"
    array = zarr.create_array(
        labels,
        shape=(*stack, *shape),
        chunks=(*(1 for _ in stack), 512, 512),
        dtype="uint8",
        fill_value=0,
        compressors=ZstdCodec(level=1, checksum=True),
    )
    array[(*(0 for _ in stack), slice(5, 8), slice(0, 9))] = 7
    image = {"name": name, "source": source, "stack_shape": stack, "shape": shape, "dtype": "|u1"}
    facts = {
        "version": 1,
        "classes": [{"value": 7, "name": "Zellkern", "color": "#e69f00"}],
        "settings": {"smooth": 3},
        "images": {key: image},
        "view": {"zoom": 2},
    }
    (folder / "project.json").write_text(json.dumps(facts))
    return ImageFacts(name, source, tuple(stack), shape, "|u1")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("stack", [(), (2,), (2, 2, 1, 2)])
def test_a_project_of_version_1_opens_with_its_strokes_classes_and_settings(tmp_path, stack):
    facts = write_version_1(tmp_path, stack=stack, source=str(tmp_path / "cells.tif"))
    with Project.open(tmp_path) as project:
        assert project.state.images == {"ab12": facts}
        assert project.state.classes[0].name == "Zellkern"
        assert (project.state.settings, project.state.view) == ({"smooth": 3}, {"zoom": 2})
        labels = project.open_labels("ab12", facts)
        assert labels.read(tuple(0 for _ in stack), ALL, ALL).sum() == 3 * 9 * 7
        assert project.warnings == ()
    assert names(tmp_path) == ["labels", "project.json"]
    assert names(tmp_path / "labels") == ["cells_µm-ab12.ome.zarr", "cells_µm-ab12.painted.json"]
    stored = json.loads((tmp_path / "project.json").read_text())
    assert (stored["version"], stored["images"]["ab12"]["path"]) == (2, "cells.tif")
    array = zarr.open_group(tmp_path / "labels" / "cells_µm-ab12.ome.zarr", mode="r")["0"]
    assert array.metadata.dimension_names[-2:] == ("y", "x")


def test_the_old_file_is_kept_until_the_new_one_is_written(tmp_path, monkeypatch):
    facts = write_version_1(tmp_path)
    old = (tmp_path / "project.json").read_text()
    with monkeypatch.context() as patch:

        def full(path, text, write=atomic.write_text):
            if path.name == "project.json":
                raise OutputError("the disk is full")
            write(path, text)

        patch.setattr("mdm_studio.services.project.write_text", full)
        with pytest.raises(OutputError, match="full"):
            Project.open(tmp_path)
    assert (tmp_path / "project.json").read_text() == old == (tmp_path / "project.v1.json").read_text()
    with Project.open(tmp_path) as project:
        assert project.open_labels("ab12", facts).read((), ALL, ALL).sum() == 3 * 9 * 7
    assert names(tmp_path) == ["labels", "project.json"]


def test_strokes_of_version_1_outlive_a_lost_project_file(tmp_path):
    facts = write_version_1(tmp_path)
    (tmp_path / "project.json").unlink()
    with Project.open(tmp_path) as project:
        assert project.open_labels("ab12", facts).read((), ALL, ALL).sum() == 3 * 9 * 7
    assert names(tmp_path / "labels") == ["image-ab12.ome.zarr", "image-ab12.painted.json"]


def test_a_recovery_project_of_version_1_brings_its_strokes_back(tiny_backbone):
    pixels, _ = blobs(60, 70)
    image = ArrayImage(pixels, rgb=True, name="a")
    key = image_key(ImageFacts("a", None, (), (60, 70), "|u1"), image.plane(()).sample(1 << 14))
    folder = user_data_dir() / "projects" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    write_version_1(folder, key, shape=(60, 70), name="a")
    session = Session(settings=LiveSettings(backbone=str(tiny_backbone)), keep="automatic")
    labels = np.zeros((60, 70), np.uint8)
    restored = []
    session.labels_rewritten.connect(restored.append)
    session.open_image("a", image, labels)
    session.after_strokes(lambda: restored.append("taken over"))
    while "taken over" not in restored:
        time.sleep(0.01)
    assert labels.sum() == 3 * 9 * 7
    assert [each.name for each in session.classes] == ["Zellkern"]
    session.close()
    assert names(folder / "labels") == [f"a-{key}.ome.zarr", f"a-{key}.painted.json"]
