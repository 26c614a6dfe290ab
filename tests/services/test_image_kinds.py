"""What kind of images a classifier may predict: a table, no files."""

from pathlib import Path

import numpy as np
import pytest

from mdm_studio.errors import ChannelsError
from mdm_studio.io.images import ArrayPlane
from mdm_studio.services.image_kinds import ImageKind, check_alike, differences_of, mixed_words, seen_images

GREY, TWO, RGB = ImageKind(1, False, "uint8"), ImageKind(2, False, "uint8"), ImageKind(3, True, "uint8")
THREE, FIVE = ImageKind(3, False, "uint8"), ImageKind(5, False, "uint8")


@pytest.mark.parametrize(
    ("fitted", "shown", "words"),
    [
        ([GREY], GREY, ""),
        ([GREY], RGB, ""),
        ([RGB], GREY, ""),
        ([TWO], TWO, ""),
        ([TWO], GREY, None),
        ([TWO], RGB, None),
        ([GREY], TWO, None),
        ([RGB], TWO, None),
        ([THREE], GREY, None),
        ([GREY], THREE, None),
        ([GREY], FIVE, None),
        ([THREE], RGB, "colours where it was fitted on 3 channels"),
        ([RGB], THREE, "3 channels where it was fitted on colours"),
        ([GREY, TWO], TWO, ""),
        ([GREY], ImageKind(1, False, "uint16"), ""),
        ([GREY], ImageKind(1, False, "float32"), "fractions (float32) where it was fitted on uint8"),
        ([GREY], ImageKind(1, False, "int16"), "numbers with a sign (int16) where it was fitted on uint8"),
        ([ImageKind(1, False, "uint8", (0.5, 0.5))], GREY, ""),
        ([GREY], ImageKind(1, False, "uint8", (0.5, 0.5)), ""),
        ([ImageKind(1, False, "uint8", (0.5, 0.5))], ImageKind(1, False, "uint8", (0.7, 0.7)), ""),
        (
            [ImageKind(1, False, "uint8", (0.5, 0.5))],
            ImageKind(1, False, "uint8", (1.0, 1.0)),
            "pixels of 1 um where it was fitted on 0.5 um",
        ),
        (
            [ImageKind(1, False, "uint8", (0.5, 0.5)), ImageKind(1, False, "uint8", (2.0, 2.0))],
            ImageKind(1, False, "uint8", (0.3, 0.6)),
            "pixels of 0.3 to 0.6 um where it was fitted on 0.5 to 2 um",
        ),
    ],
)
def test_what_differs_is_refused_or_said(fitted, shown, words):
    seen = seen_images(fitted, "percentile")
    if words is None:
        with pytest.raises(ChannelsError, match=r"^x\.tif has .*fitted on images of"):
            differences_of(seen, shown, "x.tif")
    else:
        assert differences_of(seen, shown, "x.tif") == words


def test_where_the_range_of_the_type_decides_another_type_is_said():
    seen = seen_images([GREY], "range")
    assert "uint16 where it was fitted on uint8" in differences_of(seen, ImageKind(1, False, "uint16"), "x")


def test_a_classifier_that_does_not_know_says_nothing():
    assert seen_images([], "percentile") is None
    assert differences_of(None, FIVE, "x") == ""


def test_images_that_are_fitted_together():
    check_alike({Path("a"): GREY, Path("b"): RGB})
    with pytest.raises(ChannelsError, match="a has 1 channel and c 2 channels"):
        check_alike({Path("a"): GREY, Path("b"): RGB, Path("c"): TWO})
    assert mixed_words([GREY, ImageKind(1, False, "uint16")]) == ""
    mixed = [GREY, ImageKind(1, False, "float32", (0.5, 0.5)), ImageKind(1, False, "uint8", (1.0, 1.0))]
    assert "images have pixels of the types float32, uint8 and pixel sizes from 0.5 to 1 um" in mixed_words(mixed)


def test_pixel_sizes_are_compared_in_micrometres():
    plane = ArrayPlane(np.zeros((1, 2, 2), np.uint8))
    assert ImageKind.of(plane) == GREY
    plane.pixel_size, plane.unit = (500, 500), "nanometer"
    assert ImageKind.of(plane).pixel_um == (0.5, 0.5)
    plane.unit = "furlong"
    assert ImageKind.of(plane).pixel_um == ()
