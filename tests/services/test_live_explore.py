"""Explorer and advisor of a live session, without a window: cells, classes made of clusters, advice, and what goes wrong."""

import threading
import time

import numpy as np
import pytest

from mdm_studio.engine.advisor import Advice, AdviceStep, find_strokes
from mdm_studio.errors import UsageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.services.live_explore import Explorer, first_blocks, number_strokes
from mdm_studio.services.session import LiveSettings, Session, View
from mdm_studio.testing import blobs

HEIGHT, WIDTH = 100, 230  # two rows of four tiles


class Heard:
    """What an explorer said."""

    def __init__(self, explorer):
        self.cells, self.advice, self.progress, self.failures = [], [], [], []
        explorer.explored.connect(self.cells.append)
        explorer.advised.connect(self.advice.append)
        explorer.progressed.connect(lambda *what: self.progress.append(what))
        explorer.failed.connect(lambda *what: self.failures.append(what))


def wait(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def wait_for_jobs(session):
    """Until no job is left and the threads have nothing to do for a moment."""
    wait(lambda: not session._jobs)
    idle = threading.Event()
    session._send("features", idle.set)
    assert idle.wait(60)


@pytest.fixture
def session(tiny_backbone):
    made = Session(settings=LiveSettings(backbone=str(tiny_backbone), device="cpu", smooth=0, filters=False))
    failures = []
    made.failed.connect(failures.append)
    yield made
    assert made.close(timeout=30)
    assert not failures


@pytest.fixture
def opened(session):
    """The session with an image in view, and its labels."""
    image, mask = blobs(HEIGHT, WIDTH, seed=3)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    session.open_image("field", ArrayImage(image, rgb=True, name="field"), labels)
    session.view_moved({("field", ()): View(slice(0, HEIGHT), slice(0, WIDTH), 0.5)})
    wait(lambda: session.bench is not None and session.bench.planes)
    return session, labels, mask


def painted(session, labels, value, *places):
    for row, col in places:
        labels[row : row + 4, col : col + 4] = value
        session.labels_changed("field", (), slice(row, row + 4), slice(col, col + 4))


def test_cells_before_and_after_the_backbone_is_there(session, opened):
    fresh = Explorer(session)
    assert fresh.cells() == ([1, 2, 3], [50, 150, 250])
    assert fresh.limits() == (4, 1000)
    assert fresh.describe(3) == "32 channels at stride 2: one value for 2 x 2 pixels"
    assert fresh.describe(4) == ""


@pytest.mark.parametrize(
    ("strides", "blocks"),
    [
        ((16, 8, 4, 2), [2, 3]),  # a decoder
        ((4, 4, 8, 16, 32), [0, 1, 2, 3, 4]),  # the pyramid of an encoder
        ((14,) * 13, [6, 7, 8, 9, 10, 11, 12]),  # a transformer
        ((8,), [0]),
        ((), []),
    ],
)
def test_a_first_look_shows_what_is_worth_it(strides, blocks):
    assert first_blocks(strides) == blocks


def test_a_transformer_without_timesteps(opened, tokens_backbone):
    session, labels, _ = opened
    session.set_live(False)
    session.choose(backbone=str(tokens_backbone))
    wait(lambda: session.bench is not None and session.bench.backbone.n_blocks == 13 and session.bench.planes)
    explorer = Explorer(session)
    heard = Heard(explorer)
    assert not explorer.timed
    assert explorer.cells() == ([6, 7, 8, 9, 10, 11, 12], [0])
    assert explorer.limits() == (13, 0)
    with pytest.raises(UsageError, match="blocks 0 to 12, at t 0 alone"):
        explorer.explore([(0, 50)])
    explorer.explore([(12, 0), (0, 0)], k=3)
    wait_for_jobs(session)
    assert [cell.place for cell in heard.cells] == ["block 0", "block 12"]
    assert heard.progress[0][1] == "block 0"
    explorer.spread(heard.cells[0])
    wait_for_jobs(session)
    assert heard.cells[-1].step == 1
    painted(session, labels, 1, (5, 5), (60, 100))
    painted(session, labels, 2, (30, 40), (80, 200))
    wait(lambda: len(session.painted) == 2)
    explorer.advise()
    wait(lambda: heard.advice and isinstance(heard.advice[-1], Advice))
    assert {t for _, t in heard.advice[-1].scores} == {0}
    explorer.apply(heard.advice[-1])
    wait_for_jobs(session)
    assert session.settings.timesteps == (0,) or not heard.advice[-1].blocks
    assert not heard.failures


def test_thumbnails_of_the_tile_in_the_middle_with_matched_colours(opened):
    session, _, _ = opened
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.explore([(3, 50), (2, 50), (3, 150)], k=3)
    wait_for_jobs(session)
    assert [(cell.block, cell.timestep, cell.done, cell.total) for cell in heard.cells] == [
        (2, 50, 1, 3),
        (3, 50, 2, 3),
        (3, 150, 3, 3),
    ]
    first, second, third = heard.cells
    assert first.window == first.area == (0, 64, 64, 128)
    assert (first.step, first.k, first.picture.shape, first.picture.dtype) == (2, 3, (32, 32), np.uint8)
    for cell in heard.cells:
        assert set(np.unique(cell.picture)) <= {1, 2, 3}
    overlap = np.array([[((second.picture == a) & (third.picture == b)).sum() for b in (1, 2, 3)] for a in (1, 2, 3)])
    assert np.trace(overlap) > 0.5 * overlap.sum()
    shares = [share for _, _, share in heard.progress]
    assert shares == sorted(shares)
    assert not heard.failures


@pytest.mark.parametrize("mode", ["clusters", "components"])
def test_a_cell_is_continued_over_the_view(opened, mode):
    session, _, _ = opened
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.explore([(3, 50)], k=4, mode=mode)
    wait_for_jobs(session)
    thumbnail = heard.cells.pop()
    explorer.spread(thumbnail)
    wait_for_jobs(session)
    assert len(heard.cells) == 8
    assert {cell.area for cell in heard.cells} == {(0, HEIGHT, 0, WIDTH)}
    whole = np.zeros((HEIGHT, WIDTH, *thumbnail.picture.shape[2:]), thumbnail.picture.dtype)
    for cell in heard.cells:
        assert cell.step == 1
        whole[cell.window.rows, cell.window.cols] = cell.picture
    middle = whole[thumbnail.window.rows, thumbnail.window.cols][::2, ::2]
    np.testing.assert_allclose(middle, thumbnail.picture, atol=1e-5)
    if mode == "clusters":
        assert whole.min() >= 1
    else:
        assert (whole.min() >= 0, whole.max() <= 1, thumbnail.k) == (True, True, 0)


def test_components_have_the_same_signs_in_all_cells(opened):
    session, _, _ = opened
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.explore([(block, t) for block in (2, 3) for t in (50, 150)], mode="components")
    wait_for_jobs(session)
    first, *others = heard.cells
    for cell in others:
        for one, other in zip(np.moveaxis(first.picture, 2, 0), np.moveaxis(cell.picture, 2, 0), strict=True):
            assert ((one - one.mean()) * (other - other.mean())).sum() >= 0
        assert (cell.picture.min() >= 0, cell.picture.max() <= 1) == (True, True)


def test_a_cluster_becomes_a_class_and_is_undone(opened):
    session, labels, _ = opened
    one = session.add_class("one")
    other = session.add_class("other")
    painted(session, labels, one.value, (10, 80))
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.explore([(3, 50)], k=3)
    wait_for_jobs(session)
    (cell,) = heard.cells
    explorer.cluster_to_class(cell, 1, None)
    wait(lambda: session.painted.get(3))
    assert [each.name for each in session.classes] == ["one", "other", "class 3"]
    session.undo_class_change()
    wait(lambda: not session.painted.get(3))
    assert [each.name for each in session.classes] == ["one", "other"]
    explorer.cluster_to_class(cell, 2, other.value)
    wait(lambda: session.painted.get(other.value))
    inside = labels[cell.window.rows, cell.window.cols]
    at_thumbnail = inside[::2, ::2]
    assert (at_thumbnail[(cell.picture == 2) & (at_thumbnail != one.value)] == other.value).all()
    assert not (at_thumbnail[cell.picture != 2] == other.value).any()
    assert (labels == one.value).sum() == 16  # what was painted stays
    assert (labels == other.value).sum() == (inside == other.value).sum()
    assert session.undo_class_change() == "cluster made 'other'"
    wait(lambda: not session.painted.get(other.value))
    assert (labels == one.value).sum() == 16
    assert not (labels == other.value).any()


def test_advice_from_strokes_and_one_call_to_apply_it(opened):
    session, labels, mask = opened
    session.set_live(False)
    rng = np.random.default_rng(0)
    for value in (1, 2):
        for _ in range(8):
            row, col = np.argwhere(mask == value)[rng.integers((mask == value).sum())]
            spot = np.s_[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
            labels[spot] = np.where(mask[spot] == value, value, labels[spot])
    session.labels_changed("field", (), slice(0, HEIGHT), slice(0, WIDTH))
    wait(lambda: len(session.painted) == 2)
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.advise([2, 3], [50, 150])
    wait(lambda: heard.advice and isinstance(heard.advice[-1], Advice))
    wait_for_jobs(session)
    *steps, advice = heard.advice
    assert all(isinstance(step, AdviceStep) for step in steps)
    assert set(advice.scores) == {(2, 50), (3, 50), (2, 150), (3, 150)}
    assert advice.filters is not None
    assert 0.5 < advice.expected.mean <= 1
    explorer.apply(advice)
    wait(lambda: session.settings.filters == advice.with_filters)
    if advice.blocks:
        assert (session.settings.blocks, session.settings.timesteps) == (advice.blocks, advice.timesteps)
    assert not heard.failures


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({}, "nothing is painted"),
        ({1: [(5, 5), (40, 40)]}, "one class"),
        ({1: [(5, 5), (40, 40)], 2: [(50, 150)]}, "class 2 has one stroke"),
    ],
)
def test_too_few_strokes_are_told_in_words_and_the_session_goes_on(opened, places, words):
    session, labels, _ = opened
    session.set_live(False)
    for value, spots in places.items():
        painted(session, labels, value, *spots)
    wait(lambda: len(session.painted) == len(places))
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.advise([3], [50])
    wait(lambda: heard.failures)
    wait_for_jobs(session)
    ((job, message),) = heard.failures
    assert job == "advisor"
    assert words in message
    assert session.status.error is None


def test_jobs_are_told_and_can_be_stopped(opened):
    session, _, _ = opened
    explorer = Explorer(session)
    heard, running = Heard(explorer), []
    session.jobs_changed.connect(running.append)
    explorer.explored.connect(lambda cell: explorer.stop())
    explorer.explore([(block, 50) for block in range(4)])
    wait(lambda: running and not running[-1])
    wait_for_jobs(session)
    assert len(heard.cells) == 1
    assert running[0] == {"thumbnails"}


def test_what_was_asked_for_last_comes_first(opened):
    session, _, _ = opened
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.explore([(3, 50)])
    wait_for_jobs(session)
    thumbnail = heard.cells.pop()
    explorer.explore([(block, 150) for block in range(4)])
    explorer.spread(thumbnail)
    wait_for_jobs(session)
    assert sum(cell.step == 1 for cell in heard.cells[:9]) == 8  # a thumbnail may be there already


def test_the_image_asked_for_comes_before_others_in_view(opened):
    session, _, _ = opened
    image, _ = blobs(80, 90, seed=4)
    session.open_image("another", ArrayImage(image, rgb=True, name="another"), np.zeros((80, 90), np.uint8))
    view = View(slice(0, 80), slice(0, 90), 1.0)
    session.view_moved({("field", ()): View(slice(0, HEIGHT), slice(0, WIDTH), 1.0), ("another", ()): view})
    wait(lambda: len(session.bench.planes) == 2)
    explorer = Explorer(session)
    heard = Heard(explorer)
    explorer.explore([(3, 50)], image="another")
    wait_for_jobs(session)
    assert [cell.tile.plane.image for cell in heard.cells] == ["another"]
    session.close_image("another")
    with pytest.raises(UsageError, match="not in view any more"):
        explorer.spread(heard.cells[0])
    explorer.cluster_to_class(heard.cells[0], 1, 1)
    wait(lambda: heard.failures)
    assert "closed" in heard.failures[0][1]


@pytest.mark.parametrize("cells", [[], [(4, 50)], [(0, 1001)]])
def test_cells_that_do_not_exist(opened, cells):
    session, _, _ = opened
    with pytest.raises(UsageError, match="blocks 0 to 3 and timesteps 0 to 1000"):
        Explorer(session).explore(cells)


def test_two_choices_in_a_row_are_both_kept(opened):
    session, _, _ = opened
    for _ in range(10):
        session.choose(blocks=(2, 3))
        time.sleep(0.001)
        session.choose(timesteps=(50, 150))
        wait_for_jobs(session)
        assert (session.settings.blocks, session.settings.timesteps) == ((2, 3), (50, 150))
        assert session.bench.settings.blocks == (2, 3)
        assert session.bench.settings.timesteps == (50, 150)
        session.choose(blocks=(3,), timesteps=(50,))


def test_nothing_in_view(session):
    explorer = Explorer(session)
    for verb in (lambda: explorer.explore([(0, 50)]), explorer.advise):
        with pytest.raises(UsageError, match="nothing to explore yet"):
            verb()


@pytest.mark.parametrize("seed", range(3))
def test_strokes_are_numbered_as_in_a_label_map(seed):
    labels = np.random.default_rng(seed).choice(3, (30, 40), p=[0.6, 0.2, 0.2]).astype(np.uint8)
    rows, cols = np.nonzero(labels)
    order = np.random.default_rng(seed).permutation(len(rows))
    rows, cols = rows[order], cols[order]
    numbers = number_strokes(rows, cols, labels[rows, cols].astype(np.int64))
    wanted, count = find_strokes(labels, 0)
    assert len(set(zip(numbers.tolist(), wanted[rows, cols].tolist(), strict=True))) == count == len(set(numbers.tolist()))
