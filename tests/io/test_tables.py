import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.measure import label

from mdm_studio.errors import OutputError
from mdm_studio.io import tables
from mdm_studio.io.tables import object_table, objects_from_mask, write_rows


def test_columns_keep_the_order_of_first_use(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image": "a,b", "dice": np.float32(0.5), "n": np.int64(3)},
        {"image": 'µ"x"', "n": None, "extra": float("nan"), "dice": 1.0},
    ]
    write_rows(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_text("utf-8") == 'image,dice,n,extra\n"a,b",0.5,3,\n"µ""x""",1.0,,\n'


def test_no_rows_give_an_empty_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_bytes() == b""


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"t\.csv"):
        write_rows(tmp_path / "file" / "t.csv", [{"a": 1}])


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXT, "b,\n": st.integers(), '"c"': st.floats(allow_nan=False)}), min_size=1))
def test_tables_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    write_rows(path, rows)
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [{"a": row["a"], "b,\n": int(row["b,\n"]), '"c"': float(row['"c"'])} for row in read] == rows


def test_touching_objects_of_two_classes_stay_apart() -> None:
    mask = np.array([[1, 1, 2, 2], [0, 1, 2, 0], [3, 0, 0, 2], [0, 3, 0, 0]], np.uint8)
    np.testing.assert_array_equal(
        objects_from_mask(mask), np.array([[1, 1, 2, 2], [0, 1, 2, 0], [3, 0, 0, 2], [0, 3, 0, 0]], np.uint16), strict=True
    )


def test_small_objects_and_background_classes_are_left_out() -> None:
    mask = np.array([[1, 1, 1, 1], [1, 2, 1, 2], [1, 1, 1, 2], [0, 1, 1, 1]], np.uint8)
    assert objects_from_mask(mask, background=(0, 1)).tolist() == [[0] * 4, [0, 1, 0, 2], [0, 0, 0, 2], [0] * 4]
    assert objects_from_mask(mask, 2, background=(0, 1)).tolist() == [[0] * 4, [0, 0, 0, 1], [0, 0, 0, 1], [0] * 4]
    assert objects_from_mask(mask, background=()).max() == 4
    assert not objects_from_mask(np.zeros((1, 1), np.uint8)).any()


@settings(max_examples=60, deadline=None)
@given(
    mask=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)),
    band=st.integers(1, 13),
)
def test_bands_do_not_show(mask: NDArray[np.uint8], band: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_BAND_ROWS", band)
        objects = objects_from_mask(mask)
    whole = label(mask, background=0, connectivity=2)
    pairs = {(int(a), int(b)) for a, b in zip(objects.ravel(), whole.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert objects.max() == whole.max()
    assert (0, 0) in pairs or not (mask == 0).any()


def test_many_objects_need_32_bits() -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[::2, ::2] = 1
    assert objects_from_mask(mask).dtype == np.uint32
    assert objects_from_mask(mask).max() == 90000


def test_object_table() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 10:14] = 2
    mask[10, 20] = 1
    intensity = np.stack([np.full(mask.shape, 7), mask * 10]).astype(np.uint16)
    first, second = object_table(objects_from_mask(mask), mask, intensity, pixel_size=(0.5, 0.25), unit="micrometer")
    diameter = np.sqrt(4 * 16 / np.pi)
    assert first == pytest.approx({
        "label": 1, "class": 2, "area": 16.0, "centroid_y": 3.5, "centroid_x": 11.5,
        "bbox_top": 2, "bbox_left": 10, "bbox_bottom": 6, "bbox_right": 14,
        "equivalent_diameter": diameter, "eccentricity": 0.0, "mean_intensity_0": 7.0, "mean_intensity_1": 20.0,
        "area_micrometer2": 2.0, "equivalent_diameter_micrometer": np.sqrt(8 / np.pi),
        "centroid_y_micrometer": 1.75, "centroid_x_micrometer": 2.875,
    })  # fmt: skip
    assert (second["class"], second["area"], second["mean_intensity_1"]) == (1, 1, 10)
    assert list(first) == list(second)
    assert {type(value) for value in first.values()} == {int, float}


@pytest.mark.parametrize("channels", [1, 3])
def test_object_table_without_objects_or_with_one_channel(channels: int) -> None:
    mask = np.zeros((5, 6), np.uint8)
    intensity = np.ones((channels, 5, 6))
    assert object_table(mask, mask, intensity) == []
    mask[2, 3] = 4
    (row,) = object_table(objects_from_mask(mask), mask, intensity)
    assert [row[f"mean_intensity_{c}"] for c in range(channels)] == [1.0] * channels
    assert len(object_table(objects_from_mask(mask), mask)[0]) == 11


def test_object_table_refuses_other_sizes() -> None:
    mask = np.ones((5, 6), np.uint8)
    with pytest.raises(ValueError, match=r"\(5, 6\).*\(1, 6, 5\)"):
        object_table(mask, mask, np.ones((1, 6, 5)))
    with pytest.raises(ValueError, match=r"\(6, 5\).*none"):
        object_table(mask, mask.T)
