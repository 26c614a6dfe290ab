import numpy as np
import pytest

from mdm_studio.engine import objects as module
from mdm_studio.engine.measurements import measure
from mdm_studio.engine.objects import ObjectOptions, find_objects, finished
from mdm_studio.io.images import ArrayPlane
from mdm_studio.testing import blobs


def measured(mask, pixels, background=0, **options):
    steps = find_objects(mask, ObjectOptions(), background, lambda name, shape, dtype: np.zeros(shape, dtype))
    return finished(measure(finished(steps), ArrayPlane(pixels), **options))


def test_every_column():
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 10:14] = 2
    mask[10, 20] = 1
    pixels = np.stack([np.full(mask.shape, 7), mask * 10]).astype(np.uint16)
    pixels[0, 2, 10] = 23
    table = measured(mask, pixels, pixel_size=(0.5, 0.5), unit="micrometer")
    first = {name: values[0].item() for name, values in table.items()}
    diameter, axis = np.sqrt(4 * 16 / np.pi), np.sqrt(20)
    assert first == pytest.approx({
        "label": 1, "class": 2, "area": 16, "centroid_y": 3.5, "centroid_x": 11.5,
        "bbox_top": 2, "bbox_left": 10, "bbox_bottom": 6, "bbox_right": 14, "equivalent_diameter": diameter, "perimeter": 12,
        "major_axis": axis, "minor_axis": axis, "orientation": -np.pi / 4, "eccentricity": 0.0, "solidity": 1.0,
        "mean_intensity_0": 8.0, "min_intensity_0": 7.0, "max_intensity_0": 23.0, "std_intensity_0": np.sqrt(15),
        "mean_intensity_1": 20.0, "min_intensity_1": 20.0, "max_intensity_1": 20.0, "std_intensity_1": 0.0,
        "area_micrometer2": 4.0, "equivalent_diameter_micrometer": diameter / 2, "centroid_y_micrometer": 1.75,
        "centroid_x_micrometer": 5.75, "perimeter_micrometer": 6, "major_axis_micrometer": axis / 2,
        "minor_axis_micrometer": axis / 2,
    })  # fmt: skip
    assert (table["class"][1], table["area"][1], table["solidity"][1], table["mean_intensity_1"][1]) == (1, 1, 1, 10)
    assert {table[name].dtype.kind for name in ("label", "class", "area", "bbox_top")} == {"i"}
    oblong = measured(mask, pixels, pixel_size=(0.5, 0.25), unit="micrometer")
    assert oblong["area_micrometer2"][0] == 2
    assert "perimeter_micrometer" not in oblong  # scikit-image knows no such perimeter


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_no_objects_give_the_same_columns_without_rows(dtype):
    mask = np.zeros((5, 6), np.uint8)
    empty = measured(mask, np.ones((3, 5, 6), dtype))
    mask[2, 3] = 4
    one = measured(mask, np.ones((3, 5, 6), dtype))
    assert {name: values.dtype for name, values in empty.items()} == {name: values.dtype for name, values in one.items()}
    assert all(len(values) == 0 for values in empty.values())
    assert [one[f"mean_intensity_{c}"][0] for c in range(3)] == [1.0] * 3


def test_windows_do_not_show_and_the_largest_are_summed_up(monkeypatch):
    image, mask = blobs(120, 140, seed=2)
    mask = mask.astype(np.uint8)
    pixels = np.moveaxis(image, -1, 0)
    whole = measured(mask, pixels, 1, pixel_size=(0.5, 0.5), unit="micrometer")
    assert len(whole["label"]) > 3
    monkeypatch.setattr(module, "_BAND_PIXELS", 1000)
    monkeypatch.setattr(module, "_CELL", 16)
    apart = measured(mask, pixels, 1, pixel_size=(0.5, 0.5), unit="micrometer")
    for name, values in whole.items():
        np.testing.assert_allclose(apart[name], values, rtol=1e-9, err_msg=name)
    monkeypatch.setattr(module, "WHOLE", int(np.median(whole["area"])))
    summed = measured(mask, pixels, 1, pixel_size=(0.5, 0.5), unit="micrometer")
    lost = np.isnan(summed["perimeter"])
    assert lost.any()
    assert not lost.all()
    for name, values in whole.items():
        known = ~lost if name.startswith(("perimeter", "solidity")) else slice(None)
        np.testing.assert_allclose(summed[name][known], values[known], rtol=1e-6, atol=1e-6, err_msg=name)
