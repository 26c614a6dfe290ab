"""``mdm-studio cache``: look at the feature cache and clean it."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from mdm_studio.cli.common import CacheDir, JsonFlag, cell, open_cache, print_json, progress_bar, say
from mdm_studio.config import CACHE_BYTES
from mdm_studio.errors import UsageError

app = typer.Typer(
    help="Look at the feature cache and clean it.\n\nExample: `mdm-studio cache prune --max-size 5GB`", no_args_is_help=True
)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@app.command()
def info(cache: CacheDir = None, json_: JsonFlag = False) -> None:
    """Show what is in the cache.

    Example: `mdm-studio cache info`
    """
    store = open_cache(cache, no_cache=False, needed=True)
    assert store is not None
    entries = store.entries()
    total = sum(entry.bytes for entry in entries)
    if json_:
        print_json(
            {"cache": store.root, "bytes": total, "max_bytes": store.max_bytes, "entries": [vars(entry) for entry in entries]}
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("image", "backbone", "maps", "tiles", "MB", "last used")
    for entry in entries[-20:]:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        names = (cell(entry.image), cell(entry.backbone))
        table.add_row(*names, str(entry.maps), str(entry.tiles), f"{entry.bytes / 1e6:.1f}", used)
    console = Console()
    console.print(table)
    hidden = f" (the last 20 of {len(entries)})" if len(entries) > 20 else ""
    size = f"{total / 1e9:.2f} of {CACHE_BYTES / 1e9:.0f} GB"
    console.print(f"{len(entries)} images, {size} in {store.root}{hidden}", markup=False)


@app.command()
def prune(
    max_size: Annotated[str, typer.Option("--max-size", help="What may stay, for example 5GB or 500MB.")] = "20GB",
    cache: CacheDir = None,
    json_: JsonFlag = False,
) -> None:
    """Remove the least recently used features.

    Example: `mdm-studio cache prune --max-size 5GB`
    """
    store = open_cache(cache, no_cache=False, needed=True)
    assert store is not None
    report = store.prune(_bytes(max_size))
    say(f"removed the features of {report.entries} images, {report.bytes / 1e6:.1f} MB")
    if json_:
        print_json(vars(report))


@app.command()
def clear(cache: CacheDir = None, json_: JsonFlag = False) -> None:
    """Remove all features; they can be computed again.

    Example: `mdm-studio cache clear`
    """
    prune("0", cache, json_)


@app.command()
def verify(cache: CacheDir = None, json_: JsonFlag = False) -> None:
    """Read every tile and remove the damaged ones, which are then computed again when they are needed.

    Example: `mdm-studio cache verify`
    """
    from mdm_studio.io.feature_cache import CacheReport

    store = open_cache(cache, no_cache=False, needed=True)
    assert store is not None
    report = CacheReport()
    with progress_bar() as bar:
        task = bar.add_task("verifying", total=len(store.entries()), note="")
        for report in store.verify():  # noqa: B007 - the last one counts
            bar.advance(task)
    say(f"{report.checked} tiles checked, {report.damaged} damaged and removed")
    if json_:
        print_json(vars(report))


def _bytes(text: str) -> int:
    """Bytes of a size such as ``20GB``, ``500 MB`` or ``1000``."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?)B?\s*", text.upper())
    if not match:
        raise UsageError(f"--max-size {text!r} is not a size; write it like 20GB or 500MB")
    return int(float(match[1]) * _UNITS[match[2]])
