"""Pretraining: images a second of ours against the plain loop of the papers' code, same network, crops and batch.

    python benchmarks/pretraining_speed.py                      the bundled images, `small`, 16 crops of 128 x 128, one thread
    python benchmarks/pretraining_speed.py DATA/glas/images --rounds 10 --json

The plain loop does what guided-diffusion and MDM's changes to it do at each step: images are decoded again for every crop by a
`DataLoader`, the network runs in float32 on contiguous memory, patches are hidden image by image, SSIM is five two-dimensional
depthwise convolutions (torchgeometry), gradient and parameter norms are read parameter by parameter for the log, AdamW and the
moving average go through the parameters one at a time.

To its advantage: its network is ours, module for module, in the newest PyTorch; it takes the whole batch at once (MDM's
scripts say ``microbatch 1``; `--microbatch 1` does as they do); and it writes no log. Not in it: their fp16 with a loss scale
(made for GPUs; CPUs convolve float16 slowly) and a second process for the loader (its time counts here, as our thread's does).

Neither writes checkpoints. Each runs in a process of its own, in turn, the first one alternating; a ratio is formed in each
round and their minimum, median and maximum are shown, in CPU seconds of all threads and in seconds of the clock. With `--pin`
both stay on as many cores as they have threads, so that our loader's thread cannot borrow another one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mdm_studio.config import resource
from mdm_studio.engine.crops import CropSource, survey
from mdm_studio.engine.devices import keep_freed_memory
from mdm_studio.engine.pretrain import PretrainConfig, Pretrainer
from mdm_studio.engine.recipes.mdm import MDM
from mdm_studio.io.images import find_images
from mdm_studio.nn.unet import SIZES, UNet, UNetConfig

_SETTLE = 0.5  # seconds in which our loader's thread finishes what it has begun; its CPU time counts as ours


class PlainImages(Dataset[Tensor]):
    """Each item decodes its file, crops and flips: what ``image_datasets.py`` does with ``T.RandomCrop``."""

    def __init__(self, paths: Sequence[Path], crop: int) -> None:
        self.paths, self.crop = list(paths), crop

    def __len__(self) -> int:
        return 1 << 20  # the papers' loader begins again for ever

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index % len(self.paths)]) as file:
            pixels = np.asarray(file.convert("RGB"))
        short = [max(self.crop - size, 0) for size in pixels.shape[:2]]
        pixels = np.pad(pixels, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        top, left = (int(np.random.randint(size - self.crop + 1)) for size in pixels.shape[:2])  # noqa: NPY002 - as theirs
        pixels = pixels[top : top + self.crop, left : left + self.crop]
        if np.random.rand() < 0.5:  # noqa: NPY002
            pixels = pixels[:, ::-1]
        image = pixels.astype(np.float32) / 127.5 - 1
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def plain_ssim_loss(prediction: Tensor, target: Tensor, window: int = 5) -> Tensor:
    """Mean SSIM loss of torchgeometry 0.1.2: a Gaussian of two dimensions, five times."""
    offsets = torch.arange(window) - window // 2
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    line = line / line.sum()
    channels = prediction.shape[1]
    kernel = torch.outer(line, line).repeat(channels, 1, 1, 1)  # (C, 1, k, k)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=window // 2, groups=channels)

    mu_a, mu_b = blur(prediction), blur(target)
    squares_a, squares_b, product = mu_a.pow(2), mu_b.pow(2), mu_a * mu_b
    var_a, var_b = blur(prediction * prediction) - squares_a, blur(target * target) - squares_b
    covariance = blur(prediction * target) - product
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * product + c1) * (2 * covariance + c2)) / ((squares_a + squares_b + c1) * (var_a + var_b + c2))
    return (torch.clamp(1 - similarity, 0, 1) / 2).mean()


def plain_steps(network: UNetConfig, paths: Sequence[Path], *, crop: int, batch: int, microbatch: int) -> Iterator[int]:
    """The papers' training loop without a GPU; yields the images of each step."""
    torch.manual_seed(0)
    net = UNet(network).train()
    parameters = list(net.parameters())
    averaged = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    for images in DataLoader(PlainImages(paths, crop), batch_size=batch, shuffle=True, num_workers=0, drop_last=True):
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.detach_()
                parameter.grad.zero_()
        for begin in range(0, batch, microbatch):
            x = images[begin : begin + microbatch]
            t = torch.from_numpy(np.random.choice(1000, size=len(x)))  # noqa: NPY002
            loss = plain_ssim_loss(net(_plain_mask(x, t, patch=8), t), x)
            loss.backward()
        _ = sum((parameter.grad**2).sum().item() for parameter in parameters if parameter.grad is not None) ** 0.5
        _ = sum((parameter**2).sum().item() for parameter in parameters) ** 0.5
        optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(averaged, parameters, strict=True):
                average.mul_(0.9999).add_(parameter, alpha=1 - 0.9999)
        yield batch


def _plain_mask(x: Tensor, t: Tensor, patch: int) -> Tensor:
    rows, cols = x.shape[2] // patch, x.shape[3] // patch
    masks = []
    for step in t:
        keep = int(rows * cols * (1 - float(step) / 1000))
        order = torch.argsort(torch.rand(rows * cols))
        mask = torch.zeros(rows * cols)
        mask[order[:keep]] = 1
        masks.append(mask.reshape(1, rows, cols))
    grid = torch.stack(masks)
    return x * grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def our_steps(network: UNetConfig, paths: Sequence[Path], args: argparse.Namespace) -> Iterator[int]:
    """The steps of `Pretrainer`, fed as a pretraining job feeds them."""
    keep_freed_memory()  # as a pretraining job does
    config = PretrainConfig(crop=args.crop, batch=args.batch, precision=args.precision, device="cpu")
    planes, _ = survey(paths, None, config.intensity)
    source = CropSource(planes, crop=args.crop, batch=args.batch, in_channels=network.in_channels, seed=0)
    trainer = Pretrainer(network, MDM(), config)
    for step in trainer.steps(source.batches(0)):
        yield step.images


class Line(Protocol):
    """One end of a pipe between this process and a variant's."""

    def send(self, value: Any) -> None: ...

    def recv(self) -> Any: ...


def work(name: str, args: argparse.Namespace, line: Line) -> None:
    """A variant's process: takes as many steps as it is told, and says what an image of them took."""
    torch.set_num_threads(args.threads)
    np.random.seed(0)  # noqa: NPY002
    paths, network = find_images([args.images]), SIZES[args.size]
    if name == "ours":
        steps = our_steps(network, paths, args)
    else:
        steps = plain_steps(network, paths, crop=args.crop, batch=args.batch, microbatch=args.microbatch or args.batch)
    with suppress(EOFError):
        while count := line.recv():
            cpu, wall = time.process_time(), time.perf_counter()
            images = sum(next(steps) for _ in range(count))
            wall = time.perf_counter() - wall
            time.sleep(_SETTLE)
            line.send({"cpu": (time.process_time() - cpu) / images, "wall": wall / images})


def measure(line: Line, count: int) -> dict[str, float]:
    """CPU seconds of all threads and seconds of the clock for an image, over `count` steps of a variant."""
    line.send(count)
    found: dict[str, float] = line.recv()
    return found


def compare(variants: dict[str, Line], rounds: int, count: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Both variants in turn, `rounds` times after a warm-up."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for line in variants.values():
        measure(line, 2)
    for number in range(rounds):
        names = list(variants) if number % 2 == 0 else list(variants)[::-1]
        for name in names:
            found[name].append(measure(variants[name], count))
        rates = {name: 1 / rows[-1]["cpu"] for name, rows in found.items()}
        tell(f"round {number + 1}: " + ", ".join(f"{name} {rate:.2f} images per CPU-s" for name, rate in rates.items()))
    result: dict[str, Any] = {}
    for clock in ("cpu", "wall"):
        ratios = [p[clock] / o[clock] for p, o in zip(found["plain"], found["ours"], strict=True)]
        result[clock] = {
            name: round(1 / statistics.median(row[clock] for row in rows), 3) for name, rows in found.items()
        } | {"ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path, help="Folder of images that Pillow can read. Default: the samples.")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--microbatch", type=int, help="Of the plain loop. Default: the batch; MDM's scripts say 1.")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="Of ours.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=5, help="Steps of each variant in a round.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pin", action="store_true", help="Stay on as many cores as there are threads (Linux).")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.images = args.images or resource("samples") / "nuclei" / "images"
    if args.pin:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    context = multiprocessing.get_context("spawn")
    variants: dict[str, Line] = {}
    for name in ("plain", "ours"):
        variants[name], other = context.Pipe()
        context.Process(target=work, args=(name, args, other), daemon=True).start()
        other.close()  # so that a process that dies is noticed
    result = compare(variants, args.rounds, args.steps, (lambda _: None) if args.json else print)
    for line in variants.values():
        line.send(0)
    if args.json:
        print(json.dumps(vars(args) | {"images": str(args.images)} | result, indent=2))
        return
    for clock, row in result.items():
        ratio = row["ratio"]
        print(
            f"{clock:4s}  plain {row['plain']:.2f} images/s, ours {row['ours']:.2f} images/s, "
            f"ratio {ratio['min']:.2f} / {ratio['median']:.2f} / {ratio['max']:.2f} (min / median / max of {args.rounds})"
        )


if __name__ == "__main__":
    main()
