"""Pictures of a demo: an overlay for each image, one contact sheet, one page of HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as PILImage
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

from mdm_studio.arrays import fit_channels, intensity_window, normalise
from mdm_studio.io.atomic import make_folder, replacing, write_text
from mdm_studio.io.images import image_name, open_image
from mdm_studio.io.labels import read_labels

_GROUND, _NUCLEUS = (230, 159, 0), (86, 180, 233)  # strokes; told apart with any colour vision
_FOUND, _TRUTH = (250, 225, 50), (0, 230, 140)  # outlines that stand out on dark and on purple
_TINT = 0.2  # share of the class colour over the image
_COLUMNS = ("image and strokes", "prediction", "truth", "uncertainty")
_CELL = 2.2  # inches of a picture on the sheet

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class DemoImage:
    """One image of the sheet: ``rgb`` ``(H, W, 3)``, and ``(H, W)`` strokes (0 = none), found and true nuclei, uncertainty."""

    name: str
    rgb: Rgb
    strokes: NDArray[np.unsignedinteger]
    found: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    uncertainty: NDArray[np.float32]


def load_image(path: Path, strokes: Path | None, truth: Path, masks: Path, nucleus: int) -> DemoImage:
    """Read everything that is shown of one image; intensities are stretched as the backbone sees them."""
    with open_image(path) as image:
        plane = image.plane()
        raw = plane.read(slice(None), slice(None))
        window = intensity_window(raw, "percentile", joint=plane.rgb)
    name, shape = image_name(path), raw.shape[1:]
    colour = fit_channels(normalise(raw, window), 3, name=name).transpose(1, 2, 0)
    with open_image(masks / "uncertainty" / f"{name}.tif") as found:
        uncertainty = found.plane().read(slice(None), slice(None))[0]
    return DemoImage(
        name,
        ((colour + 1) * 127.5).astype(np.uint8),
        read_labels(strokes, (shape[0], shape[1])) if strokes else np.zeros(shape, np.uint8),
        read_labels(masks / f"{name}.png", (shape[0], shape[1])) == nucleus,
        read_labels(truth, (shape[0], shape[1])) > 0,
        uncertainty,
    )


def write_report(
    images: Sequence[DemoImage],
    dice: Mapping[str, float],
    means: Sequence[tuple[float, float]],
    pixels: int,
    seconds: float,
    out: Path,
) -> None:
    """Write ``overlays/``, ``contact-sheet.png`` and ``index.html`` into `out`.

    `means` holds mean and standard deviation of Dice for the painted images and for the others.
    """
    make_folder(out / "overlays", within=out)
    for image in images:
        overlay = PILImage.fromarray(_enlarged(_outlined(_with_strokes(image), image.found, _FOUND), 2))
        with replacing(out / "overlays" / f"{image.name}.png") as unfinished:
            overlay.save(unfinished, format="png")
    headline = (
        f"{pixels:,} labelled pixels in {sum(image.strokes.any() for image in images)} images, {seconds:.0f} seconds: "
        f"Dice {means[0][0]:.3f} ± {means[0][1]:.3f} on painted images, "
        f"{means[1][0]:.3f} ± {means[1][1]:.3f} on images never seen"
    )
    figure = _sheet(images, dice, headline)
    with replacing(out / "contact-sheet.png") as unfinished:
        figure.savefig(unfinished, format="png", dpi=100)
    write_text(out / "index.html", _page(images, dice, headline))


def _with_strokes(image: DemoImage) -> Rgb:
    shown = image.rgb.copy()
    for value, colour in ((1, _GROUND), (2, _NUCLEUS)):
        shown[image.strokes == value] = colour
    return shown


def _outlined(rgb: Rgb, region: NDArray[np.bool_], colour: tuple[int, int, int]) -> Rgb:
    """A region with a translucent tint and a crisp outline."""
    shown = rgb.astype(np.float32)
    shown[region] = (1 - _TINT) * shown[region] + _TINT * np.array(colour)
    shown[find_boundaries(region, mode="inner")] = colour  # type: ignore[no-untyped-call]
    return shown.astype(np.uint8)


def _enlarged(rgb: Rgb, factor: int) -> Rgb:
    return rgb.repeat(factor, axis=0).repeat(factor, axis=1)


def _panels(image: DemoImage, highest: float) -> list[Rgb]:
    """The four pictures of a row."""
    heat = colormaps["magma"](np.clip(image.uncertainty / highest, 0, 1))[..., :3]
    strokes = image.rgb.copy()
    for value, colour in ((1, _GROUND), (2, _NUCLEUS)):
        strokes[binary_dilation(image.strokes == value)] = colour  # one pixel wider, to be seen on a small picture
    return [
        strokes,
        _outlined(image.rgb, image.found, _FOUND),
        _outlined(image.rgb, image.truth, _TRUTH),
        (heat * 255).astype(np.uint8),
    ]


def _sheet(images: Sequence[DemoImage], dice: Mapping[str, float], headline: str) -> Figure:
    """Two groups side by side, painted and never seen; a row an image, a column a picture."""
    groups = [[image for image in images if image.strokes.any()], [image for image in images if not image.strokes.any()]]
    rows, columns = max(len(group) for group in groups), len(_COLUMNS)
    highest = max(float(np.quantile(image.uncertainty, 0.995)) for image in images) or 1.0
    figure = Figure(figsize=(_CELL * (2 * columns + 0.3), _CELL * rows + 1.0), facecolor="white")
    grid = figure.add_gridspec(
        rows, 2 * columns + 1, width_ratios=[1] * columns + [0.12] + [1] * columns, wspace=0.04, hspace=0.16,
        left=0.01, right=0.99, top=1 - 0.86 / (_CELL * rows + 1), bottom=0.01,
    )  # fmt: skip
    figure.text(0.01, 1 - 0.3 / (_CELL * rows + 1), headline, fontsize=15, weight="bold")
    titles = ("painted", "never seen")
    for number, group in enumerate(groups):
        left = number * (columns + 1)
        for row, image in enumerate(group):
            for column, picture in enumerate(_panels(image, highest)):
                axes = figure.add_subplot(grid[row, left + column])
                axes.imshow(picture, interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(_COLUMNS[column], fontsize=11, color="0.35", pad=18)
                if column == 0:
                    label = f"{image.name}, {titles[number]}: Dice {dice[image.name]:.3f}"
                    axes.text(0, 1.015, label, transform=axes.transAxes, fontsize=9.5, va="bottom")
    return figure


def _page(images: Sequence[DemoImage], dice: Mapping[str, float], headline: str) -> str:
    rows = "\n".join(
        f'<figure><img src="overlays/{html.escape(image.name)}.png" alt=""><figcaption>{html.escape(image.name)}: Dice '
        f"{dice[image.name]:.3f}{', painted' if image.strokes.any() else ', never seen'}</figcaption></figure>"
        for image in images
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MDM Studio demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; color: #222 }}
img {{ max-width: 100% }} .all {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} figcaption {{ font-size: .85rem; color: #555 }}
</style></head><body>
<h1>MDM Studio demo</h1><p>{html.escape(headline)}.</p>
<p>Strokes: orange for ground, blue for nucleus. Outlines: yellow for the prediction, green for the truth.
Bright: uncertain.</p>
<a href="contact-sheet.png"><img src="contact-sheet.png" alt="All images: strokes, prediction, truth, uncertainty"></a>
<h2>Overlays</h2><div class="all">
{rows}
</div></body></html>
"""
