"""The tables of the four papers, measured here: one command a table.

    python benchmarks/papers.py mdm-1 DATA --out RESULTS --steps 10000
    python benchmarks/papers.py mdm-3 DATA --out RESULTS --plan
    python benchmarks/papers.py mdm-2 DATA --out RESULTS --no-pretrain --backbones BACKBONES --seeds 0 1 2

DATA holds the data sets in the layout of `data_sets.py` (`glas`, `monuseg`: `images/`, `masks/`, optionally `unlabelled/` for
pretraining, `index.csv`), and for ``ddpm-seg`` folders such as ``ffhq_34/train`` and ``ffhq_34/test`` with images and
``.npy`` labels beside them. If `SET/official/images` and `SET/official/masks` hold the official test half, it is tested; else
the labelled half is divided by group (GlaS: by patient), anew for every seed.

Pretraining runs as jobs in ``RESULTS/jobs/SET-METHOD`` (``--plan`` prints the commands, so that they may be run elsewhere) and
goes on where it stopped; finished backbones may lie in ``--backbones`` under the same names instead. Every measured cell is a
JSON file below RESULTS/cells and is not measured again unless the weights or the rules have changed. RESULTS/TABLE.md has the
published figure beside ours and the differences in set-up in the same row; it is written anew after every cell.

``--quick`` takes two seeds, six test images, three MLPs and a thousandth of the labels: to see that it runs, not to be quoted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_sets import DataSet, data_sets
from masked_tokens import measure as measure_tokens
from paper_tables import report
from paper_tables.cells import Cells
from paper_tables.finetuned import measure_finetuned
from paper_tables.methods import (
    METHODS,
    UNTRAINED,
    Budget,
    command,
    describe,
    find_trained,
    pretrain,
    setting_of,
    trained_as,
)
from paper_tables.protocol import ALL, Reader, Rules, measure, split_in_words, spoilt
from paper_tables.scenes import folder_of, measure_scene, photographs
from paper_tables.tables import PUBLISHED, SCENES, TABLES, Table

from mdm_studio.engine.image_corruptions import chosen
from mdm_studio.errors import MDMStudioError
from mdm_studio.io.atomic import write_text


@dataclass(frozen=True)
class Run:
    """What was asked for."""

    name: str
    data: Path
    out: Path
    sets: tuple[str, ...]
    methods: tuple[str, ...]
    levels: tuple[str, ...]
    seeds: tuple[int, ...]
    rules: Rules
    budget: Budget
    backbones: Path | None
    pretrains: bool
    severities: tuple[int, ...]
    corruptions: tuple[str, ...]
    finetune: int
    quick: bool

    @property
    def table(self) -> Table:
        table = TABLES[self.name]
        levels = tuple(level for level in table.levels if not self.levels or level in self.levels)
        return replace(table, sets=self.sets, levels=levels)

    @property
    def found(self) -> dict[str, DataSet]:
        """The table's data sets that are there."""
        there = data_sets(self.data)
        return {name: there[name] for name in self.sets if name in there}

    @property
    def wanted(self) -> list[str]:
        """Methods of ours in this table, in order."""
        here = [row.method for row in self.table.rows if row.method]
        return [method for method in here if not self.methods or method in self.methods]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def readers(run: Run) -> Iterator[tuple[DataSet, str, Reader]]:
    """Every method of the table on every set, as soon as its backbone is there."""
    for name, data in run.found.items():
        scale = setting_of(name, run.budget).scale
        for method in run.wanted:
            folder = None
            if trained_as(method) != UNTRAINED:
                folder = find_trained(run.out, name, method, run.backbones)
                if folder is None and run.pretrains:
                    folder = pretrain(run.out, data.root, method, run.budget)
                if folder is None:
                    say(f"{name}: {METHODS[method].title} has no backbone yet; left out")
                    continue
            yield data, method, Reader(run.out, method, folder, scale, run.rules)


def setup(reader: Reader, method: str) -> str:
    """How a method was pretrained and is read, for its row."""
    settings = reader.settings
    read = f"blocks {settings.blocks[0]}-{settings.blocks[-1]} at t = {', '.join(map(str, settings.timesteps))}"
    return f"{describe(reader.backbone, method)}; {read}, no classical filters"


def dense(run: Run, cells: Cells) -> Iterator[str]:
    """Heads on dense labels; the whole table after every cell."""
    return heads(run, cells, ())


def ddep(run: Run, cells: Cells) -> Iterator[str]:
    """Whole networks fine-tuned on dense labels."""
    return heads(run, cells, ("finetuned",))


def heads(run: Run, cells: Cells, kind: tuple[str, ...]) -> Iterator[str]:
    """Every method, level of labels and seed; `kind` is the folder of their cells."""
    kept: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    setups: dict[tuple[str, str], str] = {}
    rules = replace(run.rules, whole=True) if kind else run.rules
    splits = {name: split_in_words(data, rules) for name, data in run.found.items()}
    yield report.dense_table(run.name, run.table, kept, setups, splits)
    for data, method, reader in readers(run):
        setups[data.name, method] = setup(reader, method) + (f"; fine-tuned for {run.finetune} steps" if kind else "")
        facts = reader.facts | {"rules": vars(rules)} | ({"finetune": run.finetune} if kind else {})
        for level, seed in itertools.product(run.table.levels, run.seeds):
            key = (data.name, method, level, seed)
            cell = cells.read((*kind, *key), facts)
            if cell is None:
                cell = cells.write((*kind, *key), facts, _one(run, rules, reader, data, method, level, seed, tuned=bool(kind)))
                dice = report.seed_means({key: cell}, *key[:3], "dice").get(seed, float("nan"))
                say(f"{data.name} {method} {level} seed {seed}: Dice {dice:.1f} ({cell['seconds']:.0f} s)")
            kept[key] = cell
            yield report.dense_table(run.name, run.table, kept, setups, splits)


def _one(
    run: Run, rules: Rules, reader: Reader, data: DataSet, method: str, level: str, seed: int, *, tuned: bool
) -> dict[str, Any]:
    known = setting_of(data.name, run.budget)
    if not tuned:
        return measure(reader, data, level, known.labelled, seed, rules)
    folder = find_trained(run.out, data.name, method, run.backbones)
    if folder is None:
        raise SystemExit(f"{METHODS[method].title} cannot be fine-tuned: it has no backbone")
    return measure_finetuned(folder, data, known.scale, level, known.labelled, seed, rules, run.finetune, run.budget.device)


def robustness(run: Run, cells: Cells) -> Iterator[str]:
    """Corrupted test images."""
    kept: dict[tuple[str, str, str, int, int], dict[str, Any]] = {}
    setups: dict[tuple[str, str], str] = {}
    conditions = [("clean", 0), *((name, severity) for name in run.corruptions for severity in run.severities)]
    for data, method, reader in readers(run):
        setups[data.name, method] = setup(reader, method)
        ten_percent = setting_of(data.name, run.budget).labelled
        facts = reader.facts | {"rules": vars(run.rules)}
        for seed in run.seeds:
            keys = {(name, severity): (data.name, method, name, severity, seed) for name, severity in conditions}
            there = {condition: cells.read(("robustness", *key), facts) for condition, key in keys.items()}
            lacking = [name for name in run.corruptions if any(there[name, severity] is None for severity in run.severities)]
            if lacking or there["clean", 0] is None:
                for name, severity, values in spoilt(reader, data, ten_percent, seed, run.rules, lacking, run.severities):
                    key = keys[name, severity]
                    there[name, severity] = cells.write(("robustness", *key), facts, values)
                    say(f"{data.name} {method} seed {seed}: {name} {severity or ''}")
            kept |= {keys[condition]: cell for condition, cell in there.items() if cell is not None}
        yield report.robustness_table(run.name, run.table, kept, setups)


def scenes(run: Run, cells: Cells) -> Iterator[str]:
    """Released DDPMs on their own sets."""
    found = {name: (folder_of(run.data, name, "train"), folder_of(run.data, name, "test")) for name in run.sets}
    rows = []
    for name, (train, test) in found.items():
        folder = find_trained(run.out, name, "ddpm-seg", run.backbones)
        if train is None or test is None or folder is None:
            continue
        scene, reader = SCENES[name], Reader(run.out, "ddpm-seg", folder, 1, run.rules)
        halves = photographs(train, scene, scene.train), photographs(test, scene, scene.test)
        facts, values = reader.facts | {"rules": vars(run.rules)}, []
        for seed in run.seeds:
            key = ("scenes", name, "ddpm-seg", seed)
            cell = cells.read(key, facts) or cells.write(key, facts, measure_scene(reader, *halves, scene, seed, run.rules))
            values.append([100 * cell["scores"][metric][0] for metric in ("miou", "miou_own")])
            say(f"{name} seed {seed}: mean IoU {values[-1][0]:.1f}")
        quoted = f"{PUBLISHED[name, ALL, 'ddpm-seg']['miou']:.1f}"
        spreads = [report.spread(column) for column in zip(*values, strict=True)]
        images = f"{len(halves[0])} and {len(halves[1])} images"
        rows.append([name, quoted, *spreads, str(len(values)), f"{setup(reader, 'ddpm-seg')}; {images}"])
        head = ["set", "published", "as published", "classes that occur", "seeds", "set-up here"]
        yield report.plain_table(run.name, run.table, head, rows)
    if not rows:
        raise SystemExit(
            f"this table needs a set and its DDPM: {run.data}/SET/train and /test with pictures and .npy labels (SET one of "
            f"{', '.join(run.sets)}), and the released checkpoint, imported (mdm-studio backbones import) into the folder "
            "SET-ddpm-seg of --backbones; not found together"
        )


def hidden_tokens(run: Run, cells: Cells) -> Iterator[str]:
    """Time of a step with hidden patches."""
    rows = []
    sizes = [("uvit-tiny", 64, 2)] if run.quick else [("uvit-tiny", 64, 16), ("maskdm-s", 256, 1)]
    for (size, crop, batch), ratio in itertools.product(sizes, (0.5, 0.9)):
        facts = {"rounds": 1 if run.quick else 5}
        key = ("maskdm", size, f"{crop}-{batch}", f"{ratio:g}")
        cell = cells.read(key, facts) or cells.write(
            key, facts, measure_tokens(size, crop, batch, ratio=ratio, rounds=facts["rounds"], precision="auto")
        )
        cpu = cell["cpu"]
        rows.append(
            [
                f"{size}, {batch} crops of {crop}²",
                f"{ratio:.0%}",
                "not quoted",
                f"{cpu['masked']:.2f}",
                f"{cpu['whole']:.2f}",
                f"{cpu['ratio']:.1f} ({cpu['low']:.1f} to {cpu['high']:.1f})",
                f"one thread, {cell['precision']}, {cell['visible']} of {cell['tokens']} patches seen",
            ]
        )
        head = ["network", "hidden", "published", "CPU seconds a step", "none hidden", "times as quick", "set-up here"]
        yield report.plain_table(run.name, run.table, head, rows)


KINDS: dict[str, Callable[[Run, Cells], Iterator[str]]] = {
    "dense": dense,
    "robustness": robustness,
    "ddep": ddep,
    "ddpm-seg": scenes,
    "maskdm": hidden_tokens,
}


def plan(run: Run) -> str:
    """The commands that pretrain what the table needs, and where each backbone is expected."""
    lines = []
    for name, data in run.found.items():
        for method in dict.fromkeys(trained_as(each) for each in run.wanted if trained_as(each) != UNTRAINED):
            folder = find_trained(run.out, name, method, run.backbones)
            lines.append(f"# {name}-{method}: {'there, ' + str(folder) if folder else 'not there yet'}")
            lines.append(command(run.out, data.root, method, run.budget))
    return "\n".join(lines) or "nothing has to be pretrained for this table"


def asked(arguments: list[str] | None = None) -> tuple[Run, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", action="store_true", help="print the commands of the pretraining, run nothing")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sets", nargs="+", help="default: the paper's")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[], help="some of the table's")
    parser.add_argument("--levels", nargs="+", default=[], help="some of the table's amounts of labels, like \"10 %%\"")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--backbones", type=Path, help="folder with finished backbones or jobs, named SET-METHOD")
    parser.add_argument("--no-pretrain", action="store_true", help="only measure backbones that are there")
    parser.add_argument("--steps", type=int, help="of every pretraining")
    parser.add_argument("--minutes", type=float, help="of every pretraining")
    parser.add_argument("--size", default="", help="of the network, where a recipe's network has it")
    parser.add_argument("--scale", type=int, help="working scale; default: 4 for glas, else 1")
    parser.add_argument("--encoder", default="", help="of ddep: a model of Hugging Face, or a folder with one")
    parser.add_argument("--finetune", type=int, default=200, help="of ddep: steps of fine-tuning")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cpu-threads", type=int, help="threads of this process")
    parser.add_argument("--sampled", action="store_true", help="test 3,000 pixels an image, not all: quick, but no AJI")
    parser.add_argument("--tests", type=int, default=1000, help="test images, at most")
    parser.add_argument("--limit", type=int, default=100_000, help="labelled pixels for the head, at most")
    parser.add_argument("--bf16", action="store_true", help="extract features in bfloat16")
    parser.add_argument("--severities", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--corruptions", default="mdm")
    args = parser.parse_args(arguments)
    if args.cpu_threads:
        import torch

        torch.set_num_threads(args.cpu_threads)
    rules = Rules(not args.sampled, args.tests, args.limit, 10, args.bf16)
    seeds = tuple(args.seeds)
    if args.quick:
        rules, seeds = Rules(not args.sampled, min(args.tests, 6), min(args.limit, 3000), 3, args.bf16), seeds[:2]
    budget = Budget(args.steps, args.minutes, args.size, args.scale, args.crop, args.batch, args.device, args.encoder)
    run = Run(
        args.table, args.data, args.out, tuple(args.sets or TABLES[args.table].sets), tuple(args.methods), tuple(args.levels),
        seeds, rules, budget, args.backbones, not args.no_pretrain, tuple(args.severities), chosen(args.corruptions),
        args.finetune, args.quick,
    )  # fmt: skip
    return run, args.plan


def main(arguments: list[str] | None = None) -> None:
    run, only_plan = asked(arguments)
    if only_plan:
        print(plan(run))
        return
    if run.sets and not run.found and run.table.kind in ("dense", "robustness", "ddep"):
        raise SystemExit(f"{run.data} holds none of {', '.join(run.sets)}; each is a folder with images/ and masks/")
    if many := [data.name for data in run.found.values() if data.classes != 2]:
        raise SystemExit(f"{', '.join(many)} has more than two classes; this table is about objects and background")
    run.out.mkdir(parents=True, exist_ok=True)
    text = ""
    try:
        for text in KINDS[run.table.kind](run, Cells(run.out / "cells")):
            write_text(run.out / f"{run.name}.md", text)
    except MDMStudioError as error:
        raise SystemExit(str(error)) from error
    print(text)


if __name__ == "__main__":
    main()
