"""What the program remembers between two starts: a small JSON file that never stops a start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from mdm_studio.config import user_data_dir
from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import make_folder, write_json

Theme = Literal["dark", "light", "system"]
THEMES: Final[tuple[Theme, ...]] = get_args(Theme)
VERSION: Final = 1


@dataclass(frozen=True)
class Settings:
    """The settings.

    Attributes
    ----------
    geometry, docks : str
        Where the window and its docks were, as Qt writes it, in base64; empty for the usual places.
    theme : str
        Colours of the window: "dark", "light" or "system".
    recent : tuple of str
        Folders of projects, the latest first.
    folder : str
        Where the last file dialog was left.
    told_of_jobs : bool
        Whether the user wants no more to be told that jobs go on when the window closes.
    reports_seen : str
        Name of the latest crash report that the user was told of.
    """

    geometry: str = ""
    docks: str = ""
    theme: Theme = "dark"
    recent: tuple[str, ...] = ()
    folder: str = ""
    told_of_jobs: bool = False
    reports_seen: str = ""


def read_settings(text: str) -> tuple[Settings, str]:
    """Settings from the text of the file, and in words what was wrong with it; what cannot be used gets its default."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return Settings(), "the settings are damaged; the usual ones are used"
    good = {field.name: values[field.name] for field in fields(Settings) if field.name in values}
    good = {name: tuple(value) if isinstance(value, list) else value for name, value in good.items()}
    bad = sorted(name for name, value in good.items() if not _fits(name, value))
    settings = Settings(**{name: value for name, value in good.items() if name not in bad})
    return settings, f"the settings {', '.join(bad)} are damaged; the usual ones are used" if bad else ""


def _fits(name: str, value: Any) -> bool:
    usual = getattr(Settings(), name)
    if type(value) is not type(usual):
        return False
    if name == "theme":
        return value in THEMES
    return not isinstance(value, tuple) or all(isinstance(item, str) for item in value)


class SettingsFile:
    """The settings and their file.

    Parameters
    ----------
    path : Path
        The file; it need not be there.

    Attributes
    ----------
    value : Settings
        As they are now.
    problem : str
        What was wrong with the file, or with writing it, in words.

    Notes
    -----
    A damaged file is kept beside the new one as ``settings.damaged.json``. Settings that cannot be written last until the
    program ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.value, self.problem = Settings(), ""
        try:
            text = path.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = f"the settings cannot be read ({error.strerror}); the usual ones are used"
            return
        self.value, self.problem = read_settings(text)
        if self.problem:
            self._keep_aside()

    def change(self, **values: Any) -> Settings:
        """Change settings, now and on disk."""
        changed = replace(self.value, **values)
        if changed == self.value:
            return changed
        self.value = changed
        try:
            make_folder(self.path.parent)
            write_json(self.path, {"version": VERSION, **asdict(changed)})
        except OutputError as error:
            self.problem = f"the settings are not kept: {error}"
        return changed

    def _keep_aside(self) -> None:
        try:
            self.path.replace(self.path.with_suffix(".damaged.json"))
        except OSError as error:
            self.problem += f" (the damaged file stays: {error.strerror})"


def settings_path() -> Path:
    """The user's own file."""
    return user_data_dir() / "settings.json"
