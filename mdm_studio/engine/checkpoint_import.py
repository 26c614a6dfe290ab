"""How published checkpoints become backbones: read without running anything in them, converted once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm_studio import registry
from mdm_studio.arrays import IntensityLaw
from mdm_studio.engine.backbones import assign_weights, free_folder
from mdm_studio.engine.card_checks import build_empty, check_fields, check_network
from mdm_studio.engine.foreign_files import read_foreign
from mdm_studio.engine.import_mae import adapt_mae
from mdm_studio.engine.recipes import Recipe
from mdm_studio.errors import BackboneError, UsageError
from mdm_studio.io.atomic import make_folder
from mdm_studio.io.backbone_files import write_backbone
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.nn.network import Network, NetworkConfig


def import_checkpoint(
    path: Path,
    *,
    name: str,
    arch: str,
    options: Mapping[str, Any] | None = None,
    recipe: str = "",
    intensity: IntensityLaw = "range",
    blocks: tuple[int, ...] = (),
    timesteps: tuple[int, ...] = (),
) -> Path:
    """Turn a checkpoint of guided-diffusion, ddpm-segmentation, MDM, MaskDM or MAE into a backbone of the user's.

    Parameters
    ----------
    path : Path
        A ``.pt`` file, read with ``weights_only=True`` so that no code in it runs, or a ``.safetensors`` file.
    arch : str
        Size of a network of any kind that has one by this name: "mdm-192", "adm-256", ...; `options` overrides fields of its
        configuration. Of a masked autoencoder, ``pixels`` says what it was trained on: "imagenet" (its mean and deviation, the
        default, as in the published training code) or "range".
    recipe : str
        What it was trained with; empty takes the one that goes with the network: DDPM for a UNet that predicts more channels
        than it reads, MDM for other UNets.
    timesteps : tuple of int
        Read by default; empty takes the recipe's.
    intensity : {"percentile", "range"}
        The published checkpoints were trained on ``x / 127.5 - 1``: ``range``.

    Returns
    -------
    Path
        The new backbone's folder.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds code, or does not match; the message lists the differing keys.
    """
    folder = free_folder(name)
    fields = dict(options or {})
    pixels = fields.pop("pixels", "")
    kind, network, config = _architecture(arch, fields)
    if pixels not in (("", "imagenet", "range") if kind == "mae" else ("",)):
        raise UsageError(f"pixels={pixels}: pixels are imagenet or range, and only those of a masked autoencoder need saying")
    tensors, note = read_foreign(path), ""
    if isinstance(config, MAEConfig):
        config, tensors, note = adapt_mae(config, tensors, fields, imagenet=pixels != "range")
    net = build_empty(network, config, str(path))
    assign_weights(net, tensors, str(path))
    recipe = recipe or _usual_recipe(kind, config)
    made: Recipe = registry.load("recipes", recipe)(**_known_settings(recipe, config)).for_network(config)
    card = {
        "name": name,
        "arch": {"kind": kind, **dataclasses.asdict(config)},
        "recipe": {"name": recipe, **dataclasses.asdict(made)},
        "intensity": intensity,
        "blocks": list(blocks),
        "timesteps": list(timesteps or made.feature_timesteps),
        "tile": 2 * config.window or 256,  # the size these networks were trained at
        "halo": 32,
        "summary": f"imported from {path.name}" + (f", {note}" if note else ""),
    }
    make_folder(folder.parent)
    write_backbone(
        folder, {k: v.contiguous() for k, v in tensors.items()}, card, f"# {name}\n\nImported from `{path.name}` as `{arch}`.\n"
    )
    return folder


def _architecture(arch: str, options: Mapping[str, Any]) -> tuple[str, type[Network], NetworkConfig]:
    """Kind, class and configuration of the network that has a size of this name."""
    known: list[str] = []
    for kind in registry.names("backbones"):
        network: type[Network] = registry.load("backbones", kind)
        known += network.sizes
        if arch in network.sizes:
            try:
                config = dataclasses.replace(network.sizes[arch], **options)
                check_fields(dataclasses.asdict(config), network.config_type, f"{arch} with these options")
                check_network(config, f"{arch} with these options")
            except (TypeError, ArithmeticError, ValueError) as error:
                raise UsageError(f"{error}: no option of {arch}") from error
            except BackboneError as error:
                raise UsageError(str(error)) from error
            return kind, network, config
    raise UsageError(f"{arch!r} is no architecture; --arch is one of {', '.join(known)}")


def _usual_recipe(kind: str, config: NetworkConfig) -> str:
    """Recipe of a network of which nothing else is known."""
    if kind == "unet":
        return "ddpm" if config.out_channels > config.in_channels else "mdm"
    fitting = (name for name in registry.names("recipes") if registry.load("recipes", name).network == kind)
    return next(fitting, "")


def _known_settings(recipe: str, config: NetworkConfig) -> dict[str, Any]:
    """What the network and its publication tell of the recipe's settings."""
    if recipe == "ddpm" and config.out_channels == 2 * config.in_channels:
        return {"learn_sigma": True}
    return {"ratio": 0.0} if recipe == "maskdm" else {}  # the published ones have gone through stage two: nothing hidden
