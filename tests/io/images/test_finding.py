"""Finding files: links, pipes, folders that cannot be read, names."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from mdm_studio.errors import InputError, LabelsError, MDMStudioError, NoImagesError, UnreadableImageError
from mdm_studio.io.images import check_unique_names, find_images, finding, image_name, open_image
from mdm_studio.io.labels import find_labels
from mdm_studio.io.remarks import heard

posix = pytest.mark.skipif(os.name == "nt", reason="no links, pipes and bytes as names")


@pytest.fixture
def told():
    said = []
    with heard(lambda path, words: said.append((os.path.basename(path), words))):
        yield said


def names(paths, folder):
    return [os.path.relpath(path, folder) for path in paths]


@posix
def test_links_to_an_own_folder_do_not_multiply_images(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "sub/deep/c.png"):
        (tmp_path / name).touch()
    for place in ("loop", "sub/loop", "sub/deep/aaa", "sub/deep/bbb"):
        (tmp_path / place).symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "sub")
    for items in (
        [tmp_path / "**" / "*"],
        [tmp_path / "**" / "*.png", tmp_path / "loop"],
        [tmp_path / "**", tmp_path / "again"],
    ):
        assert names(find_images(items), tmp_path) == ["a.png", "sub/b.png", "sub/deep/c.png"]


@posix
def test_links_to_elsewhere_are_followed_and_keep_their_names(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "there" / name).touch()
    (tmp_path / "here" / "folder").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "mine.png").symlink_to(tmp_path / "there" / "a.png")
    found = names(find_images([tmp_path / "here" / "**" / "*"]), tmp_path / "here")
    assert found == ["folder/a.png", "folder/b.png", "mine.png"]


@posix
@pytest.mark.timeout(60)
def test_what_is_no_file_is_passed_over_in_folders_and_refused_by_name(tmp_path, told, monkeypatch):
    (tmp_path / "real.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "file.zarr").touch()
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("s.png")
    for items in ([tmp_path], [tmp_path / "*"], [tmp_path / "**" / "*"]):
        assert names(find_images(items), tmp_path) == ["real.png"]
    assert sorted(told) == [
        ("device.png", "it is a device, no image, and passed over"),
        ("file.zarr", "it is a file, no folder as an OME-Zarr is, and passed over"),
        ("pipe.png", "it is a named pipe, no image, and passed over"),
        ("s.png", "it is a socket, no image, and passed over"),
    ]
    for name, what in {"pipe.png": "a named pipe", "device.png": "a device", "s.png": "a socket"}.items():
        with pytest.raises(NoImagesError, match=rf"{name} is {what}"):
            find_images([tmp_path / name])
        with pytest.raises(UnreadableImageError, match=rf"{name}: it is a pipe, a socket or a device"):
            open_image(tmp_path / name)
        with pytest.raises(LabelsError, match="no label maps"):
            find_labels([tmp_path / name], tmp_path / name)
    listening.close()


@posix
def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to("gone.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(NoImagesError, match=r"a\.png is a link to gone\.png, which is not there"):
        find_images([tmp_path / "a.png"])
    assert names(find_images([tmp_path]), tmp_path) == ["a.png", "loop.png"]  # opening them tells
    with pytest.raises(UnreadableImageError, match=r"it is a link to gone\.png, which is not there"):
        open_image(tmp_path / "a.png")
    for use in (open_image, lambda path: find_images([path])):
        with pytest.raises(MDMStudioError, match=r"loop\.png"):
            use(tmp_path / "loop.png")


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, told, monkeypatch):
    """Root may read everything, so the folder refuses here."""
    (tmp_path / "open").mkdir()
    (tmp_path / "shut").mkdir()
    (tmp_path / "open" / "a.png").touch()
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(finding.os, "scandir", refusing)
    with pytest.raises(NoImagesError, match=r"shut cannot be looked through \(Permission denied\)"):
        find_images([tmp_path / "shut"])
    for pattern in ("**/*", "*/*", "*/*.png"):
        assert names(find_images([tmp_path / pattern]), tmp_path) == ["open/a.png"]
    assert told == [("shut", "the folder cannot be looked through (Permission denied), and is passed over")]


@pytest.fixture
def nobody():
    """A folder of somebody who is not root, whom every folder would let in."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:
            os.chmod(folder, 0o755)
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(os.getuid())


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX systems")
def test_a_folder_without_permission_is_one_line(nobody):
    (nobody / "shut").mkdir()
    (nobody / "shut").chmod(0)
    for item in (nobody / "shut", nobody / "shut" / "a.png"):
        with pytest.raises(NoImagesError, match="cannot be looked through"):
            find_images([item])
    (nobody / "shut").chmod(stat.S_IRWXU)


def test_what_systems_leave_in_folders_is_no_image(tmp_path):
    for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", "export.json", "measurements.csv", ".hidden.tif", "a.png"):
        (tmp_path / name).touch()
    assert names(find_images([tmp_path]), tmp_path) == ["a.png"]
    assert finding.not_images(tmp_path) == ["Thumbs.db", "desktop.ini", "export.json", "measurements.csv"]


def test_names_that_differ_by_case_only_are_two_images_whose_results_collide(tmp_path):
    (tmp_path / "A.png").touch()
    (tmp_path / "a.tif").touch()
    found = find_images([tmp_path])
    assert len(found) == 2
    with pytest.raises(InputError, match="same name"):
        check_unique_names(found)


@posix
def test_names_that_are_not_utf_8_are_found(tmp_path):
    name = os.fsdecode(b"n\xffm.png")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert [path.name for path in find_images([tmp_path])] == [name]
    assert image_name(tmp_path / name) == os.fsdecode(b"n\xffm")
    assert find_images([tmp_path / "**" / "*.png"]) == find_images([tmp_path / name])


@pytest.mark.parametrize("item", ["~nobody-of-this-name/a.png", "x" * 5000, "a\0b.png", "[", "**"])
def test_odd_names_are_one_line(tmp_path, monkeypatch, item):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoImagesError):
        find_images([item])


def test_the_advice_for_sub_folders_works(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    with pytest.raises(NoImagesError) as caught:
        find_images([tmp_path])
    pattern = str(caught.value).split("give the pattern '")[1].split("'")[0]
    assert names(find_images([pattern]), tmp_path) == [os.path.join("sub", "a.png")]
