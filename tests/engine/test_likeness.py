"""The search for a picture inside others."""

import numpy as np
import pytest
import torch
from skimage.feature import match_template

from mdm_studio.engine.likeness import best_places, shrink, unmirrored


@pytest.fixture
def field():
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, (40, 50)).astype(np.float32))


@pytest.mark.parametrize("mirroring", range(4))
def test_a_copy_is_found_wherever_it_is_however_mirrored_and_lit(field, mirroring):
    window = field[7:27, 21:41].numpy()
    copy = torch.from_numpy(0.3 * unmirrored(window, mirroring) - 0.4)[None]
    other = torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, (40, 50)).astype(np.float32))
    found = best_places(copy, [other, field])
    assert found.correlation[0, 1] == pytest.approx(1, abs=1e-4)
    assert found.correlation[0, 0] < 0.5
    assert found.place[0, 1].tolist() == [7, 21, mirroring]
    np.testing.assert_allclose(0.3 * unmirrored(window, mirroring) - 0.4, copy[0])


def test_it_is_normalised_cross_correlation(field):
    picture = torch.from_numpy(np.random.default_rng(2).normal(0, 1, (12, 9)).astype(np.float32))
    wanted = max(
        match_template(field.numpy(), np.flip(picture.numpy(), dims) if dims else picture.numpy()).max()
        for dims in ((), (0,), (1,), (0, 1))
    )
    assert best_places(picture[None], [field]).correlation[0, 0] == pytest.approx(wanted, abs=1e-4)


def test_what_is_flat_looks_like_nothing(field):
    flat = torch.full((2, 8, 8), 0.7)
    assert not best_places(flat, [field]).correlation.any()
    assert not best_places(field[None, :8, :8], [torch.zeros(20, 20)]).correlation.any()


def test_a_field_smaller_than_the_picture_is_refused(field):
    with pytest.raises(ValueError, match="smaller"):
        best_places(field[None], [field[:30]])


def test_pictures_become_grey_and_small():
    images = torch.stack([torch.full((32, 64), value) for value in (0.0, 0.3, 0.6)])[None]
    small = shrink(images, 0.5)
    assert small.shape == (1, 16, 32)
    torch.testing.assert_close(small, torch.full((1, 16, 32), 0.3))
