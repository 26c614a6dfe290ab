"""An entry in the menus of the desktop: name, icon, and what the program opens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mdm_studio.config import resource
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.atomic import make_folder, output_error, write_bytes, write_text

NAME: Final = "mdm-studio"
MIME: Final = "application/x-mdm-studio-classifier"
_PNG_SIZES: Final = (16, 24, 32, 48, 64, 128, 256, 512)

_ENTRY: Final = """\
[Desktop Entry]
Type=Application
Version=1.5
Name=MDM Studio
GenericName=Image segmentation
Comment=From unlabelled images and a few brush strokes to segmentation masks
Exec={command} app %F
TryExec={program}
Icon={name}
Terminal=false
Categories=Science;Education;ImageProcessing;
Keywords=segmentation;microscopy;labelling;annotation;
MimeType={mime};inode/directory;image/png;image/tiff;image/jpeg;
StartupWMClass={name}
StartupNotify=true
"""

_MIME_INFO: Final = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="{MIME}">
    <comment>MDM Studio classifier</comment>
    <icon name="{NAME}"/>
    <glob pattern="*.mdm"/>
  </mime-type>
</mime-info>
"""


@dataclass(frozen=True)
class Outcome:
    """What was done.

    Attributes
    ----------
    files : tuple of Path
        Files that were written, or removed.
    notes : tuple of str
        What the user should know.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def data_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a Linux desktop looks for what a user has installed."""
    given = environment.get("XDG_DATA_HOME", "")
    return Path(given) if given.startswith("/") else Path(os.path.expanduser("~/.local/share"))


def command_line() -> tuple[str, ...]:
    """The program as a desktop starts it, without our environment: the script beside this Python, or Python itself."""
    script = Path(sys.executable).parent / NAME
    if os.name == "nt":  # the script would open a console beside the window
        return (str(Path(sys.executable).with_name("pythonw.exe")), "-m", "mdm_studio")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "mdm_studio")


def quoted(part: str) -> str:
    """A part of ``Exec=``, as the specification of desktop entries wants it."""
    for letter in '\\"`$':
        part = part.replace(letter, f"\\{letter}")
    # the value of a key is unescaped once more before that
    return '"' + part.replace("\\", "\\\\").replace("%", "%%") + '"'


def entry_text(command: tuple[str, ...]) -> str:
    """The desktop entry."""
    line = " ".join(quoted(part) for part in command)
    return _ENTRY.format(command=line, program=command[0].replace("\\", "\\\\"), name=NAME, mime=MIME)


def places(root: Path) -> dict[str, Path]:
    """Our files below the data home, by what they are."""
    icons = {f"icon {size}": root / f"icons/hicolor/{size}x{size}/apps/{NAME}.png" for size in _PNG_SIZES}
    return {
        "entry": root / "applications" / f"{NAME}.desktop",
        "mime": root / "mime" / "packages" / f"{NAME}.xml",
        **icons,
        "icon": root / "icons/hicolor/scalable/apps" / f"{NAME}.svg",
    }


def install(root: Path, command: tuple[str, ...]) -> Outcome:
    """Write the entry, the icons and the kind of file.

    Parameters
    ----------
    root : Path
        The data home.
    command : tuple of str
        Starts the program.

    Raises
    ------
    OutputError
        If nothing can be written there.
    MDMStudioError
        If ``desktop-file-validate`` is there and finds fault with the entry.
    """
    icons, where = resource("icons"), places(root)
    for path in where.values():
        make_folder(path.parent)
    for size in _PNG_SIZES:
        write_bytes(where[f"icon {size}"], (icons / f"{NAME}-{size}.png").read_bytes())
    write_bytes(where["icon"], (icons / f"{NAME}.svg").read_bytes())
    write_text(where["mime"], _MIME_INFO)
    write_text(where["entry"], entry_text(command))
    where["entry"].chmod(0o755)
    fault = _call("desktop-file-validate", where["entry"])
    if fault:
        raise MDMStudioError(f"the desktop entry {where['entry']} is not valid: {fault}")
    return Outcome(tuple(where.values()), _refresh(root))


def remove(root: Path) -> Outcome:
    """Remove what `install` wrote; what is not there is no error."""
    removed = []
    for path in places(root).values():
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise output_error(path, error) from error
        removed.append(path)
    return Outcome(tuple(removed), _refresh(root) if removed else ())


def _refresh(root: Path) -> tuple[str, ...]:
    """Let the desktop look again, with the tools that are there; it does so by itself sooner or later."""
    _call("update-desktop-database", root / "applications")
    _call("update-mime-database", root / "mime")
    _call("gtk-update-icon-cache", "-q", "-t", "-f", root / "icons" / "hicolor")
    return ("The menus may need a moment, or a new login, to show it.",)


def _call(tool: str, *arguments: Path | str) -> str:
    """What a tool finds wrong; empty if nothing, or if it is not there."""
    program = shutil.which(tool)
    if program is None:
        return ""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).strip() or f"exit code {done.returncode}" if done.returncode else ""


def install_here(removing: bool) -> Outcome:
    """Install or remove the entry on this system.

    Raises
    ------
    MDMStudioError
        On macOS, where programs are bundles: it says what to do instead.
    """
    if sys.platform == "win32":
        return _start_menu(removing)
    if sys.platform == "darwin":
        raise MDMStudioError(
            "macOS lists only application bundles, which this installation does not make; start MDM Studio with `mdm-studio`, "
            "or make an application of that command in Automator (Run Shell Script) and keep it in the Dock"
        )
    return remove(data_home()) if removing else install(data_home(), command_line())


_SHORTCUT: Final = (
    "$s = (New-Object -ComObject WScript.Shell).CreateShortcut($env:MDM_LINK); $s.TargetPath = $env:MDM_TARGET; "
    "$s.Arguments = $env:MDM_ARGUMENTS; $s.IconLocation = $env:MDM_ICON; $s.Save()"
)


def _start_menu(removing: bool) -> Outcome:
    """A shortcut in the start menu of Windows, made by Windows' own scripting host."""
    link = Path(os.environ.get("APPDATA", "")) / "Microsoft/Windows/Start Menu/Programs/MDM Studio.lnk"
    if removing:
        there = link.exists()
        link.unlink(missing_ok=True)
        return Outcome((link,) if there else ())
    command = command_line()
    values = {
        "MDM_LINK": str(link),
        "MDM_TARGET": command[0],
        "MDM_ARGUMENTS": subprocess.list2cmdline([*command[1:], "app"]),
        "MDM_ICON": str(resource("icons") / f"{NAME}.ico"),
    }
    # the values travel as variables, so that no path can be taken for a command
    shell = ["powershell", "-NoProfile", "-Command", _SHORTCUT]
    done = subprocess.run(shell, env={**os.environ, **values}, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode or not link.exists():
        reason = done.stderr.strip() or "it gave no reason"
        raise MDMStudioError(f"Windows made no shortcut: {reason}; start the program with `{NAME}`")
    return Outcome((link,))
