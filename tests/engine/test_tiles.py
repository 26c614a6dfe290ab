"""Tiles partition an image, whatever its size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.engine.tiles import TileGrid, map_size


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [(1, 1, (1, 1)), (512, 512, (1, 1)), (768, 768, (1, 1)), (1000, 1000, (2, 2)), (520, 696, (1, 1)), (3, 5000, (1, 10))],
)
def test_number_of_tiles(height, width, shape):
    assert TileGrid.of(height, width, tile=512, halo=64, align=16).shape == shape


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 48, 64]))
@settings(max_examples=50, deadline=None)
def test_cores_cover_every_pixel_once_and_cells_cover_every_core(height, width, tile):
    grid = TileGrid.of(height, width, tile=tile, halo=20, align=16)
    assert grid.halo == 32
    seen = np.zeros((height, width), int)
    for row, col in grid:
        rows, cols = grid.core(row, col)
        seen[rows, cols] += 1
        assert grid.containing(rows.start, cols.start) == (row, col)
        for stride in (1, 2, 16):
            cell_rows, _ = grid.cells(row, col, stride, margin=1)
            full = map_size(height, width, stride)
            assert cell_rows.start * stride <= rows.start
            assert cell_rows.stop * stride >= rows.stop
            assert cell_rows.stop <= full[0]
    assert (seen == 1).all()
    assert len(list(grid)) == len(grid)
