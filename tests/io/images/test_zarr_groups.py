"""Plates, slides of several series, and metadata of OME-Zarr that make no sense."""

import json
import re
import shutil

import numpy as np
import pytest
import zarr

from mdm_studio.errors import UnreadableImageError
from mdm_studio.io.image_levels import open_levels
from mdm_studio.io.images import find_images, image_name, open_image

MICROMETRES = {"y": "micrometer", "x": "micrometer"}
VERSIONS = ["0.4", "0.5"]


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(1, 255, shape).astype(np.uint8)


def make_group(path, metadata, version="0.5"):
    group = zarr.open_group(path, mode="a", zarr_format=3 if version == "0.5" else 2)
    group.attrs.update({"ome": metadata} if version == "0.5" else metadata)
    return group


def write_image(path, array, axes="yx", version="0.5", *, steps=None, units=MICROMETRES, levels=1, count=1):
    datasets = []
    for level in range(levels):
        coarse = array[..., :: 2**level, :: 2**level]
        group = make_group(path, {}, version)
        group.create_array(f"s{level}", shape=coarse.shape, dtype=coarse.dtype, chunks=coarse.shape)[...] = coarse
        scale = [{"type": "scale", "scale": [1.0] * (array.ndim - 2) + [0.5, 0.5]}]
        datasets.append({"path": f"s{level}", "coordinateTransformations": scale if steps is None else steps})
    named = [{"name": axis} | ({"unit": units[axis]} if axis in units else {}) for axis in axes]
    multiscales = [{"axes": named, "datasets": datasets, "name": f"m{number}"} for number in range(count)]
    make_group(path, {"multiscales": multiscales}, version)


def write_plate(path, wells, fields, version="0.5"):
    make_group(path, {"plate": {"wells": [{"path": well} for well in wells]}}, version)
    for well in wells:
        make_group(path / well.split("/")[0], {}, version)
        make_group(path / well, {"well": {"images": [{"path": str(number)} for number in range(fields)]}}, version)
        for number in range(fields):
            write_image(path / well / str(number), noise(2, 16, 12 + number), "cyx", version)


def write_slide(path, names, *, told=True):
    """As bioformats2raw writes a file of several series."""
    make_group(path, {"bioformats2raw.layout": 3})
    for number, _ in enumerate(names):
        write_image(path / str(number), noise(16 + number, 12))
    make_group(path / "OME", {"series": [str(number) for number, _ in enumerate(names)]})
    images = "".join(f'<Image ID="Image:{number}" Name="{name}"/>' for number, name in enumerate(names))
    if told:
        text = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{images}</OME>'
        (path / "OME" / "METADATA.ome.xml").write_text(text)


def relative(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


# ---- plates


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fields_of_a_plate_are_images(tmp_path, version):
    plate = tmp_path / "plate.ome.zarr"
    write_plate(plate, ["A/1", "A/2", "B/12"], 2, version)
    fields = find_images([plate])
    assert relative(fields, plate) == ["A/1/0", "A/1/1", "A/2/0", "A/2/1", "B/12/0", "B/12/1"]
    assert [image_name(path) for path in fields[:2]] + [image_name(fields[-1])] == [
        "plate_A1_f0",
        "plate_A1_f1",
        "plate_B12_f1",
    ]
    assert find_images([tmp_path]) == find_images([tmp_path / "**" / "*"]) == fields
    for number, path in enumerate(fields):
        with open_image(path) as image:
            assert (image.name, image.channels, image.width) == (image_name(path), 2, 12 + number % 2)
            assert (image.pixel_size, image.unit, image.remarks) == ((0.5, 0.5), "micrometer", ())
            np.testing.assert_array_equal(image.plane().read(slice(None), slice(None)), noise(2, 16, 12 + number % 2))


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ("A", ["A/1/0", "A/1/1", "A/2/0", "A/2/1"]),
        ("A/2", ["A/2/0", "A/2/1"]),
        ("A/2/1", ["A/2/1"]),
        ("*/*/0", ["A/1/0", "A/2/0"]),
        ("**/*", ["A/1/0", "A/1/1", "A/2/0", "A/2/1"]),
    ],
)
def test_parts_of_a_plate_can_be_named(tmp_path, item, wanted):
    plate = tmp_path / "plate.zarr"
    write_plate(plate, ["A/1", "A/2"], 2)
    write_image(plate / "A" / "1" / "0" / "labels" / "cells", noise(16, 12))  # label maps beside an image are none
    assert relative(find_images([plate / item]), plate) == wanted


@pytest.mark.parametrize("named", ["", "A", "A/1"])
def test_the_advice_for_a_plate_works(tmp_path, named):
    plate = tmp_path / "plate.zarr"
    write_plate(plate, ["A/1"], 2)
    with pytest.raises(UnreadableImageError) as caught:
        open_image(plate / named)
    found = re.search(r"it holds 2 images: name one of them, for example (\S+)$", str(caught.value))
    assert found is not None
    with open_image(found[1]) as image:
        assert image.name == "plate_A1_f0"
    assert len(find_images([found[1]])) == 1


def test_a_field_that_is_not_there_is_named_and_the_others_are_found(tmp_path):
    plate = tmp_path / "plate.zarr"
    write_plate(plate, ["A/1", "A/2"], 2)
    shutil.rmtree(plate / "A" / "1" / "1")
    shutil.rmtree(plate / "A" / "2")
    found = find_images([plate])
    assert relative(found, plate) == ["A/1/0", "A/1/1", "A/2"]
    open_image(found[0]).close()
    for path in found[1:]:
        with pytest.raises(UnreadableImageError, match="the file is not there"):
            open_image(path)


@pytest.mark.parametrize(
    ("inner", "name"), [("A/1/0", "p_A1_f0"), ("AB/12/3", "p_AB12_f3"), ("1/12/0", "p_1-12_f0"), ("0", "p_0"), ("A/1", "p_A_1")]
)
def test_names_of_images_in_a_zarr(inner, name):
    assert image_name(f"x/p.ome.zarr/{inner}") == name


# ---- slides of several series


def test_the_series_of_a_slide_are_images(tmp_path):
    write_slide(tmp_path / "s.zarr", ["one", "two", "three"])
    assert [image_name(path) for path in find_images([tmp_path])] == ["s_0", "s_1", "s_2"]
    with open_image(tmp_path / "s.zarr") as image:  # the folder stands for the first
        assert (image.height, image.left_out) == (16, ("series 2 and 3 of 3 (1, 2)",))
    assert open_levels(tmp_path / "s.zarr" / "2").levels[0].shape == (18, 12)


def test_label_and_overview_of_a_slide_are_no_images(tmp_path):
    write_slide(tmp_path / "s.zarr", ["label image", "scan", "macro image"])
    assert find_images([tmp_path]) == [tmp_path / "s.zarr"]
    with open_image(tmp_path / "s.zarr") as image:
        assert (image.name, image.height, image.left_out) == ("s", 17, ("label image, macro image",))
    write_slide(tmp_path / "t.zarr", ["x", "y"], told=False)
    assert [image_name(path) for path in find_images([tmp_path / "t.zarr"])] == ["t_0", "t_1"]


# ---- one image


@pytest.mark.parametrize("version", VERSIONS)
def test_units_and_scales_are_those_of_each_axis(tmp_path, version):
    units = {"y": "micrometer", "x": "nanometer"}
    write_image(tmp_path / "a.zarr", noise(8, 8), "yx", version, steps=[{"type": "scale", "scale": [0.5, 500]}], units=units)
    with open_image(tmp_path / "a.zarr") as image:
        assert (image.pixel_size, image.unit, image.notes) == ((0.5, 0.5), "micrometer", ())


@pytest.mark.parametrize(
    ("steps", "units"),
    [
        ([{"type": "scale", "scale": [-1.0, 1.0]}], MICROMETRES),
        ([{"type": "scale", "scale": [0.0, 1.0]}], MICROMETRES),
        ([{"type": "scale", "scale": [float("nan"), 1.0]}], MICROMETRES),
        ([{"type": "scale", "scale": ["wide", 1.0]}], MICROMETRES),
        ([{"type": "scale", "scale": [0.5]}], MICROMETRES),
        ([{"type": "scale", "scale": "0.5"}], MICROMETRES),
        (None, {"x": "micrometer"}),
        (None, {"y": 7, "x": 7}),
        (None, {"y": "furlong", "x": "furlong"}),
    ],
)
def test_a_scale_that_makes_no_sense_is_dropped_with_a_word(tmp_path, steps, units):
    write_image(tmp_path / "a.zarr", noise(8, 8), steps=steps, units=units)
    with open_image(tmp_path / "a.zarr") as image:
        assert (image.pixel_size, image.unit) == (None, None)
        assert "the pixel size is dropped" in image.notes[0]
        np.testing.assert_array_equal(image.plane().read(slice(None), slice(None))[0], noise(8, 8))


def test_several_multiscales_levels_in_another_order_and_odd_axes(tmp_path):
    write_image(tmp_path / "a.zarr", noise(16, 16), levels=3, count=2)
    path = tmp_path / "a.zarr" / "zarr.json"
    facts = json.loads(path.read_text())
    multiscale = facts["attributes"]["ome"]["multiscales"][0]
    multiscale["datasets"].reverse()
    multiscale["axes"] = [{"name": 5}, "q", None]
    path.write_text(json.dumps(facts))
    with open_image(tmp_path / "a.zarr") as image:
        assert (image.height, image.left_out) == (16, ("multiscale 2 of 2 (m1)",))
        assert image.notes == ("its axes make no sense: they are taken for y, x",)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"attributes": 5}',
        '{"attributes": {"ome": {"multiscales": 5}}}',
        '{"attributes": {"ome": {"multiscales": [{"datasets": []}]}}}',
        '{"attributes": {"ome": {"multiscales": [{"datasets": [{"path": "../../x"}]}]}}}',
        '{"attributes": {"ome": {"plate": {"wells": [{"path": "/etc"}]}}}}',
        '{"attributes": {"ome": {"plate": {"wells": 1}}}}',
    ],
)
def test_metadata_that_are_no_ome_zarr_are_one_line(tmp_path, text):
    write_image(tmp_path / "a.zarr", noise(8, 8))
    (tmp_path / "a.zarr" / "zarr.json").write_text(text)
    assert find_images([tmp_path]) == [tmp_path / "a.zarr"]  # and opening it tells why
    with pytest.raises(UnreadableImageError, match=r"a\.zarr") as caught:
        open_image(tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)
