import contextlib
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from mdm_studio.errors import OutputError, UsageError
from mdm_studio.io import masks
from mdm_studio.io.images import open_image
from mdm_studio.io.masks import MaskFormat, class_palette, has_whole, mask_path, open_mask

FORMATS = get_args(MaskFormat)
Array = NDArray[Any]


def write_in_tiles(path: Path, array: Array, tile: int = 100, **options: Any) -> Path:
    """`array` (H, W) or (C, H, W), the last tile first."""
    with open_mask(path, array.shape, array.dtype, **options) as writer:
        for y in reversed(range(0, array.shape[-2], tile)):
            for x in reversed(range(0, array.shape[-1], tile)):
                writer.write(y, x, array[..., y : y + tile, x : x + tile])
    return mask_path(path.parent, path.name, options["format"])


def read(path: Path, plane: int = 0) -> Array:
    with open_image(path, values=True) as image:
        return image.plane(plane).read(slice(None), slice(None))


def random_mask(*shape: int, highest: int = 3, dtype: str = "uint8") -> Array:
    return np.random.default_rng(0).integers(0, highest + 1, shape).astype(dtype)


@pytest.mark.parametrize("format_", FORMATS)
@settings(max_examples=15, deadline=None)
@given(
    array=hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)),
    tile=st.integers(7, 50),
)
def test_masks_round_trip(tmp_path_factory: pytest.TempPathFactory, format_: MaskFormat, array: Array, tile: int) -> None:
    folder = tmp_path_factory.mktemp("masks")
    path = write_in_tiles(folder / "a.b", array, tile, format=format_, palette=class_palette(3))
    assert [child.name for child in folder.iterdir()] == [path.name]
    assert has_whole(path)
    np.testing.assert_array_equal(read(path)[0], array)


@pytest.mark.parametrize("format_", ["tiff", "ome-zarr", "npy"])
def test_probabilities_round_trip(tmp_path: Path, format_: MaskFormat) -> None:
    array = np.random.default_rng(0).random((5, 530, 70), np.float32)
    path = write_in_tiles(tmp_path / "p", array, format=format_, axes="CYX")
    np.testing.assert_array_equal(read(path), array, strict=True)


@pytest.mark.parametrize("format_", ["tiff", "ome-zarr", "npy"])
@pytest.mark.parametrize("axes", ["TZCYX", "ZYX", "ZTYX", "QCYX", "PIYX"])
def test_stacks_round_trip(tmp_path: Path, format_: MaskFormat, axes: str) -> None:
    lengths = {"T": 2, "Z": 3, "Q": 2, "P": 2, "I": 3, "C": 5, "Y": 21, "X": 18}
    array = random_mask(*(lengths[axis] for axis in axes))
    stack = array.shape[: len(axes) - (3 if "C" in axes else 2)]
    with open_mask(tmp_path / "a", array.shape, "uint8", format=format_, axes=axes) as writer:
        for index in np.ndindex(stack):
            writer.write(0, 0, array[index], index=index)
    path = mask_path(tmp_path, "a", format_)
    if format_ == "npy":
        np.testing.assert_array_equal(np.load(path), array)
        return
    with open_image(path) as image:
        order = [image.stack_axes.index(axis) for axis in masks.ome_axes(axes)[: len(stack)]]
        assert tuple(image.stack_shape[i] for i in order) == stack
        for index in np.ndindex(stack):
            where = [0] * len(stack)
            for i, n in zip(order, index, strict=True):
                where[i] = n
            plane = image.plane(int(np.ravel_multi_index(where, image.stack_shape)))
            np.testing.assert_array_equal(plane.read(slice(None), slice(None)), array[index].reshape(plane.shape))


def test_png_shows_the_class_colours(tmp_path: Path) -> None:
    mask = random_mask(30, 20)
    path = write_in_tiles(tmp_path / "a", mask, format="png", palette={0: "#000000", 1: "#FF8000", 3: "#0000ff"})
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        shown = np.asarray(picture.convert("RGB"))
    for value, colour in {0: (0, 0, 0), 1: (255, 128, 0), 3: (0, 0, 255)}.items():
        assert (shown[mask == value] == colour).all()


@pytest.mark.parametrize(("highest", "mode"), [(255, "L"), (256, "I;16")])
def test_png_takes_16_bits_when_they_are_needed(tmp_path: Path, highest: int, mode: str) -> None:
    mask = random_mask(60, 50, highest=highest, dtype="uint16")
    mask[5, 5] = highest
    path = write_in_tiles(tmp_path / "a", mask, format="png")
    with Image.open(path) as picture:
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture), mask)


@pytest.mark.parametrize("format_", ["tiff", "ome-zarr"])
@pytest.mark.parametrize("unit", ["micrometer", "nanometer", "inch"])
def test_pixel_size_travels_with_the_mask(tmp_path: Path, format_: MaskFormat, unit: str) -> None:
    path = write_in_tiles(tmp_path / "a", random_mask(6, 7), format=format_, pixel_size=(0.5, 0.25), unit=unit)
    with open_image(path) as image:
        assert (image.pixel_size, image.unit) == ((0.5, 0.25), unit)


def test_pixel_size_for_plain_readers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"pixel_size": (0.5, 0.25), "unit": "micrometer"}
    path = write_in_tiles(tmp_path / "a", random_mask(6, 7), format="tiff", **options)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        assert tags.valueof("ResolutionUnit") == 3
        numerator, denominator = tags.valueof("XResolution")
        assert numerator / denominator == pytest.approx(40000)
        assert tif.pages[0].is_tiled
    path = write_in_tiles(tmp_path / "a", random_mask(6, 7), format="png", **options)
    with Image.open(path) as picture:
        assert picture.info["dpi"] == pytest.approx((4e6 * 0.0254, 2e6 * 0.0254))


def test_an_unknown_unit_does_no_harm(tmp_path: Path) -> None:
    for format_ in FORMATS:
        write_in_tiles(tmp_path / "a", random_mask(6, 7), format=format_, pixel_size=(2.0, 2.0), unit="furlong")


def test_a_large_tiff_gets_64_bit_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_CLASSIC_TIFF", 10)
    path = write_in_tiles(tmp_path / "a", random_mask(60, 70), format="tiff")
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
        np.testing.assert_array_equal(tif.asarray(), random_mask(60, 70))


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")  # on import, its own class
def test_ome_zarr_reads_its_masks(tmp_path: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    mask = random_mask(1300, 601)
    palette = {1: "#ff0000", 2: "#00ff00"}
    path = write_in_tiles(tmp_path / "a", mask, format="ome-zarr", palette=palette, pixel_size=(0.5, 0.25), unit="micrometer")
    location = parse_url(path)
    assert location is not None
    (node,) = Reader(location)()
    assert [level.shape for level in node.data] == [(1300, 601), (650, 301), (325, 151)]
    np.testing.assert_array_equal(node.data[0].compute(), mask)
    np.testing.assert_array_equal(node.data[2].compute(), mask[::4, ::4])
    assert node.metadata["axes"] == [
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    assert node.metadata["coordinateTransformations"][2] == [
        {"type": "scale", "scale": [2.0, 1.0]},
        {"type": "translation", "translation": [0.75, 0.375]},
    ]
    assert node.metadata["color"] == {1: [1, 0, 0, 1], 2: [0, 1, 0, 1]}


def test_the_pyramid_of_probabilities_holds_means(tmp_path: Path) -> None:
    import zarr

    array = np.random.default_rng(0).random((2, 1027, 5), np.float32)
    path = write_in_tiles(tmp_path / "a", array, format="ome-zarr", axes="CYX")
    half = np.asarray(zarr.open_array(path / "1", mode="r"))
    assert half.shape == (2, 514, 3)
    np.testing.assert_allclose(half[:, 510, 1], array[:, 1020:1022, 2:4].mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(half[:, 513, 2], array[:, 1026, 4], rtol=1e-6)


def test_what_is_not_written_is_zero(tmp_path: Path) -> None:
    for format_ in FORMATS:
        with open_mask(tmp_path / "a", (40, 30), "uint8", format=format_) as writer:
            writer.write(20, 10, np.full((5, 5), 2, np.uint8))
            writer.write(0, 0, np.empty((0, 5), np.uint8))
        mask = read(mask_path(tmp_path, "a", format_))[0]
        assert mask.sum() == 50
        assert (mask[20:25, 10:15] == 2).all()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_failure_leaves_nothing_behind(tmp_path: Path, format_: MaskFormat) -> None:
    def fail_half_way() -> None:
        with open_mask(tmp_path / "a", (40, 30), "uint8", format=format_) as writer:
            writer.write(0, 0, np.ones((5, 5), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", FORMATS)
def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path, format_: MaskFormat) -> None:
    path = write_in_tiles(tmp_path / "a", random_mask(9, 9), format=format_)
    with pytest.raises(OutputError, match=r"a\..*exists already: pass --overwrite"):
        write_in_tiles(tmp_path / "a", random_mask(9, 9), format=format_)
    write_in_tiles(tmp_path / "a", random_mask(9, 9) + 1, format=format_, overwrite=True)
    np.testing.assert_array_equal(read(path)[0], random_mask(9, 9) + 1)
    assert list(tmp_path.iterdir()) == [path]


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The operating system refuses longer files, as a full disk would."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_that_fills_up_is_told(tmp_path: Path, format_: MaskFormat) -> None:
    noise = random_mask(300, 300, highest=255)
    with files_up_to(20_000), pytest.raises(OutputError, match=r"cannot write .*a\."):
        write_in_tiles(tmp_path / "a", noise, format=format_)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "png", "axes": "CYX", "shape": (2, 5, 5)}, "PNG holds a single mask"),
        ({"format": "png", "axes": "ZYX", "shape": (2, 5, 5)}, "--format tiff"),
        ({"format": "png", "dtype": "float32"}, "PNG holds whole numbers .* not float32"),
        ({"format": "tiff", "axes": "TZQYX", "shape": (1, 1, 1, 5, 5)}, "two axes at most"),
        ({"format": "ome-zarr", "axes": "TZQYX", "shape": (1, 1, 1, 5, 5)}, "--format npy"),
        ({"format": "png", "palette": {1: "red"}}, "'red' is not understood"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    merged = {"shape": (5, 5), "dtype": "uint8", **options}
    with pytest.raises(UsageError, match=words), open_mask(tmp_path / "a", **merged):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("y", "x", "block", "index", "words"),
    [
        (0, 0, np.zeros((2, 11)), (0,), "does not fit"),
        (-1, 0, np.zeros((2, 2)), (0,), "does not fit"),
        (0, 0, np.zeros((2, 2, 2)), (0,), "does not fit"),
        (0, 0, np.zeros((2, 2)), (), "does not fit"),
        (0, 0, np.zeros((2, 2)), (3,), "does not fit"),
        (0, 0, np.zeros((2, 2)), (0,), "type float64"),
    ],
)
def test_blocks_that_do_not_fit(tmp_path: Path, y: int, x: int, block: Array, index: tuple[int, ...], words: str) -> None:
    with (
        pytest.raises(ValueError, match=words),
        open_mask(tmp_path / "a", (3, 10, 10), "uint8", format="npy", axes="ZYX") as writer,
    ):
        writer.write(y, x, block, index=index)


@pytest.mark.parametrize("axes", ["XY", "CZYX", "YX", "ZZYX"])
def test_axes_that_do_not_describe_the_shape(tmp_path: Path, axes: str) -> None:
    shape = (4, 4, 4) if axes == "YX" else (4,) * len(axes)
    with pytest.raises(ValueError, match="axes"), open_mask(tmp_path / "a", shape, "uint8", format="npy", axes=axes):
        pass


@pytest.mark.parametrize("format_", FORMATS)
def test_has_whole(tmp_path: Path, format_: MaskFormat) -> None:
    path = mask_path(tmp_path, "a", format_)
    assert not has_whole(path)
    write_in_tiles(tmp_path / "a", random_mask(90, 90), format=format_)
    assert has_whole(path)
    file = path / "zarr.json" if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert not has_whole(path)
    file.write_bytes(b"")
    assert not has_whole(path)


@pytest.mark.parametrize("format_", FORMATS)
def test_memory_does_not_grow_with_the_mask(tmp_path: Path, format_: MaskFormat) -> None:
    # 32 MB of pixels in one stripe; a band of 512 rows has 1 MB
    block = random_mask(512, 512)
    write_in_tiles(tmp_path / "warm", block, format=format_)
    tracemalloc.start()
    with open_mask(tmp_path / "a", (16384, 2048), "uint8", format=format_) as writer:
        for y in range(0, 16384, 512):
            for x in range(0, 2048, 512):
                writer.write(y, x, block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (40 << 20 if format_ == "png" else 10 << 20)  # Pillow wants a whole mask, once


@pytest.mark.parametrize("classes", [0, 1, 7, 34, 255])
def test_class_colours_differ(classes: int) -> None:
    palette = class_palette(classes)
    assert list(palette) == list(range(classes + 1))
    assert len(set(palette.values())) == len(palette)
    if classes <= 34:
        rgb = np.array([masks.rgb(colour) for colour in palette.values()])
        distances = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 1000 * np.eye(len(rgb))
        assert distances.min() > 20


def test_masks_need_neither_torch_nor_dask_until_ome_zarr() -> None:
    code = "import sys, mdm_studio.io.masks; print([m for m in ('torch', 'dask', 'ome_zarr', 'zarr') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("size", [1e-9, 1e14])
def test_a_pixel_size_beyond_the_tags_of_tiff_is_kept_in_its_ome_xml(tmp_path, size):
    with masks.open_mask(tmp_path / "a", (8, 9), np.uint8, format="tiff", pixel_size=(size, size), unit="micrometer") as mask:
        mask.write(0, 0, np.ones((8, 9), np.uint8))
    with open_image(tmp_path / "a.tif") as image:
        assert image.pixel_size == (size, size)
