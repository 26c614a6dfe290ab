"""What an export folder remembers of its files, so that the next run knows which are up to date, and which are not its own.

::

    OUT/
      export.json        the report of the last run; its "files" are what this module reads
      .export.jsonl      the same of a run that is not finished: a line for each image that was begun, and one when it is done
      .lock              held while an export writes here

What is there is judged file by file (`judge`). A file is kept if this very classifier with these settings wrote it from this
very image, and it is still as it was written; a file of ours that is older than that is written anew. What somebody else put
there, or changed since, is never replaced without being told so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import output_error
from mdm_studio.io.file_signature import Signature, describing, signature
from mdm_studio.io.images import image_name, image_signature
from mdm_studio.io.json_files import parse_json, read_json
from mdm_studio.io.masks import has_whole
from mdm_studio.io.tables import is_whole_table
from mdm_studio.services.export_request import PredictOptions

REPORT = "export.json"
JOURNAL = ".export.jsonl"
Verdict = Literal["do", "keep", "refuse"]

_VERSION = 1  # of what is written for the same settings
_MOST_BYTES = 1 << 30  # of a report: about a kilobyte an image


@dataclass(frozen=True)
class FileEntry:
    """What is known of a file.

    Attributes
    ----------
    recipe : str
        Digest of the classifier and the settings that it was written with; empty while its image is begun and not done.
    source, written : (int, int)
        Signature of the image it was made of, and its own when it was written.
    left_out, notes : tuple of str
        What was not read of that image, and what else should be known of it; see `ImageFile`.
    """

    recipe: str
    source: Signature
    written: Signature
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recipes(digest: str, options: PredictOptions, smooth: int) -> dict[str, str]:
    """Digest, for each kind of output, of what it depends on: classifier and smoothing; of objects also how they are found."""
    common = [_VERSION, digest, smooth]
    objects = None if options.objects is None else asdict(options.objects)
    found: dict[str, str] = {}
    for kind in options.paths("x"):
        facts = [*common, objects] if kind in ("objects", "csv", "parquet") else common
        found[kind] = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    return found


class Record:
    """The files of an export folder.

    Parameters
    ----------
    out : Path
        The folder.

    Attributes
    ----------
    files : dict
        Path in the folder -> what is known of it.
    known : bool
        Whether there is a report of ours.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.files: dict[str, FileEntry] = {}
        report = _read_report(out / REPORT)
        self.known = report is not None
        for facts in (report or {}, *_read_lines(out / JOURNAL)):
            self.files |= facts

    def verdict(self, image: Path, outputs: Mapping[str, Path], wanted: Mapping[str, str]) -> tuple[Verdict, str]:
        """Whether an image is to be predicted, and in words what is in the way or why not.

        Parameters
        ----------
        image : Path
            The image.
        outputs, wanted : mapping
            File and recipe of each kind of output.
        """
        source = image_signature(image)
        states = {}
        for kind, path in outputs.items():
            entry = self.files.get(self._key(path))
            there = signature(path)
            if entry is not None and entry.written == describing(path):  # as zarr folders were noted before
                there = entry.written
            states[path] = judge(entry, there, source, wanted[kind], whole=partial(is_whole, path))
        if all(state in ("current", "edited") for state in states.values()):
            return "keep", "already there"
        for path, state in states.items():
            if state in ("foreign", "edited"):
                ours = self._key(path) in self.files
                what = "was changed since it was written" if ours else "was not written by an export into this folder"
                return "refuse", f"{path} {what}: pass --overwrite to replace it, or choose another folder"
        return "do", ""

    def begin(self, images: Iterable[Path], options: PredictOptions) -> None:
        """Note that the files of these images will be ours, should we be killed."""
        now: dict[str, FileEntry] = {}
        for image in images:
            for path in options.paths(image_name(image)).values():
                now[self._key(path)] = FileEntry("", (0, 0), (0, 0))
        self._note(now)

    def done(
        self,
        outputs: Mapping[str, Path],
        wanted: Mapping[str, str],
        source: Signature = (0, 0),
        written: Mapping[str, Signature] | None = None,
    ) -> None:
        """Note what was written.

        Parameters
        ----------
        outputs, wanted : mapping
            File and recipe of each kind of output.
        source : (int, int)
            Signature of the image, taken before it was opened.
        written : mapping, optional
            Signatures of the outputs, taken when they were written; otherwise those of now.
        """
        known = written or {}
        self._note(
            {
                self._key(path): FileEntry(wanted[kind], source, known.get(kind) or signature(path) or (0, 0))
                for kind, path in outputs.items()
            }
        )

    def remark(self, outputs: Mapping[str, Path], left_out: tuple[str, ...], notes: tuple[str, ...]) -> None:
        """Note what was left out of the image that `outputs` were made of, for runs that find them there."""
        if left_out or notes:
            keys = [self._key(path) for path in outputs.values()]
            self._note({key: replace(self.files[key], left_out=left_out, notes=notes) for key in keys})

    def remarks(self, outputs: Mapping[str, Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What `remark` noted: what was left out, and notes."""
        entries = [self.files[key] for key in map(self._key, outputs.values()) if key in self.files]
        return (entries[0].left_out, entries[0].notes) if entries else ((), ())

    def finish(self) -> None:
        """Forget the unfinished run; its files stand in the report."""
        (self._out / JOURNAL).unlink(missing_ok=True)

    def as_json(self) -> dict[str, Any]:
        """The "files" of the report: those that are still there."""
        return {key: asdict(entry) for key, entry in self.files.items() if os.path.exists(self._out / key)}

    def _key(self, path: Path) -> str:
        return path.relative_to(self._out).as_posix()

    def _note(self, files: Mapping[str, FileEntry]) -> None:
        self.files |= files
        journal = self._out / JOURNAL
        try:
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: asdict(entry) for key, entry in files.items()}) + "\n")
        except OSError as error:
            raise output_error(journal, error) from error


def judge(
    entry: FileEntry | None, there: Signature | None, source: Signature | None, recipe: str, *, whole: Any
) -> Literal["absent", "old", "current", "edited", "foreign"]:
    """What a file is to us.

    Parameters
    ----------
    entry : FileEntry or None
        What is known of it.
    there, source : (int, int) or None
        Its signature, and that of its image, now.
    recipe : str
        What is wanted.
    whole : callable
        Says whether it can be opened, or with ``decoded=True`` read as a whole; asked only where it matters.

    Returns
    -------
    str
        "absent"; "current": as wanted; "old": ours, of another recipe or image, or not whole; "edited": as wanted, and changed
        since; "foreign": not ours, or changed since and not as wanted. Broken files are "old", whoever wrote them.
    """
    if there is None:
        return "absent"
    wanted = entry is not None and entry.recipe == recipe and entry.source == source
    if not whole():
        return "old"
    if entry is not None and (not entry.recipe or there == entry.written):
        return "current" if wanted else "old"
    if not wanted:
        return "foreign"
    return "edited" if whole(decoded=True) else "old"  # by somebody's hand, or by a broken disk


def is_whole(path: Path, *, decoded: bool = False) -> bool:
    """Whether an output is there and can be opened; with `decoded`, whether all of it can be read."""
    return is_whole_table(path) if path.suffix in (".csv", ".parquet") else has_whole(path, decoded=decoded)


def _read_report(path: Path) -> dict[str, FileEntry] | None:
    try:
        return _entries(read_json(path, dict[str, Any], max_bytes=_MOST_BYTES)["files"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path} ({error}); check the drive, or choose another folder") from error
    except (ValueError, LookupError, TypeError, AttributeError):  # somebody else's, or damaged: nothing is known
        return None


def _read_lines(path: Path) -> Sequence[dict[str, FileEntry]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_entries(parse_json(line, dict[str, Any])))
        except (ValueError, LookupError, TypeError, AttributeError):  # cut off by a power cut
            break
    return found


def _entries(facts: Mapping[str, Any]) -> dict[str, FileEntry]:
    return {key: _entry(each) for key, each in facts.items()}


def _entry(facts: Mapping[str, Any]) -> FileEntry:
    left_out, notes = (tuple(map(str, facts.get(name, ()))) for name in ("left_out", "notes"))  # reports of old have none
    return FileEntry(facts["recipe"], _pair(facts["source"]), _pair(facts["written"]), left_out, notes)


def _pair(values: Sequence[int]) -> Signature:
    size, time = values
    return int(size), int(time)
