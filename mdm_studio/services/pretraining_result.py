"""What comes out of a pretraining: the backbone at its end, snapshots on the way, and a place among the user's backbones."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mdm_studio import registry
from mdm_studio.config import user_data_dir
from mdm_studio.engine.backbones import FOLDER, backbone_folders
from mdm_studio.engine.recipes import Recipe
from mdm_studio.errors import BackboneError, CheckpointError, UnreadableImageError
from mdm_studio.io.atomic import make_folder, replacing, write_json
from mdm_studio.io.backbone_files import CARD, read_card, write_backbone
from mdm_studio.io.checkpoints import read_checkpoint
from mdm_studio.io.image_digest import image_digests
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.plain_names import problem_of
from mdm_studio.services.pretraining_job import Job
from mdm_studio.services.pretraining_report import loss_curve, model_card

_KEPT = 2  # snapshots: the newest, and the one that somebody may be reading
_LONGEST = 100  # bytes of a name that are kept
_LAST = 100  # steps whose mean is the loss at the end


def write_result(folder: JobFolder, job: Job, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write the finished backbone with its model card and loss curve, and publish it if the job says so; its folder."""
    rows = _rows(folder)
    card = make_card(job, job.name, facts, rows)
    card["training"]["image_digests"] = _digests(job.images)
    write_backbone(folder.backbone, _halved(weights), card, model_card(card))
    loss_curve(folder.backbone / "loss.png", rows)
    return publish(folder.backbone, job.name) if job.publish else folder.backbone


def snapshot(folder: JobFolder) -> Path | None:
    """A backbone made of the newest readable checkpoint's averaged weights, or None if there is no checkpoint yet.

    It lies in ``snapshots/step-N/`` of the job; the newest two are kept. Any process may ask, also while the job runs: one that
    has been made is given at once. Whoever wants to keep it longer publishes it.
    """
    job = Job.from_json(folder.settings())
    for path in folder.list_checkpoints():
        target = folder.snapshots / path.stem
        if (target / CARD).is_file():
            return target
        try:
            tensors, facts = read_checkpoint(path, prefix="ema/")
        except CheckpointError:  # cut short by a power cut, or dropped a moment ago
            continue
        step = int(facts["step"])
        rows = [row for row in _rows(folder) if row["step"] <= step]
        card = make_card(job, f"{job.name} at step {step}", facts, rows)
        make_folder(target.parent, within=folder.root)
        write_backbone(target, _halved(tensors), card, model_card(card, curve=False))
        for old in sorted(folder.snapshots.glob("step-*"), reverse=True)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return target
    return None


def _rows(folder: JobFolder) -> list[dict[str, Any]]:
    """Steps of a job that have a loss."""
    return [row for row in folder.read_metrics() if row.get("loss") is not None]


def publish(backbone: Path, name: str) -> Path:
    """Copy a backbone folder among the user's backbones under a name that is still free, and give its folder there.

    A backbone with the same weights that has this name already is given instead of a second copy.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    digest = read_card(backbone)["digest"]
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    stem = stem.encode(errors="ignore")[:_LONGEST].decode(errors="ignore").strip("-.") or "backbone"
    if problem_of(stem) is not None:
        stem = f"backbone-{stem}"  # a word that Windows keeps for itself
    taken, number, free = backbone_folders(), 1, stem
    while free in taken or (user_data_dir() / FOLDER / free).exists():
        if free in taken and _digest(taken[free]) == digest and taken[free].parent == user_data_dir() / FOLDER:
            return taken[free]
        number += 1
        free = f"{stem}-{number}"
    target = user_data_dir() / FOLDER / free
    make_folder(target.parent)
    with replacing(target) as unfinished:
        shutil.copytree(backbone, unfinished)
        write_json(unfinished / CARD, read_card(backbone) | {"name": free})
    return target


def make_card(job: Job, name: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Card of a backbone of this job; `facts` are those of its checkpoint (some are missing in those of version 0.1)."""
    steps, config = int(facts["step"]), job.config
    training = {
        "images": len(job.images),
        "planes": facts.get("planes", len(job.images)),
        "steps": steps,
        "crops_seen": steps * config.batch * int(facts.get("processes", 1)),
        "seconds": round(float(facts["elapsed_s"]), 1),
        "final_loss": float(np.mean([row["loss"] for row in rows[-_LAST:]])) if rows else None,
        "device": facts.get("device", config.device),
        "precision": facts.get("precision", config.precision),
        "config": dataclasses.asdict(config),
        "start_from": None if job.start_from is None else Path(job.start_from).name,
    } | ({"encoder": job.encoder} if job.encoder else {})  # whose licence goes with its weights
    recipe: type[Recipe] = registry.load("recipes", job.recipe)
    return {
        "name": name,
        "arch": {"kind": recipe.network, **dataclasses.asdict(job.network)},
        "recipe": {"name": job.recipe, **job.recipe_settings},
        "intensity": config.intensity,
        "timesteps": list(recipe.feature_timesteps),
        "scales": list(config.scales),
        "halo": job.network.halo,
        "filters": True,  # a young backbone is better with them (benchmarks/NOTES.md)
        "summary": f"{_where(job.images)}, {training['seconds'] / 60:.0f} min of pretraining",
        "training": training,
    }


def _where(images: Sequence[str]) -> str:
    """What it was trained on, in a few words."""
    try:
        folder = os.path.basename(os.path.commonpath([os.path.dirname(path) for path in images]))
    except ValueError:  # on several drives
        folder = ""
    return f"{len(images)} images" + (f" of {folder}" if folder else "")


def _digests(images: Sequence[str]) -> list[str]:
    """By which a privacy report knows the images again; none if there are too many, or one is gone by now."""
    try:
        return image_digests(Path(path) for path in images)
    except UnreadableImageError:
        return []


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In half the space; an encoder of others stays as it came, because its numbers may be beyond float16."""
    kept = {name for name, value in weights.items() if name.startswith("encoder.") or not value.is_floating_point()}
    return {name: value if name in kept else value.half() for name, value in weights.items()}


def _digest(folder: Path) -> str:
    try:
        return str(read_card(folder).get("digest", ""))
    except BackboneError:
        return ""
