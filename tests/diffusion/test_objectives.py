"""The SSIM loss against the MDM authors' own numbers."""

from pathlib import Path

import numpy as np
import torch

from mdm_studio.diffusion.objectives import mse_loss, ssim_loss, ssim_map
from mdm_studio.testing import golden_input

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def _pair():
    a = golden_input((2, 3, 24, 24), 4).clamp(-1, 1)
    return a, (0.7 * a + 0.3 * golden_input((2, 3, 24, 24), 5))


def test_ssim_loss_and_gradient_agree_with_the_released_code():
    a, b = _pair()
    b.requires_grad_()
    loss = ssim_loss(a, b).mean()
    loss.backward()
    np.testing.assert_allclose(loss.item(), GOLDEN["ssim_loss"], rtol=1e-5)
    np.testing.assert_allclose(b.grad.numpy(), GOLDEN["ssim_grad"], atol=1e-5 * np.abs(GOLDEN["ssim_grad"]).max())


def test_ssim_map_agrees_with_the_released_code():
    a, b = _pair()
    released = ((1 - ssim_map(a, b)).clamp(0, 1) / 2).numpy()
    np.testing.assert_allclose(released, GOLDEN["ssim_map"].reshape(released.shape), atol=1e-5)


def test_negative_similarity_saturates_as_released():
    a, _ = _pair()
    np.testing.assert_allclose(ssim_loss(a, -a).mean().item(), GOLDEN["ssim_neg_loss"], rtol=1e-5)


def test_losses_are_one_a_sample():
    a, b = _pair()
    for loss in (ssim_loss, mse_loss):
        both = loss(a, b)
        assert both.shape == (2,)
        assert torch.allclose(both[1], loss(a[1:], b[1:])[0])
