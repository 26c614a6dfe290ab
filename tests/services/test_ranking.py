"""What is ranked, in what order, and when anew; pure."""

from pathlib import Path

import numpy as np
import pytest

from mdm_studio.engine.tiles import TileGrid
from mdm_studio.errors import CacheError, ChannelsError, InputError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.services.image_list import ImageEntry
from mdm_studio.services.ranking import (
    MOST_TILES,
    Basis,
    Ranked,
    in_order,
    is_other,
    look,
    rank_image,
    ranking,
    spread,
    suggest_image,
)


def entry(name, **facts):
    return ImageEntry(name, Path(f"/{name}.png"), **facts)


@pytest.mark.parametrize(
    ("now", "other"),
    [
        (Basis(2, {1: 100, 2: 100}, "x"), False),
        (Basis(2, {1: 120, 2: 120}, "x"), False),
        (Basis(2, {1: 160, 2: 100}, "x"), True),
        (Basis(2, {1: 40, 2: 100}, "x"), True),
        (Basis(2, {1: 100, 2: 90, 3: 10}, "x"), True),
        (Basis(2, {1: 100, 2: 100}, "y"), True),
        (Basis(2), True),
    ],
)
def test_a_classifier_is_another_one(now, other):
    assert is_other(Basis(1, {1: 100, 2: 100}, "x"), now) is other
    assert is_other(Basis(), now)


@pytest.mark.parametrize("facts", [{}, {"number": "x"}, {"number": 3, "painted": [], "features": "x"}])
def test_a_basis_that_is_not_understood_is_none(facts):
    assert Basis.from_json(facts) == Basis()
    basis = Basis(4, {1: 2}, "x")
    assert Basis.from_json(basis.to_json()) == basis


def test_unlabelled_images_come_first_and_unreadable_ones_never():
    entries = [entry("a", painted=3), entry("b", reviewed=True), entry("c"), entry("d", problem="gone")]
    assert [each.id for each in in_order(entries)] == ["c", "b", "a"]


def test_of_a_large_stack_a_few_spread_tiles_are_looked_at():
    small = TileGrid.of(100, 100, tile=512, halo=64, align=16)
    assert spread(1, small) == [(0, 0, 0)]
    assert spread(3, small) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    large = TileGrid.of(20_000, 20_000, tile=512, halo=64, align=16)
    places = spread(10, large)
    assert len(places) == MOST_TILES
    assert len({plane for plane, *_ in places}) == MOST_TILES


def test_an_image_that_fails_is_told_and_the_others_go_on():
    told = []

    def steps_of(image):
        if image.id == "b":
            raise InputError("b is broken")
        yield None
        yield Ranked(0.5, {1: 1.0})

    steps = ranking([entry("a"), entry("b"), entry("c")], steps_of, lambda image, found: told.append((image.id, found)))
    assert len(list(steps)) == 5
    assert told == [("a", Ranked(0.5, {1: 1.0})), ("b", "b is broken"), ("c", Ranked(0.5, {1: 1.0}))]

    def full(image):
        raise CacheError("the disk is full")
        yield

    with pytest.raises(CacheError):  # that concerns every image
        list(ranking([entry("a")], full, lambda *_: None))


def test_what_is_suggested():
    assert suggest_image([], {}) is None
    assert suggest_image([entry("a", painted=1), entry("b", reviewed=True), entry("c", problem="gone")], {}) is None
    assert suggest_image([entry("a", painted=1), entry("b"), entry("c")], {}) == "b"
    assert suggest_image([entry("a"), entry("b", uncertainty=0.1), entry("c", uncertainty=0.3)], {}) == "c"
    looks = {name: look(np.full((9, 9, 3), value, np.uint8)) for name, value in {"a": 10, "b": 20, "c": 250}.items()}
    assert suggest_image([entry("a", painted=1), entry("b"), entry("c"), entry("d")], looks) == "c"


def test_images_of_other_channels_are_not_ranked(export_set):
    from mdm_studio.services.classifier import load_classifier

    image = ArrayImage(np.zeros((2, 40, 50), np.uint8), channel_axis=0, name="two")
    with pytest.raises(ChannelsError, match="two has 2 channels, and the classifier was fitted on images of red"):
        list(rank_image(load_classifier(export_set.classifier), image, None))
