"""What a survey of a folder finds, and what it warns of."""

import numpy as np
import pytest
import tifffile
from PIL import Image as PILImage

from mdm_studio.errors import NoImagesError
from mdm_studio.services.folder_survey import THUMBNAILS, survey_folder
from mdm_studio.testing import blobs


def survey(place, **options):
    steps = survey_folder(place, **options)
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as finished:
            assert [step.done for step in seen] == list(range(1, len(seen) + 1))
            return finished.value


def write(folder, count, height=160, width=200, **options):
    for number in range(count):
        PILImage.fromarray(blobs(height, width, seed=number, **options)[0]).save(folder / f"field{number}.png")


def test_a_good_folder_is_described_without_a_warning(tmp_path):
    write(tmp_path, 14, 400, 300)
    found = survey(tmp_path)
    assert found.summary() == "14 images, 300 x 400 px, RGB, 8 bits"
    assert found.warnings(64) == ()
    assert len(found.thumbnails) == THUMBNAILS
    assert found.thumbnails[0].rgb.shape == (96, 72, 3)
    assert found.thumbnails[0].rgb.max() > 200


def test_many_files_are_looked_at_in_part(tmp_path):
    write(tmp_path, 9, 40, 40)
    found = survey(tmp_path, sample=4)
    assert len(found.paths) == 9
    assert [image.path.name for image in found.images] == ["field0.png", "field2.png", "field5.png", "field8.png"]
    assert "9 images (4 of them looked at)" in found.summary()


def test_what_is_odd_is_said_in_words(tmp_path):
    write(tmp_path, 3, 100, 120)
    PILImage.fromarray(np.full((300, 80), 7, np.uint8)).save(tmp_path / "flat.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = survey(tmp_path)
    assert [each.path.name for each in found.unreadable] == ["broken.png"]
    assert "broken.png" in found.unreadable[0].why
    words = " | ".join(found.warnings(128))
    assert "1 of 5 files cannot be read" in words
    assert "Grey and colour images are mixed" in words
    assert "4 of 4 images are smaller than a crop of 128 px" in words
    assert "4 images with about" in words
    assert "1 of 4 images is nearly constant (flat.png)" in words
    assert "a crop of" not in " ".join(words for words in found.warnings(32) if "smaller" in words)
    assert "smaller than a crop of 128" in " ".join(found.warnings(32, 4))


def test_copies_of_one_picture_are_noticed_and_different_ones_are_not(tmp_path):
    image, _ = blobs(128, 128, seed=0)
    rng = np.random.default_rng(0)
    for number in range(4):
        noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        PILImage.fromarray(noisy).save(tmp_path / f"frame{number}.png")
    assert survey(tmp_path).alike is not None
    assert any("look the same (frame" in words for words in survey(tmp_path).warnings(64))
    write(tmp_path, 6, 128, 128)
    assert survey(tmp_path).alike is None


def test_stacks_channels_and_dark_sixteen_bits(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        stack = rng.integers(0, 90, (5, 4, 200, 100), np.uint16)
        tifffile.imwrite(tmp_path / f"{number}.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    found = survey(tmp_path)
    assert found.summary() == "2 images, 100 x 200 px, 4 channels, 16 bits, 5 planes each"
    words = " | ".join(found.warnings(64, reads=3))
    assert "2 of 2 images are very dark" in words
    assert "have 4 channels and the backbone to start from reads 3" in words
    PILImage.fromarray(blobs(200, 100, seed=1)[0]).save(tmp_path / "colour.png")
    assert "The images have 3, 4 channels" in " ".join(survey(tmp_path).warnings(64))


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(NoImagesError, match="is empty"):
        survey(tmp_path)
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", 2)
    with pytest.raises(NoImagesError, match="sub-folders"):
        survey(tmp_path)
    assert len(survey(tmp_path, subfolders=True).images) == 2
    (tmp_path / "below" / "field0.png").write_bytes(b"")
    (tmp_path / "below" / "field1.png").write_bytes(b"")
    found = survey(tmp_path / "below")
    assert found.summary() == "2 images, none of them readable"
    assert found.warnings(64) == ("None of these files can be read as an image.",)


def test_what_is_not_read_of_an_image_is_said(tmp_path):
    write(tmp_path, 14, 400, 300)
    frames = [PILImage.fromarray(blobs(400, 300, seed=number)[0]) for number in (20, 21)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    (warning,) = survey(tmp_path).warnings(64)
    assert warning == "1 of 15 images is not read whole or as meant (film.png: left out: frame 2 of 2)."
