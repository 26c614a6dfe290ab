"""Which image of a TIFF is read, what is said of the rest, and that nothing missing is made up."""

import os
import struct
import uuid

import numpy as np
import pytest
import tifffile

from mdm_studio.errors import UnreadableImageError
from mdm_studio.io.images import find_images, open_image
from mdm_studio.io.lossy import lossy_format

EVERYTHING = slice(None)
ROOT = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(sum(shape)).integers(1, 255, shape).astype(dtype)


def ome_xml(images, own="", head=""):
    """An OME-XML: of each image its attributes and the (file, uuid) of each plane; None for the file itself."""
    body = ""
    for number, (name, sizes, planes) in enumerate(images):
        data = "".join(
            f'<TiffData FirstZ="{z}" IFD="{z if where is None else 0}" PlaneCount="1">'
            + ("" if where is None else f'<UUID FileName="{where[0]}">urn:uuid:{where[1]}</UUID>')
            + "</TiffData>"
            for z, where in enumerate(planes)
        )
        body += (
            f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" Type="uint8" '
            f'SizeZ="{len(planes)}" SizeC="1" SizeT="1" {sizes}><Channel ID="Channel:{number}:0" SamplesPerPixel="1"/>{data}'
            "</Pixels></Image>"
        )
    owner = f' UUID="urn:uuid:{own}"' if own else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME {ROOT}{owner}>{head}{body}</OME>'


def write_pages(path, *pages, description=None, **options):
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(pages):
            words = description.encode() if description and number == 0 else None
            writer.write(page, description=words, metadata=None, **options)
    return path


def write_parts(folder, names, *, missing=(), owned=True, scenes=False):
    """A stack, or scenes, of one plane a file, filled with 1, 2, ..."""
    folder.mkdir(exist_ok=True)
    ids = [str(uuid.uuid4()) for _ in names]
    planes = list(zip(names, ids, strict=True))
    sizes = 'SizeX="16" SizeY="12" PhysicalSizeX="2" PhysicalSizeY="2"'
    images = [(name, sizes, [plane]) for name, plane in zip(names, planes, strict=True)] if scenes else [("", sizes, planes)]
    for number, name in enumerate(names):
        if number not in missing:
            text = ome_xml(images, ids[number] if owned else "")
            write_pages(folder / name, np.full((12, 16), number + 1, np.uint8), description=text)
    return [folder / name for name in names]


def facts(path, **options):
    """Pixels of all planes, and what is said."""
    with open_image(path, **options) as image:
        planes = [image.plane(number).read(EVERYTHING, EVERYTHING) for number in range(image.planes)]
        return np.stack(planes), image.left_out, image.notes


# ---- several images in a file


def test_scenes_that_are_not_read_are_named(tmp_path):
    with tifffile.TiffWriter(tmp_path / "p.ome.tif", ome=True) as writer:
        for number, height in enumerate((64, 60, 56)):
            writer.write(noise(height, 80), metadata={"axes": "YX", "Name": f"Pos_{number}"})
    pixels, left_out, notes = facts(tmp_path / "p.ome.tif")
    assert (pixels.shape, left_out, notes) == ((1, 1, 64, 80), ("scenes 2 and 3 of 3 (Pos_1, Pos_2)",), ())


@pytest.mark.parametrize("names", [("thumb", "main"), ("label image", "scan"), ("Macro", "a slide"), ("", "")])
def test_a_thumbnail_is_never_the_image(tmp_path, names):
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as writer:
        for name, (height, width) in zip(names, ((64, 80) if names[0] else (16, 20), (128, 160)), strict=True):
            writer.write(noise(height, width), metadata={"axes": "YX", "Name": name})
    pixels, left_out, _ = facts(tmp_path / "s.ome.tif")
    assert pixels.shape == (1, 1, 128, 160)
    assert left_out == (f"scene 1 of 2 ({names[0] or '16 x 20'})",)


def test_a_label_of_the_same_size_is_told_by_its_name_or_its_tag(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as writer:
        for name in ("label", "scan", "overview image"):
            writer.write(
                noise(64, 80) if name == "scan" else np.zeros((64, 80), np.uint8), metadata={"axes": "YX", "Name": name}
            )
    pixels, left_out, _ = facts(tmp_path / "s.ome.tif")
    np.testing.assert_array_equal(pixels[0, 0], noise(64, 80))
    assert left_out == ("scenes 1 and 3 of 3 (label, overview image)",)
    with tifffile.TiffWriter(tmp_path / "r.tif") as writer:
        writer.write(np.zeros((60, 80), np.uint8), subfiletype=1, metadata=None)
        writer.write(noise(64, 80), metadata=None)
    pixels, left_out, _ = facts(tmp_path / "r.tif")
    np.testing.assert_array_equal(pixels[0, 0], noise(64, 80))
    assert left_out == ("image 1 of 2 (60 x 80)",)


def test_a_slide_of_a_scanner(tmp_path):
    head = "Aperio Image Library v11\r\n256x256 [0,0 256x256] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        options = {"photometric": "rgb", "metadata": None}
        writer.write(noise(256, 256, 3), tile=(64, 64), description=head, **options)
        writer.write(noise(64, 64, 3), description="Aperio Image Library v11\r\n256x256 -> 64x64 - |", **options)
        writer.write(noise(128, 128, 3), tile=(64, 64), description=head, **options)
        writer.write(noise(30, 40, 3), subfiletype=1, description="Aperio\r\nlabel 30x40", **options)
        writer.write(noise(50, 90, 3), subfiletype=9, description="Aperio\r\nmacro 50x90", **options)
    pixels, left_out, _ = facts(tmp_path / "s.tif")
    assert pixels.shape == (1, 3, 256, 256)
    assert left_out == ("images 2 to 4 of 4 (Thumbnail, Label, Macro)",)


@pytest.mark.parametrize("ome", [True, False])
def test_the_levels_of_a_pyramid_are_not_left_out(tmp_path, ome):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=ome) as writer:
        array = noise(128, 128)
        writer.write(array, subifds=2, tile=(32, 32), metadata={"axes": "YX"} if ome else None)
        for step in (2, 4):
            writer.write(array[::step, ::step], subfiletype=1, tile=(32, 32), metadata=None)
    pixels, left_out, notes = facts(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(pixels[0, 0], array)
    assert (left_out, notes) == ((), ())


def test_pages_of_other_sizes_and_pages_that_nothing_names(tmp_path):
    path = write_pages(tmp_path / "a.tif", noise(64, 64), noise(32, 32), noise(64, 64))
    assert facts(path)[1] == ("image 2 of 2 (32 x 32)",)
    words = ome_xml([("", 'SizeX="32" SizeY="32"', [None])])
    path = write_pages(tmp_path / "b.ome.tif", *(noise(32, 32) for _ in range(3)), description=words)
    assert facts(path)[1] == ("pages 2 and 3 of 3 (not named by its metadata)",)


# ---- one image in several files


NAMES = [f"s_z{z}.ome.tif" for z in range(5)]


@pytest.mark.parametrize("owned", [True, False])
def test_files_that_are_one_image_are_found_once(tmp_path, owned):
    files = write_parts(tmp_path / "whole", NAMES, owned=owned)
    assert find_images([tmp_path / "whole"]) == find_images([files[3]]) == [files[0]]
    for file in (files[0], files[3]):
        pixels, left_out, notes = facts(file)
        assert pixels[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
        others = ", ".join(name for name in NAMES if name != file.name)
        assert (left_out, notes) == ((), (f"it is one image with {others}",))


@pytest.mark.parametrize(
    ("missing", "found", "named"),
    [((2,), 0, "s_z2"), ((4,), 0, "s_z4"), ((0, 1), 2, "s_z0.ome.tif, s_z1"), ((0, 1, 2, 4), 3, "s_z0.*s_z4")],
)
def test_a_missing_part_is_an_error_that_names_it(tmp_path, missing, found, named):
    files = write_parts(tmp_path, NAMES, missing=missing)
    assert find_images([tmp_path]) == [files[found]]
    for file in (each for number, each in enumerate(files) if number not in missing):
        with pytest.raises(UnreadableImageError, match=rf"{file.name}.*part of it is missing \(.*{named}"):
            open_image(file)


def test_scenes_in_files_of_their_own_are_images_of_their_own(tmp_path):
    files = write_parts(tmp_path, ["p0.ome.tif", "p1.ome.tif", "p2.ome.tif"], scenes=True)
    assert find_images([tmp_path]) == files
    assert [facts(file)[0].max() for file in files] == [1, 2, 3]
    files[0].unlink()  # another image, which is not missed
    assert facts(files[1])[1:] == ((), ())


def test_a_renamed_file_is_no_part_of_another(tmp_path):
    for owned in (True, False):
        (file,) = write_parts(tmp_path, ["a.ome.tif"], owned=owned)
        renamed = file.rename(tmp_path / f"{owned}.ome.tif")
        pixels, left_out, _ = facts(renamed)
        assert (pixels.shape, left_out) == ((1, 1, 12, 16), ())
        with open_image(renamed) as image:
            assert image.pixel_size == (2.0, 2.0)


def test_a_part_whose_metadata_are_in_another_file(tmp_path):
    names = ["c0.ome.tif", "c1.ome.tif"]
    planes = [(name, f"{number}") for number, name in enumerate(names)]
    whole = ome_xml([("", 'SizeX="16" SizeY="12" PhysicalSizeX="2" PhysicalSizeY="2"', planes)], own="99")
    (tmp_path / "x.companion.ome").write_text(whole)
    for number, name in enumerate(names):
        pointer = '<BinaryOnly MetadataFile="x.companion.ome" UUID="urn:uuid:99"/>'
        write_pages(tmp_path / name, np.full((12, 16), number + 1, np.uint8), description=ome_xml([], f"{number}", pointer))
    assert [path.name for path in find_images([tmp_path])] == ["c0.ome.tif"]
    for name in names:
        assert facts(tmp_path / name)[0][:, 0, 0, 0].tolist() == [1, 2]
    (tmp_path / "x.companion.ome").unlink()
    with pytest.raises(UnreadableImageError, match=r"missing \(x.companion.ome\)"):
        open_image(tmp_path / names[0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_part_that_is_a_pipe_is_not_waited_for(tmp_path):
    files = write_parts(tmp_path, NAMES, missing=(2,))
    os.mkfifo(files[2])
    with pytest.raises(UnreadableImageError, match=r"its part s_z2.ome.tif is no file"):
        open_image(files[0])


# ---- files that are cut off


def _imagej(path):
    tifffile.imwrite(path, noise(20, 32, 32), imagej=True, metadata={"axes": "ZYX"})


def _imagej_of_one_page(path):
    """As ImageJ writes stacks: one page says where they begin."""
    stack = noise(20, 32, 32)
    write_pages(path, stack[0], description="ImageJ=1.53t\nimages=20\nslices=20\nloop=false\n", software=None)
    with path.open("ab") as file:
        file.write(stack[1:].tobytes())


def _pages(path):
    write_pages(path, *noise(6, 32, 32))


def _strips(path):
    write_pages(path, *noise(6, 32, 32), compression="zlib", rowsperstrip=8)


def _tiles(path):
    write_pages(path, *noise(6, 32, 32), compression="zlib", tile=(16, 16))


def _ome(path):
    tifffile.imwrite(path, noise(6, 32, 32), ome=True, metadata={"axes": "ZYX"})


def _shaped(path):
    tifffile.imwrite(path, noise(6, 32, 32))


@pytest.mark.parametrize("write", [_imagej, _imagej_of_one_page, _pages, _strips, _tiles, _ome, _shaped])
def test_a_stack_that_is_cut_off_is_never_read_as_a_shorter_one(tmp_path, write):
    write(tmp_path / "a.tif")
    whole, left_out, notes = facts(tmp_path / "a.tif")
    assert (len(whole) in (6, 20), left_out, notes) == (True, (), ())
    content = (tmp_path / "a.tif").read_bytes()
    for share in (0.05, 0.2, 0.5, 0.8, 0.97):
        (tmp_path / "cut.tif").write_bytes(content[: int(share * len(content))])
        with pytest.raises(UnreadableImageError, match=r"cut\.tif"):
            facts(tmp_path / "cut.tif")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("back", [0, 3])
def test_pages_that_lead_round_in_a_circle_are_refused(tmp_path, back):
    path = write_pages(tmp_path / "a.tif", *noise(6, 8, 8))
    with tifffile.TiffFile(path) as tif:
        offsets = [page.offset for page in tif.pages]
        form = tif.tiff
    content = bytearray(path.read_bytes())
    (tags,) = struct.unpack_from(form.tagnoformat, content, offsets[-1])
    place = offsets[-1] + form.tagnosize + tags * form.tagsize
    struct.pack_into(form.offsetformat, content, place, offsets[back])
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match="round in a circle"):
        open_image(path)
    assert lossy_format(path) == ""  # nor does that look wait for its end
    files = write_parts(tmp_path / "parts", NAMES)
    files[2].write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"its part s_z2\.ome\.tif: .*round in a circle"):
        open_image(files[0])


@pytest.mark.parametrize("size", ["ImageLength", "ImageWidth"])
def test_another_page_is_not_read_for_one_that_lost_its_size(tmp_path, size):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3, 32, 40), bigtiff=True, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].tags[size].offset
    content = bytearray(path.read_bytes())
    content[offset + 10] ^= 4  # the count of its values
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match="no height or no width"):
        open_image(path)


def test_planes_that_the_metadata_promise_are_not_made_up(tmp_path):
    words = ome_xml([("", 'SizeX="32" SizeY="32"', [None, None, None])])
    with pytest.raises(UnreadableImageError, match="2 of its 3 planes are missing"):
        open_image(write_pages(tmp_path / "a.ome.tif", noise(32, 32), description=words))


def test_empty_tiles_are_said_and_a_file_of_nothing_else_is_refused(tmp_path):
    path = write_pages(tmp_path / "a.tif", noise(32, 32), compression="zlib", tile=(16, 16))
    for empty in (1, 4):
        with tifffile.TiffFile(path, mode="r+") as tif:
            for name in ("TileByteCounts", "TileOffsets"):
                tag = tif.pages[0].tags[name]
                tag.overwrite([0] * empty + list(tag.value[empty:]))
        if empty == 1:
            pixels, _, notes = facts(path)
            assert not pixels[0, 0, :16, :16].any()
            assert notes == ("1 of its 4 tiles are empty: no pixels were stored there",)
    with pytest.raises(UnreadableImageError, match="holds no pixels"):
        open_image(path)


# ---- metadata that make no sense


@pytest.mark.parametrize(
    "text",
    [
        f'<OME {ROOT}><Image ID="Image:0" Name="R&D < 5"><Pixels/></Image></OME>',
        ome_xml([("", 'SizeX="abc" SizeY="32"', [None])]),
        ome_xml([("", 'SizeX="32" SizeY="32"', [None])]).replace('SizeZ="1"', 'SizeZ="2000000000"'),
        ome_xml([("", 'SizeX="32" SizeY="32"', [None])]).replace('SizeZ="1"', 'SizeZ="0"'),
        ome_xml([("", 'SizeX="40" SizeY="32"', [None])]),
        ome_xml([("", "", [None])]),
    ],
)
def test_pixels_are_read_whatever_the_ome_xml(tmp_path, text):
    path = write_pages(tmp_path / "a.ome.tif", noise(32, 32), description=text)
    pixels, left_out, notes = facts(path)
    np.testing.assert_array_equal(pixels[0, 0], noise(32, 32))
    assert left_out == ()
    assert len(notes) == 1
    assert "taken as they come" in notes[0]


@pytest.mark.parametrize("description", ["ImageJ=\nunit=\\u00zz\nimages=x\n", "ImageJ=1.53t\nslices=-3\nframes=0\n"])
def test_pixels_are_read_whatever_imagej_says(tmp_path, description):
    path = write_pages(tmp_path / "a.tif", noise(32, 32), description=description, software=None)
    np.testing.assert_array_equal(facts(path)[0][0, 0], noise(32, 32))


@pytest.mark.parametrize(
    ("sizes", "wanted", "words"),
    [
        ('PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"', (0.5, 0.5), ""),
        ('PhysicalSizeX="0,5" PhysicalSizeY="0,5"', (0.5, 0.5), "is read as 0.5"),
        ('PhysicalSizeX="0.5 um" PhysicalSizeY="500 nm"', (0.5, 0.5), "is read as"),
        ('PhysicalSizeX="1e400" PhysicalSizeY="1"', None, "dropped"),
        ('PhysicalSizeX="0" PhysicalSizeY="0"', None, "dropped"),
        ('PhysicalSizeX="0.5"', None, "one axis only"),
        ('PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel" PhysicalSizeYUnit="pixel"', None, ""),
    ],
)
def test_pixel_sizes_of_ome_xml(tmp_path, sizes, wanted, words):
    text = ome_xml([("", f'SizeX="32" SizeY="32" {sizes}', [None])])
    with open_image(write_pages(tmp_path / "a.ome.tif", noise(32, 32), description=text)) as image:
        assert image.pixel_size == wanted
        assert image.unit == (None if wanted is None else "micrometer")
        assert (words in " ".join(image.notes)) if words else image.notes == ()


def test_imagej_may_have_a_unit_for_each_axis(tmp_path):
    text = "ImageJ=1.53t\nunit=nm\nyunit=um\n"
    path = write_pages(tmp_path / "a.tif", noise(8, 8), description=text, software=None, resolution=(0.002, 2))
    with open_image(path) as image:
        assert image.pixel_size == pytest.approx((0.5, 0.5))
        assert image.unit == "micrometer"


# ---- colours and values


def test_a_display_setting_is_no_data(tmp_path):
    """A look-up table of ImageJ or OME, or a ramp of one hue, shows grey values; other palettes are colours."""
    green = np.zeros((3, 256), np.uint16)
    green[1] = np.arange(256) * 257
    fire = noise(3, 256, dtype="uint16") * 256
    for name, table, text, rgb in (
        ("imagej", fire, "ImageJ=1.53t\nunit=um\n", False),
        ("ome", fire, ome_xml([("", 'SizeX="32" SizeY="32"', [None])]), False),
        ("ramp", green, None, False),
        ("other", fire, None, True),
    ):
        options = {"photometric": "palette", "colormap": table, "software": None}
        path = write_pages(tmp_path / f"{name}.tif", noise(32, 32), description=text, **options)
        with open_image(path) as image:
            assert image.rgb is rgb, name
        wanted = (table[:, noise(32, 32)] >> 8) if rgb else noise(32, 32)[None]
        np.testing.assert_array_equal(facts(path)[0][0], wanted)
        np.testing.assert_array_equal(facts(path, values=True)[0][0, 0], noise(32, 32))


@pytest.mark.parametrize("nodata", ["-9999", "-3.4028234663852886e+38", "nan", "nonsense"])
def test_no_data_of_a_float_image_is_not_a_number(tmp_path, nodata):
    array = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    array[0] = np.float32(nodata if nodata != "nonsense" else -1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, extratags=[(42113, 2, len(nodata) + 1, nodata, True)], metadata=None)
    pixels, _, notes = facts(path)
    assert np.isnan(pixels[0, 0, 0]).all() == (nodata != "nonsense")
    np.testing.assert_array_equal(pixels[0, 0, 1:], array[1:])
    assert bool(notes) == (nodata == "nonsense")
    np.testing.assert_array_equal(facts(path, values=True)[0][0, 0], array)  # label maps are as they are
    tifffile.imwrite(path, np.full((8, 8), -5, np.int16), extratags=[(42113, 2, 3, "-5", True)], metadata=None)
    assert (facts(path)[0] == -5).all()


def test_transparency_that_tells_pixels_apart_is_named(tmp_path):
    array = noise(16, 16, 4)
    for name, alpha, words in (("a", array[..., 3], ("the transparency (alpha channel)",)), ("b", 255, ())):
        array[..., 3] = alpha
        write_pages(tmp_path / f"{name}.tif", array, photometric="rgb", extrasamples=["unassalpha"])
        pixels, left_out, _ = facts(tmp_path / f"{name}.tif")
        assert (pixels.shape, left_out) == ((1, 3, 16, 16), words)


def test_a_page_that_lost_its_bits_a_pixel_is_damaged(tmp_path):
    """Without the tag a page has one bit a pixel, and would be read as black and white."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(48 * 56, dtype=np.uint8).reshape(48, 56), photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        where = tif.pages[0].tags["BitsPerSample"].offset
    with path.open("r+b") as file:
        file.seek(where)
        file.write((33026).to_bytes(2, "little"))
    with pytest.raises(UnreadableImageError, match="1 bits a pixel and holds 2688 bytes"):
        open_image(path)


@pytest.mark.parametrize("width", [7, 8, 56])
def test_pages_of_single_bits_are_read(tmp_path, width):
    bits = np.random.default_rng(0).random((9, width)) > 0.5
    tifffile.imwrite(tmp_path / "a.tif", bits)
    with open_image(tmp_path / "a.tif") as image:
        assert np.array_equal(image.plane().read(slice(None), slice(None))[0] > 0, bits)
