"""Pictures made by a backbone, as files: one each, all of them on a sheet, and what is needed to make them again."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage

from mdm_studio.engine.backbones import Backbone
from mdm_studio.engine.generation import Sampler, generate, noise_process, pictures, sample_size
from mdm_studio.errors import BackboneError, OutputError
from mdm_studio.io.atomic import output_folder, replacing, write_json

SHEET, FACTS = "sheet.png", "sampling.json"

_CPU_BATCH, _GPU_BATCH = 4, 64  # more at a time is no faster, and progress would come in lumps
_GPU_BYTES = 6 << 30  # of activations: a share of the smallest cards in use
_WIDTHS = 12  # arrays as large as the widest block's output that a network holds at a time; a UNet of ADM's shape measured
_ON_SHEET = 400
_SHEET_SIDE = 4000  # pixels
_GAP = 4  # pixels between the pictures of the sheet

Pixels8 = NDArray[np.uint8]


@dataclass(frozen=True)
class SampleRequest:
    """What is to be made.

    Attributes
    ----------
    out : Path
        Folder of the files.
    n : int
        Pictures.
    size : (int, int)
        Height and width in pixels; (0, 0) is that of the crops that trained the network.
    """

    out: Path
    n: int = 16
    sampler: Sampler = Sampler()  # noqa: RUF009 - frozen
    seed: int = 0
    size: tuple[int, int] = (0, 0)
    overwrite: bool = False


@dataclass(frozen=True)
class SampleProgress:
    """One step: `done` counts pictures, those under way in part; `finished` are the files written in this step."""

    done: float
    step: int
    steps: int
    finished: tuple[Path, ...] = ()


def warnings(backbone: Backbone) -> list[str]:
    """What speaks against pictures of a backbone that can make some."""
    ratio = float(getattr(backbone.recipe, "ratio", 0.0))
    if ratio <= 0:
        return []
    return [
        f"{backbone.card.name} was trained with {ratio:.0%} of each picture hidden and has never seen a whole one: what it "
        "makes will hardly hang together; fine-tune it first (pretrain --start-from, --set ratio=0)"
    ]


def sample_files(backbone: Backbone, request: SampleRequest) -> Iterator[SampleProgress]:
    """Make pictures and write each as soon as it is finished; the sheet and ``sampling.json`` come last.

    They come also when the generator is closed or interrupted early: for the pictures that are finished.

    Raises
    ------
    UsageError
        If the backbone cannot make such pictures.
    OutputError
        If some of the files are there already and are not to be replaced.
    """
    noise_process(backbone.card)
    size = sample_size(backbone.card, request.size)
    names = [_file_name(number, backbone.in_channels) for number in range(1, request.n + 1)]
    _check_free(request, [*names, SHEET, FACTS])
    with output_folder(request.out):
        yield from _written(backbone, request, names, size)


def _written(
    backbone: Backbone, request: SampleRequest, names: Sequence[str], size: tuple[int, int]
) -> Iterator[SampleProgress]:
    made: list[Pixels8] = []
    begin = time.perf_counter()
    try:
        for event in make_pictures(backbone, range(1, request.n + 1), request.sampler, seed=request.seed, size=size):
            finished = []
            for picture in event.finished:
                path = request.out / names[len(made)]
                write_picture(path, picture)
                made.append(picture)
                finished.append(path)
            yield SampleProgress(event.done, event.step, request.sampler.steps, tuple(finished))
    finally:
        if made:
            write_sheet(request.out / SHEET, made)
            facts = _facts(backbone, request, size) | {
                "files": names[: len(made)],
                "seconds": round(time.perf_counter() - begin, 1),
            }
            write_json(request.out / FACTS, facts)


@dataclass(frozen=True)
class Made:
    """One step of `make_pictures`: `done` counts pictures; `finished` are ``(C, H, W)`` uint8, in order."""

    done: float
    step: int
    finished: tuple[Pixels8, ...] = ()


def make_pictures(
    backbone: Backbone, numbers: Sequence[int], sampler: Sampler, *, seed: int, size: tuple[int, int]
) -> Iterator[Made]:
    """Make the pictures of these numbers, as many at a time as the memory holds.

    Raises
    ------
    BackboneError
        If not even one fits into the memory of the device.
    """
    process, done, batch = noise_process(backbone.card), 0, _batch(backbone, size)
    while done < len(numbers):
        now = numbers[done : done + batch]
        try:
            for state in generate(backbone, now, sampler, seed=seed, size=size):
                if state.done < state.total:
                    yield Made(done + len(now) * state.done / state.total, state.done)
        except torch.OutOfMemoryError as error:
            if batch == 1:
                raise BackboneError(
                    f"a picture of {size[0]} x {size[1]} by {backbone.card.name} does not fit into the memory of "
                    f"{backbone.device}; use --device cpu or a smaller --size"
                ) from error
            batch = batch // 2
            if backbone.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        done += len(now)
        images = pictures(process, state.x).numpy()
        yield Made(done, state.total, tuple(((image + 1) * 127.5).round().astype(np.uint8) for image in images))


def _batch(backbone: Backbone, size: tuple[int, int]) -> int:
    """Pictures at a time."""
    if backbone.device.type == "cpu":
        return _CPU_BATCH
    shapes = (backbone.block_shape(block) for block in range(backbone.n_blocks))
    widest = max(channels * math.prod(size) // stride**2 for channels, stride in shapes)
    return max(1, min(_GPU_BATCH, _GPU_BYTES // (4 * _WIDTHS * widest)))


def _file_name(number: int, channels: int) -> str:
    return f"sample-{number:04d}" + (".png" if channels in (1, 3) else ".tif")


def _check_free(request: SampleRequest, names: Sequence[str]) -> None:
    there = [name for name in names if (request.out / name).exists()]
    if there and not request.overwrite:
        raise OutputError(
            f"{request.out} holds {len(there)} files of these names already, the first is {there[0]}: pass --overwrite to "
            "replace them, or choose another folder"
        )


def write_picture(path: Path, picture: Pixels8) -> None:
    """Write ``(C, H, W)``: grey and colours as PNG, other channels as TIFF."""
    with replacing(path) as unfinished:
        if path.suffix == ".tif":
            tifffile.imwrite(unfinished, picture, photometric="minisblack", metadata={"axes": "CYX"}, compression="zlib")
        else:
            shown = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
            PILImage.fromarray(shown).save(unfinished, format="png")


def rgb(picture: Pixels8) -> Pixels8:
    """``(H, W, 3)`` of ``(C, H, W)``; of more than three channels the first three, of one or two the first."""
    shown = picture[:3] if len(picture) >= 3 else np.repeat(picture[:1], 3, axis=0)
    return shown.transpose(1, 2, 0)


def write_sheet(path: Path, made: Sequence[Pixels8]) -> None:
    """Write a contact sheet, as square as it gets; the first 400 pictures are on it, in reading order."""
    shown = [rgb(picture) for picture in made[:_ON_SHEET]]
    height, width = shown[0].shape[:2]
    columns = math.ceil(math.sqrt(len(shown) * height / width))
    rows = math.ceil(len(shown) / columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for index, picture in enumerate(shown):
        row, column = index // columns * (height + _GAP), index % columns * (width + _GAP)
        sheet[row : row + height, column : column + width] = picture
    image = PILImage.fromarray(sheet)
    image.thumbnail((_SHEET_SIDE, _SHEET_SIDE))
    with replacing(path) as unfinished:
        image.save(unfinished, format="png")


def _facts(backbone: Backbone, request: SampleRequest, size: tuple[int, int]) -> dict[str, Any]:
    """What is needed to make the same pictures again."""
    card = backbone.card
    return {
        "backbone": card.name,
        "digest": card.digest,
        "recipe": card.recipe,
        "sampler": dataclasses.asdict(request.sampler),
        "seed": request.seed,
        "size": list(size),
        "asked_for": request.n,
        "device": str(backbone.device),
        "precision": "bf16" if backbone.bf16 else "fp32",
    }
