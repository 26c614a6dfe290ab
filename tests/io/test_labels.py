from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from mdm_studio.errors import LabelsError, UnreadableImageError
from mdm_studio.io import labels
from mdm_studio.io.labels import check_learnable, class_values, find_labels, labelled_points, read_labels

MAP = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def save(path: Path, array: NDArray[Any]) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def test_palette_png_gives_its_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(MAP)
    picture.putpalette([9, 9, 9, 9, 9, 9, 255, 0, 0])  # two classes of one colour
    picture.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", (2, 3)), MAP, strict=True)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", MAP),
        ("a.png", np.repeat(MAP[..., None], 3, axis=2)),
        ("a.png", MAP.astype(np.uint16)),
        ("a.bmp", MAP),
        ("a.tif", MAP.astype(np.int64)),
        ("a.tif", MAP.astype(np.float32)),
        ("a.npy", MAP.astype(np.int8)),
    ],
)
def test_one_whole_number_a_pixel_in_any_format(tmp_path: Path, name: str, array: NDArray[Any]) -> None:
    np.testing.assert_array_equal(read_labels(save(tmp_path / name, array), (2, 3)), MAP, strict=True)


def test_one_bit_is_0_and_1(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.npy"):
        np.testing.assert_array_equal(read_labels(save(tmp_path / name, MAP == 1), (2, 3)), MAP == 1)


def test_values_above_255_need_16_bits(tmp_path: Path) -> None:
    array = MAP.astype(np.int32) * 30000
    np.testing.assert_array_equal(read_labels(save(tmp_path / "a.tif", array), (2, 3)), array.astype(np.uint16), strict=True)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("a.png", MAP.T, r"a\.png has 3 x 2 pixels and its image 2 x 3"),
        ("a.png", np.stack([MAP, MAP, MAP + 1], axis=-1), "3 channels that differ"),
        ("a.npy", np.stack([MAP] * 4, axis=-1), "4 channels"),
        ("a.tif", MAP.astype(np.int16) - 1, "values from -1 to 1"),
        ("a.tif", MAP.astype(np.int32) * 40000, "values from 0 to 80000"),
        ("a.tif", MAP / np.float32(2), "fractions"),
        ("a.tif", np.where(MAP == 1, np.nan, MAP).astype(np.float32), "values from nan"),
        ("a.jpg", MAP, "JPEG"),
    ],
)
def test_what_is_no_label_map_of_the_image(tmp_path: Path, name: str, array: NDArray[Any], words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        read_labels(save(tmp_path / name, array), (2, 3))


def test_planes_of_a_stack(tmp_path: Path) -> None:
    stack = np.stack([MAP, MAP * 3, MAP * 4, MAP * 5, MAP * 6])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif", (2, 3), plane=1), MAP * 3)
    with pytest.raises(LabelsError, match="5 planes and plane 5"):
        read_labels(tmp_path / "a.tif", (2, 3), plane=5)


def test_a_damaged_label_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableImageError, match=r"a\.png"):
        read_labels(tmp_path / "a.png", (2, 3))


def folder_of(path: Path, *names: str) -> list[Path]:
    path.mkdir()
    for name in names:
        (path / name).touch()
    return [path / name for name in names]


def test_find_labels_by_name_whatever_the_extension(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "images", "a.tif", "b.png", "c.ome.tif", "d.png")
    folder_of(tmp_path / "labels", "a.png", "c.npy", "x.png", "d.txt", ".b.png", "x.tif")
    found = find_labels(images, tmp_path / "labels")
    assert found == {images[0]: tmp_path / "labels" / "a.png", images[2]: tmp_path / "labels" / "c.npy"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x.png"], r"none of the 2 images .* for example a\.png; there are 1 others, for example x\.png"),
        ([], "it is empty"),
        (["a.png", "a.tif"], r"a\.(png|tif) and .*a\.(png|tif) are called like the same image"),
    ],
)
def test_labels_not_found_or_ambiguous(tmp_path: Path, names: list[str], words: str) -> None:
    images = folder_of(tmp_path / "images", "a.tif", "b.png")
    folder_of(tmp_path / "labels", *names)
    with pytest.raises(LabelsError, match=words):
        find_labels(images, tmp_path / "labels")
    with pytest.raises(LabelsError, match="does not exist"):
        find_labels(images, tmp_path / "nowhere")


MAPS = hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), fill=st.just(0))


@settings(max_examples=25, deadline=None)
@given(label_map=MAPS, unlabelled=st.sampled_from([None, 0, 3]))
def test_points_rebuild_the_map(label_map: NDArray[Any], unlabelled: int | None) -> None:
    rows, cols, values = labelled_points(label_map, unlabelled)
    rebuilt = np.full_like(label_map, 0 if unlabelled is None else unlabelled)
    rebuilt[rows, cols] = values
    np.testing.assert_array_equal(rebuilt, label_map)
    assert len(values) == (label_map.size if unlabelled is None else np.count_nonzero(label_map != unlabelled))
    assert values.dtype == label_map.dtype
    assert class_values([label_map], unlabelled) == tuple(sorted(set(values.tolist())))


@settings(max_examples=25, deadline=None)
@given(label_map=MAPS, extension=st.sampled_from([".png", ".tif", ".npy"]))
def test_files_round_trip(tmp_path_factory: pytest.TempPathFactory, label_map: NDArray[Any], extension: str) -> None:
    path = save(tmp_path_factory.mktemp("labels") / f"a{extension}", label_map)
    read = read_labels(path, (label_map.shape[0], label_map.shape[1]))
    np.testing.assert_array_equal(read, label_map)
    assert read.dtype == (np.uint8 if label_map.max() < 256 else np.uint16)


@pytest.mark.parametrize("band", [7, 1 << 20])
def test_a_limit_keeps_an_even_part(monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    monkeypatch.setattr(labels, "_BAND_PIXELS", band)
    label_map = np.tile(np.array([0, 0, 1, 2], np.uint8), (100, 100))
    rows, cols, values = labelled_points(label_map, 0, limit=2000, seed=1)
    assert 1800 < len(values) < 2200
    assert 0.45 < np.mean(values == 1) < 0.55
    np.testing.assert_array_equal(label_map[rows, cols], values)
    np.testing.assert_array_equal(labelled_points(label_map, 0, limit=2000, seed=1)[0], rows)
    assert not np.array_equal(labelled_points(label_map, 0, limit=2000, seed=2)[0][:100], rows[:100])
    assert len(labelled_points(label_map, 0, limit=10**6)[0]) == 20000


def test_learnable_labels_give_their_classes() -> None:
    assert check_learnable([MAP, np.zeros_like(MAP), MAP * 2], 0) == (1, 2, 4)
    assert check_learnable([np.array([0, 7])], None) == (0, 7)


@pytest.mark.parametrize(
    ("maps", "unlabelled", "words"),
    [
        ([MAP * 0], 0, "no labelled pixel in 1 label map: .*--unlabelled none"),
        ([], 0, "no labelled pixel in 0 label maps"),
        ([np.minimum(MAP, 1), MAP * 0], 0, "in 2 label maps have the value 1 and two classes .*--unlabelled none"),
        ([np.arange(300)], 0, "299 different values .* objects"),
    ],
)
def test_nothing_to_learn_from(maps: list[NDArray[Any]], unlabelled: int, words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        check_learnable(maps, unlabelled)


def test_a_dense_map_of_one_class_is_not_sent_to_the_flag_it_already_has() -> None:
    with pytest.raises(LabelsError, match="have the value 0") as caught:
        check_learnable([MAP * 0], None)
    assert "--unlabelled" not in str(caught.value)
