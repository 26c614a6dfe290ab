import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from mdm_studio.errors import ChannelsError, InputError, MDMStudioError, NoImagesError, UnreadableImageError
from mdm_studio.io.images import ArrayPlane, check_unique_names, find_images, image_name, open_image, source

EVERYTHING = slice(None)
Array = NDArray[Any]


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def pixels(path: Path, plane: int = 0, **options: Any) -> Array:
    with open_image(path, **options) as image:
        block = image.plane(plane).read(EVERYTHING, EVERYTHING)
        assert block.shape == (image.channels, image.height, image.width) == image.plane(plane).shape
        assert block.dtype == image.dtype
        assert block.dtype.isnative
        return block


def write_zarr(path: Path, array: Array, axes: str, version: str = "0.5", **extra: Any) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    chunks = tuple(min(n, 16) for n in array.shape)
    group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=chunks)[...] = array
    units = [{"name": a, "unit": "µm"} if a in "yx" else {"name": a} for a in axes]
    scale = [{"type": "scale", "scale": [0.5 if a in "yx" else 1.0 for a in axes]}]
    multiscale = {"axes": units, "datasets": [{"path": "s0", "coordinateTransformations": scale}], "version": version}
    metadata = {"multiscales": [multiscale], **extra}
    group.attrs.update({"ome": metadata} if version == "0.5" else metadata)


# ------------------------------------------------------------------------------------------------------------ Pillow


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16", "1", "P"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5)])
def test_png_of_every_mode(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 90)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 200)
    elif mode == "P":
        picture = picture.convert("RGB").quantize(16)
        picture.info["transparency"] = bytes([0, 128])
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "a.PNG")
    wanted = {
        "1": lambda: np.asarray(picture).astype(np.uint8)[None] * 255,
        "LA": lambda: np.asarray(picture)[None, ..., 0],
        "P": lambda: np.asarray(picture.convert("RGBA"))[..., :3].transpose(2, 0, 1),
        "RGBA": lambda: np.asarray(picture)[..., :3].transpose(2, 0, 1),
        "RGB": lambda: np.asarray(picture).transpose(2, 0, 1),
    }.get(mode, lambda: np.asarray(picture)[None])()
    np.testing.assert_array_equal(pixels(tmp_path / "a.PNG"), wanted, strict=True)
    with open_image(tmp_path / "a.PNG") as image:
        assert (image.rgb, image.planes, image.stack_shape, image.stack_axes) == (len(wanted) == 3, 1, (), "")
        assert (image.name, image.plane().name, image.pixel_size, image.unit) == ("a", "a", None, None)


def test_values_of_palettes_and_bits_stay_numbers(tmp_path: Path) -> None:
    indices = noise(6, 5) % 3
    picture = Image.fromarray(indices).convert("L")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    Image.fromarray(indices == 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", values=True)[0], indices)
    np.testing.assert_array_equal(pixels(tmp_path / "bits.png", values=True)[0], indices == 1)
    tifffile.imwrite(tmp_path / "bits.tif", indices == 1)
    np.testing.assert_array_equal(pixels(tmp_path / "bits.tif", values=True)[0], indices == 1)
    np.testing.assert_array_equal(pixels(tmp_path / "bits.tif")[0], 255 * (indices == 1))


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_16_bit_png_with_colour_or_transparency_keeps_16_bits(tmp_path: Path, samples: int) -> None:
    import imagecodecs

    array = noise(9, 8, samples, dtype="uint16") * 251
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(array))
    wanted = array[..., :1] if samples == 2 else array[..., :3]
    np.testing.assert_array_equal(pixels(tmp_path / "deep.png"), wanted.transpose(2, 0, 1), strict=True)
    with open_image(tmp_path / "deep.png") as image:
        assert image.rgb is (samples > 2)


@pytest.mark.parametrize(("extension", "mode"), [("jpg", "RGB"), ("jpeg", "L"), ("bmp", "RGB"), ("webp", "RGB"), ("gif", "L")])
def test_other_picture_formats(tmp_path: Path, extension: str, mode: str) -> None:
    picture = Image.linear_gradient("L").convert(mode)
    picture.save(tmp_path / f"a.{extension}")
    block = pixels(tmp_path / f"a.{extension}")
    assert block.dtype == np.uint8
    assert np.abs(block.astype(int) - np.asarray(picture.convert("L"))[None]).max() <= 3


def test_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(tmp_path / "a.gif")[:, 0, 0], [255, 0, 0])


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "red").convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg")[:, 5, 5], [255, 0, 0], atol=3)
    with open_image(tmp_path / "a.jpg") as image:
        assert image.rgb


def test_exif_orientation_turns_the_image(tmp_path: Path) -> None:
    array = noise(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0], np.rot90(array, -1))


def test_equal_channels_stay_three(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(noise(4, 5)[..., None], 3, axis=2)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape == (3, 4, 5)


def test_pillows_size_limit_is_lifted_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(2500, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0], noise(2500, 40))
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_picture_too_large_to_decode_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_UNTILED_PIXELS", 100)
    Image.fromarray(noise(20, 20)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", noise(20, 20), compression="zlib")
    for name in ("a.png", "a.tif"):
        with pytest.raises(UnreadableImageError, match=rf"{name}.*tiled TIFF or to OME-Zarr"):
            open_image(tmp_path / name)


# -------------------------------------------------------------------------------------------------------------- TIFF

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiled": {"tile": (16, 16), "compression": "zlib"},
    "big-endian": {"byteorder": ">"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("axes", "shape", "channels", "stack"),
    [
        ("YX", (40, 37), 1, ()),
        ("YX", (1, 1), 1, ()),
        ("CYX", (5, 40, 37), 5, ()),
        ("ZYX", (4, 40, 37), 1, (4,)),
        ("TZCYX", (2, 3, 2, 20, 18), 2, (2, 3)),
        ("TCZYX", (2, 3, 4, 20, 18), 3, (2, 4)),
    ],
)
def test_ome_tiff_axes(
    tmp_path: Path, layout: str, axes: str, shape: tuple[int, ...], channels: int, stack: tuple[int, ...]
) -> None:
    array = noise(*shape, dtype="uint16") * 3
    metadata = {"axes": axes, "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    options = dict(LAYOUTS[layout])
    path = tmp_path / "cell.ome.tif"
    byteorder = options.pop("byteorder", None)
    tifffile.imwrite(path, array, metadata=metadata, photometric="minisblack", ome=True, byteorder=byteorder, **options)
    moved = np.moveaxis(array, axes.index("C"), -3) if "C" in axes else array[..., None, :, :]
    planes = moved.reshape(-1, *moved.shape[-3:])  # (planes, C, H, W)
    with open_image(path) as image:
        assert (image.name, image.planes, image.stack_shape) == ("cell", len(planes), stack)
        assert image.stack_axes == "".join(a for a in axes if a not in "CYX")
        assert (image.channels, image.rgb, image.dtype) == (channels, False, np.uint16)
        assert (image.pixel_size, image.unit) == ((0.5, 0.25), "micrometer")
        for i in [*range(len(planes)), 0]:
            block = image.plane(i).read(slice(3, 19), slice(2, 18))
            np.testing.assert_array_equal(block, planes[i][:, 3:19, 2:18], strict=True)
        whole = image.plane(image.planes - 1)
        np.testing.assert_array_equal(whole.read(EVERYTHING, EVERYTHING), planes[-1], strict=True)
    if stack == (2, 3):
        assert whole.name == "cell[T=1,Z=2]"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_tiff(tmp_path: Path, layout: str, planar: str) -> None:
    array = noise(3, 33, 30)
    stored = array if planar == "separate" else array.transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "a.TIF", stored, photometric="rgb", planarconfig=planar, **LAYOUTS[layout])
    np.testing.assert_array_equal(pixels(tmp_path / "a.TIF"), array, strict=True)
    with open_image(tmp_path / "a.TIF") as image:
        assert image.rgb


def test_tiff_transparency_is_dropped_but_a_fourth_stain_is_not(tmp_path: Path) -> None:
    array = noise(4, 20, 20)
    tifffile.imwrite(tmp_path / "rgba.tif", array.transpose(1, 2, 0), photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "la.tif", array[:2].transpose(1, 2, 0), photometric="minisblack", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "stains.tif", array, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "samples.tif", array.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(pixels(tmp_path / "rgba.tif"), array[:3])
    np.testing.assert_array_equal(pixels(tmp_path / "la.tif"), array[:1])
    np.testing.assert_array_equal(pixels(tmp_path / "stains.tif"), array)
    np.testing.assert_array_equal(pixels(tmp_path / "samples.tif"), array)
    for name, rgb in {"rgba": True, "la": False, "stains": False, "samples": False}.items():
        with open_image(tmp_path / f"{name}.tif") as image:
            assert image.rgb is rgb


def test_palette_and_cmyk_tiff_become_rgb(tmp_path: Path) -> None:
    indices = noise(20, 20)
    colours = noise(3, 256, dtype="uint16")
    tifffile.imwrite(tmp_path / "p.tif", indices, photometric="palette", colormap=colours * 256)
    np.testing.assert_array_equal(pixels(tmp_path / "p.tif"), colours[:, indices])
    np.testing.assert_array_equal(pixels(tmp_path / "p.tif", values=True)[0], indices)
    ink = np.zeros((20, 20, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow: red
    tifffile.imwrite(tmp_path / "cmyk.tif", ink, photometric="separated")
    np.testing.assert_array_equal(pixels(tmp_path / "cmyk.tif")[:, 3, 3], [255, 0, 0])


def test_float_tiff_with_nan_passes_raw(tmp_path: Path) -> None:
    array = np.linspace(-5, 5, 35, dtype=np.float32).reshape(5, 7)
    array[2, 3], array[0, 0] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", array)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[0], array, strict=True)


def test_imagej_and_plain_tiff_say_the_pixel_size(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "unit": "um"}
    tifffile.imwrite(tmp_path / "ij.tif", noise(3, 4, 5), imagej=True, metadata=metadata, resolution=(4, 2))
    tifffile.imwrite(tmp_path / "cm.tif", noise(4, 5), resolution=(1e4, 2e4), resolutionunit="centimeter")
    tifffile.imwrite(tmp_path / "inch.tif", noise(4, 5), resolution=(72, 72), resolutionunit="inch")
    found = {}
    for name in ("ij", "cm", "inch"):
        with open_image(tmp_path / f"{name}.tif") as image:
            found[name] = (image.pixel_size, image.unit)
    assert found == {"ij": ((0.5, 0.25), "micrometer"), "cm": ((0.5, 1.0), "micrometer"), "inch": (None, None)}


@pytest.mark.parametrize("tile", [(256, 256), None])
def test_a_region_of_a_large_tiff_allocates_little(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    # 8192 x 8192 x 3 are 201 MB
    row = noise(256, 8192, 3)
    data = (row for _ in range(32)) if tile is None else (row[:, x : x + 256] for _ in range(32) for x in range(0, 8192, 256))
    options: dict[str, Any] = {"rowsperstrip": 256} if tile is None else {"tile": tile}
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, data, shape=(8192, 8192, 3), dtype="uint8", photometric="rgb", **options)
    with open_image(path) as image:
        plane = image.plane()
        plane.read(slice(0, 1), slice(0, 1))
        tracemalloc.start()
        block = plane.read(slice(4000, 4512), slice(7000, 7512))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    np.testing.assert_array_equal(block[:, :96], row[160:, 7000:7512].transpose(2, 0, 1))
    assert peak < 12 << 20


# -------------------------------------------------------------------------------------------------- OME-Zarr and NPY


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "stack"),
    [("yx", (20, 18), ()), ("cyx", (3, 20, 18), ()), ("zyx", (3, 20, 18), (3,)), ("tczyx", (2, 3, 4, 20, 18), (2, 4))],
)
def test_ome_zarr(tmp_path: Path, version: str, axes: str, shape: tuple[int, ...], stack: tuple[int, ...]) -> None:
    array = noise(*shape, dtype="uint16")
    write_zarr(tmp_path / "a.ome.zarr", array, axes, version)
    moved = np.moveaxis(array, axes.index("c"), -3) if "c" in axes else array[..., None, :, :]
    planes = moved.reshape(-1, *moved.shape[-3:])
    with open_image(tmp_path / "a.ome.zarr") as image:
        assert (image.name, image.stack_shape, image.planes) == ("a", stack, len(planes))
        assert (image.pixel_size, image.unit, image.rgb) == ((0.5, 0.5), "micrometer", False)
        for i, wanted in enumerate(planes):
            np.testing.assert_array_equal(image.plane(i).read(slice(1, 19), EVERYTHING), wanted[:, 1:19], strict=True)
        np.testing.assert_array_equal(image.plane().sample(90), planes[0][:, ::2, ::2])


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")  # on import, its own class
def test_ome_zarr_written_by_ome_zarr(tmp_path: Path) -> None:
    from ome_zarr.writer import write_image

    array = noise(2, 40, 30)
    write_image(array, str(tmp_path / "a.zarr"), axes="cyx", scale_factors=(2,))
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), array, strict=True)


def test_ome_zarr_colours_and_numbered_series(tmp_path: Path) -> None:
    channels = [{"color": colour} for colour in ("ff0000", "00FF00", "0000FF")]
    (tmp_path / "a.zarr").mkdir()
    write_zarr(tmp_path / "a.zarr" / "0", noise(3, 8, 8), "cyx", omero={"channels": channels})
    zarr.open_group(tmp_path / "a.zarr", mode="a").attrs["ome"] = {"bioformats2raw.layout": 3}
    with open_image(tmp_path / "a.zarr") as image:
        assert image.rgb


@pytest.mark.parametrize(("metadata", "words"), [({}, "multiscales"), ({"ome": {"plate": {}}}, "plate without images")])
def test_zarr_that_is_no_image(tmp_path: Path, metadata: dict[str, Any], words: str) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w", attributes=metadata)
    with pytest.raises(UnreadableImageError, match=words):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("shape", "wanted", "rgb"),
    [
        ((5, 7), (1, 5, 7), False),
        ((5, 7, 3), (3, 5, 7), True),
        ((5, 7, 4), (4, 5, 7), False),
        ((6, 5, 7), (6, 5, 7), False),
        ((3, 5, 7), (3, 5, 7), False),
    ],
)
def test_npy(tmp_path: Path, shape: tuple[int, ...], wanted: tuple[int, ...], rgb: bool) -> None:
    array = noise(*shape)
    np.save(tmp_path / "a.npy", array)
    block = pixels(tmp_path / "a.npy")
    assert block.shape == wanted
    channels_last = len(shape) == 3 and shape[-1] <= 4
    np.testing.assert_array_equal(block, (array.transpose(2, 0, 1) if channels_last else array).reshape(wanted), strict=True)
    with open_image(tmp_path / "a.npy") as image:
        assert image.rgb is rgb


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2, 2, 2)), "not an image"),
        (np.zeros(3), "not an image"),
        (np.zeros((0, 4)), "no pixels"),
        (np.zeros((3, 4), complex), "complex"),
        (np.array([[{}]]), "Python objects"),
    ],
)
def test_npy_that_is_no_image(tmp_path: Path, array: Array, words: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableImageError, match=words):
        open_image(tmp_path / "a.npy")


# -------------------------------------------------------------------------------------------------- any file, any plane


def _write(path: Path, array: Array) -> None:
    """`array` (H, W, 3) uint8 in a lossless format."""
    if path.suffix in (".tif", ".tiff"):
        options: dict[str, Any] = {"tile": (16, 16), "compression": "zlib"} if path.suffix == ".tiff" else {}
        tifffile.imwrite(path, array, photometric="rgb", **options)
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".zarr":
        write_zarr(path, array.transpose(2, 0, 1), "cyx")
    else:
        Image.fromarray(array).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


LOSSLESS = [".png", ".bmp", ".webp", ".tif", ".tiff", ".npy", ".zarr"]


@settings(max_examples=25, deadline=None)
@given(
    extension=st.sampled_from(LOSSLESS),
    array=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    data=st.data(),
)
def test_regions_of_every_format(
    tmp_path_factory: pytest.TempPathFactory, extension: str, array: Array, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("image") / f"a{extension}"
    _write(path, array)
    rows = data.draw(st.slices(array.shape[0]).filter(lambda s: s.step in (None, 1)))
    cols = slice(data.draw(st.integers(0, array.shape[1])), None)
    channels = data.draw(st.permutations(range(3)))
    with open_image(path, channels=tuple(channels)) as image:
        block = image.plane().read(rows, cols)
        wanted = array.transpose(2, 0, 1)[channels]
        np.testing.assert_array_equal(block, wanted[:, rows, cols], strict=True)
        assert block.flags.c_contiguous
        assert image.plane().digest() == ArrayPlane(wanted, rgb=image.rgb).digest()


@pytest.mark.parametrize("extension", [*LOSSLESS, ".jpg", ".gif"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.6])
def test_a_file_cut_off_is_named(tmp_path: Path, extension: str, keep: float) -> None:
    path = tmp_path / f"a{extension}"
    _write(path, noise(64, 64, 3))
    for file in [path] if path.is_file() else list(path.rglob("c/0/1/1")):
        file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(UnreadableImageError, match=f"a{extension}"), open_image(path) as image:
        image.plane().read(EVERYTHING, EVERYTHING)


def test_an_error_is_one_line_with_a_cause(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(UnreadableImageError) as caught:
        open_image(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("extension", [*LOSSLESS, ".jpg", ".gif"])
@pytest.mark.filterwarnings("ignore")  # decoders may warn of what they then fail at
@settings(max_examples=15, deadline=None)
@given(junk=st.binary(min_size=1, max_size=300), place=st.floats(0, 1))
def test_damaged_files_raise_only_our_errors(
    tmp_path_factory: pytest.TempPathFactory, extension: str, junk: bytes, place: float
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"a{extension}"
    _write(path, noise(24, 24, 3))
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        content = bytearray(file.read_bytes())
        start = int(place * len(content))
        content[start : start + len(junk)] = junk
        file.write_bytes(content)
    with contextlib.suppress(UnreadableImageError):  # some damage does not show, such as other pixels in a bitmap
        pixels(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.zarr", "a.txt", "none.png", "folder.png", "folder.tif"])
def test_what_is_no_image_at_all_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    for folder in ("folder.png", "folder.tif"):
        (tmp_path / folder).mkdir()
    for text in ("a.png", "a.tif", "a.npy", "a.txt"):
        (tmp_path / text).write_text("not an image at all")
    with pytest.raises(UnreadableImageError, match=name):
        open_image(tmp_path / name)


def test_channels_are_chosen_in_the_order_asked(tmp_path: Path) -> None:
    array = noise(4, 6, 5, dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "CYX"}, ome=True, photometric="minisblack")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif", channels=(2, 0)), array[[2, 0]], strict=True)
    for wrong in ((4,), (-1,), ()):
        with pytest.raises(ChannelsError, match=r"a\.tif has 4 channels .*choose from 0 to 3"):
            open_image(tmp_path / "a.tif", channels=wrong)


def test_rgb_holds_for_the_three_colours_only(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 5, 3)).save(tmp_path / "a.png")
    for channels, rgb in {(0, 1, 2): True, (0,): False, (2, 1, 0): False}.items():
        with open_image(tmp_path / "a.png", channels=channels) as image:
            assert image.rgb is image.plane().rgb is rgb


def test_a_plane_that_is_not_there(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 5)).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image, pytest.raises(InputError, match="plane 1"):
        image.plane(1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1300, 7), (2, 600, 900)])
def test_sample_is_evenly_strided(shape: tuple[int, int, int]) -> None:
    array = noise(*shape)
    sample = ArrayPlane(array).sample(2000)
    step = max(1, int((shape[1] * shape[2] / 2000) ** 0.5))
    np.testing.assert_array_equal(sample, array[:, ::step, ::step], strict=True)


def test_digest_tells_pixels_shape_dtype_and_colours_apart() -> None:
    array = noise(3, 700, 4)
    digests = [
        ArrayPlane(array).digest(),
        ArrayPlane(array, rgb=True).digest(),
        ArrayPlane(array.astype(np.uint16)).digest(),
        ArrayPlane(array.reshape(3, 4, 700)).digest(),
        ArrayPlane(array[:, ::-1]).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert ArrayPlane(array.astype(">u2")).digest() == digests[2]
    assert ArrayPlane(np.asfortranarray(array), name="other").digest() == digests[0]
    assert len(digests[0]) == 32


def test_array_plane_gives_copies_and_checks_its_input() -> None:
    array = noise(2, 4, 5)
    plane = ArrayPlane(array, name="layer")
    plane.read(EVERYTHING, EVERYTHING)[:] = 0
    assert array.any()
    assert plane.read(slice(3, 1), EVERYTHING).shape == (2, 0, 5)
    with pytest.raises(ValueError, match="step"):
        plane.read(slice(0, 4, 2), EVERYTHING)
    for wrong in (array[0], array[:, :0]):
        with pytest.raises(InputError, match="layer has the shape"):
            ArrayPlane(wrong, name="layer")


# ------------------------------------------------------------------------------------------------------------ finding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b10.png", "b2.PNG", "B1.tif", ".hidden.png", "._b2.png", "Thumbs.db", "desktop.ini", "notes.txt", "m[1].jpg"):
        (tmp_path / name).touch()
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "deep" / "s.webp").touch()
    (tmp_path / "stack.ome.ZARR" / "0").mkdir(parents=True)
    (tmp_path / "stack.ome.ZARR" / "0" / "inner.png").touch()
    (tmp_path / "album.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        (["."], ["B1.tif", "b2.PNG", "b10.png", "m[1].jpg", "stack.ome.ZARR"]),
        (["*.png", "b2.PNG"], ["b2.PNG", "b10.png"]),
        (["b10.png", ".", "./b10.png"], ["B1.tif", "b2.PNG", "b10.png", "m[1].jpg", "stack.ome.ZARR"]),
        (["**/*"], ["B1.tif", "b2.PNG", "b10.png", "m[1].jpg", "stack.ome.ZARR", "sub/deep/s.webp"]),
        (["m[1].jpg"], ["m[1].jpg"]),
        (["stack.ome.ZARR"], ["stack.ome.ZARR"]),
        ([".hidden.png"], [".hidden.png"]),
    ],
)
def test_find_images(folder: Path, items: list[str], wanted: list[str]) -> None:
    found = find_images([folder / item for item in items])
    assert [path.relative_to(folder).as_posix() for path in found] == wanted


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("sub", r"sub-folders are not searched .*\*\*"),
        ("album.png", "it is empty"),
        ("texts", "none of its 1 files"),
        ("notes.txt", r"not an image that can be read.*\.png"),
        ("missing", r"does not exist.*\.tif"),
        ("*.gif", r"no image matches .*\.gif.*\.zarr"),
    ],
)
def test_nothing_found_says_what_was_looked_for(folder: Path, item: str, words: str) -> None:
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").touch()
    with pytest.raises(NoImagesError, match=words):
        find_images([str(folder / item)])
    with pytest.raises(NoImagesError, match="no images were named"):
        find_images([])


def test_natural_order_copes_with_any_name(tmp_path: Path) -> None:
    names = ["x²1.png", "x10y2.png", "x10y10.png", "9.png", "a9.png", "٣.png"]
    for name in names:
        (tmp_path / name).touch()
    assert len(find_images([tmp_path])) == len(names)


@pytest.mark.parametrize(
    ("path", "name"),
    [("a.png", "a"), ("a.b.TIFF", "a.b"), ("a.ome.tif", "a"), ("x/a.OME.zarr", "a"), (".ome.tif", ".ome"), ("a.7", "a.7")],
)
def test_image_name(path: str, name: str) -> None:
    assert image_name(path) == name


def test_images_whose_results_would_collide_are_named() -> None:
    check_unique_names([Path("a/x.png"), Path("a/y.png")])
    with pytest.raises(InputError, match=r"x\.png and .*X\.ome\.tif"):
        check_unique_names([Path("a/x.png"), Path("b/X.ome.tif")])


@pytest.mark.parametrize("use", [lambda p: open_image(p), lambda p: find_images([p])])
def test_a_missing_file_is_an_expected_failure(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(MDMStudioError, match=r"gone\.png"):
        use(tmp_path / "gone.png")


def test_reasons_are_words_without_addresses(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': x, 'shape': (8, 9), }".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + b"d" * 72)
    with pytest.raises(UnreadableImageError, match="malformed") as error:
        open_image(tmp_path / "a.npy")
    assert " at 0x" not in str(error.value)
