"""Bundled files and user folders are found where they should be."""

from pathlib import Path

import pytest

from mdm_studio import config
from mdm_studio.errors import InputError


def test_the_package_comes_before_the_checkout(tmp_path, monkeypatch):
    roots = tmp_path / "package", tmp_path / "checkout"
    monkeypatch.setattr(config, "resource_roots", lambda: roots)
    for root in reversed(roots):
        (root / "samples").mkdir(parents=True)
        (root / "samples" / "a.txt").touch()
        assert config.resource("samples/a.txt") == root / "samples" / "a.txt"


def test_a_missing_resource_names_the_places(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "resource_roots", lambda: (tmp_path / "package", tmp_path / "checkout"))
    with pytest.raises(InputError, match=r"'samples/a.txt' is not in .*package or .*checkout"):
        config.resource("samples/a.txt")


def test_this_checkout_is_a_place():
    assert config.resource_roots()[1] == Path(config.__file__).resolve().parent.parent / "resources"


@pytest.mark.parametrize(
    ("variable", "folder"),
    [(config.DATA_VARIABLE, config.user_data_dir), (config.CACHE_VARIABLE, config.default_cache_dir)],
)
def test_user_folders(variable, folder, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    assert folder() == tmp_path / "own"
    assert not folder().exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/own")
    assert folder() == tmp_path / "own"
    for unset in (lambda: monkeypatch.setenv(variable, ""), lambda: monkeypatch.delenv(variable)):
        unset()
        assert folder().name == config.APP_NAME
        assert folder().is_absolute()
