"""Pretraining as a job: the engine's steps plus budget, metrics, pictures, checkpoints and the finished backbone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta

from mdm_studio import registry
from mdm_studio.engine.card_checks import build_empty, weight_bytes
from mdm_studio.engine.crops import CropSource, PlaneInfo, survey
from mdm_studio.engine.pretrain import Pretrainer, Step
from mdm_studio.errors import CheckpointError, JobError
from mdm_studio.io.atomic import make_folder
from mdm_studio.io.backbone_files import WEIGHTS, read_weights
from mdm_studio.io.checkpoints import read_checkpoint, write_checkpoint
from mdm_studio.io.job_folder import JobFolder, MetricsLog
from mdm_studio.io.json_files import check_value
from mdm_studio.services.jobs.states import JobReport
from mdm_studio.services.pretraining_job import Job, network_type
from mdm_studio.services.pretraining_plan import make_recipe, named_size, plan, recipe_config
from mdm_studio.services.pretraining_report import sample_sheet, what_is_seen
from mdm_studio.services.pretraining_result import publish, snapshot, write_result

__all__ = ["Job", "make_recipe", "named_size", "plan", "publish", "recipe_config", "run", "save_due", "snapshot"]

_SAMPLE_STEP = 2**31  # the batch that pictures are made of: one that training never reaches
_SAMPLES = 6  # crops in a picture
_TIMESTEPS = (250, 500, 750)
_RATE_STEPS = 30  # the speed shown is that of the last so many steps
_STOP_CHECK: Callable[[], bool] = lambda: False  # noqa: E731 - a default that never stops

_EARLY_STEPS = (20, 50, 100)  # somebody may be watching a job that has just begun
_FIRST_SECONDS = 60.0  # where steps are slow, the first save does not wait for the twentieth
_SAVE_SECONDS = 300.0  # what a power cut can cost, in time
_COPIES = 2  # of the weights at the very least: the network and its average
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]
_SAVE_SHARE = 20  # an early save may take a twentieth of the time since the last one


def run(folder: JobFolder, *, stop: Callable[[], bool] = _STOP_CHECK) -> Iterator[JobReport]:
    """Run or go on with the job in `folder`; reports every step, and writes the backbone when the budget is used up.

    Closing the generator, or `stop` returning True, saves a checkpoint first. The job goes on from its newest readable
    checkpoint. The status is kept by `mdm_studio.services.jobs.driver`; nothing is written once the folder is gone.
    """
    job = Job.from_json(folder.settings())
    paths = [Path(path) for path in job.images]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise JobError(
            f"{len(missing)} images of this job are gone, the first is {missing[0]}; put them back or start a new job"
        )
    planes, _ = survey(paths, job.channels, job.config.intensity)
    recipe = registry.load("recipes", job.recipe)(**job.recipe_settings)
    _check_memory(job)
    trainer = Pretrainer(job.network, recipe, job.config)
    try:
        elapsed, warning = _restore(trainer, folder, job)
        yield from _Run(folder, job, trainer, planes, elapsed, warning).reports(stop)
    finally:
        trainer.close()


def _restore(trainer: Pretrainer, folder: JobFolder, job: Job) -> tuple[float, str]:
    """Load the newest good checkpoint, or what the job starts from; the seconds trained so far, and what should be known."""
    elapsed = 0.0
    failures: list[CheckpointError] = []
    for path in folder.list_checkpoints():
        try:
            tensors, facts = read_checkpoint(path)
            trainer.load_state(tensors, facts)
            elapsed = check_value(facts.get("elapsed_s"), _Seconds)
        except (CheckpointError, ValueError) as error:
            failures.append(CheckpointError(f"{path.name} cannot be used: {error}"))
            continue
        break
    else:
        if failures:
            raise failures[0]
        if job.start_from is not None:
            trainer.start_from(_start_weights(Path(job.start_from)))
        elif job.encoder:
            trainer.start_from(_encoder_weights(job))
    warning = f"{failures[0]}; goes on from step {trainer.step}, which was saved before" if failures else ""
    if trainer.accelerator.is_main_process:
        folder.rewind_metrics(trainer.step)
        if warning:
            folder.write_log(warning)
    return elapsed, warning


def _check_memory(job: Job) -> None:
    """Complain about a network that this machine cannot train, before memory is taken for it.

    Raises
    ------
    JobError
        With what it takes.
    """
    import psutil

    net = build_empty(network_type(job.recipe), job.network, "the job")
    wanted, there = _COPIES * weight_bytes(net), psutil.virtual_memory().total
    if wanted > there:
        raise JobError(
            f"the network of this job takes {wanted / 1e9:.0f} GB to train and this machine has {there / 1e9:.0f}; start a new "
            "job with a smaller --size"
        )


def _start_weights(folder: Path) -> dict[str, torch.Tensor]:
    if not (folder / WEIGHTS).is_file():
        raise JobError(f"the backbone that this job starts from is gone: {folder}; put it back, or start a new job")
    return {name: value.float() for name, value in read_weights(folder).items()}


def _encoder_weights(job: Job) -> dict[str, torch.Tensor]:
    """What an encoder of others begins with, the decoder over it being random."""
    from mdm_studio.engine.hub_import import denoiser_network  # here: it needs the library of the encoders

    width = next(iter(network_type(job.recipe).sizes))  # of the decoder, which has no weights there
    _, weights = denoiser_network(job.encoder, width, frozen=True, in_channels=job.network.in_channels)
    return weights


def save_due(step: int, every: int, since_s: float, cost_s: float, *, first: bool) -> bool:
    """Whether to save and make a picture now.

    Parameters
    ----------
    step, every : int
        Steps done, and the steps between two checkpoints that were asked for.
    since_s, cost_s : float
        Seconds since the last save of this sitting (or its begin), and what that save took.
    first : bool
        Nothing has been saved yet in the life of the job.
    """
    if step % every == 0 or since_s >= (_FIRST_SECONDS if first else _SAVE_SECONDS):
        return True
    return step in _EARLY_STEPS and since_s >= _SAVE_SHARE * cost_s


class _Run:
    """One sitting of a job: drives the trainer and keeps the folder true."""

    def __init__(
        self, folder: JobFolder, job: Job, trainer: Pretrainer, planes: list[PlaneInfo], elapsed: float, warning: str = ""
    ) -> None:
        self.folder, self.job, self.trainer, self.warning = folder, job, trainer, warning
        self.elapsed, self.saved_at = elapsed, trainer.step
        self._saved_time, self._save_cost = time.monotonic(), 0.0
        self._loss: float | None = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RATE_STEPS)  # images and seconds of steps
        self.main = trainer.accelerator.is_main_process
        seed = job.config.seed + 1_000_003 * trainer.accelerator.process_index
        self.source = CropSource(
            planes,
            crop=job.config.crop,
            batch=job.config.batch,
            in_channels=job.network.in_channels,
            seed=seed,
            scales=job.config.scales,
            jitter=job.config.jitter,
            channels=job.channels,
        )
        self.planes = planes

    def done(self) -> float:
        """Share of the budget that is used up, 0..1."""
        shares = []
        if self.job.steps:
            shares.append(self.trainer.step / self.job.steps)
        if self.job.minutes:
            shares.append(self.elapsed / (60 * self.job.minutes))
        return min(max(shares), 1.0)

    def reports(self, stop: Callable[[], bool]) -> Iterator[JobReport]:
        """Every step, then the backbone; the last report says where that is."""
        batches = self.source.batches(self.trainer.step)
        whole = True  # the state is that of a finished step
        try:
            with MetricsLog(self.folder.metrics) as log:
                steps = self.trainer.steps(batches)
                while not self._ends(stop):
                    whole = False
                    report = self._advance(next(steps), log)
                    whole = True
                    yield report
        finally:
            batches.close()  # type: ignore[attr-defined]
            if whole:
                self._save()
        if self.done() >= 1:
            yield self._report("writes the backbone")
            yield self._report(result=str(self._finish()))

    def _ends(self, stop: Callable[[], bool]) -> bool:
        """Whether this was the last step; of several processes all end with the first, by the clock of the first."""
        stopped, self.elapsed = self.trainer.agree(stop(), self.elapsed)
        return stopped or self.done() >= 1

    def _advance(self, step: Step, log: MetricsLog) -> JobReport:
        self.elapsed += step.seconds
        self._loss = step.loss
        self._recent.append((step.images, step.seconds))
        if self.main:
            log.write(
                step=step.step,
                loss=step.loss,
                images_per_s=round(step.images_per_s, 3),
                lr=step.lr,
                grad_norm=step.grad_norm,
                elapsed_s=round(self.elapsed, 3),
            )
        first = not self.saved_at
        if save_due(step.step, self.job.checkpoint_every, time.monotonic() - self._saved_time, self._save_cost, first=first):
            begin = time.monotonic()
            self._save()
            self._picture()
            self._saved_time = time.monotonic()
            self._save_cost = self._saved_time - begin
        return self._report()

    def _report(self, note: str = "", **more: str) -> JobReport:
        seconds = sum(taken for _, taken in self._recent)
        rate = sum(images for images, _ in self._recent) / seconds if seconds else None
        facts = {
            "elapsed_s": round(self.elapsed, 1),
            "minutes": self.job.minutes,
            "device": str(self.trainer.accelerator.device),
            "precision": self.trainer.precision,
            "images": len(self.job.images),
            "loss": self._loss,
        } | ({"warning": self.warning} if self.warning else {})
        eta = self._eta(seconds / len(self._recent)) if self._recent else None
        return JobReport(self.done(), self.trainer.step, self.job.steps, eta, rate, "images/s", note, facts | more)

    def _eta(self, step_s: float) -> float:
        left = []
        if self.job.steps:
            left.append((self.job.steps - self.trainer.step) * step_s)
        if self.job.minutes:
            left.append(60 * self.job.minutes - self.elapsed)
        return max(min(left), 0.0)

    def _save(self) -> None:
        if not self.main or self.trainer.step == self.saved_at or not self.folder.exists():
            return
        tensors, facts = self.trainer.state()
        make_folder(self.folder.checkpoints, within=self.folder.root)
        write_checkpoint(self.folder.checkpoint_path(self.trainer.step), tensors, facts | self._facts())
        self.saved_at = self.trainer.step
        self.folder.drop_old_checkpoints()

    def _facts(self) -> dict[str, Any]:
        """What a card tells about the training so far."""
        accelerator = self.trainer.accelerator
        return {
            "step": self.trainer.step,
            "elapsed_s": self.elapsed,
            "planes": len(self.planes),
            "processes": accelerator.num_processes,
            "device": str(accelerator.device),
            "precision": self.trainer.precision,
        }

    def _picture(self) -> None:
        if self.main and self.folder.exists():
            originals = self.source.batch(_SAMPLE_STEP)[:_SAMPLES]
            timesteps = _TIMESTEPS if self.trainer.recipe.t_max else (0,)
            seen, made = self.trainer.reconstruct(originals, timesteps)
            recipe, settings = self.job.recipe, self.job.recipe_settings
            captions = [what_is_seen(recipe, settings, t, self.trainer.recipe.t_max) for t in timesteps]
            make_folder(self.folder.samples, within=self.folder.root)
            sample_sheet(self.folder.samples / f"step-{self.trainer.step:08d}.png", originals, captions, seen, made)

    def _finish(self) -> Path:
        """Write the backbone, and give its folder."""
        if self.main and self.folder.exists():
            self._picture()
            return write_result(self.folder, self.job, self.trainer.weights(), self._facts())
        return self.folder.backbone
