"""Our OME-Zarr masks in other people's eyes: napari's reader, and the models of the specification."""

import warnings

import numpy as np
import pytest

from mdm_studio.io.masks import open_mask

COLOURS = {1: "#ff0000", 2: "#00ff00"}
NAMES = {1: "ground", 2: "nucleus"}


@pytest.fixture(params=["YX", "TZYX"])
def written(request, tmp_path):
    """A mask of two levels, in a folder of its own: the reader looks for an image around it."""
    axes = request.param
    shape = (2, 3, 600, 40)[-len(axes) :]
    folder = tmp_path / "project" / "masks"
    folder.mkdir(parents=True)
    stack = list(np.ndindex(shape[:-2]))
    options = {"palette": COLOURS, "names": NAMES, "pixel_size": (0.5, 0.25), "unit": "micrometer"}
    with open_mask(folder / "field 7", shape, np.uint8, format="ome-zarr", axes=axes, **options) as writer:
        for number, place in enumerate(stack):
            writer.write(0, 0, np.full((600, 40), 1 + number % 2, np.uint8), index=place)
    return folder / "field 7.ome.zarr", axes, shape


def test_napari_shows_a_labels_layer_in_the_class_colours(written):
    path, axes, shape = written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        from napari.layers import Layer
        from napari_ome_zarr import napari_get_reader

        ((levels, metadata, kind),) = napari_get_reader(str(path))()
        layer = Layer.create(levels, metadata, kind)
    assert kind == "labels"
    assert [level.shape for level in levels] == [shape, (*shape[:-2], 300, 20)]
    np.testing.assert_allclose(layer.scale[-2:], (0.5, 0.25))
    assert [str(unit) for unit in layer.units[-2:]] == ["micrometer"] * 2
    assert layer.axis_labels == tuple(axes.lower())
    np.testing.assert_allclose(layer.get_color(1), (1, 0, 0, 1))
    np.testing.assert_allclose(layer.get_color(2), (0, 1, 0, 1))
    assert layer.features["class"].tolist() == ["ground", "nucleus"]  # what its status bar names
    assert int(np.asarray(layer.data[0][(0,) * len(shape)])) == 1


def test_it_is_valid_to_the_models_of_the_specification(written):
    import zarr
    from ome_zarr_models.v05 import ImageLabel

    facts = ImageLabel.from_zarr(zarr.open_group(written[0], mode="r")).attributes.ome
    assert [each.label_value for each in facts.image_label.colors] == [1, 2]
    assert facts.multiscales[0].name == "field 7"
    assert len(facts.multiscales[0].datasets) == 2


def test_numbered_objects_are_labels_without_colours(tmp_path):
    import zarr

    with open_mask(tmp_path / "a", (5, 6), np.uint32, format="ome-zarr") as writer:
        writer.write(0, 0, np.arange(30, dtype=np.uint32).reshape(5, 6))
    assert zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["ome"]["image-label"] == {"version": "0.5"}
