"""Pretraining as a job: the engine's steps plus budget, metrics, pictures, checkpoints and the finished backbone."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdm_studio import registry
from mdm_studio.engine.backbones import BackboneCard, find_backbone
from mdm_studio.engine.crops import CropSource, PlaneInfo, survey
from mdm_studio.engine.pretrain import PretrainConfig, Pretrainer, Step
from mdm_studio.errors import CheckpointError, InputError, JobError, UsageError
from mdm_studio.io.backbone_files import read_weights, write_backbone
from mdm_studio.io.checkpoints import read_checkpoint, write_checkpoint
from mdm_studio.io.job_folder import JobFolder, MetricsLog
from mdm_studio.nn.unet import SIZES, SizeName, UNetConfig
from mdm_studio.services.pretraining_report import loss_curve, model_card, sample_sheet

_SAMPLE_STEP = 2**31  # the batch that pictures are made of: one that training never reaches
_STATUS_SECONDS = 2.0  # between two writes of status.json
_STOP_CHECK: Callable[[], bool] = lambda: False  # noqa: E731 - a default that never stops


@dataclass(frozen=True)
class Job:
    """What a pretraining job was asked to do, as it stands in job.json.

    Attributes
    ----------
    images : tuple of str
        Absolute paths of the images, in order.
    channels : tuple of int or None
        Channels read from each image; None reads them all.
    recipe, recipe_settings
        Name of the recipe and its fields.
    network : UNetConfig
        Shape of the network.
    start_from : str or None
        Folder of the backbone whose weights the run begins with; None begins with random ones.
    steps, minutes
        The budget: whichever is reached first; at least one is given.
    checkpoint_every : int
        Steps between checkpoints: what a power cut can cost.
    """

    images: tuple[str, ...]
    channels: tuple[int, ...] | None
    recipe: str
    recipe_settings: dict[str, Any]
    network: UNetConfig
    config: PretrainConfig
    name: str
    steps: int | None = None
    minutes: float | None = None
    checkpoint_every: int = 200
    start_from: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values of the job."""
        return {"kind": "pretrain", "version": 1, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """Rebuild a job from `to_json`."""
        values = {k: v for k, v in values.items() if k not in ("kind", "version")}
        network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.pop("network").items()}
        images, channels = tuple(values.pop("images")), values.pop("channels")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.pop("config").items()}
        config = PretrainConfig(**settings)
        return cls(images, tuple(channels) if channels else None, network=UNetConfig(**network), config=config, **values)


@dataclass(frozen=True)
class Progress:
    """How far a job is: the last step, the budget's share that is used up, and the seconds left (None while unknown)."""

    step: Step
    done: float
    eta_s: float | None
    images_per_s: float


def plan(
    paths: Sequence[Path],
    *,
    name: str,
    recipe: str = "mdm",
    recipe_settings: dict[str, Any] | None = None,
    size: SizeName = "small",
    config: PretrainConfig,
    channels: tuple[int, ...] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    checkpoint_every: int = 200,
    start_from: str | None = None,
) -> tuple[Job, list[str]]:
    """Look at the images and settle what the job will do; also one line for each image that cannot be read.

    Raises
    ------
    UsageError
        If no budget is given, or a setting does not fit the network.
    InputError
        If no image can be read, or their channels differ.
    """
    if steps is None and minutes is None:
        raise UsageError("how long should it train? Give --steps N or --minutes M")
    planes, unreadable = survey(paths, channels, config.intensity)
    counts = {info.shape[0] for info in planes}
    # grey images are repeated to three channels beside colour ones; anything else must agree
    in_channels = 3 if counts <= {1, 2, 3} else max(counts)
    if len(counts - {1}) > 1 and in_channels > 3:
        raise InputError(f"the images have {sorted(counts)} channels; choose the same for all with --channels")
    made = registry.load("recipes", recipe)(**(recipe_settings or {}))
    network = dataclasses.replace(SIZES[size], in_channels=in_channels, out_channels=made.out_channels(in_channels))
    begin = None if start_from is None else find_backbone(start_from).resolve()
    if begin is not None:
        network = _network_of(begin, network)
    if config.crop % network.total_stride or config.crop % getattr(made, "patch", 1):
        raise UsageError(f"--crop {config.crop} must be a multiple of {network.total_stride} and of the patch size")
    readable = tuple(dict.fromkeys(str(info.path.resolve()) for info in planes))
    job = Job(
        readable, channels, recipe, dataclasses.asdict(made), network, config, name, steps, minutes, checkpoint_every,
        None if begin is None else str(begin),
    )  # fmt: skip
    return job, unreadable


def _network_of(folder: Path, wanted: UNetConfig) -> UNetConfig:
    """Shape of the network to start from; it must read and predict the channels of the new one."""
    found = BackboneCard.read(folder).unet()
    if (found.in_channels, found.out_channels) != (wanted.in_channels, wanted.out_channels):
        raise UsageError(
            f"the backbone to start from reads {found.in_channels} channels and predicts {found.out_channels}; these images "
            f"and this recipe need {wanted.in_channels} and {wanted.out_channels}: give other --channels or start from nothing"
        )
    return found


def run(folder: JobFolder, *, stop: Callable[[], bool] = _STOP_CHECK) -> Iterator[Progress]:
    """Run or go on with the job in `folder`; yields after every step, and writes the backbone when the budget is used up.

    Closing the generator, or `stop` returning True, saves a checkpoint first. The job goes on from its newest readable
    checkpoint.
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
    trainer = Pretrainer(job.network, recipe, job.config)
    elapsed = _restore(trainer, folder, job.start_from)
    yield from _Run(folder, job, trainer, planes, elapsed).steps(stop)


def _restore(trainer: Pretrainer, folder: JobFolder, start_from: str | None) -> float:
    """Load the newest readable checkpoint, or what the job starts from; return the seconds trained so far."""
    elapsed = 0.0
    failures: list[str] = []
    for path in folder.list_checkpoints():
        try:
            tensors, facts = read_checkpoint(path)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        trainer.load_state(tensors, facts)
        elapsed = float(facts["elapsed_s"])
        break
    else:
        if failures:
            raise CheckpointError(failures[0])
        if start_from is not None:
            trainer.start_from({name: value.float() for name, value in read_weights(Path(start_from)).items()})
    folder.rewind_metrics(trainer.step)
    return elapsed


class _Run:
    """One sitting of a job: drives the trainer and keeps the folder true."""

    def __init__(self, folder: JobFolder, job: Job, trainer: Pretrainer, planes: list[PlaneInfo], elapsed: float) -> None:
        self.folder, self.job, self.trainer = folder, job, trainer
        self.elapsed, self.saved_at, self._status_at = elapsed, trainer.step, 0.0
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

    def steps(self, stop: Callable[[], bool]) -> Iterator[Progress]:
        batches = self.source.batches(self.trainer.step)
        state = "failed"
        try:
            with MetricsLog(self.folder.metrics) as log:
                steps = self.trainer.steps(batches)
                while self.done() < 1 and not stop():
                    progress = self._advance(next(steps), log)
                    yield progress
            state = "done" if self.done() >= 1 else "paused"
        except GeneratorExit:
            state = "paused"
            raise
        finally:
            batches.close()  # type: ignore[attr-defined]
            if state != "failed":
                self._save()
            if state == "done":
                self._finish()
            self._write_status(state, None)

    def _advance(self, step: Step, log: MetricsLog) -> Progress:
        self.elapsed += step.seconds
        rate = step.step * step.images / max(self.elapsed, 1e-9)
        done = self.done()
        eta = self.elapsed * (1 - done) / done if done else None
        if self.main:
            log.write(
                step=step.step,
                loss=step.loss,
                images_per_s=round(step.images_per_s, 3),
                lr=step.lr,
                grad_norm=step.grad_norm,
                elapsed_s=round(self.elapsed, 3),
            )
        progress = Progress(step, done, eta, rate)
        if step.step % self.job.checkpoint_every == 0:
            self._save()
            self._picture()
        if time.monotonic() - self._status_at > _STATUS_SECONDS:
            self._write_status("running", progress)
        return progress

    def _write_status(self, state: str, progress: Progress | None) -> None:
        self._status_at = time.monotonic()
        if not self.main:
            return
        self.folder.write_status(
            state=state,
            step=self.trainer.step,
            steps=self.job.steps,
            minutes=self.job.minutes,
            done=round(self.done(), 6),
            loss=progress.step.loss if progress else None,
            images_per_s=round(progress.images_per_s, 3) if progress else None,
            eta_s=round(progress.eta_s, 1) if progress and progress.eta_s is not None else None,
            device=str(self.trainer.accelerator.device),
            precision=self.trainer.precision,
            pid=os.getpid(),
            heartbeat=time.time(),
        )

    def _save(self) -> None:
        if not self.main or self.trainer.step == self.saved_at:
            return
        tensors, facts = self.trainer.state()
        write_checkpoint(self.folder.checkpoint_path(self.trainer.step), tensors, facts | {"elapsed_s": self.elapsed})
        self.saved_at = self.trainer.step
        self.folder.drop_old_checkpoints()

    def _picture(self) -> None:
        if self.main:
            originals = self.source.batch(_SAMPLE_STEP)[:6]
            timesteps = (250, 500, 750)
            seen, made = self.trainer.reconstruct(originals, timesteps)
            sample_sheet(self.folder.samples / f"step-{self.trainer.step:08d}.png", originals, timesteps, seen, made)

    def _finish(self) -> None:
        """Write the backbone, its model card and the loss curve."""
        if not self.main:
            return
        self._picture()
        rows = self.folder.read_metrics()
        facts = {
            "images": len(self.job.images),
            "planes": len(self.planes),
            "steps": self.trainer.step,
            "crops_seen": self.trainer.step * self.job.config.batch * self.trainer.accelerator.num_processes,
            "seconds": round(self.elapsed, 1),
            "final_loss": float(np.mean([row["loss"] for row in rows[-100:]])) if rows else None,
            "device": str(self.trainer.accelerator.device),
            "precision": self.trainer.precision,
            "config": dataclasses.asdict(self.job.config),
            "start_from": None if self.job.start_from is None else Path(self.job.start_from).name,
        }
        card = {
            "name": self.job.name,
            "arch": {"kind": "unet", **dataclasses.asdict(self.job.network)},
            "recipe": {"name": self.job.recipe, **self.job.recipe_settings},
            "intensity": self.job.config.intensity,
            "scales": list(self.job.config.scales),
            "filters": True,  # a young backbone is better with them (benchmarks/NOTES.md)
            "training": facts,
        }
        weights = {
            name: value.half() if value.dtype == torch.float32 else value for name, value in self.trainer.weights().items()
        }
        write_backbone(self.folder.backbone, weights, card, model_card(card))
        loss_curve(self.folder.backbone / "loss.png", rows)
