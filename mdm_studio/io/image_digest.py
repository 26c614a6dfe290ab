"""Short digests of image files: whether two files are the same, and nothing else about them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from mdm_studio.io.images import decoding

MAX_IMAGES = 4096
"""A card lists the digests of so many images at most: 80 KB. Of more it lists none, rather than a part."""

_END = 4 << 20  # bytes read from either end of a large file: its size, tables and millions of pixels are in them


def image_digest(path: Path) -> str:
    """Sixteen hexadecimal digits (BLAKE2b, 64 bits) of an image file; of a ``.zarr`` folder, those of its files.

    Of a file beyond 8 MiB the size and both ends are taken, so that slides cost no more than photographs. The same picture
    saved in another format or with other settings has another digest.

    Raises
    ------
    UnreadableImageError
        If the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    with decoding(path):
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.relative_to(path).as_posix()} {size}\n".encode())  # "." is the name of a single file
            with file.open("rb") as stream:
                digest.update(stream.read(2 * _END if size <= 2 * _END else _END))
                if size > 2 * _END:
                    stream.seek(-_END, os.SEEK_END)
                    digest.update(stream.read(_END))
    return digest.hexdigest()


def image_digests(paths: Iterable[Path]) -> list[str]:
    """Sorted digests of the images that trained a network, for its card; none of more than `MAX_IMAGES`.

    A digest cannot be turned back into an image; but whoever has an image can see whether it is in the list.
    """
    files = list(paths)
    return sorted({image_digest(path) for path in files}) if len(files) <= MAX_IMAGES else []
