"""The entry in the menus of a Linux desktop, in a data folder of the test's own."""

import configparser
import stat
import sys
from xml.etree import ElementTree

import pytest
from PIL import Image

from mdm_studio.desktop import icons, install
from mdm_studio.errors import MDMStudioError, OutputError


@pytest.fixture(autouse=True)
def _data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux desktop")


def entry(root):
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(root / "applications" / "mdm-studio.desktop", "utf-8")
    return parser["Desktop Entry"]


@linux
def test_install_and_remove(run, tmp_path):
    assert run("install-desktop").code == 0
    values = entry(tmp_path)
    assert values["Name"] == "MDM Studio"
    assert values["Exec"].endswith(" app %F")
    assert install.MIME in values["MimeType"].split(";")
    mime = ElementTree.parse(tmp_path / "mime/packages/mdm-studio.xml")
    assert [each.attrib["pattern"] for each in mime.iter() if each.tag.endswith("glob")] == ["*.mdm"]
    for size in icons.SIZES:
        with Image.open(tmp_path / f"icons/hicolor/{size}x{size}/apps/{values['Icon']}.png") as picture:
            assert picture.size == (size, size)
    assert run("install-desktop").code == 0  # again, over the old one
    outcome = run("install-desktop", "--remove")
    assert outcome.code == 0
    ours = [path for path in tmp_path.rglob("*") if path.is_file() and "mdm-studio" in path.name]
    assert ours == []
    assert "nothing to remove" in run("install-desktop", "--remove").stderr


def test_commands_with_odd_letters_are_quoted(tmp_path):
    text = install.entry_text(("/opt/my env/100%/py`t$h\"o\\n", "-m", "mdm_studio"))
    (line,) = [line for line in text.splitlines() if line.startswith("Exec=")]
    # quotes and backslashes twice: for the words of the command, and for the value of a key
    assert line == r'''Exec="/opt/my env/100%%/py\\`t\\$h\\"o\\\\n" "-m" "mdm_studio" app %F'''


def test_the_command_is_one_that_needs_no_environment_of_ours():
    command = install.command_line()
    assert command[0].startswith(("/", "C:"))


def test_a_place_that_cannot_be_written_and_a_validator_that_objects(tmp_path, monkeypatch):
    (tmp_path / "icons").write_text("")
    with pytest.raises(OutputError, match="a file"):
        install.install(tmp_path, ("/bin/true",))
    tools = tmp_path / "tools"
    tools.mkdir()
    validator = tools / "desktop-file-validate"
    validator.write_text("#!/bin/sh\necho 'it is wrong'\nexit 1\n")
    validator.chmod(validator.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    if sys.platform.startswith("linux"):
        with pytest.raises(MDMStudioError, match="it is wrong"):
            install.install(tmp_path / "data", ("/bin/true",))


def test_macos_says_what_to_do_instead(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MDMStudioError, match="Automator"):
        install.install_here(False)


def test_without_xdg_it_is_the_usual_place(monkeypatch):
    assert install.data_home({"XDG_DATA_HOME": "relative"}).parts[-2:] == (".local", "share")
