"""The formats that are read, and the names of their files.

========================  ==========================================================================================
PNG JPEG BMP GIF WebP     decoded when opened (these formats have no tiles) and held; first frame; turned as EXIF says;
                          palette and CMYK become RGB, transparency is dropped, one bit becomes 0 and 255
TIFF (also OME, ImageJ)   main image (no thumbnail, label or overview), full resolution, also if it is spread over several
                          files. Tiled: region by region. Uncompressed: read in place. Strips that are compressed: a plane
                          is decoded at its first read and held until another plane is read. Palettes of ImageJ and OME
                          only show grey; "no data" of float GeoTIFFs is not-a-number
OME-Zarr 0.1 to 0.5       first multiscale, finest level, region by region; fields of plates and series of slides are images
                          of their own
NPY                       ``(H, W)``; ``(H, W, C)`` if the last axis is 1 to 4 long; ``(C, H, W)`` otherwise; read in place
========================  ==========================================================================================

What is not read of a file is named (`ImageFile.left_out`), what is missing of it is an error, and metadata that make no sense
are dropped with a word (`ImageFile.notes`). Pixel values are those stored: a TIFF whose tag says that 0 is white is not
inverted (ImageJ and tifffile do not either, and tifffile writes that tag for every boolean array).
"""

from __future__ import annotations

from pathlib import Path

from mdm_studio.io.images.npy import open_npy
from mdm_studio.io.images.ome_zarr import open_zarr
from mdm_studio.io.images.pictures import open_pillow
from mdm_studio.io.images.source import Opener
from mdm_studio.io.images.tiff import open_tiff
from mdm_studio.io.images.zarr_groups import is_zarr, name_in_zarr, zarr_root

OPENERS: dict[str, Opener] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"), open_pillow),
    **dict.fromkeys((".tif", ".tiff"), open_tiff),
    ".zarr": open_zarr,
    ".npy": open_npy,
}
"""Lower-case extension -> how to open it."""

EXTENSIONS = tuple(OPENERS)
"""Extensions of the files that `open_image` reads, lower case; a ``.zarr`` is a folder."""
LISTED = ", ".join(EXTENSIONS)
"""The extensions in words."""


def opener_of(path: Path) -> Opener | None:
    """How to open a file, by its extension; groups inside a zarr folder have none. None if it cannot be an image."""
    opener = OPENERS.get(path.suffix.lower())
    if opener is None and zarr_root(path) is not None and (is_zarr(path) or not path.exists()):
        return open_zarr
    return opener


def image_name(path: str | Path) -> str:
    """Name of an image without its extension; ``.ome.tif`` and ``.ome.zarr`` count as one extension.

    An image inside a zarr folder is called after both.

    Examples
    --------
    >>> image_name("slides/cell.7.OME.tiff")
    'cell.7'
    >>> image_name("plate.ome.zarr/A/1/0")
    'plate_A1_f0'
    """
    path = Path(path)
    root = zarr_root(path)
    if root is not None and path.suffix.lower() not in OPENERS:
        return f"{image_name(root)}_{name_in_zarr(path)}"
    stem = path.stem if path.suffix.lower() in OPENERS else path.name
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem
