"""Names that become names of files and folders: on every system, in one folder, and nowhere else."""

from __future__ import annotations

import unicodedata

from mdm_studio.errors import UsageError

LONGEST = 120
"""Bytes of a name; what is put around it still fits into the 255 of most file systems."""
_SEPARATORS = frozenset('/\\:*?"<>|')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³")]
)


def problem_of(name: str) -> str | None:
    """Why `name` is no plain name of a file; None if it is one.

    Examples
    --------
    >>> problem_of("nuclei 2"), problem_of("../x")
    (None, "it contains '/'")
    """
    if not name.strip():
        return "it is empty"
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    for letter in name:
        if letter in _SEPARATORS:
            return f"it contains {letter!r}"
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp"):  # control characters, halves of letters, ...
            return f"it contains {letter!a}, which cannot be seen"
    if name[0] in ". " or name[-1] in ". ":
        return "it begins or ends with a dot or a space"
    if name.partition(".")[0].rstrip().lower() in _RESERVED:
        return "Windows keeps it for a device"
    return None


def check_plain_name(name: str, what: str) -> str:
    """`name` itself, if it is a plain name of a file.

    Parameters
    ----------
    what : str
        What it names, for the message: "backbone".

    Raises
    ------
    UsageError
        If it is none, with the reason.
    """
    problem = problem_of(name)
    if problem is None:
        return name
    shown = ascii(name if len(name) <= LONGEST else name[:40] + "...")
    raise UsageError(f"{shown} cannot be the name of a {what}: {problem}; choose letters, digits, hyphens and underscores")
