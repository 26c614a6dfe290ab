"""Try spoilt inputs one after another, each in a child of its own, and judge what came of them."""

import dataclasses
import gc
import os
import random
import shutil
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.faults import oracle
from tests.faults.kinds import KINDS, canary, environment, predict
from tests.faults.makers import Kit, make_kit

_MODULES = (
    "mdm_studio.cli.app", "mdm_studio.services.fitting", "mdm_studio.services.export", "mdm_studio.services.batch",
    "mdm_studio.services.classifier", "mdm_studio.services.pretraining", "mdm_studio.services.jobs.driver",
    "mdm_studio.services.workspace", "mdm_studio.services.session", "mdm_studio.services.live_work", "mdm_studio.io.masks",
    "mdm_studio.engine.checkpoint_import", "mdm_studio.services.extraction", "tifffile", "zarr", "skimage.measure",
    "rich.table",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tried:
    """One input, or one kill, and what was wrong with what came of it; an empty `problem` if nothing was."""

    kind: str
    seed: int
    words: str
    problem: str
    seconds: float


def prepare(root: Path) -> Kit:
    """The kit, in this process everything that children need, and what sound inputs give."""
    import importlib

    import torch

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for name in _MODULES:
        importlib.import_module(name)
    kit = make_kit(root / "kit")
    for name, more in (("reference", ("--no-cache",)), ("warm", ("--cache", root / "kit" / "cache"))):
        case = root / name
        case.mkdir()
        ended = oracle.run(predict(kit, case, kit.images, more=more), case / "log", **environment(case))
        if ended.code:
            raise RuntimeError(f"the sound inputs fail: {ended.stderr}")
    shutil.copytree(root / "reference" / "out", kit.root / "reference")
    _load_the_rest(kit, root / "here")
    return kit


def _load_the_rest(kit: Kit, case: Path) -> None:
    """Run a command in this process, which loads what commands load late; then leave all that alone, so that it is shared."""
    from typer.testing import CliRunner

    from mdm_studio.cli.app import app

    case.mkdir()
    options = ["--no-cache", "--device", "cpu", "--objects", "--table"]
    arguments = ["predict", kit.classifier, kit.images, "--out", case / "out", *options]
    result = CliRunner().invoke(app, [str(each) for each in arguments], env=environment(case))
    if result.exit_code:
        raise RuntimeError(f"the sound inputs fail: {result.output}")
    gc.collect()
    gc.freeze()


def try_one(kind: str, seed: int, kit: Kit, place: Path) -> Tried:
    """Spoil one input of a kind and give it to the program."""
    case, begin = place / f"{kind}-{seed}", time.monotonic()
    (case / "cwd").mkdir(parents=True)
    rng, words, wrong = random.Random(f"{kind} {seed}"), "", []
    try:
        trial = KINDS[kind](rng, kit, case)
        words = trial.words
        variables = environment(case)
        before = oracle.snapshot(case)
        ended = oracle.run(_in_folder(trial.entry, case / "cwd"), place / f"{kind}-{seed}", **variables)
        after = oracle.snapshot(case)
        wrong = list(oracle.problems(ended, codes=trial.codes))
        wrong += oracle.touched(before, after, ("out", "home", "cache", *trial.allowed))
        wrong += [] if wrong else trial.check(ended)
        if canary(case):
            wrong.append("code run: a file's own code was executed")
    except Exception:  # noqa: BLE001 - a fault of the campaign is to be seen as one
        wrong.append(f"the campaign itself: {traceback.format_exc()[-600:]}")
    shutil.rmtree(case, ignore_errors=True)
    for name in ("out", "err"):
        (place / f"{kind}-{seed}.{name}").unlink(missing_ok=True)
    return Tried(kind, seed, words, "; ".join(wrong), time.monotonic() - begin)


def _in_folder(entry: oracle.Entry, folder: Path) -> oracle.Entry:
    def call() -> None:
        os.chdir(folder)
        warnings.resetwarnings()  # what this process has warned of already would be silent in its children
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # as Python does unless it is asked
        entry()

    return call


def fuzz(kinds: dict[str, int], seed: int, kit: Kit, place: Path, until: float) -> Iterator[Tried]:
    """So many inputs of each kind, in turns; none begins after `until`."""
    left = dict(kinds)
    number = 0
    while any(left.values()):
        for kind in sorted(left):
            if left[kind] and time.monotonic() < until:
                left[kind] -= 1
                yield try_one(kind, seed * 1_000_000 + number, kit, place)
        number += 1
        if time.monotonic() >= until:
            return
