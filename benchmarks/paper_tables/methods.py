"""What is compared: how each method pretrains a backbone, and how its features are read; and the jobs that do so."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mdm_studio.engine.backbones import Backbone, BackboneCard, find_backbone, load_backbone, untrained_backbone
from mdm_studio.errors import BackboneError, UsageError
from mdm_studio.io.images import find_images
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs.driver import drive
from mdm_studio.services.pretraining import named_size, plan, recipe_config

UNTRAINED = "untrained"
_ENCODED = ("ddep", "dep")
_TOLD = ("patch", "schedule", "predict", "objective", "learn_sigma", "fixed_t", "ratio", "masking", "gamma")


@dataclass(frozen=True)
class Method:
    """A way to pretrain.

    Attributes
    ----------
    title : str
        What it is called in tables.
    recipe, settings
        Of the pretraining.
    timesteps : tuple of int
        That features are read at, as published; a fixed t is read at that t.
    blocks : tuple of int
        That are read; none stands for all but the two coarsest of a UNet, and for those of the card of other networks.
    like : str
        The pretraining is that of another method; only what is read differs.
    steps : int
        Of the pretraining, whatever the budget is; 0 leaves it to the budget.
    """

    title: str
    recipe: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    timesteps: tuple[int, ...] = (50,)
    blocks: tuple[int, ...] = ()
    like: str = ""
    steps: int = 0


METHODS: dict[str, Method] = {
    "mdm": Method("MDM", "mdm"),
    "ddpm": Method("DDPM", "ddpm", timesteps=(50, 150, 250)),
    "mae": Method("MAE", "mae", timesteps=(0,)),
    # table 3: the corruption of one timestep only
    "mdm-fixed": Method("MDM, t = 50 only", "mdm", {"fixed_t": 50}),
    "ddpm-fixed": Method("DDPM, t = 50 only", "ddpm", {"fixed_t": 50}),
    # table 4: what is predicted, and how it is judged
    "ddpm-image-mse": Method("DDPM, predicts the image, MSE", "ddpm", {"predict": "image"}, (50, 150, 250)),
    "ddpm-image-ssim": Method(
        "DDPM, predicts the image, SSIM", "ddpm", {"predict": "image", "objective": "ssim"}, (50, 150, 250)
    ),
    "mdm-mse": Method("MDM, MSE", "mdm", {"objective": "mse"}),
    # table 7: size of a patch
    "mdm-patch4": Method("MDM, patches of 4", "mdm", {"patch": 4}),
    "mdm-patch16": Method("MDM, patches of 16", "mdm", {"patch": 16}),
    # table 6: timesteps
    **{f"mdm@{t}": Method(f"MDM, t = {t}", timesteps=(t,), like="mdm") for t in (1, 150, 250, 500)},
    "mdm@50,150,250": Method("MDM, t = 50, 150 and 250", timesteps=(50, 150, 250), like="mdm"),
    "ddpm@50": Method("DDPM, t = 50", timesteps=(50,), like="ddpm"),
    UNTRAINED: Method("random weights (control)"),
    # DDeP: a decoder over an encoder of somebody else's; a step at the bottom of the warm-up changes nothing that could be seen
    "ddep": Method("DDeP: decoder pretrained, encoder frozen", "ddep", timesteps=(0,)),
    "dep": Method("DeP: both pretrained", "dep", timesteps=(0,)),
    "no-decoder": Method("decoder not pretrained", "dep", timesteps=(0,), steps=1),
    # the released checkpoints of Baranchuk et al., read as they do; they are imported, not pretrained here
    "ddpm-seg": Method("DDPM, released weights", timesteps=(50, 150, 250), blocks=(5, 6, 7, 8, 12)),
}


@dataclass(frozen=True)
class Setting:
    """How a data set is pretrained on and read.

    Attributes
    ----------
    scale : int
        Working scale, of pretraining and of features.
    labelled : int
        Labelled images that stand for 10 %, as published.
    """

    scale: int = 1
    labelled: int = 5


SETTINGS = {"glas": Setting(4, 8), "monuseg": Setting(1, 3), "dsb2018": Setting(1, 5)}


@dataclass(frozen=True)
class Budget:
    """Of a pretraining; the same for every method of a set."""

    steps: int | None = None
    minutes: float | None = None
    size: str = ""
    scale: int | None = None
    crop: int = 128
    batch: int = 16
    device: str = "auto"
    encoder: str = ""

    def of(self, method: Method) -> Budget:
        """What a method gets of it."""
        return replace(
            self,
            steps=method.steps or self.steps,
            minutes=None if method.steps else self.minutes,
            encoder=self.encoder if method.recipe in _ENCODED else "",
        )


def setting_of(name: str, budget: Budget) -> Setting:
    """Of a data set, with the working scale that was asked for."""
    known = SETTINGS.get(name, Setting())
    return Setting(budget.scale or known.scale, known.labelled)


def trained_as(method: str) -> str:
    """The method whose pretraining this one reads."""
    return METHODS[method].like or method


def job_folder(out: Path, data: str, method: str) -> Path:
    """Folder of a pretraining: ``OUT/jobs/SET-METHOD``."""
    return out / "jobs" / f"{data}-{trained_as(method)}"


def pretraining_images(root: Path) -> list[str]:
    """Folders that a set is pretrained on: all images, with labels and without, as published."""
    return [str(root / folder) for folder in ("images", "unlabelled") if (root / folder).is_dir()]


def command(out: Path, root: Path, method: str, budget: Budget) -> str:
    """The command that pretrains a method, one line of a shell."""
    chosen = METHODS[trained_as(method)]
    budget = budget.of(chosen)
    words = ["mdm-studio", "pretrain", *pretraining_images(root), "--out", str(job_folder(out, root.name, method))]
    words += ["--recipe", chosen.recipe, *(f"--set {key}={value}" for key, value in chosen.settings.items())]
    words += ["--scales", str(setting_of(root.name, budget).scale), "--crop", str(budget.crop), "--batch", str(budget.batch)]
    words += ["--size", _size(chosen.recipe, budget)] if budget.size else []
    words += ["--encoder", budget.encoder] if budget.encoder else []
    words += ["--steps", str(budget.steps)] if budget.steps else []
    words += ["--minutes", f"{budget.minutes:g}"] if budget.minutes else []
    return " ".join(words if budget.steps or budget.minutes else [*words, "--steps N"])


def _size(recipe: str, budget: Budget) -> str:
    """The size that was asked for, where the recipe's network has it; else that network's usual one."""
    try:
        named_size(recipe, budget.size)
    except UsageError as error:
        print(f"{recipe}: {error}; its usual size is taken", file=sys.stderr)
        return ""
    return budget.size


def find_trained(out: Path, data: str, method: str, backbones: Path | None) -> Path | None:
    """Folder of the finished backbone of a method, or None: among `backbones`, or the result of its job."""
    name = f"{data}-{trained_as(method)}"
    for folder in ([backbones / name] if backbones else []) + [job_folder(out, data, method)]:
        try:
            return find_backbone(str(folder))
        except BackboneError:
            continue
    return None


def pretrain(out: Path, root: Path, method: str, budget: Budget) -> Path:
    """Pretrain a method, or go on with it; its backbone."""
    folder = JobFolder(job_folder(out, root.name, method))
    if not folder.exists():
        chosen = METHODS[trained_as(method)]
        budget = budget.of(chosen)
        if budget.steps is None and budget.minutes is None:
            raise SystemExit(
                f"{folder.root} has no pretraining yet; give a budget with --steps N or --minutes M, run it yourself:\n  "
                f"{command(out, root, method, budget)}\nor evaluate what is there with --no-pretrain"
            )
        config = recipe_config(
            chosen.recipe,
            crop=budget.crop,
            batch=budget.batch,
            scales=(setting_of(root.name, budget).scale,),
            device=budget.device,
        )
        job, _ = plan(
            find_images(pretraining_images(root)),
            name=folder.root.name,
            recipe=chosen.recipe,
            recipe_settings=dict(chosen.settings),
            size=_size(chosen.recipe, budget) if budget.size else "",
            encoder=budget.encoder,
            config=config,
            steps=budget.steps,
            minutes=budget.minutes,
        )
        folder.create(job.to_json() | {"created": time.time()})
    shown = -1
    for report in drive(folder):
        if (percent := int(100 * report.done)) // 5 != shown // 5:
            shown = percent
            print(f"{folder.root.name}: {percent} %, step {report.step}", file=sys.stderr, flush=True)
    return folder.backbone


def open_backbone(folder: Path | None, *, bf16: bool = False) -> Backbone:
    """A trained backbone, or the control with random weights."""
    if folder is not None:
        return load_backbone(folder, bf16=bf16)
    return untrained_backbone(named_size("mdm", ""))


def blocks_read(backbone: Backbone, method: str) -> tuple[int, ...]:
    """Blocks that a method's features are."""
    if METHODS[method].blocks:
        return METHODS[method].blocks
    if backbone.card.arch.get("kind", "unet") != "unet":
        return backbone.card.blocks
    return tuple(range(min(2, backbone.n_blocks - 1), backbone.n_blocks))


def describe(backbone: Backbone, method: str) -> str:
    """How a backbone came about, for the column of differences."""
    card: BackboneCard = backbone.card
    millions = sum(p.numel() for p in backbone.net.parameters()) / 1e6
    what = f"{card.arch.get('kind', 'unet')} of {millions:.1f} M parameters"
    facts = card.training
    if trained_as(method) == UNTRAINED:
        return f"{what}, not trained"
    if "crops_seen" not in facts:  # imported, or of an old version
        return f"{what}, {card.summary or 'pretraining unknown'}"
    config = facts["config"]
    recipe = ", ".join(f"{key}={card.recipe[key]}" for key in _TOLD if key in card.recipe)
    what += f", {card.recipe['name']}" + (f" ({recipe})" if recipe else "")
    scales = ", ".join(map(str, config["scales"]))
    return (
        f"{what}, {facts['steps']:,} steps of {config['batch']} crops of {config['crop']}² at scale {scales} "
        f"({facts['crops_seen']:,} crops, {facts['seconds'] / 60:.0f} min on {facts['device']}, {facts['precision']})"
    )
