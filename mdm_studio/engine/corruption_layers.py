"""What lies between camera and object in `mdm_studio.engine.image_corruptions`: fog, frost, snow, drops, mud.

Each is a map ``(H, W)`` (frost ``(3, H, W)``) of values in 0..1, drawn from a NumPy generator: the same state of the generator
gives the same layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage import exposure, segmentation

Layer = NDArray[Any]  # float32

_FROST_TINT = np.array([[[146.0]], [[167.0]], [[177.0]]], np.float32) / 255  # mean colour of the five published photographs
_FROST_SPREAD = 0.12  # their standard deviation of brightness
_FACETS = (40, 14)  # mean distance in pixels of the seeds of large and small ice crystals
_REACH = 20  # pixels from a drop's edge over which its rim fades
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)


def plasma(size: tuple[int, int], decay: float, generator: Generator) -> Layer:
    """Random heights ``(H, W)`` from 0 to 1 by midpoint displacement (diamond-square) on a torus.

    Each halving of the step divides the displacement by ``decay**2``: small values are rough.
    """
    height, width = size
    heights, step = np.zeros((1, 1)), 1.0
    while len(heights) < max(height, width):
        n = len(heights)
        up, left = np.roll(heights, -1, 0), np.roll(heights, -1, 1)
        centres = (heights + up + left + np.roll(up, -1, 1)) / 4 + step * generator.uniform(-1, 1, (n, n))
        finer = np.empty((2 * n, 2 * n))
        finer[::2, ::2], finer[1::2, 1::2] = heights, centres
        finer[::2, 1::2] = (heights + left + centres + np.roll(centres, 1, 0)) / 4 + step * generator.uniform(-1, 1, (n, n))
        finer[1::2, ::2] = (heights + up + centres + np.roll(centres, 1, 1)) / 4 + step * generator.uniform(-1, 1, (n, n))
        heights, step = finer, step / decay**2
    return _stretched(heights)[:height, :width]


def _stretched(values: NDArray[np.float64]) -> Layer:
    low, high = values.min(), values.max()
    made: Layer = ((values - low) / max(high - low, 1e-12)).astype(np.float32)
    return made


def frost(size: tuple[int, int], generator: Generator) -> Layer:
    """Ice on a pane in colour, ``(3, H, W)``: crystals of two sizes with bright edges, thicker in places.

    The published corruption blends in one of five photographs of frost. They are not ours to ship, so this is made up; mean
    colour and spread are theirs.
    """
    height, width = size
    yx = np.indices((height, width)).reshape(2, -1).T.astype(np.float64)
    bent = np.stack([plasma(size, 1.6, generator).ravel() for _ in range(2)], 1)
    ice = 0.6 * plasma(size, 1.4, generator)
    for distance in _FACETS:
        seeds = max(int(height * width / distance**2), 4)
        points = generator.uniform((0, 0), (height, width), (seeds, 2))
        near, which = KDTree(points).query(yx + 1.5 * distance * (bent - 0.5), k=2)
        edge = np.exp(-((near[:, 1] - near[:, 0]) / (0.12 * distance)))
        facet = generator.uniform(0, 1, seeds)[which[:, 0]]
        ice += (0.7 * edge + 0.35 * facet).reshape(height, width).astype(np.float32)
    ice *= 0.5 + plasma(size, 1.8, generator)
    ice = (ice - ice.mean()) / max(float(ice.std()), 1e-6) * _FROST_SPREAD
    made: Layer = np.clip(_FROST_TINT + ice[None], 0, 1)
    return made


def snow(size: tuple[int, int], how: tuple[float, ...], generator: Generator) -> Layer:
    """Flakes that fall: Gaussian noise, enlarged and cut off, blurred along a steep angle.

    `how` is mean and standard deviation of the noise, magnification, threshold, length and spread of the blur.
    """
    mean, deviation, zoom, threshold, radius, spread = how
    flakes = zoomed(generator.normal(mean, deviation, (1, *size)).astype(np.float32), zoom)[0]
    flakes[flakes < threshold] = 0
    angle = generator.uniform(-135, -45)
    made: Layer = streaked(np.clip(flakes, 0, 1)[None], int(radius), spread, angle)[0]
    return made


def drops(size: tuple[int, int], how: tuple[float, ...], generator: Generator) -> Layer:
    """Drops of water with shaded rims.

    `how` is mean and deviation of the noise that they come from, its blur, the threshold of a drop, and strength.
    """
    mean, deviation, blur, threshold, strength = how
    liquid = _liquid(size, mean, deviation, blur, threshold, generator)
    rims = segmentation.find_boundaries(liquid > 0, mode="inner")  # type: ignore[no-untyped-call]
    if not rims.any():
        return liquid
    distance = np.minimum(ndimage.distance_transform_edt(~rims), _REACH)
    distance = ndimage.uniform_filter(distance, 3, mode="mirror")
    shade = exposure.equalize_hist(distance.astype(np.uint8)).astype(np.float32)  # type: ignore[no-untyped-call]
    shade = np.clip(ndimage.correlate(shade, _EMBOSS, mode="mirror"), 0, 1)
    shaded: Layer = liquid * ndimage.uniform_filter(shade, 3, mode="mirror")
    return shaded * np.float32(strength / max(float(shaded.max()), 1e-6))


def mud(size: tuple[int, int], how: tuple[float, ...], generator: Generator) -> Layer:
    """Splashes that cover what is below, 0 nothing to 1 all; `how` as in `drops`, last the splashes' own blur."""
    mean, deviation, blur, threshold, soft = how
    splashes = (_liquid(size, mean, deviation, blur, threshold, generator) > threshold).astype(np.float32)
    covered: Layer = ndimage.gaussian_filter(splashes, soft, mode="nearest")
    covered[covered < 0.8] = 0
    return covered


def _liquid(
    size: tuple[int, int], mean: float, deviation: float, blur: float, threshold: float, generator: Generator
) -> Layer:
    noise = generator.normal(mean, deviation, size).astype(np.float32)
    liquid: Layer = ndimage.gaussian_filter(noise, blur, mode="nearest")
    liquid[liquid < threshold] = 0
    return liquid


def zoomed(image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """``(C, H, W)`` magnified about its centre and cut to the same size, by bilinear interpolation."""
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - centre / factor
    out = np.empty_like(image)
    for channel, plane in zip(out, image, strict=True):
        ndimage.affine_transform(plane, [1 / factor] * 2, offset, order=1, mode="nearest", output=channel)
    return out


def streaked(image: NDArray[np.float32], radius: int, spread: float, angle: float) -> NDArray[np.float32]:
    """``(C, H, W)`` smeared to one side along `angle` (degrees) by half a Gaussian of ``2 * radius + 1`` taps."""
    taps = np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * spread**2))
    weights /= weights.sum()
    down = np.ceil(taps * np.sin(np.deg2rad(angle)) - 0.5).astype(int)
    right = np.ceil(taps * np.cos(np.deg2rad(angle)) - 0.5).astype(int)
    border = 2 * radius + 1
    padded = np.pad(image, [(0, 0), (border, border), (border, border)], mode="edge")
    height, width = image.shape[1:]
    out = np.zeros_like(image)
    for weight, dy, dx in zip(weights, down, right, strict=True):
        out += np.float32(weight) * padded[:, border + dy :, border + dx :][:, :height, :width]
    return out
