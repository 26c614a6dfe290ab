"""How far an export is: a table, no files."""

from pathlib import Path

import pytest

from mdm_studio.services.export_pace import Pace
from mdm_studio.services.export_request import FileResult, TileProgress

A, B, C = Path("a"), Path("b"), Path("c")


def test_pixels_of_images_that_nobody_opened_are_guessed_from_their_bytes():
    pace = Pace({A: 100, B: 300, C: 100})
    assert pace.share() == 0
    assert pace.seconds_left(5.0) is None
    pace.see(TileProgress(A, 1, 2, pixels=1000))
    assert pace.share() == pytest.approx(500 / 5000)
    assert pace.seconds_left(10.0) == pytest.approx(90)
    pace.see(FileResult(A, "done", pixels={1: 600, 2: 400}))
    assert pace.share() == pytest.approx(0.2)
    pace.see(TileProgress(B, 1, 2, pixels=9000))  # larger than it looked
    assert pace.share() == pytest.approx(5500 / (1000 + 9000 + 100 * 10_000 / 400))


def test_what_is_skipped_or_fails_is_no_work():
    pace = Pace({A: 100, B: 100, C: 100})
    pace.see(FileResult(A, "skipped"))
    assert pace.share() == 0
    pace.see(TileProgress(B, 3, 4, pixels=40))
    pace.see(FileResult(B, "failed", message="disk full"))
    pace.see(FileResult(C, "done", pixels={1: 40}))
    assert pace.share() == 1
    assert pace.seconds_left(3.0) == 0
    assert Pace({}).share() == 1


def test_everything_skipped():
    pace = Pace({A: 1, B: 1})
    pace.see(FileResult(A, "skipped"))
    assert pace.share() == 0
    pace.see(FileResult(B, "skipped"))
    assert pace.share() == 1
