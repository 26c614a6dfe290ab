"""An export's form: what it comes to and what is said before it starts, by tables; and what the disk says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from mdm_studio.errors import UsageError
from mdm_studio.io.atomic import write_json
from mdm_studio.services.export_form import (
    AS_CLASSIFIER,
    GOOD_FOR,
    ExportChoices,
    ExportFacts,
    estimate,
    in_bytes,
    judge,
    out_of,
    request_of,
)
from mdm_studio.services.export_record import signature
from mdm_studio.services.export_survey import LOOKED_AT, survey, why_not_writable

IMAGES = tuple(Path(f"/images/{number}.png") for number in range(10))
FINE = ExportFacts(IMAGES, pixels=10_000_000, largest=1_000_000, classes=2, out=Path("/images/masks"), free=10**12)
PLAIN = ExportChoices()
MICRONS = ExportChoices(objects=True, physical=True, min_size=2.5)


def said(choices=PLAIN, **facts):
    return judge(choices, dataclasses.replace(FINE, **facts))


@pytest.mark.parametrize(
    ("choices", "facts", "kind", "words"),
    [
        (PLAIN, {"images": (), "no_images": "nothing there"}, "stop", "nothing there"),
        (PLAIN, {"same_names": "two are one"}, "stop", "two are one"),
        (PLAIN, {"no_classifier": "damaged"}, "stop", "damaged"),
        (PLAIN, {"not_writable": "read-only"}, "stop", "read-only"),
        (PLAIN, {"busy": "nuclei"}, "stop", "'nuclei' writes there now"),
        (ExportChoices(probabilities=True), {"free": 10**7}, "stop", "10 MB are free in /images/masks"),
        (ExportChoices(probabilities=True), {"free": 10**8}, "warning", "may just do"),
        (MICRONS, {"pixel_areas": (0.0, 0.25)}, "stop", "Not all of these images say"),
        (MICRONS, {"pixel_areas": ()}, "stop", "Not all of these images say"),
        (MICRONS, {"pixel_areas": (0.25, 1.0)}, "stop", "not equally large"),
        (PLAIN, {"stacks": ("a", "b", "c", "d")}, "warning", "a, b, c and 1 more will fail"),
        (PLAIN, {"largest": 400_000_000}, "warning", "400 MB of memory"),
        (PLAIN, {"unreadable": ("cannot read x.png",)}, "warning", "cannot read x.png"),
        (PLAIN, {"there": 4}, "note", "results of 4 images: what is up to date is kept"),
        (PLAIN, {"there": 4, "foreign": 1}, "warning", "Results of 1 image there were not written by an export"),
        (ExportChoices(replace=True), {"there": 10, "foreign": 1}, "warning", "All images have results there"),
        (ExportChoices(replace=True), {"there": 4}, "warning", "4 of 10 images have results there already; all will"),
    ],
)
def test_what_is_said_before_it_starts(choices, facts, kind, words):
    found = said(choices, **facts)
    assert [text for text in found.texts(kind) if words in text], found.messages
    assert found.ready == (kind != "stop")
    assert [message.kind for message in found.messages] == [kind]


@pytest.mark.parametrize(
    ("choices", "facts"),
    [
        (PLAIN, {}),
        (ExportChoices(format="tiff"), {"stacks": ("a",), "largest": 400_000_000}),
        (ExportChoices(physical=True, min_size=2.5), {"pixel_areas": (0.0,)}),  # no objects are asked for
        (MICRONS, {"pixel_areas": (0.25,)}),
    ],
)
def test_nothing_is_said_where_all_is_well(choices, facts):
    assert said(choices, **facts).messages == ()


def test_the_request():
    facts = dataclasses.replace(FINE, pixel_areas=(0.25,))
    full = dataclasses.replace(
        MICRONS, format="ome-zarr", probabilities=True, csv=True, parquet=True, method="watershed", smooth=4, workers=3
    )
    made = request_of(full, facts, Path("/c.mdm"), Path("/cache"))
    assert (made.images, made.workers, made.classifier, made.cache) == (IMAGES, 3, Path("/c.mdm"), Path("/cache"))
    options = made.options
    assert (options.out, options.format, options.probabilities, options.uncertainty) == (FINE.out, "ome-zarr", True, False)
    assert (options.objects.method, options.objects.min_size, options.objects.fill_holes) == ("watershed", 10, False)
    assert (options.object_maps, options.tables, options.smooth) == (True, ("csv", "parquet"), 4)
    plain = request_of(PLAIN, FINE, Path("/c.mdm"), None)
    assert (plain.workers, plain.options.objects, plain.options.smooth, plain.options.overwrite) == (0, None, None, False)
    table = request_of(ExportChoices(csv=True, min_size=7.5), FINE, Path("/c.mdm"), None).options
    assert (table.object_maps, table.tables, table.objects.min_size) == (False, ("csv",), 8)
    with pytest.raises(UsageError, match="nothing there"):
        request_of(PLAIN, dataclasses.replace(FINE, no_images="nothing there"), Path("/c.mdm"), None)


def test_room():
    plain, full = ExportChoices(format="npy"), ExportChoices(format="npy", probabilities=True, uncertainty=True, objects=True)
    assert estimate(plain, FINE) == 10_000_000
    assert estimate(full, FINE) == (1 + 2 * 4 + 4 + 4) * 10_000_000
    assert estimate(full, ExportFacts()) == 0


@pytest.mark.parametrize(
    ("choices", "root", "place"),
    [
        (ExportChoices(), "/project", "/project/masks"),
        (ExportChoices(source="folder", folder="/cells"), "/project", "/cells/masks"),
        (ExportChoices(source="folder"), "/project", None),
        (ExportChoices(source="folder", folder="/cells", out="/there"), "/project", "/there"),
        (ExportChoices(source="folder", folder="/cells/**/*.tif"), None, "/cells/masks"),
        (ExportChoices(source="folder", folder="/cells/a.ome.zarr"), None, "/cells/masks"),
        (ExportChoices(source="open"), None, None),
    ],
)
def test_where_it_goes(choices, root, place):
    assert out_of(choices, root and Path(root)) == (place and Path(place))


def test_words():
    assert [in_bytes(size) for size in (12, 3_210, 45e6, 1.2e9, 5e15)] == ["12 bytes", "3.2 kB", "45 MB", "1.2 GB", "5000.0 TB"]
    assert all(len(words) < 130 for words in GOOD_FOR.values())


NUMBERS = st.floats(0, 1e6) | st.integers(0, 99)


@given(
    st.builds(
        ExportChoices,
        source=st.sampled_from(["project", "chosen", "open", "folder"]),
        folder=st.text(),
        format=st.sampled_from(list(GOOD_FOR)),
        objects=st.booleans(),
        min_size=st.floats(0, 1e6),
        smooth=st.integers(AS_CLASSIFIER, 64),
        workers=st.integers(1, 99),
    )
)
def test_choices_are_remembered(choices):
    assert ExportChoices.from_json(choices.to_json()) == choices


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        [],
        {"source": "moon", "format": 3, "classifier": None, "method": ["watershed"], "unknown": 1},
        {"workers": 0, "min_size": float("nan"), "smooth": -7, "probabilities": 1, "out": None},
        {"min_size": -1, "workers": True},
    ],
)
def test_what_makes_no_sense_is_forgotten(damaged):
    assert ExportChoices.from_json(damaged) == ExportChoices()


# ------------------------------------------------------------------------------------------------------------ the disk


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "cells"
    made.mkdir()
    for number in range(3):
        PILImage.new("L", (50, 40)).save(made / f"c{number}.png")
    return made


def test_a_folder_is_looked_at(folder):
    choices = ExportChoices(source="folder", folder=str(folder), probabilities=True)
    facts = survey(choices, [], None, classes=3)
    assert [path.name for path in facts.images] == ["c0.png", "c1.png", "c2.png"]
    assert (facts.pixels, facts.largest, facts.classes, facts.out) == (6000, 2000, 3, folder / "masks")
    assert facts.free > 0
    assert judge(choices, facts).messages == ()
    (folder / "masks" / "probabilities").mkdir(parents=True)
    ours = {}
    for place in ("c1.png", "c2.png", "probabilities/c2.tif"):
        (folder / "masks" / place).touch()
        ours[place] = {"recipe": "a", "source": [1, 1], "written": signature(folder / "masks" / place)}
    found = survey(choices, [], None)
    assert (found.there, found.foreign) == (2, 2)
    write_json(folder / "masks" / "export.json", {"files": ours})
    assert survey(choices, [], None).foreign == 0
    (folder / "masks" / "c2.png").write_text("changed")
    assert survey(choices, [], None).foreign == 1
    busy = survey(choices, [], None, writers={folder / "x" / ".." / "masks": "cells"})
    assert busy.busy == "cells"


def test_pixel_sizes_stacks_and_what_cannot_be_read(tmp_path):
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    stack = np.zeros((3, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZYX", **size}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.ome.tif", stack[0], metadata={"axes": "YX", **size}, photometric="minisblack")
    (tmp_path / "c.png").write_bytes(b"no picture")
    facts = survey(ExportChoices(source="folder", folder=str(tmp_path)), [], None)
    assert facts.pixel_areas == (0.25,)
    assert facts.stacks == ("a",)
    assert facts.unreadable[0].startswith("c.png will fail: cannot identify image file 'c.png'")
    assert facts.pixels == (1800 + 600) / 2 * 3  # of three images, two could be read


def test_what_is_in_the_way(folder, tmp_path):
    choices = ExportChoices(source="folder", folder=str(tmp_path / "none"), classifier="file", file=str(tmp_path / "no.mdm"))
    facts = survey(choices, [], None)
    assert "does not exist" in facts.no_images
    assert "there is no classifier" in facts.no_classifier
    for source, word in (("project", "project"), ("chosen", "chosen"), ("open", "open"), ("folder", "Choose")):
        assert word in survey(ExportChoices(source=source), [], None).no_images
    assert "Choose the classifier" in survey(ExportChoices(classifier="file"), [], None).no_classifier
    PILImage.new("L", (5, 4)).save(folder / "C0.tif")
    (folder / "masks").touch()
    found = survey(ExportChoices(source="folder", folder=str(folder)), [], None)
    assert "same name" in found.same_names
    assert "is a file, not a folder" in found.not_writable
    assert why_not_writable(tmp_path / "new" / "deeper") == ""
    assert judge(PLAIN, ExportFacts(no_images="Choose.", not_writable="Choose another.")).texts("stop") == ("Choose.",)
    assert survey(PLAIN, [folder / "c0.png"], None).not_writable == "Choose a folder to write to."


def test_of_many_images_some_are_opened(folder, monkeypatch):
    from mdm_studio.services import export_survey

    opened = []
    true = export_survey.open_image
    monkeypatch.setattr(export_survey, "open_image", lambda path: opened.append(path) or true(path))
    facts = survey(ExportChoices(), [folder / "c0.png"] * 1000, folder)
    assert len(opened) == LOOKED_AT
    assert facts.pixels == 2_000_000
