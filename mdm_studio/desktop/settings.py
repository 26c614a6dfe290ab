"""What the program remembers between two starts: a small JSON file that never stops a start."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

from mdm_studio.config import user_data_dir
from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import make_folder, write_json
from mdm_studio.io.json_files import check_value, parse_json, read_small_file
from mdm_studio.io.user_files import MAX_BYTES

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
        values = parse_json(text, dict[str, Any])
    except ValueError:
        return Settings(), "the settings are damaged; the usual ones are used"
    good, bad = dict[str, Any](), list[str]()
    for name, kind in get_type_hints(Settings).items():
        try:
            good |= {name: check_value(values[name], kind)} if name in values else {}
        except ValueError:
            bad.append(name)
    return Settings(**good), f"the settings {', '.join(sorted(bad))} are damaged; the usual ones are used" if bad else ""


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
            text = read_small_file(path, MAX_BYTES).decode("utf-8-sig", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.problem = f"the settings cannot be read ({error.strerror}); the usual ones are used"
            return
        except ValueError as error:
            self.problem = f"the settings cannot be read ({error}); the usual ones are used"
            self._keep_aside()
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
