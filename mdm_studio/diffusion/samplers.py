"""Samplers: noise becomes an image, step by step. Each is a function named for its algorithm that yields every step.

A sampler knows no network: `Model` is any callable of images and timesteps. Drive one with a loop, to show progress or to stop,
or with `last_image` for the result alone::

    abar = alphas_cumprod("cosine")
    for state in ddim(model, noise, abar, spaced_times(1000, 50), generator=generator):
        report(state.done, state.total)
    images = state.x
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

Model = Callable[[Tensor, Tensor], Tensor]
"""From images ``(B, C, H, W)`` at timesteps ``(B,)`` to ``(B, C, H, W)``, or ``(B, 2C, H, W)`` with a learned variance."""

Predicts = Literal["noise", "image"]
Variance = Literal["posterior", "beta", "learned"]
Spacing = Literal["linspace", "stride"]
Bounds = tuple[float | Tensor, float | Tensor]


@dataclass(frozen=True)
class Sampled:
    """One finished step of a sampler.

    Attributes
    ----------
    done, total
        Steps done, the one reported included, and steps of the whole run.
    t
        Timestep the network was asked at.
    x
        ``(B, C, H, W)`` after the step; after the last one it is the sample.
    x0
        ``(B, C, H, W)`` the image that the network believes in at this step, within the bounds.
    """

    done: int
    total: int
    t: int
    x: Tensor
    x0: Tensor


def spaced_times(t_max: int, steps: int, spacing: Spacing = "linspace") -> tuple[int, ...]:
    """Timesteps of a run of `steps` steps, descending, each below `t_max`.

    ``linspace``: evenly from ``t_max - 1`` on (MaskDM). ``stride``: multiples of one whole number, as the ``ddimN`` option of
    guided-diffusion; `steps` must then divide the range, which 10, 50, 100 and 250 of 1000 do.

    Raises
    ------
    ValueError
        If there are no such timesteps.
    """
    if not 1 <= steps <= t_max:
        raise ValueError(f"{steps} steps of {t_max} timesteps; the number of steps lies in 1..{t_max}")
    if spacing == "linspace":
        grid = torch.linspace(-1, t_max - 1, steps + 1).int().tolist()  # float32 and truncated, as in the released code
        return tuple(reversed(grid[1:]))
    for stride in range(1, t_max + 1):
        times = range(0, t_max, stride)
        if len(times) == steps:
            return tuple(reversed(times))
    raise ValueError(f"no whole stride makes {steps} steps of {t_max} timesteps; choose a divisor or the spacing 'linspace'")


def ddim(
    model: Model,
    x: Tensor,
    abar: Tensor,
    times: Sequence[int],
    *,
    generator: Generator | Sequence[Generator],
    eta: float = 0.0,
    rederive: bool = True,
    predicts: Predicts = "noise",
    bounds: Bounds = (-1.0, 1.0),
) -> Iterator[Sampled]:
    """Denoising diffusion implicit models (Song, Meng and Ermon 2021, equation 12).

    Parameters
    ----------
    model : Model
        Only the first C channels of its prediction are used: DDIM knows no learned variance.
    x : (B, C, H, W)
        Noise to start from; with `eta` 0 it alone decides the sample.
    abar : (T,) float64
        Signal shares of the training's schedule.
    times : sequence of int
        Descending timesteps, from `spaced_times`. After the last one the network's image itself is returned.
    generator : Generator or sequence of Generator
        Of the CPU; draws the noise that `eta` adds. One an image makes each image independent of its batch.
    eta : float
        0: deterministic; 1: as much noise as ancestral sampling adds.
    rederive : bool
        Compute the noise again from the clipped image (guided-diffusion); False leaves the network's own (MaskDM), so that
        image and noise disagree wherever the image was clipped.
    bounds : (low, high)
        Range of clean images, numbers or tensors that broadcast against `x` (wavelet coefficients have their own).

    Yields
    ------
    Sampled
        After each step.
    """
    for done, (t, after) in enumerate(_pairs(times), 1):
        a, a_after = float(abar[t]), _share(abar, after)
        image, noise = _estimates(_ask(model, x, t), x, a, predicts, bounds, rederive)
        sigma = eta * ((1 - a_after) / (1 - a) * (1 - a / a_after)) ** 0.5
        x = a_after**0.5 * image
        if after >= 0:
            x = x + (1 - a_after - sigma**2) ** 0.5 * noise
        if sigma > 0:
            x = x + sigma * _draw(x, generator)
        yield Sampled(done, len(times), t, x, image)


def ancestral(
    model: Model,
    x: Tensor,
    abar: Tensor,
    times: Sequence[int],
    *,
    generator: Generator | Sequence[Generator],
    variance: Variance = "posterior",
    predicts: Predicts = "noise",
    bounds: Bounds = (-1.0, 1.0),
) -> Iterator[Sampled]:
    """Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2), on all timesteps or on some of them.

    Parameters are those of `ddim`; `variance` is that of each step.

    ``posterior``: of ``q(x_s | x_t, x_0)``, the lower bound. ``beta``: the upper bound. ``learned``: between the two, at the
    share that the second half of the network's channels gives (Nichol and Dhariwal 2021, equation 15).

    Raises
    ------
    ValueError
        If the variance is to be learned and the network predicts none.
    """
    for done, (t, after) in enumerate(_pairs(times), 1):
        a, a_after = float(abar[t]), _share(abar, after)
        prediction = _ask(model, x, t)
        image, _ = _estimates(prediction, x, a, predicts, bounds, rederive=False)
        beta = 1 - a / a_after
        x_share, image_share = (a / a_after) ** 0.5 * (1 - a_after) / (1 - a), a_after**0.5 * beta / (1 - a)
        mean = image_share * image + x_share * x
        if after >= 0:
            low = beta * (1 - a_after) / (1 - a)
            mean = mean + _spread(prediction, x.shape[1], low, beta, variance) * _draw(x, generator)
        x = mean
        yield Sampled(done, len(times), t, x, image)


def last_image(states: Iterable[Sampled]) -> Tensor:
    """Run a sampler to its end; ``(B, C, H, W)``."""
    for state in states:
        x = state.x
    return x


def _pairs(times: Sequence[int]) -> list[tuple[int, int]]:
    """Each timestep with the next lower one; -1, the clean image, after the last."""
    if not times or any(a <= b for a, b in zip(times, [*times[1:], -1], strict=True)):
        raise ValueError(f"timesteps {tuple(times)[:5]}... do not descend to 0; make them with spaced_times")
    return list(zip(times, [*times[1:], -1], strict=True))


def _share(abar: Tensor, t: int) -> float:
    return float(abar[t]) if t >= 0 else 1.0


@torch.no_grad()
def _ask(model: Model, x: Tensor, t: int) -> Tensor:
    return model(x, torch.full((len(x),), t, device=x.device))


def _draw(like: Tensor, generator: Generator | Sequence[Generator]) -> Tensor:
    if isinstance(generator, Generator):
        return torch.randn(like.shape, generator=generator).to(like)
    return torch.stack([torch.randn(like.shape[1:], generator=each) for each in generator]).to(like)


def _estimates(
    prediction: Tensor, x: Tensor, a: float, predicts: Predicts, bounds: Bounds, rederive: bool
) -> tuple[Tensor, Tensor]:
    """Clipped image and noise that a prediction stands for; `a` is the signal share of `x`."""
    answer = prediction[:, : x.shape[1]].to(x.dtype)
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in bounds)
    image = answer if predicts == "image" else (x - (1 - a) ** 0.5 * answer) / a**0.5
    image = image.clamp(low, high)
    if predicts == "noise" and not rederive:
        return image, answer
    return image, (x - a**0.5 * image) / (1 - a) ** 0.5


def _spread(prediction: Tensor, channels: int, low: float, high: float, variance: Variance) -> float | Tensor:
    """Standard deviation of an ancestral step between the variances `low` and `high`."""
    if variance != "learned":
        return math.sqrt(low if variance == "posterior" else high)
    if prediction.shape[1] != 2 * channels:
        raise ValueError(
            f"the network predicts {prediction.shape[1]} channels for images of {channels}, so it has no learned variance "
            f"(that takes {2 * channels}); sample with the variance 'posterior' or 'beta'"
        )
    share = (prediction[:, channels:].float() + 1) / 2
    return torch.exp(share * (torch.tensor(high).log() / 2) + (1 - share) * (torch.tensor(low).log() / 2))
