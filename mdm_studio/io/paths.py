"""Absolute paths of what a user names.

`Path.resolve` and `Path.expanduser` raise RuntimeError for a link to itself and for ``~`` of somebody unknown. Here such a path
stays as it is, and whoever opens it tells that there is nothing.
"""

from __future__ import annotations

import os
from pathlib import Path


def real_path(path: str | Path) -> Path:
    """`path` as an absolute path without links; a link that leads round in a circle stays.

    Examples
    --------
    >>> os.symlink("loop.tif", "loop.tif")
    >>> real_path("loop.tif").name
    'loop.tif'
    """
    return Path(os.path.realpath(path))


def user_path(path: str | Path) -> Path:
    """`path` with the user's home for ``~``; where no home is known, ``~`` stays.

    Examples
    --------
    >>> print(user_path("~nobody-of-this-name/images"))
    ~nobody-of-this-name/images
    """
    return Path(os.path.expanduser(path))
