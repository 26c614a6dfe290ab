"""Which images of a project are shown, and in what order."""

from pathlib import Path

import pytest

from mdm_studio.services.image_list import ImageEntry, select

ENTRIES = (
    ImageEntry("a", Path("/data/Run 10/img10.png"), painted=5, uncertainty=0.2, reviewed=True),
    ImageEntry("b", Path("/data/Run 2/img2.tif"), uncertainty=0.9),
    ImageEntry("c", Path("/data/Run 2/img1.ome.tif"), painted=50),
    ImageEntry("d", Path("/data/Run 2/Img3.png"), problem="it is gone"),
)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, "cbda"),
        ({"sort": "uncertainty"}, "bacd"),
        ({"sort": "labelled"}, "cabd"),
        ({"state": "labelled"}, "ca"),
        ({"state": "unlabelled"}, "b"),
        ({"state": "predicted"}, "ba"),
        ({"state": "reviewed"}, "a"),
        ({"state": "not reviewed"}, "cbd"),
        ({"state": "problem"}, "d"),
        ({"text": "run IMG1"}, "ca"),
        ({"text": " run 10 "}, "a"),
        ({"text": "nothing"}, ""),
    ],
)
def test_selection_and_order(options, ids):
    assert "".join(entry.id for entry in select(ENTRIES, **options)) == ids


def test_names():
    assert [entry.name for entry in ENTRIES] == ["img10", "img2", "img1", "Img3"]
