"""Tables of images and their classes."""

from pathlib import Path

import pytest

from mdm_studio.errors import LabelsError
from mdm_studio.io.image_classes import ImageClass, read_image_classes

IMAGES = [Path("a/one.png"), Path("a/two.v2.tif"), Path("a/three.ome.tiff")]


def _table(tmp_path, text, **columns):
    path = tmp_path / "classes.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_image_classes(path, IMAGES, **columns)


def test_names_with_and_without_extension(tmp_path):
    found = _table(tmp_path, "\ufeffimage,label,group\ntwo.v2, benign ,p1\none.png,malignant,p2\nthree,,p3\n")
    assert list(found.items()) == [(IMAGES[0], ImageClass("malignant", "p2")), (IMAGES[1], ImageClass("benign", "p1"))]


def test_other_columns(tmp_path):
    text = "name,type,group,patient\na/b/one,x,9,3\nthree.ome.tiff,y,9,4\n"
    found = _table(tmp_path, text, image="name", label="type", group="patient")
    assert [each.group for each in found.values()] == ["3", "4"]
    assert _table(tmp_path, "image,label\none,x\n")[IMAGES[0]] == ImageClass("x")


def test_too_many_and_too_few_fields_hurt_nobody(tmp_path):
    assert _table(tmp_path, "image,label\none,x,extra,more\ntwo.v2\n") == {IMAGES[0]: ImageClass("x")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,class\none,x\n", "no column 'label' but image, class"),
        ("", "no column 'image' but nothing"),
        ("image,label\none,x\nfour,y\nfive.png,y\n", "2 images that are not among the 3 given: four, five.png"),
        ("image,label\none,x\none.png,y\n", "two things about one.png"),
        (b"image,label\none,\xff\xfe\n", "cannot be read as a CSV file"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, words):
    with pytest.raises(LabelsError, match=words):
        _table(tmp_path, text)


def test_no_table(tmp_path):
    with pytest.raises(LabelsError, match="there is no table"):
        read_image_classes(tmp_path / "no.csv", IMAGES)
    with pytest.raises(LabelsError, match="cannot be read"):
        read_image_classes(tmp_path, IMAGES)
