"""Windows over images of any size."""

import pytest
import torch
import torch.nn.functional as F

from mdm_studio.nn.windows import by_windows
from mdm_studio.testing import golden_input


def _pooled(window):
    """A network without positions: windows cannot change what it says."""
    return {0: F.avg_pool2d(window, 8), 1: F.avg_pool2d(window, 4)}


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (40, 104), (72, 56)])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_no_window_changes_is_left_as_it_is(size, batch):
    x = golden_input((batch, 2, *size), 1)
    maps = by_windows(x, 32, 8, _pooled)
    for block, expected in _pooled(x).items():
        torch.testing.assert_close(maps[block], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 16), (24, 64), (40, 8)])
def test_small_images_are_mirrored_and_the_mirror_cut_off(size):
    x = golden_input((2, 1, *size), 2)
    seen = []

    def run(window):
        seen.append(window)
        return _pooled(window)

    maps = by_windows(x, 32, 8, run)
    torch.testing.assert_close(maps[1], F.avg_pool2d(x, 4), rtol=0, atol=1e-6)
    assert all(window.shape[2:] == (32, 32) for window in seen)
    if size == (8, 16):
        assert torch.equal(seen[0][:, :, 8:16, :16], x.flip(2))
        assert torch.equal(seen[0][:, :, :8, 16:], x.flip(3))


def test_parts_that_overlap_by_a_window_agree_with_the_whole():
    def run(window):  # depends on everything in the window and on the place in it
        place = torch.linspace(-1, 1, 4)
        return {0: F.avg_pool2d(window, 8) * window.std(dim=(1, 2, 3), keepdim=True) + place * place[:, None]}

    x = golden_input((1, 1, 32, 160), 3)
    whole = by_windows(x, 32, 8, run)[0]
    first, second = by_windows(x[..., :96], 32, 8, run)[0], by_windows(x[..., 64:], 32, 8, run)[0]
    torch.testing.assert_close(whole[..., :10], first[..., :10])
    torch.testing.assert_close(whole[..., 10:], second[..., 2:])
    assert (whole.diff(dim=3).abs().max() < 2 * x.abs().max()).item()


def test_rows_of_a_pass_are_the_batch_once_for_each_window():
    x = torch.stack([torch.full((1, 16, 48), value) for value in (1.0, 2.0, 3.0)])

    def run(window):
        numbers = torch.tensor([1.0, 2.0, 3.0]).repeat(len(window) // 3)
        assert torch.equal(window.mean(dim=(1, 2, 3)), numbers)
        return {0: F.avg_pool2d(window, 8)}

    torch.testing.assert_close(by_windows(x, 16, 8, run)[0].mean(dim=(1, 2, 3)), torch.tensor([1.0, 2.0, 3.0]))


def test_sizes_off_the_stride_are_refused():
    with pytest.raises(ValueError, match="20 x 32"):
        by_windows(torch.zeros(1, 1, 20, 32), 16, 8, _pooled)
