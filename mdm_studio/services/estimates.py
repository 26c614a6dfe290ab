"""How long pretraining will take on this device, measured and never guessed.

A few real steps are timed in a process of their own: it takes no memory that stays, a size that does not fit takes nothing else
down, and it can be ended at any moment. What was measured is kept in the user's data, for each device, network, crop and batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from mdm_studio.errors import JobError, MDMStudioError, OutputError
from mdm_studio.io.user_files import read_user_file, write_user_file
from mdm_studio.services.asking import ask_process, read_answer
from mdm_studio.services.jobs.worker import thread_count

if TYPE_CHECKING:
    from mdm_studio.services.pretraining import Job

USEFUL_STEPS = 2000
"""Steps of 16 crops that a run should have: 1,000 were worth it and 2,000 better (benchmarks/NOTES.md, 5)."""
_USEFUL_CROPS = 16 * USEFUL_STEPS
_BUDGETS = (10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480)  # minutes that are offered; a night at most
_FILE = "speeds.json"
_VERSION = 1
_IMAGES = 8  # that crops are drawn from: reading files is a part of the time
_STEPS = 4
_SECONDS = 12.0  # of timed steps: enough for a tenth of accuracy
_SLOW_STEP = 8.0  # seconds: of slower batches a single crop is timed
_COMMAND = (sys.executable, "-m", "mdm_studio.services.estimates")
_LONGEST = 180.0  # seconds until a measurement is given up
_BYTES = 20  # a parameter in training: weight, gradient, two moments and the average, 4 bytes each
_FROZEN_BYTES = 8  # one that is not trained: weight and average
_NICE = 10
_NO_MEMORY = "there is not enough memory to train this network here; choose a smaller size or crop"


@dataclass(frozen=True)
class SpeedRequest:
    """What is to be timed; the meaning of each is that of `mdm_studio.services.pretraining.plan`.

    Attributes
    ----------
    images : tuple of str
        Some of the images that it will be trained on.
    """

    images: tuple[str, ...]
    size: str = ""
    crop: int = 128
    batch: int = 16
    scales: tuple[int, ...] = (1,)
    jitter: bool = False
    channels: tuple[int, ...] | None = None
    start_from: str | None = None
    recipe: str = "mdm"
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    encoder: str = ""
    device: str = "auto"

    @property
    def key(self) -> str:
        """Names what changes the speed, on this computer."""
        facts = {name: value for name, value in asdict(self).items() if name != "images"}
        text = json.dumps(facts | {"computer": platform.node(), "version": _VERSION}, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Speed:
    """Crops seen a second in training, on which device, and when that was measured (seconds since 1970)."""

    images_per_s: Annotated[float, Meta(gt=0)]
    device: str
    measured: float

    def words(self) -> str:
        """For people."""
        return f"{as_rate(self.images_per_s)} images/s on {self.device}, measured {_ago(time.time() - self.measured)}"

    def seconds(self, steps: int, batch: int) -> float:
        """Time that `steps` steps of `batch` crops take."""
        return steps * batch / self.images_per_s

    def usual_minutes(self) -> int:
        """A sensible budget: what `USEFUL_STEPS` steps of 16 crops take, from ten minutes to a night."""
        needed = _USEFUL_CROPS / self.images_per_s / 60
        return next((minutes for minutes in _BUDGETS if minutes >= needed), _BUDGETS[-1])

    def describe(self, minutes: float, batch: int) -> str:
        """What a budget buys, and how long a useful one is."""
        crops = 60 * minutes * self.images_per_s
        useful = max(1, round(_USEFUL_CROPS / batch))
        bought = f"{as_duration(60 * minutes)} is about {round(crops / batch):,} steps"
        whole = f"a useful run ({useful:,} steps) takes about {as_duration(self.seconds(useful, batch))}"
        return f"{bought[:1].upper()}{bought[1:]}; {whole} ({self.words()})."


def known_speed(request: SpeedRequest) -> Speed | None:
    """What was measured before; None if nothing was."""
    return _kept().get(request.key)


def measure_speed(request: SpeedRequest, stop: Callable[[], bool] = lambda: False) -> Speed | None:
    """Time a few real steps, and keep the result; it takes some ten seconds, loading PyTorch included.

    Returns
    -------
    Speed or None
        None if `stop` returned True before the end.

    Raises
    ------
    MDMStudioError
        If such a network cannot be trained here, with the reason.
    """
    values = asdict(request) | {"images": list(request.images[:_IMAGES])}
    try:
        done = ask_process(_COMMAND, values, stop, _LONGEST)
    except TimeoutError as error:
        raise JobError(
            f"no result within {as_duration(_LONGEST)}: the computer is busy, or the network too large for it; "
            "measure again later, choose a smaller size, or start without an estimate"
        ) from error
    if done is None:
        return None
    if done.returncode == -signal.SIGKILL:
        raise JobError(_NO_MEMORY)
    speed = _answer(done)
    _keep(request.key, speed)
    return speed


def keep_speed(request: SpeedRequest, images_per_s: float, device: str) -> None:
    """Take over what a real job has measured: it saw more steps than a measurement does."""
    words = {"cpu": "this CPU", "mps": "this Apple GPU"}.get(device.partition(":")[0], "this GPU")
    _keep(request.key, Speed(images_per_s, words, time.time()))


def _answer(done: subprocess.CompletedProcess[str]) -> Speed:
    try:
        values = read_answer(done)
    except ValueError as error:
        message = f"the speed could not be measured ({error}); choose a smaller size, or start without an estimate"
        raise JobError(message) from error
    if "error" in values:
        raise JobError(str(values["error"]))
    return Speed(values["images_per_s"], values["device"], time.time())


# ---- what is kept ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    version: int
    speeds: dict[str, Speed]


def _kept() -> dict[str, Speed]:
    values = read_user_file(_FILE, _Kept)  # what is not there, or damaged, can be measured again
    return values.speeds if values is not None and values.version == _VERSION else {}


def _keep(key: str, speed: Speed) -> None:
    with contextlib.suppress(OutputError):  # a full disk must not hide the answer
        write_user_file(_FILE, asdict(_Kept(_VERSION, _kept() | {key: speed})))


# ---- words -------------------------------------------------------------------------------------------------------------


def as_duration(seconds: float) -> str:
    """A duration for people: "40 s", "25 min", "1 h 20 min", "3 days".

    Examples
    --------
    >>> as_duration(4810)
    '1 h 20 min'
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 10:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{round(minutes / 60)} h" if hours < 48 else f"{round(hours / 24)} days"


def as_rate(value: float) -> str:
    """A rate with the digits that mean something: "0.031", "3.1", "240"."""
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _ago(seconds: float) -> str:
    return "just now" if seconds < 600 else f"{as_duration(seconds)} ago"


# ---- the process -------------------------------------------------------------------------------------------------------


def time_steps(request: SpeedRequest) -> tuple[float, str]:
    """Crops a second, and the device in words; run in a process of its own by `measure_speed`."""
    from mdm_studio.engine.crops import CropSource, survey
    from mdm_studio.engine.pretrain import Pretrainer
    from mdm_studio.services.pretraining import make_recipe, plan, recipe_config

    config = recipe_config(
        request.recipe, crop=request.crop, batch=request.batch, device=request.device, scales=tuple(request.scales),
        jitter=request.jitter,
    )  # fmt: skip
    paths = [Path(path) for path in request.images]
    channels = None if request.channels is None else tuple(request.channels)
    job, _ = plan(
        paths, name="speed", recipe=request.recipe, recipe_settings=request.recipe_settings, size=request.size,
        encoder=request.encoder, config=config, channels=channels, steps=1, start_from=request.start_from,
    )  # fmt: skip
    _check_memory(job)
    recipe = make_recipe(job.recipe, job.recipe_settings)
    trainer = Pretrainer(job.network, recipe, config)
    planes, _ = survey([Path(path) for path in job.images], channels, config.intensity)
    source = CropSource(
        planes, crop=config.crop, batch=config.batch, in_channels=job.network.in_channels, seed=0, scales=config.scales,
        jitter=config.jitter, channels=channels,
    )  # fmt: skip
    batches = source.batches(0)
    try:
        return _timed(trainer.steps, batches, config.batch), _device_words(str(trainer.accelerator.device))
    finally:
        batches.close()  # type: ignore[attr-defined]


def _timed(
    steps: Callable[[Iterator[NDArray[np.float32]]], Iterator[Any]], batches: Iterator[NDArray[np.float32]], batch: int
) -> float:
    """Crops a second of some steps, or of one with a single crop where a whole batch takes too long."""
    shown: list[int] = []
    wanted = 1

    def some() -> Iterator[NDArray[np.float32]]:
        for batch in batches:
            shown.append(min(wanted, len(batch)))
            yield batch[: shown[-1]]

    def seconds() -> float:
        start = time.perf_counter()
        next(running)
        return time.perf_counter() - start

    running = steps(some())
    seconds()  # memory is taken and kernels are chosen
    one = seconds()
    if one * batch > _SLOW_STEP:
        return 1 / one
    wanted = batch
    seconds()
    taken: list[float] = []
    while sum(taken) < _SECONDS and len(taken) < _STEPS:
        taken.append(seconds())
    return sum(shown[-len(taken) :]) / sum(taken)


def _check_memory(job: Job) -> None:
    import torch

    from mdm_studio.engine.devices import pick_device
    from mdm_studio.services.pretraining_job import network_type

    with torch.device("meta"):
        parameters = list(network_type(job.recipe)(job.network).parameters())
    needed = sum(each.numel() * (_BYTES if each.requires_grad else _FROZEN_BYTES) for each in parameters)
    device = pick_device(job.config.device)
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info(device)[0])
    else:
        free = _free_memory()
    if needed > free:
        raise JobError(
            f"training this network needs more than {needed / 1e9:.0f} GB of memory and {free / 1e9:.0f} GB are "
            "free: choose a smaller size, or a computer with more"
        )


def _free_memory() -> float:
    """Bytes that this process may take; unlimited where the system does not say."""
    limits = [float("inf")]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    with contextlib.suppress(OSError, ValueError):  # a container has a limit of its own
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        limits.append(float(limit - used))
    return min(limits)


def _device_words(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return "this Apple GPU" if device.startswith("mps") else "this CPU"


def _give_way() -> None:
    """As many threads as the job will have, and a lower priority; not the lowest, or a busy computer is never done."""
    threads = str(thread_count())
    os.environ.update({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"})
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_NICE)


def main() -> None:
    """Time what stands in the standard input as JSON; the answer is a line of JSON in the standard output."""
    request: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.load(sys.stdin).items()}
    _give_way()
    answer: dict[str, Any]
    try:
        images_per_s, device = time_steps(SpeedRequest(**request))
        answer = {"images_per_s": images_per_s, "device": device}
    except MDMStudioError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": _NO_MEMORY}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
