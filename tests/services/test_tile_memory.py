import numpy as np
import pytest
import torch

from mdm_studio.nn.pixel_mlp import FeatureMap
from mdm_studio.services.live_plan import PlaneKey, Stage, Tile
from mdm_studio.services.tile_memory import CoarseTile, TileMaps, TileMemory, coarse_features, coarse_pixels, with_absent

PLANE = PlaneKey("a", 0)


def tile(number):
    return Tile(PLANE, 0, number)


def maps(kilobytes, stage=Stage.ALL):
    values = torch.zeros(kilobytes * 512, 1, 1, dtype=torch.float16)
    return TileMaps(stage, (FeatureMap(values, 1, (0, 0), (1, 1)),))


def coarse(kilobytes, stage=Stage.ALL):
    return CoarseTile(stage, torch.zeros(kilobytes * 512, 1, 1, dtype=torch.float16), np.zeros((0, 0), np.float32))


def test_the_least_recently_used_tiles_are_forgotten_and_coarse_ones_kept_longer():
    memory = TileMemory(30 << 10)  # 20 KB of maps, 10 KB of coarse ones
    for number in range(4):
        memory.put(tile(number), maps(8), coarse(2))
        memory.maps(tile(0))  # used all the time
    whole, thin = memory.stages()
    assert set(whole) == {tile(0), tile(3)}
    assert set(thin) == {tile(number) for number in range(4)}
    assert memory.maps(tile(1)) is None
    assert memory.coarse(tile(1)) is not None


def test_a_tile_larger_than_the_memory_is_kept_alone():
    memory = TileMemory(3 << 10)
    memory.put(tile(0), maps(1), coarse(1))
    memory.put(tile(1), maps(50), coarse(50))
    assert set(memory.stages()[0]) == {tile(1)}


def test_a_closed_image_is_forgotten():
    memory = TileMemory(1 << 20)
    memory.put(tile(0), maps(1, Stage.FILTERS), coarse(1))
    memory.put(Tile(PlaneKey("b", 0), 0, 0), maps(1), coarse(1))
    memory.forget("b")
    assert memory.stages() == ({tile(0): Stage.FILTERS}, {tile(0): Stage.ALL})


@pytest.mark.parametrize(("start", "stop", "step", "expected"), [(0, 10, 4, [2, 6, 9]), (8, 9, 4, [8]), (0, 4, 2, [1, 3])])
def test_a_step_is_stood_for_by_its_middle(start, stop, step, expected):
    assert coarse_pixels(start, stop, step).tolist() == expected


def test_coarse_features_are_those_of_their_pixels():
    values = torch.arange(3 * 8 * 12).reshape(3, 8, 12).float()
    found = coarse_features([FeatureMap(values, 1, (0, 0), (8, 12))], slice(0, 8), slice(4, 12))
    assert found.shape == (2, 2, 3)
    torch.testing.assert_close(found, values[:, [2, 6]][:, :, [6, 10]].permute(1, 2, 0))
    padded = with_absent(found, 5)
    assert padded.shape == (2, 2, 8)
    assert not padded[..., :5].any()
