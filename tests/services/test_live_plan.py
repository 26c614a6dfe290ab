"""The plan of a live session, by tables of cases and by hypothesis; nothing is computed here."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.engine.tiles import TileGrid
from mdm_studio.services.live_plan import (
    MOST_TILES,
    Extract,
    Facts,
    Head,
    Intent,
    Learn,
    Made,
    PlaneKey,
    Predict,
    Prepare,
    Settle,
    Stage,
    Tile,
    View,
    Window,
    learnable,
    plan,
    tiles_in_view,
    view_window,
    window_of,
)

PLANE = PlaneKey("a", 0)
GRID = TileGrid.of(1024, 1024, tile=256, halo=32, align=16)
VIEW = View(slice(0, 500), slice(0, 500))
IN_VIEW = [Tile(PLANE, row, col) for row in (0, 1) for col in (0, 1)]
BOTH = (Stage.FILTERS, Stage.ALL)
STROKES = {IN_VIEW[0]: frozenset({1}), IN_VIEW[1]: frozenset({2})}


def intent(**changes):
    return replace(Intent(views={PLANE: VIEW}, labels=1, strokes=STROKES, stages=BOTH), **changes)


def everywhere(stage, tiles=None):
    return dict.fromkeys(IN_VIEW if tiles is None else tiles, stage)


def facts(stage=Stage.ALL, **changes):
    known = everywhere(stage) if stage else {}
    return replace(Facts(grids={PLANE: GRID}, maps=known, coarse=known, stored=everywhere(Stage.ALL, tiles(GRID))), **changes)


def tiles(grid):
    return [Tile(PLANE, *place) for place in grid]


def test_planes_with_strokes_are_prepared_and_computed_whether_shown_or_not():
    hidden = PlaneKey("b", 3)
    wanted = intent(views={}, strokes={}, painted={PLANE, hidden})
    assert plan(wanted, Facts()) == (Prepare(PLANE), Prepare(hidden))
    shown = intent(views={PLANE: VIEW}, painted={hidden})
    assert plan(shown, Facts())[:2] == (Prepare(PLANE), Prepare(hidden))
    tile = Tile(hidden, 0, 0)
    computed = plan(intent(views={}, strokes={tile: frozenset({1})}), Facts(grids={hidden: GRID}))
    assert computed == (Extract(tile, Stage.FILTERS), Extract(tile, Stage.ALL))


def head(number=5, labels=1, stage=Stage.ALL, converged=True, **changes):
    return Head(number, labels, stage, Stage.FILTERS, frozenset(STROKES), converged=converged, **changes)


def drawn(number=5, step=1, final=True):
    return {tile: Made(number, step, window_of(tile, VIEW, GRID, 0), final=final) for tile in IN_VIEW}


def kinds(tasks):
    return [type(task) for task in tasks]


CASES = {
    "nothing is known of the plane": (intent(), Facts(), [Prepare(PLANE)]),
    "stopped": (intent(paused=True), facts(), []),
    "a stroke that no head knows is learnt first": (
        intent(labels=2),
        facts(head=head(), made=drawn()),
        [Learn(2, Stage.ALL, frozenset(STROKES), converge=False)],
    ),
    "not live: strokes are left alone": (intent(labels=2, learn=False), facts(head=head(), made=drawn()), []),
    "an exact picture of everything: nothing": (intent(), facts(head=head(), made=drawn()), []),
    "a loaded classifier stands until the next stroke": (
        intent(),
        facts(head=replace(head(loaded=True), tiles=frozenset()), made=drawn()),
        [],
    ),
    "drawn, not smoothed across tiles": (
        intent(margin=16),
        facts(
            head=head(),
            made={tile: Made(5, 1, Window(0, 1024, 0, 1024)) for tile in tiles(GRID)[:12]},
            maps=everywhere(Stage.ALL, tiles(GRID)),
        ),
        [Settle(PLANE, 5, 1, Window(0, 512, 0, 512))],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case):
    wanted, known, expected = CASES[case]
    assert list(plan(wanted, known)) == expected


def test_after_a_slice_the_view_is_drawn_roughly_and_then_the_fit_goes_to_the_end():
    tasks = plan(intent(), facts(head=head(converged=False)))
    assert kinds(tasks) == [Predict] * 4 + [Learn]
    assert {task.step for task in tasks[:4]} == {4}
    assert all(task.preview for task in tasks[:4])
    assert tasks[4].converge


def test_the_exact_picture_begins_at_the_centre():
    view = View(slice(300, 900), slice(300, 900))
    wanted = intent(views={PLANE: view})
    known = everywhere(Stage.ALL, tiles(GRID))
    tasks = plan(wanted, facts(maps=known, coarse=known, head=head()))
    assert (tasks[0].tile.row, tasks[0].tile.col) in {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert not tasks[0].preview
    assert tasks[0].step == 1


def test_filters_come_before_the_network_and_strokes_before_the_rest_of_the_view():
    far = Tile(PLANE, 3, 3)
    wanted = intent(strokes={far: frozenset({1, 2})})
    tasks = plan(wanted, facts(Stage.NONE, stored={}))
    assert tasks[0] == Extract(far, Stage.FILTERS)
    assert {task.tile for task in tasks[1:5]} == set(IN_VIEW)
    assert tasks[5] == Extract(far, Stage.ALL)
    assert len(tasks) == 10 + 16 - 5  # the rest of a small image follows


def test_strokes_of_a_tile_without_the_network_do_not_throw_the_others_back_to_the_filters():
    known = everywhere(Stage.ALL) | {IN_VIEW[1]: Stage.FILTERS}
    wanted = intent(strokes={IN_VIEW[0]: frozenset({1, 2}), IN_VIEW[1]: frozenset({2})})
    assert learnable(wanted, facts(maps=known, coarse=known)) == Learn(1, Stage.ALL, frozenset(IN_VIEW[:1]), converge=False)


def test_a_new_class_is_learnt_from_the_filters_until_its_tile_has_the_network():
    known = everywhere(Stage.ALL) | {IN_VIEW[1]: Stage.FILTERS}
    wanted = intent(strokes={IN_VIEW[0]: frozenset({1, 2}), IN_VIEW[1]: frozenset({3})})
    assert learnable(wanted, facts(maps=known, coarse=known)) == Learn(1, Stage.FILTERS, frozenset(IN_VIEW[:2]), converge=False)


def test_one_class_is_not_learnt():
    assert learnable(intent(strokes={IN_VIEW[0]: frozenset({1})}), facts()) is None


def test_gathered_strokes_do_not_need_their_tile_any_more():
    far = Tile(PLANE, 3, 3)
    wanted = intent(strokes={far: frozenset({1, 2})})
    known = facts(sampled={far: Stage.ALL}, head=replace(head(), tiles=frozenset({far})), made=drawn())
    assert plan(wanted, known) == ()


def test_features_that_were_forgotten_are_not_loaded_for_an_up_to_date_picture():
    assert plan(intent(), facts(Stage.NONE, head=head(), made=drawn(), sampled=everywhere(Stage.ALL))) == ()


def test_broken_tiles_are_left_alone():
    known = facts(Stage.NONE, stored={}, broken=frozenset(IN_VIEW[:1]))
    assert all(task.tile != IN_VIEW[0] for task in plan(intent(), known))


def test_never_finer_than_the_screen_shows():
    view = View(slice(0, 1024), slice(0, 1024), pixel=8.9)
    assert view.step == 8
    known = everywhere(Stage.ALL, tiles(GRID))
    tasks = plan(intent(views={PLANE: view}), facts(coarse=known, head=head()))
    assert {task.step for task in tasks if isinstance(task, Predict)} == {8}


def test_beyond_the_view_of_a_small_image_a_rough_picture_is_enough():
    known = everywhere(Stage.ALL, tiles(GRID))
    tasks = plan(intent(), facts(maps=known, coarse=known, head=head(), made=drawn()))
    assert {task.tile for task in tasks} == set(tiles(GRID)) - set(IN_VIEW)
    assert {(task.step, task.preview) for task in tasks} == {(4, True)}


def test_a_slide_is_not_computed_as_a_whole():
    grid = TileGrid.of(16384, 16384, tile=256, halo=32, align=16)
    view = View(slice(0, 16384), slice(0, 16384), pixel=16)
    assert len(tiles_in_view(view, grid)) == MOST_TILES


spans = st.tuples(st.integers(-300, 1300), st.integers(1, 900)).map(lambda t: slice(t[0], t[0] + t[1]))
views = st.builds(View, spans, spans, st.floats(0.1, 200))
stages = st.dictionaries(st.sampled_from(tiles(GRID)), st.sampled_from(list(Stage)))


@given(views, st.integers(0, 40))
def test_windows_cover_the_view_and_lie_in_their_tiles(view, margin):
    window = view_window(view, GRID, margin)
    places = tiles_in_view(view, GRID)
    parts = [window_of(Tile(PLANE, *place), view, GRID, margin) for place in places]
    for part, place in zip(parts, places, strict=True):
        rows, cols = GRID.core(*place)
        assert part.within(Window(rows.start, rows.stop, cols.start, cols.stop))
        assert not part.empty
    area = sum((p.bottom - p.top) * (p.right - p.left) for p in parts)
    assert area == (0 if window.empty else (window.bottom - window.top) * (window.right - window.left))


@settings(max_examples=200)
@given(views, stages, stages, stages, st.integers(0, 3), st.booleans(), st.sampled_from([0, 16]))
def test_every_plan_is_without_repeats_and_carrying_it_out_comes_to_an_end(
    view, maps, stored, sampled, labels, converged, margin
):
    """Carry out the first task again and again, by what each is meant to bring about: the plan must run empty."""
    wanted = intent(views={PLANE: view}, labels=labels, margin=margin)
    known = Facts({PLANE: GRID}, maps, maps, stored, sampled, {}, head(labels=1, converged=converged))
    for _ in range(400):
        tasks = plan(wanted, known)
        assert len(tasks) == len(set(tasks))
        if not tasks:
            return
        known = done(tasks[0], known)
    pytest.fail(f"still to do: {tasks[:3]}")


def done(task, known):
    if isinstance(task, Extract):
        return replace(
            known,
            maps={**known.maps, task.tile: task.stage},
            coarse={**known.coarse, task.tile: task.stage},
            stored={**known.stored, task.tile: task.stage},
        )
    if isinstance(task, Learn):
        new = Head(known.head.number + 1, task.labels, task.stage, Stage.FILTERS, task.tiles, converged=task.converge)
        return replace(known, head=new, sampled={**known.sampled, **dict.fromkeys(task.tiles, task.stage)})
    if isinstance(task, Predict):
        return replace(known, made={**known.made, task.tile: Made(task.head, task.step, task.window)})
    assert isinstance(task, Settle)
    return replace(known, made={tile: replace(made, final=True) for tile, made in known.made.items()})
