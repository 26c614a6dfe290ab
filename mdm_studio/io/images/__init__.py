"""Images as planes of raw pixels ``(C, H, W)``, read region by region, and the search for image files.

`open_image` gives an `ImageFile`; its planes (one, or one for each z, t, ... of a stack) share the `Plane` interface with
`ArrayPlane`, which wraps an array in memory. `mdm_studio.io.images.formats` says what is read from which format.
"""

from __future__ import annotations

from mdm_studio.io.images.finding import check_unique_names, find_images
from mdm_studio.io.images.formats import EXTENSIONS, image_name
from mdm_studio.io.images.image_file import ImageFile, decoding, open_image
from mdm_studio.io.images.image_state import image_signature, image_state
from mdm_studio.io.images.planes import ArrayPlane, BasePlane, Plane

__all__ = [
    "EXTENSIONS",
    "ArrayPlane",
    "BasePlane",
    "ImageFile",
    "Plane",
    "check_unique_names",
    "decoding",
    "find_images",
    "image_name",
    "image_signature",
    "image_state",
    "open_image",
]
