"""What changes values is known by its own marks, whatever the file is called."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from mdm_studio.io.lossy import lossy_format

VALUES = (np.arange(64 * 64) % 7).reshape(64, 64).astype(np.uint8)
COLOURS = np.repeat(VALUES[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("format_", "options", "name"),
    [
        ("png", {}, ""),
        ("bmp", {}, ""),
        ("gif", {}, ""),
        ("jpeg", {}, "JPEG"),
        ("jpeg", {"progressive": True, "quality": 100}, "JPEG"),
        ("webp", {}, "WebP"),
        ("webp", {"lossless": True}, ""),
        ("webp", {"lossless": True, "exif": b"Exif\0\0MM\0*"}, ""),
        ("webp", {"exif": b"Exif\0\0MM\0*"}, "WebP"),
        ("webp", {"save_all": True, "append_images": [Image.fromarray(255 - COLOURS)]}, "WebP"),
        ("webp", {"save_all": True, "append_images": [Image.fromarray(255 - COLOURS)], "lossless": True}, ""),
    ],
)
def test_pictures_under_another_name(tmp_path, format_, options, name):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS if format_ == "webp" else VALUES).save(path, format=format_, **options)
    assert lossy_format(path) == name


@pytest.mark.parametrize(
    ("compression", "options", "name"),
    [
        (None, {}, ""),
        ("deflate", {}, ""),
        ("jpeg", {}, "JPEG inside a TIFF"),
        ("webp", {"compressionargs": {"level": 80, "lossless": False}}, "WebP inside a TIFF"),
        ("webp", {"compressionargs": {"lossless": True}}, ""),
        ("jpeg2000", {"compressionargs": {"level": 40, "reversible": False}}, "JPEG 2000 inside a TIFF"),
        ("jpeg2000", {"compressionargs": {"reversible": True}}, ""),
    ],
)
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_inside_a_tiff(tmp_path, compression, options, name, tile):
    path = tmp_path / "a.png"
    tifffile.imwrite(path, COLOURS, photometric="rgb", compression=compression, tile=tile, **options)
    assert lossy_format(path) == name


@pytest.mark.parametrize(
    ("file", "facts", "name"),
    [
        ("0/zarr.json", {"codecs": [{"name": "bytes"}, {"name": "zstd"}]}, ""),
        ("0/zarr.json", {"codecs": [{"name": "imagecodecs_jpeg"}]}, "jpeg inside an OME-Zarr"),
        (
            "0/zarr.json",
            {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "imagecodecs_webp"}]}}]},
            "webp inside an OME-Zarr",
        ),
        ("0/.zarray", {"compressor": {"id": "blosc"}, "filters": None}, ""),
        ("0/.zarray", {"compressor": {"id": "imagecodecs_jpegxr"}}, "jpegxr inside an OME-Zarr"),
        ("labels/0/.zarray", {"compressor": {"id": "zlib"}, "filters": [{"id": "quantize"}]}, "quantize inside an OME-Zarr"),
        ("0/zarr.json", [[]], ""),
    ],
)
def test_inside_a_zarr(tmp_path, file, facts, name):
    path = tmp_path / "a.ome.zarr" / file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(facts))
    assert lossy_format(tmp_path / "a.ome.zarr") == name


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"II*\0" + b"\xff" * 30, b"\x89PNG"])
def test_damaged_files_are_nothing_in_particular(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert lossy_format(path) in ("", "JPEG")
    assert lossy_format(tmp_path / "nothing.png") == ""
