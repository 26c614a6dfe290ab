"""SIGKILL at any moment, as a power cut comes, and what must be there afterwards.

Each scenario runs undisturbed once. Then it is started anew, killed once or several times, and run to its end: the results are
those of the undisturbed run, no half file has a name of its own, and no hidden one is left.
"""

import dataclasses
import hashlib
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mdm_studio.testing import blobs
from tests.faults import oracle
from tests.faults.fuzz import Tried
from tests.faults.kinds import environment
from tests.faults.makers import Kit, make_job
from tests.faults.oracle import Entry, command

_COUNT = 8  # images of a folder that is predicted while it is killed
_UUID = re.compile(rb'UUID="[^"]*"')
_SIDE = 1024  # of the plane that is painted
_KEPT_SECONDS = 2.0  # strokes older than that survive

Check = Callable[[Path], Iterable[str]]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A run that can be killed.

    Attributes
    ----------
    begin : callable
        Makes what the run needs in a case's folder.
    entry, again : callable
        The run, and how it is gone on with after a kill.
    half : callable
        What is wrong right after a kill.
    result : callable
        What the run makes, by name; equal to that of the undisturbed one.
    """

    begin: Callable[[Kit, Path], None]
    entry: Callable[[Kit, Path], Entry]
    again: Callable[[Kit, Path], Entry]
    result: Callable[[Path], dict[str, object]]
    half: Callable[[Path, dict[str, object]], Iterable[str]] = lambda case, truth: ()


# -------------------------------------------------------------------------------------------------------- what is run


def make_images(case: Path) -> None:
    """A folder of images to be predicted."""
    (case / "in").mkdir()
    for number in range(_COUNT):
        Image.fromarray(blobs(96, 112, seed=number)[0]).save(case / "in" / f"f{number}.png")


def _images(kit: Kit, case: Path) -> None:
    make_images(case)


def _predict(kit: Kit, case: Path) -> Entry:
    more = ("--no-cache", "--objects", "--table", "--probabilities", "--device", "cpu")
    return command("predict", kit.classifier, case / "in", "--out", case / "out", *more)


def _fit(kit: Kit, case: Path) -> Entry:
    more = ("--members", 3, "--device", "cpu", "--cache", case / "cache")
    return command("fit", kit.images, kit.labels, "--out", case / "out" / "x.mdm", "--backbone", kit.backbone, *more)


def _features(kit: Kit, case: Path) -> Entry:
    return command("features", case / "in", "--backbone", kit.backbone, "--cache", case / "cache", "--device", "cpu")


def _pretrain(kit: Kit, case: Path) -> Entry:
    return command("pretrain", kit.images, "--out", case / "out" / "job", "--resume")


def _worker(folder: str) -> Callable[[Kit, Path], Entry]:
    def entry(kit: Kit, case: Path) -> Entry:
        def call() -> None:
            from mdm_studio.services.jobs import worker

            os.environ[worker.NICE_VARIABLE] = "0"
            sys.exit(worker.main([str(case / folder)]))

        return call

    return entry


def _requeued(folder: str) -> Callable[[Kit, Path], Entry]:
    def entry(kit: Kit, case: Path) -> Entry:
        def call() -> None:
            from mdm_studio.io.job_folder import JobFolder
            from mdm_studio.services.jobs.board import JobBoard, requeue

            (view,) = JobBoard().jobs()
            if view.state == "done":
                return
            if view.state not in ("interrupted", "queued"):
                raise oracle.Wrong(f"the killed job is said to be {view.state}")
            requeue(JobFolder(case / folder))
            _worker(folder)(kit, case)()

        return call

    return entry


def _begin_pretrain(kit: Kit, case: Path) -> None:
    make_job(kit, case / "out" / "job", steps=12, every=3)


def _begin_job(kit: Kit, case: Path) -> None:
    make_job(kit, case / "home" / "jobs" / "mine-1", steps=12, every=3)


def _begin_export(kit: Kit, case: Path) -> None:
    from mdm_studio.engine.objects import ObjectOptions
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.services.export_request import ExportRequest, PredictOptions

    _images(kit, case)
    options = PredictOptions(case / "out", objects=ObjectOptions(), tables=("csv",))
    request = ExportRequest(kit.classifier, tuple(sorted((case / "in").iterdir())), options, device="cpu")
    JobFolder(case / "home" / "jobs" / "mine-1").create(request.to_json() | {"created": time.time(), "name": "mine"})


# ------------------------------------------------------------------------------------------------------ what is there


def _masks(case: Path) -> dict[str, object]:
    """Digest of every output but the report, and but for the identifier of its own that OME gives every TIFF."""
    paths = (path for path in (case / "out").rglob("*") if path.is_file() and path.name != "export.json")
    return {str(path.relative_to(case)): _digest(_UUID.sub(b"", path.read_bytes())) for path in paths if not _hidden(path)}


def _half_masks(case: Path, truth: dict[str, object]) -> Iterator[str]:
    """A file under its own name is whole; the table of all images grows, so it is looked at in the end."""
    for path, digest in _masks(case).items():
        if digest != truth.get(path) and "measurements" not in path:
            yield f"half written: {path}"


def _classifier(case: Path) -> dict[str, object]:
    from mdm_studio.io.classifier_file import read_classifier

    if not (case / "out" / "x.mdm").exists():
        return {}
    _, tensors = read_classifier(case / "out" / "x.mdm")
    return {name: _digest(np.ascontiguousarray(each).tobytes()) for name, each in tensors.items()}


def _half_classifier(case: Path, truth: dict[str, object]) -> Iterator[str]:
    if (found := _classifier(case)) and found != truth:
        yield "half written: x.mdm"


def _chunks(case: Path) -> dict[str, object]:
    """Features; when an entry was used last is not compared."""
    paths = (path for path in (case / "cache").rglob("*") if path.is_file() and "c" in path.parent.parts)
    return {str(path.relative_to(case)): _digest(path.read_bytes()) for path in paths if not _hidden(path)}


def _backbone(folder: str) -> Callable[[Path], dict[str, object]]:
    def result(case: Path) -> dict[str, object]:
        from mdm_studio.io.job_folder import JobFolder

        job = JobFolder(case / folder)
        weights = job.backbone / "weights.safetensors"
        return {
            "weights": _digest(weights.read_bytes()) if weights.exists() else None,
            "steps": [row["step"] for row in job.read_metrics()],
            "checkpoints": len(list(job.checkpoints.iterdir())),
        }

    return result


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix in (".part", ".partial")


def left_behind(case: Path) -> Iterator[str]:
    """Unfinished files, anywhere. The record of a folder and locks are hidden, too, and belong there."""
    for path in case.rglob("*"):
        if path.suffix in (".part", ".partial", ".old") or path.name.startswith(".tmp") or (path.parent.name == "tmp"):
            yield f"left behind: {path.relative_to(case)}"


SCENARIOS = {
    "kill fit": Scenario(lambda kit, case: None, _fit, _fit, _classifier, _half_classifier),
    "kill predict": Scenario(_images, _predict, _predict, _masks, _half_masks),
    "kill features": Scenario(_images, _features, _features, _chunks),
    "kill pretrain": Scenario(_begin_pretrain, _pretrain, _pretrain, _backbone("out/job")),
    "kill job": Scenario(_begin_job, _worker("home/jobs/mine-1"), _requeued("home/jobs/mine-1"), _backbone("home/jobs/mine-1")),
    "kill export": Scenario(_begin_export, _worker("home/jobs/mine-1"), _requeued("home/jobs/mine-1"), _masks, _half_masks),
}
SHARES = {
    "kill fit": 4, "kill predict": 8, "kill features": 5, "kill pretrain": 6, "kill job": 5, "kill export": 6,
    "kill autosave": 6,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ killing


class Killer:
    """Kills runs of the scenarios; each is run undisturbed first."""

    def __init__(self, kit: Kit, place: Path) -> None:
        self._kit, self._place = kit, place
        self._known: dict[str, tuple[dict[str, object], float]] = {}

    def try_one(self, kind: str, seed: int) -> tuple[Tried, int]:
        """Kill a run, once or several times, and go on to its end; how many kills that were."""
        begin = time.monotonic()
        case = self._place / f"{kind.replace(' ', '-')}-{seed}"
        (case / "tmp").mkdir(parents=True)
        rng = random.Random(f"{kind} {seed}")
        try:
            kills, wrong = _kill_autosave(rng, case) if kind == "kill autosave" else self._kill(kind, rng, case)
        except Exception as error:  # noqa: BLE001 - a result that cannot be read is what is looked for
            kills, wrong = 1, [f"cannot be read: {type(error).__name__}: {error}"]
        if wrong and os.environ.get("KEEP_CASES"):
            shutil.copytree(case, self._place / f"kept-{case.name}", dirs_exist_ok=True)
        shutil.rmtree(case, ignore_errors=True)
        return Tried(kind, seed, f"{kills} kills", "; ".join(wrong)[:900], time.monotonic() - begin), kills

    def _kill(self, kind: str, rng: random.Random, case: Path) -> tuple[int, list[str]]:
        scenario = SCENARIOS[kind]
        truth, seconds = self.undisturbed(kind)
        scenario.begin(self._kit, case)
        entry, wrong, kills, logs = scenario.entry, [], 0, case.with_suffix(".log")
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            pid = oracle.start(entry(self._kit, case), logs, **environment(case))
            time.sleep(rng.random() * seconds * 1.1)
            oracle.kill(pid)
            ended = oracle.finish(pid, logs)
            wrong += [] if ended.code == -9 else oracle.problems(ended, codes=(0,))  # it was done before
            wrong += scenario.half(case, truth)
            entry, kills = scenario.again, kills + 1
        ended = oracle.run(entry(self._kit, case), logs, **environment(case))
        wrong += oracle.problems(ended, codes=(0,))
        if not wrong and (found := scenario.result(case)) != truth:
            odd = [name for name in sorted(truth.keys() | found.keys()) if truth.get(name) != found.get(name)]
            wrong.append(f"another result than undisturbed: {', '.join(odd[:5])}")
        wrong += left_behind(case)
        return kills, wrong

    def undisturbed(self, kind: str) -> tuple[dict[str, object], float]:
        """What a run makes that nobody disturbs, and the seconds that it takes."""
        if kind not in self._known:
            case = self._place / f"{kind.replace(' ', '-')}-undisturbed"
            (case / "tmp").mkdir(parents=True)
            scenario = SCENARIOS[kind]
            scenario.begin(self._kit, case)
            ended = oracle.run(scenario.entry(self._kit, case), case.with_suffix(".log"), **environment(case))
            if ended.code:
                raise RuntimeError(f"{kind} undisturbed: {ended.stderr}")
            self._known[kind] = scenario.result(case), ended.seconds
            shutil.rmtree(case)
        return self._known[kind]


# ----------------------------------------------------------------------------------------------------------- autosave


def paint(folder: Path, log: Path) -> None:
    """Strokes, one pixel each, one every few milliseconds, for ever; the log says when each was painted."""
    from mdm_studio.services.autosave import Autosave
    from mdm_studio.services.project import ImageFacts, Project

    project, labels = Project.open(folder), np.zeros((_SIDE, _SIDE), np.uint8)
    project.open_labels("image", ImageFacts("image", None, (), labels.shape, "uint8"))
    autosave = Autosave(project, lambda key, index, rows, cols: labels[rows, cols], on_problem=print, on_recovery=print)
    with log.open("w") as file:
        stroke = 0
        while True:
            y, x = divmod(stroke * 40503 % _SIDE**2, _SIDE)
            labels[y, x] = 1 + stroke % 255
            autosave.mark("image", (), slice(y, y + 1), slice(x, x + 1))
            file.write(f"{stroke} {time.monotonic()}\n")
            file.flush()
            stroke += 1
            time.sleep(0.004)


def _kill_autosave(rng: random.Random, case: Path) -> tuple[int, list[str]]:
    log = case / "log"
    pid = oracle.start(lambda: paint(case / "project", log), case.with_suffix(".log"), **environment(case))
    while not log.exists() or not log.stat().st_size:
        time.sleep(0.01)
    time.sleep(_KEPT_SECONDS + rng.random() * 2)
    oracle.kill(pid)
    killed = time.monotonic()
    ended = oracle.finish(pid, case.with_suffix(".log"))
    wrong = [] if ended.code == -9 else [f"it ended by itself: {ended.stderr[-300:]}"]
    return 1, [*wrong, *strokes_lost(case / "project", log, killed), *_unfinished(case / "project")]


def strokes_lost(project: Path, log: Path, killed: float) -> Iterator[str]:
    """Strokes older than two seconds that are not on disk."""
    from mdm_studio.services.project import ImageFacts, Project

    lines = [line.split() for line in log.read_text().splitlines()[:-1]]
    kept = [int(stroke) for stroke, when in lines if float(when) < killed - _KEPT_SECONDS]
    with Project.open(project) as opened:
        labels = opened.open_labels("image", ImageFacts("image", None, (), (_SIDE, _SIDE), "uint8"))
        found = labels.read((), slice(0, _SIDE), slice(0, _SIDE))
        lost = [each for each in kept if found[divmod(each * 40503 % _SIDE**2, _SIDE)] != 1 + each % 255]
        if lost or labels.damaged:
            yield f"lost: {len(lost)} of {len(kept)} strokes, {labels.damaged}"


def _unfinished(folder: Path) -> Iterator[str]:
    yield from (f"left behind: {path.name}" for path in folder.rglob("*") if path.suffix in (".part", ".partial", ".old"))
