"""Extraction: ours against running the whole UNet in float32 for every timestep and keeping the blocks on the way.

    python benchmarks/extraction.py          adm-256, blocks 5-8 and 12, t = 50, 150, 250, 256 x 256 (Baranchuk et al.)
    python benchmarks/extraction.py --size mdm-192 --blocks 8-12 --timesteps 50

Random weights, the same for every variant. One thread, the variants in turn, medians of the rounds; ratios of CPU seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mdm_studio.cli.common import parse_numbers
from mdm_studio.engine.backbones import Backbone, untrained_backbone
from mdm_studio.nn.unet import SIZES

Maps = list[Tensor]


def peer(backbone: Backbone, x: Tensor, blocks: tuple[int, ...], timesteps: tuple[int, ...]) -> Maps:
    """Every timestep through the whole network in float32, blocks caught by forward hooks."""
    caught: dict[int, Tensor] = {}
    hooks = [
        backbone.net.output_blocks[block].register_forward_hook(lambda *call, b=block: caught.__setitem__(b, call[2]))
        for block in blocks
    ]
    maps: Maps = []
    with torch.inference_mode():
        for t in timesteps:
            backbone.net(x.contiguous(), torch.tensor([t]))
            maps += [caught[block].float().contiguous() for block in blocks]
    for hook in hooks:
        hook.remove()
    return maps


def ours(backbone: Backbone, x: Tensor, blocks: tuple[int, ...], timesteps: tuple[int, ...]) -> Maps:
    maps: Maps = []
    for t in timesteps:
        found = backbone.features(x, t, blocks)
        maps += [found[block].float().contiguous() for block in blocks]
    return maps


def measure(call: Callable[[], Maps]) -> tuple[float, Maps]:
    begin = time.process_time()
    maps = call()
    return time.process_time() - begin, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="adm-256")
    parser.add_argument("--blocks", default="5-8,12")
    parser.add_argument("--timesteps", default="50,150,250")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    blocks, timesteps = parse_numbers(args.blocks, "--blocks"), parse_numbers(args.timesteps, "--timesteps")
    assert blocks
    assert timesteps
    backbone = untrained_backbone(SIZES[args.size])
    halved = Backbone(backbone.card, copy.deepcopy(backbone.net), bf16=True)
    x = torch.rand(1, 3, args.side, args.side) * 2 - 1
    variants = {"whole network, float32": (peer, False), "ours, float32": (ours, False), "ours, bfloat16": (ours, True)}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    difference: dict[str, float] = {}
    for _ in range(args.rounds):
        reference: Maps = []
        for name, (call, bf16) in variants.items():
            contiguous = call is peer
            backbone.net.to(memory_format=torch.contiguous_format if contiguous else torch.channels_last)
            taken, maps = measure(lambda call=call, net=halved if bf16 else backbone: call(net, x, blocks, timesteps))
            seconds[name].append(taken)
            reference = reference or maps
            gaps = [((a - b).norm() / b.norm()).item() for a, b in zip(maps, reference, strict=True)]
            difference[name] = max(gaps)
    base = statistics.median(seconds["whole network, float32"])
    rows = {
        name: {"cpu_s": statistics.median(values), "ratio": base / statistics.median(values), "difference": difference[name]}
        for name, values in seconds.items()
    }
    if args.json:
        print(json.dumps({"size": args.size, "blocks": blocks, "timesteps": timesteps, "rows": rows}, indent=2))
        return
    for name, row in rows.items():
        print(f"{name:24s} {row['cpu_s']:7.2f} CPU-s  {row['ratio']:.2f}x  largest relative difference {row['difference']:.1e}")


if __name__ == "__main__":
    main()
