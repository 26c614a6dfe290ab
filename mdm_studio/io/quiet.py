"""Silence of the libraries that decode images: what they warn of in passing is no line for who looks at images.

`warnings.catch_warnings` is not for threads, and tifffile and zarr decode in threads of their own. So there is one filter for
all of them, which takes part while anybody decodes.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator


class _WhileDecoding:
    """Stands in a filter of `warnings` for a pattern of module names, and matches any while somebody is at work.

    Attributes
    ----------
    pattern : str
        For libraries that copy filters into their workers, as scikit-learn does: an expression that nothing matches.
    """

    pattern = r"(?!)"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, number: int) -> None:
        """So many more are at work."""
        with self._lock:
            self._count += number

    def match(self, module: str) -> bool:
        """Whether a warning of a module is passed over."""
        return self._count > 0


_decoding = _WhileDecoding()
_FILTER = ("ignore", None, Warning, _decoding, 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pass over all warnings in the ``with`` block, whatever is asked for elsewhere; errors are raised as ever."""
    filters: list[object] = warnings.filters  # type: ignore[assignment]
    if not filters or filters[0] is not _FILTER:  # who sets filters anew, as tests do, has put it aside
        filters.insert(0, _FILTER)
    _decoding.add(1)
    try:
        yield
    finally:
        _decoding.add(-1)
