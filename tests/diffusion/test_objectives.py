"""The SSIM loss against the MDM authors' own numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.diffusion.corruptions import add_noise
from mdm_studio.diffusion.objectives import hybrid_loss, mse_loss, ssim_loss, ssim_map, variational_bound
from mdm_studio.diffusion.schedules import alphas_cumprod, betas
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


def _noisy(schedule, t):
    x0, noise = golden_input((2, 3, 16, 16), 2).clamp(-1, 1), golden_input((2, 3, 16, 16), 3)
    return x0, add_noise(x0, t, noise, alphas_cumprod(schedule)), noise


def test_hybrid_loss_agrees_with_guided_diffusion():
    t = torch.tensor([0, 400])
    x0, x_t, noise = _noisy("linear", t)
    prediction = torch.cat([x_t.sin(), 0.1 * x_t.cos()], dim=1)
    loss = hybrid_loss(prediction, x0, x_t, t, noise, betas("linear"))
    np.testing.assert_allclose(mse_loss(x_t.sin(), noise).numpy(), GOLDEN["gd_loss_mse"], rtol=1e-5)
    bound = variational_bound(x_t.sin(), 0.1 * x_t.cos(), x0, x_t, t, betas("linear"))
    np.testing.assert_allclose(bound.numpy(), GOLDEN["gd_loss_vb"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loss.numpy(), GOLDEN["gd_loss"], rtol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_bound_teaches_the_variance_alone(schedule):
    t = torch.tensor([0, 999])
    x0, x_t, noise = _noisy(schedule, t)
    prediction = torch.cat([noise, torch.zeros_like(noise)], dim=1).requires_grad_()
    loss = hybrid_loss(prediction, x0, x_t, t, noise, betas(schedule))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()
    assert not prediction.grad[:, :3].any()  # the noise is right already
    assert prediction.grad[0, 3:].any()
