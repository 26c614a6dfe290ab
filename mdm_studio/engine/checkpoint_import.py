"""How published checkpoints become backbones: read without running anything in them, converted once."""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm_studio import registry
from mdm_studio.arrays import IntensityLaw
from mdm_studio.engine.backbones import assign_weights, free_folder
from mdm_studio.engine.import_mae import adapt_mae
from mdm_studio.engine.import_maskdm import averaged_weights, network_weights
from mdm_studio.engine.recipes import Recipe
from mdm_studio.errors import CheckpointError, UsageError
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
    tensors, note = _read_foreign(path), ""
    if isinstance(config, MAEConfig):
        config, tensors, note = adapt_mae(config, tensors, fields, imagenet=pixels != "range")
    with torch.device("meta"):
        net = network(config)
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
                return kind, network, dataclasses.replace(network.sizes[arch], **options)
            except TypeError as error:
                raise UsageError(f"{error}: no option of {arch}") from error
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


def _read_foreign(path: Path) -> dict[str, Tensor]:
    """State dict of a foreign checkpoint, without the wrappers that training scripts add."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            # torch warns of pickle protocols: no use here; training scripts put their options beside the weights
            harmless = torch.serialization.safe_globals([argparse.Namespace])
            with warnings.catch_warnings(action="ignore", category=UserWarning), harmless:
                state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors (pickled code), which is never run here; ask for a file with the state dict alone"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, struct.error) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint ({str(error).splitlines()[0]}); download it again"
        ) from error
    if isinstance(state, dict):
        state = averaged_weights(state)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors; save model.state_dict() and import that")
    return network_weights({str(name).removeprefix("module."): value for name, value in state.items()})
