"""What several commands share: options, progress bars, JSON on stdout."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdm_studio import number_lists
from mdm_studio.config import CACHE_BYTES
from mdm_studio.errors import UsageError
from mdm_studio.io.names import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from mdm_studio.io.feature_cache import FeatureCache

Images = Annotated[list[str], typer.Argument(help="A folder, a glob in quotes, or files.", show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto: the GPU if there is one.")]
Channels = Annotated[
    str | None,
    typer.Option("--channels", help="Channels to read, from 0, for example 0,2,1. Default: all.", show_default=False),
]

Blocks = Annotated[
    str | None,
    typer.Option(
        "--blocks",
        help="Decoder blocks to read, for example 6-9; none reads the filters only. Default: the backbone's.",
        show_default=False,
    ),
]
Timesteps = Annotated[
    str | None,
    typer.Option("--timesteps", help="Timesteps to read, for example 50,150. Default: the backbone's.", show_default=False),
]
Noise = Annotated[
    str,
    typer.Option(
        "--noise",
        help="Noise that a denoiser (ddpm) sees: fixed, per-timestep or fresh. Default: the backbone's.",
        show_default=False,
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        "--scales",
        help="Working scales, for example 1,2: the image as it is, and binned by 2. Default: the backbone's.",
        show_default=False,
    ),
]
Filters = Annotated[
    bool | None,
    typer.Option(
        "--filters/--no-filters",
        help="Read the classical filters (Gaussian, Laplacian, edges, ridges) too. Default: the backbone's choice.",
        show_default=False,
    ),
]
MAX_SMOOTH = 32  # twice that is read around a tile, and the smallest useful tile has 64 pixels
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of the feature cache. Default: the user's cache folder.", show_default=False),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do not keep features on disk.")]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32 (exact) or bf16 (several times faster where the hardware has it).")
]


def open_cache(folder: Path | None, no_cache: bool, *, needed: bool = False) -> FeatureCache | None:
    """The feature cache that the options ask for; unless it is `needed`, one that cannot be used is done without."""
    from mdm_studio.config import default_cache_dir
    from mdm_studio.io.feature_cache import FeatureCache

    if no_cache:
        if folder is not None:
            raise UsageError("--cache and --no-cache contradict each other; give one of them")
        return None
    return FeatureCache(folder or default_cache_dir(), max_bytes=CACHE_BYTES, optional=not needed)


REMARKS: dict[str, list[str]] = {}
"""What was told of the files that this command has read, by their paths."""
_SAME = 10  # files of which the same is said
_told: dict[str, int] = {}


def say(text: str) -> None:
    """One line for the user, on stderr: stdout belongs to results. Names with control characters in them stay one line."""
    print(one_line(text), file=sys.stderr)  # noqa: T201


def cell(text: str) -> str:
    """A name in a table of rich's, which takes square brackets for markup."""
    from rich.markup import escape

    return escape(one_line(text))


def forget_remarks() -> None:
    """Begin a command: nothing was told yet."""
    REMARKS.clear()
    _told.clear()


def hear(path: str, words: str) -> None:
    """Say what should be known of a file, and keep it for `print_json`; the same of many files is said of the first ones."""
    REMARKS.setdefault(path, []).append(words)
    _told[words] = same = _told.get(words, 0) + 1
    if same <= _SAME:
        say(f"{path}: {words}")
    elif same == _SAME + 1:
        say(f"and of other files too: {words}")


def print_json(values: Any) -> None:
    """One JSON document on stdout, with what was told of the files that were read; NaN becomes null."""
    if REMARKS and isinstance(values, dict):
        values = {**values, "remarks": REMARKS}
    print(json.dumps(_plain(values), indent=2))  # noqa: T201


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value != value:  # NaN is not JSON
        return None
    return value


def parse_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Numbers and ranges such as ``8-12`` or ``0,2,5-7``, in the order given; None stays None.

    Raises
    ------
    UsageError
        If it is neither.
    """
    try:
        return None if text is None else number_lists.parse_numbers(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}") from error


def parse_blocks(text: str | None) -> tuple[int, ...] | None:
    """Value of ``--blocks``: numbers and ranges, or ``none``; None stays None."""
    return () if text is not None and text.lower() == "none" else parse_numbers(text, "--blocks")


def parse_scales(text: str | None) -> tuple[int, ...] | None:
    """Value of ``--scales``; None stays None.

    Raises
    ------
    UsageError
        If one of them is no working scale.
    """
    numbers = parse_numbers(text, "--scales")
    if numbers is not None and not set(numbers) <= {1, 2, 4, 8}:
        raise UsageError(f"--scales {text!r}: images can be binned by 1 (as they are), 2, 4 or 8")
    return numbers


def parse_settings(texts: list[str], option: str) -> dict[str, Any]:
    """Values of an option that is given as ``name=value``, several times: numbers, tuples, true and false, or words.

    Raises
    ------
    UsageError
        If one of them is not of that form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{option} {text!r} is not of the form name=value")
        try:
            found[name] = ast.literal_eval({"true": "True", "false": "False"}.get(value.lower(), value))
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def parse_unlabelled(text: str) -> int | None:
    """Value of ``--unlabelled``; ``none`` is None.

    Raises
    ------
    UsageError
        If it is neither a number nor ``none``.
    """
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"--unlabelled {text!r} is neither a number nor none; write 0, another value, or none") from error


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on stderr, shown only when stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Note(TextColumn):
        """The name of a file, which is neither markup nor more than a line."""

        def render(self, task: Task) -> Text:
            return Text(one_line(str(task.fields["note"])))

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Note(""),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress
