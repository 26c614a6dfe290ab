"""A home that cannot be written: libraries that insist on one get a temporary one."""

import logging
from pathlib import Path

from mdm_studio.desktop.home import spare_places


def test_a_usual_home_stays(tmp_path):
    assert spare_places({"XDG_CACHE_HOME": str(tmp_path)}) == {}


def test_a_home_that_cannot_be_written_is_told_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MDM_STUDIO_DATA", str(tmp_path / "file" / "data"))
    with caplog.at_level(logging.WARNING):
        found = spare_places({"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert found.keys() == {"XDG_CACHE_HOME", "NAPARI_CONFIG", "MPLCONFIGDIR"}
    assert all(Path(place).parent.is_dir() for place in found.values())
    assert len(caplog.messages) == 1
