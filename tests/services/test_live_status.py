"""What the status line says, by a table of situations."""

from dataclasses import replace

import pytest

from mdm_studio.engine.tiles import TileGrid
from mdm_studio.services.live_plan import (
    Extract,
    Facts,
    Head,
    Intent,
    Learn,
    Made,
    PlaneKey,
    Predict,
    Prepare,
    Stage,
    Tile,
    View,
    Window,
)
from mdm_studio.services.live_status import Doing, status_of

PLANE = PlaneKey("a", 0)
GRID = TileGrid.of(512, 512, tile=256, halo=32, align=16)
TILES = [Tile(PLANE, row, col) for row, col in GRID]
INTENT = Intent({PLANE: View(slice(0, 512), slice(0, 512))}, labels=3)
HEAD = Head(5, 3, Stage.ALL, Stage.ALL, converged=True)
DRAWN = {tile: Made(5, 1, Window(0, 512, 0, 512), final=True) for tile in TILES}
DONE = Facts({PLANE: GRID}, dict.fromkeys(TILES, Stage.ALL), head=HEAD, made=DRAWN)
USER = Doing(images=1, painted=1234, classes=2)
LEARN = Learn(3, Stage.ALL, frozenset(), converge=True)
PREDICT = Predict(TILES[0], 5, 1, Window(0, 1, 0, 1), preview=False)

CASES = {
    "choose an image": (INTENT, Facts(), Doing()),
    "loading the backbone x": (INTENT, Facts(), replace(USER, loading="loading the backbone x")),
    "stopped; the next stroke, or Update once, goes on": (replace(INTENT, paused=True), DONE, USER),
    "learning from 1,234 painted pixels, loss 0.250": (INTENT, DONE, replace(USER, running=(LEARN,), loss=0.25)),
    "drawing: 1 of 4 tiles in view": (
        INTENT,
        replace(DONE, made={TILES[0]: DRAWN[TILES[0]]}),
        replace(USER, running=(PREDICT,)),
    ),
    "computing features: 1 of 4 tiles in view": (
        INTENT,
        replace(DONE, maps={TILES[0]: Stage.ALL, TILES[1]: Stage.FILTERS}),
        replace(USER, running=(Extract(TILES[1], Stage.ALL),)),
    ),
    "computing features: 4 of 4 tiles in view (now those around it)": (
        INTENT,
        DONE,
        replace(USER, running=(Extract(TILES[1], Stage.ALL),)),
    ),
    "opening a": (INTENT, Facts(), replace(USER, running=(Prepare(PLANE),))),
    "opening b": (INTENT, DONE, replace(USER, running=(Prepare(PlaneKey("b", 0)),))),
    "computing features of a": (
        replace(INTENT, views={}),
        replace(DONE, maps={}),
        replace(USER, running=(Extract(TILES[1], Stage.ALL), Prepare(PlaneKey("b", 0)))),
    ),
    "ready: paint a few strokes of at least two classes (1 painted so far)": (
        INTENT,
        replace(DONE, head=None, made={}),
        replace(USER, classes=1),
    ),
    "showing the classifier that was loaded": (INTENT, replace(DONE, head=replace(HEAD, loaded=True)), USER),
    "there are strokes that are not learnt yet: press Update once": (
        replace(INTENT, labels=4),
        DONE,
        replace(USER, live=False),
    ),
    "up to date: 1,234 painted pixels": (INTENT, DONE, USER),
    "up to date: 1,234 painted pixels, 2.4 s after the last stroke": (INTENT, DONE, replace(USER, seconds=2.41)),
    "no memory": (INTENT, DONE, replace(USER, error="no memory")),
}


@pytest.mark.parametrize("text", CASES)
def test_in_words(text):
    status = status_of(*CASES[text])
    assert status.text == text
    assert status.busy == bool(CASES[text][2].running or CASES[text][2].loading)


def test_a_slide_seen_as_a_whole():
    grid = TileGrid.of(9000, 9000, tile=256, halo=32, align=16)
    wide = replace(INTENT, views={PLANE: View(slice(0, 9000), slice(0, 9000), 9)})
    status = status_of(wide, replace(DONE, grids={PLANE: grid}), USER)
    assert status.text.startswith("the 128 tiles nearest to the centre are up to date")
    assert status.tiles_in_view == 128
