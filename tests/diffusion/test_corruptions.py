"""Corruptions and schedules against the papers' own numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.diffusion.corruptions import add_noise, hide_patches, masked_patches, patch_mask
from mdm_studio.diffusion.schedules import alphas_cumprod, betas
from mdm_studio.testing import golden_input

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def test_released_rounding_keeps_the_published_number_of_patches():
    t = torch.arange(1000)
    assert np.array_equal(1024 - masked_patches(t, 1024, "released").numpy(), GOLDEN["mdm_len_keep_1024"])


def test_paper_rounding_is_floor_of_t_over_t_plus_one():
    t = torch.tensor([0, 1, 50, 250, 750, 999, 1000])
    assert masked_patches(t, 1024, "paper").tolist() == [0, 1, 51, 255, 767, 1021, 1022]


def test_masked_image_agrees_with_the_released_code():
    x, ranks = golden_input((1, 3, 64, 64), 6), golden_input((1, 64), 7)
    hidden = patch_mask(ranks, masked_patches(torch.tensor([250]), 64, "released"))
    assert np.array_equal(hide_patches(x, hidden, 8).numpy(), GOLDEN["mdm_masked_t250"])


def test_mask_is_vectorised_over_a_batch_of_different_timesteps():
    t = torch.tensor([0, 100, 500, 999])
    wanted = masked_patches(t, 256)
    hidden = patch_mask(torch.rand(4, 256, generator=torch.Generator().manual_seed(0)), wanted)
    assert torch.equal(hidden.sum(1), wanted)


def test_patches_that_do_not_tile_the_image_are_refused():
    with pytest.raises(ValueError, match="30 x 32"):
        hide_patches(torch.zeros(1, 3, 30, 32), torch.zeros(1, 16, dtype=torch.bool), 8)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules(name):
    at = [0, 1, 50, 150, 250, 500, 998, 999]
    np.testing.assert_allclose(betas(name).numpy()[at], GOLDEN[f"betas_{name}"], rtol=1e-10)
    np.testing.assert_allclose(alphas_cumprod(name).numpy()[at], GOLDEN[f"acum_{name}"], rtol=1e-8)


def test_maskdms_cosine_schedule_is_the_same():
    """It divides the signal share by its first value before taking ratios, which changes nothing."""
    at = [0, 1, 50, 250, 500, 998, 999]
    np.testing.assert_allclose(alphas_cumprod("cosine").numpy()[at], GOLDEN["maskdm_acum_cosine"], rtol=1e-6)


def test_forward_process():
    x, noise = golden_input((2, 3, 16, 16), 2).clamp(-1, 1), golden_input((2, 3, 16, 16), 3)
    out = add_noise(x, torch.tensor([50, 250]), noise, alphas_cumprod("linear"))
    np.testing.assert_allclose(out.numpy(), GOLDEN["q_sample_50_250"], atol=1e-6)
