"""MaskDM: time of a pretraining step with 90 % of the patches hidden against none hidden, as a ratio.

    python benchmarks/masked_tokens.py                 `uvit-tiny` on crops of 64 and `maskdm-s` on crops of 256
    python benchmarks/masked_tokens.py --sizes maskdm-b:256:1 --rounds 3 --precision fp32

Whole steps of the same trainer: noise, masks, forward and backward pass, optimizer, moving average; crops are made beforehand.
Both train in one process on one thread, a step each in turn, the first one alternating. A ratio is formed in each round, in
seconds of the CPU and of the clock; shown are its median, minimum and maximum. The first round warms up and does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

from mdm_studio.engine.pretrain import PretrainConfig, Pretrainer
from mdm_studio.engine.recipes.maskdm import MaskDM
from mdm_studio.nn.uvit import SIZES

_CLOCKS = {"cpu": time.process_time, "clock": time.perf_counter}


def measure(size: str, crop: int, batch: int, *, ratio: float, rounds: int, precision: str) -> dict[str, Any]:
    """Seconds of a step with and without hidden patches, and their ratios, one for each round."""
    config = SIZES[size].for_crop(crop)
    numbers = PretrainConfig(**(MaskDM.defaults | {"crop": crop, "batch": batch, "precision": precision, "device": "cpu"}))
    recipes = (MaskDM(ratio=ratio), MaskDM(ratio=0.0))
    trainers = [Pretrainer(config, recipe.for_network(config), numbers) for recipe in recipes]
    images = np.random.default_rng(0).uniform(-1, 1, (batch, 3, crop, crop)).astype(np.float32)
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in _CLOCKS}
    for number in range(rounds + 1):
        for which in ((0, 1), (1, 0))[number % 2]:
            begin = {name: clock() for name, clock in _CLOCKS.items()}
            for _ in trainers[which].steps([images]):
                pass
            for name, clock in _CLOCKS.items():
                seconds[name][which].append(clock() - begin[name])
    visible = config.patches - int(ratio * config.patches)
    report: dict[str, Any] = {
        "size": size, "crop": crop, "batch": batch, "precision": trainers[0].precision, "hidden": ratio, "rounds": rounds,
        "tokens": config.patches, "visible": visible,
    }  # fmt: skip
    for name, (masked, whole) in seconds.items():
        ratios = [b / a for a, b in zip(masked[1:], whole[1:], strict=True)]
        report[name] = {
            "masked": statistics.median(masked[1:]), "whole": statistics.median(whole[1:]),
            "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        }  # fmt: skip
    return report


def main() -> None:
    """Measure each size and print a line about it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="uvit-tiny:64:16,maskdm-s:256:1", help="SIZE:CROP:BATCH, separated by commas")
    parser.add_argument("--ratio", type=float, default=0.9, help="share of the patches that is hidden")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for text in options.sizes.split(","):
        size, crop, batch = text.split(":")
        report = measure(
            size, int(crop), int(batch), ratio=options.ratio, rounds=options.rounds, precision=options.precision
        )
        if options.json:
            print(json.dumps(report), flush=True)
            continue
        cpu, clock = report["cpu"], report["clock"]
        print(
            f"{size}, {batch} crop(s) of {crop} x {crop}, {report['precision']}: {report['visible']} of {report['tokens']} "
            f"patches, {cpu['masked']:.2f} against {cpu['whole']:.2f} CPU-s a step, {cpu['ratio']:.1f} times faster "
            f"({cpu['low']:.1f} to {cpu['high']:.1f}); by the clock {clock['ratio']:.1f} ({clock['low']:.1f} to "
            f"{clock['high']:.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
