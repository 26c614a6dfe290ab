"""Pictures and words about a pretraining run: reconstructions, loss curve, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from mdm_studio.io.atomic import replacing
from mdm_studio.io.json_files import parse_json

_CAPTIONS = "captions"  # of a sheet's rows, as JSON in the file itself
_USUAL = ("image", "25 % hidden", "made of it", "50 % hidden", "made of it", "75 % hidden", "made of it")  # of older sheets
_CURVE = "\n![loss](loss.png)\n"


def _rgb(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``(N, C, H, W)`` in [-1, 1] to one strip ``(H, N * W, 3)``; of more than three channels the first three show."""
    shown = images[:, :3] if images.shape[1] >= 3 else np.repeat(images[:, :1], 3, axis=1)
    strip = np.concatenate(list(shown), axis=2).transpose(1, 2, 0)  # (H, N * W, 3)
    return ((strip.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def sample_sheet(
    path: Path,
    originals: NDArray[np.float32],
    captions: Sequence[str],
    seen: NDArray[np.float32],
    made: NDArray[np.float32],
) -> None:
    """Write a PNG: the originals on top, then for each timestep what the network saw and what it made of it.

    `originals` is ``(B, C, H, W)``, `seen` and `made` are ``(T, B, C, H, W)``, all in [-1, 1]; `captions` say in words what was
    seen at each timestep. `read_sheet` gives picture and captions back.
    """
    rows, words = [_rgb(originals)], ["image"]
    for index, caption in enumerate(captions):
        rows += [_rgb(seen[index]), _rgb(made[index])]
        words += [caption, "made of it"]
    notes = PngInfo()
    notes.add_itxt(_CAPTIONS, json.dumps(words))
    with replacing(path) as unfinished:
        PILImage.fromarray(np.concatenate(rows)).save(unfinished, format="png", pnginfo=notes)


def read_sheet(path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """A sheet ``(H, W, 3)`` and what stands in each of its rows, which are equally high.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with PILImage.open(path) as picture:
        rgb = np.asarray(picture.convert("RGB"))
        text = getattr(picture, "text", {}).get(_CAPTIONS)
    try:
        words = tuple(parse_json(text, list[Any])) if text else _USUAL
    except ValueError:
        words = _USUAL
    return rgb, tuple(str(each) for each in words)


def what_is_seen(recipe: str, settings: Mapping[str, Any], t: int, t_max: int) -> str:
    """What a network that is trained by a recipe sees at a timestep, in a few words."""
    hidden = settings.get("ratio", 0.0)
    if recipe == "mdm":
        return f"{t / (t_max + 1):.0%} hidden".replace("%", " %")
    if hidden and t_max:
        return f"{hidden:.0%} hidden, t {t}".replace("%", " %")
    if hidden:
        return f"{hidden:.0%} hidden".replace("%", " %")
    if recipe in ("ddpm", "maskdm"):
        return f"noise, t {t}"
    if recipe in ("dep", "ddep"):
        return "with noise"
    return f"seen at t {t}" if t_max else "seen"


def loss_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG of the loss against the step, with its running mean."""
    from matplotlib.figure import Figure  # slow to import, and no global state this way

    steps = np.array([row["step"] for row in rows])
    losses = np.array([row["loss"] for row in rows])
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="0.8", linewidth=0.6, label="step")
    width = max(1, len(losses) // 50)
    if len(losses) >= 2 * width:
        mean = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color="C0", label=f"mean of {width}")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)


def model_card(card: Mapping[str, Any], *, curve: bool = True) -> str:
    """Markdown model card of a backbone; `curve` shows ``loss.png`` in it."""
    training, recipe = card["training"], card["recipe"]
    config = training["config"]
    start, encoder = training.get("start_from"), training.get("encoder")
    begun = f"the encoder `{encoder}`, whose licence holds for its weights" if encoder else "random weights"
    return f"""# {card["name"]}

A {card["arch"]["kind"]} pretrained without labels by MDM Studio, recipe `{recipe["name"]}`.

| | |
| --- | --- |
| images | {training["images"]} ({training["planes"]} planes) |
| begun with | {f"the weights of `{start}`" if start else begun} |
| steps | {training["steps"]} of {config["batch"]} crops of {config["crop"]} x {config["crop"]} |
| time | {training["seconds"] / 60:.0f} minutes on {training["device"]} in {training["precision"]} |
| loss at the end | {training["final_loss"]} (mean of the last 100 steps) |
| intensities | `{card["intensity"]}` |
| working scales | {", ".join(map(str, card["scales"]))} |
{_CURVE if curve else ""}"""
