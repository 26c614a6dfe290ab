"""How published checkpoints become backbones: read without running anything in them, converted once."""

from __future__ import annotations

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
from mdm_studio.config import user_data_dir
from mdm_studio.engine.backbones import FOLDER, assign_weights
from mdm_studio.engine.recipes import Recipe
from mdm_studio.errors import BackboneError, CheckpointError, UsageError
from mdm_studio.io.backbone_files import write_backbone
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
    """Turn a checkpoint of guided-diffusion, ddpm-segmentation or MDM into a backbone of the user's.

    Parameters
    ----------
    path : Path
        A ``.pt`` file, read with ``weights_only=True`` so that no code in it runs, or a ``.safetensors`` file.
    arch : str
        Size of a network of any kind that has one by this name: "mdm-192", "adm-256", ...; `options` overrides fields of its
        configuration.
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
    folder = user_data_dir() / FOLDER / name
    if folder.exists():
        raise BackboneError(
            f"there is already a backbone {name!r}; remove it first (mdm-studio backbones remove {name}) "
            "or choose another --name"
        )
    kind, network, config = _architecture(arch, options or {})
    tensors = _read_foreign(path)
    with torch.device("meta"):
        net = network(config)
    assign_weights(net, tensors, str(path))
    recipe = recipe or _usual_recipe(kind, config)
    learns = {"learn_sigma": True} if recipe == "ddpm" and config.out_channels == 2 * config.in_channels else {}
    made: Recipe = registry.load("recipes", recipe)(**learns)
    card = {
        "name": name,
        "arch": {"kind": kind, **dataclasses.asdict(config)},
        "recipe": {"name": recipe, **dataclasses.asdict(made)},
        "intensity": intensity,
        "blocks": list(blocks),
        "timesteps": list(timesteps or made.feature_timesteps),
        "tile": 256,  # the size these networks were trained at
        "halo": 32,
        "summary": f"imported from {path.name}",
    }
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


def _read_foreign(path: Path) -> dict[str, Tensor]:
    """State dict of a foreign checkpoint, without the wrappers that training scripts add."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch on pickle protocols: no use here
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
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict of tensors; save model.state_dict() and import that")
    return {str(name).removeprefix("module."): value for name, value in state.items()}
