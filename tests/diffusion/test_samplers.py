"""Samplers against the published ones, and their edges."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.diffusion.samplers import ancestral, ddim, last_image, spaced_times
from mdm_studio.diffusion.schedules import alphas_cumprod
from mdm_studio.testing import golden_input

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")
ABAR = alphas_cumprod("cosine")


def _wave(x, t):
    return 0.5 * x.sin() + 0.001 * t[:, None, None, None]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_timesteps_are_those_of_the_released_codes():
    assert [*spaced_times(1000, 10), -1] == GOLDEN["maskdm_ddim10_times"].tolist()
    assert spaced_times(1000, 10, "stride")[::-1] == tuple(GOLDEN["gd_ddim10_map"])
    assert spaced_times(1000, 1000) == spaced_times(1000, 1000, "stride") == tuple(range(999, -1, -1))
    for steps, spacing in ((0, "linspace"), (1001, "linspace"), (999, "stride")):
        with pytest.raises(ValueError, match=f"{steps} steps"):
            spaced_times(1000, steps, spacing)


def test_ddim_agrees_with_guided_diffusion():
    start = golden_input((2, 3, 16, 16), 3)
    states = list(ddim(_wave, start, ABAR, spaced_times(1000, 10, "stride"), generator=_generator()))
    np.testing.assert_allclose(states[-1].x.numpy(), GOLDEN["gd_ddim10_eta0"], atol=1e-5)
    assert [state.done for state in states] == list(range(1, 11))
    assert states[-1].total == 10
    assert torch.equal(states[-1].x, states[-1].x0)  # the last step returns the image itself


def test_clipping_leaves_maskdms_noise_as_it_was():
    start, times = golden_input((2, 3, 16, 16), 3), spaced_times(1000, 10)
    own, again = (next(ddim(_wave, start, ABAR, times, generator=_generator(), rederive=r)) for r in (False, True))
    assert torch.equal(own.x0, again.x0)
    assert not torch.equal(own.x, again.x)


def test_a_perfect_network_gives_the_image_back_from_any_noise():
    image = golden_input((2, 3, 16, 16), 2).clamp(-1, 1)

    def noise_of(x, t):
        a = ABAR[t][:, None, None, None]
        return ((x - a.sqrt() * image) / (1 - a).sqrt()).float()

    start = torch.randn(image.shape, generator=_generator(1))
    for eta in (0.0, 1.0):
        made = last_image(ddim(noise_of, start, ABAR, spaced_times(1000, 7), eta=eta, generator=_generator()))
        assert torch.allclose(made, image, atol=1e-4)
    for predicts, model in (("noise", noise_of), ("image", lambda x, t: image)):
        made = last_image(ancestral(model, start, ABAR, spaced_times(1000, 20), predicts=predicts, generator=_generator()))
        assert torch.allclose(made, image, atol=1e-4)


def test_full_noise_of_ddim_is_ancestral_sampling():
    start, times = golden_input((1, 3, 8, 8), 3), spaced_times(1000, 5)
    one = last_image(ddim(_wave, start, ABAR, times, eta=1.0, generator=_generator()))
    other = last_image(ancestral(_wave, start, ABAR, times, generator=_generator()))
    assert torch.allclose(one, other, atol=1e-4)


def test_learned_variance_lies_between_its_bounds():
    start, times = golden_input((1, 3, 8, 8), 3), spaced_times(1000, 5)

    def first_step(variance, share):
        model = lambda x, t: torch.cat([_wave(x, t), torch.full_like(x, 2 * share - 1)], 1)  # noqa: E731
        return next(ancestral(model, start, ABAR, times, variance=variance, generator=_generator())).x

    assert torch.allclose(first_step("learned", 0.0), first_step("posterior", 0.5), atol=1e-5)
    assert torch.allclose(first_step("learned", 1.0), first_step("beta", 0.5), atol=1e-5)
    with pytest.raises(ValueError, match="no learned variance"):
        next(ancestral(_wave, start, ABAR, times, variance="learned", generator=_generator()))


def test_bounds_may_differ_between_channels():
    start = torch.full((1, 2, 4, 4), 50.0)
    high = torch.tensor([3.0, 1.0])[:, None, None]
    made = last_image(ddim(lambda x, t: 0 * x, start, ABAR, (500,), generator=_generator(), bounds=(-high, high)))
    assert made[0, :, 0, 0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("times", [(), (5, 5), (3, 7), (4, -1)])
def test_timesteps_that_do_not_descend_are_refused(times):
    with pytest.raises(ValueError, match="do not descend"):
        next(ddim(_wave, torch.zeros(1, 3, 4, 4), ABAR, times, generator=_generator()))
