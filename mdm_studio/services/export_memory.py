"""What the export form was left at, so that it is there again the next time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mdm_studio.io.user_files import read_user_file, write_user_file
from mdm_studio.services.export_form import ExportChoices, Source

_FILE = "export-form.json"
_VERSION = 1


@dataclass(frozen=True)
class Memory:
    """What is remembered.

    Attributes
    ----------
    choices : ExportChoices
        As of the last export.
    root : str
        Beside what its masks went, see `choices_for`.
    job : str
        Its job.
    """

    choices: ExportChoices = field(default_factory=ExportChoices)
    root: str = ""
    job: str = ""

    def choices_for(self, root: Path | None) -> ExportChoices:
        """The choices where another project or folder is open: how masks are written is kept, and where they go is not."""
        if root is not None and str(root) == self.root:
            return self.choices
        source: Source = "folder" if root is None else "project"
        kept = self.choices.folder if root is None else ""
        return replace(self.choices, source=source, folder=kept, out=self.choices.out if kept else "")


def read_memory() -> Memory:
    """What is remembered; a missing or damaged file is as good as none."""
    values = read_user_file(_FILE, dict[str, Any]) or {}
    if values.get("version") != _VERSION:
        return Memory()
    root, job = values.get("root"), values.get("job")
    return Memory(ExportChoices.from_json(values.get("choices")), root if isinstance(root, str) else "", str(job or ""))


def write_memory(memory: Memory) -> None:
    """Remember.

    Raises
    ------
    OutputError
        If the user's data folder cannot be written.
    """
    facts = {"version": _VERSION, "choices": memory.choices.to_json(), "root": memory.root, "job": memory.job}
    write_user_file(_FILE, facts)
