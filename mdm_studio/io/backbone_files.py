"""A backbone on disk: a folder with ``backbone.json``, ``weights.safetensors`` and a model card ``README.md``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm_studio.errors import BackboneError
from mdm_studio.io.atomic import replacing, write_json, write_text
from mdm_studio.io.checkpoints import read_checkpoint, write_checkpoint

FORMAT = 1
CARD, WEIGHTS, README = "backbone.json", "weights.safetensors", "README.md"


def file_digest(path: Path) -> str:
    """Hex digest (blake2b, 128 bits) of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_backbone(folder: Path, tensors: Mapping[str, Any], card: Mapping[str, Any], readme: str) -> None:
    """Write a backbone folder, whole or not at all; its digest is added to the card.

    Parameters
    ----------
    tensors : mapping of name to torch tensor
        The network's state dict.
    card : mapping
        JSON values; see `mdm_studio.engine.backbones.BackboneCard`.
    readme : str
        Model card in Markdown.
    """
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        write_checkpoint(unfinished / WEIGHTS, tensors, {})
        write_json(unfinished / CARD, {"format": FORMAT, **card, "digest": file_digest(unfinished / WEIGHTS)})
        write_text(unfinished / README, readme)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a backbone folder.

    Raises
    ------
    BackboneError
        If there is none, or it is damaged or of a newer format.
    """
    path = folder / CARD
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise BackboneError(
            f"{folder} is no backbone folder (no {CARD}); `mdm-studio backbones list` shows what is there"
        ) from error
    except ValueError as error:
        raise BackboneError(f"{path} is damaged ({error}); import or pretrain the backbone again") from error
    if card.get("format", 0) > FORMAT:
        raise BackboneError(f"{path} has format {card['format']} and this version reads up to {FORMAT}; update MDM Studio")
    return card


def read_weights(folder: Path) -> dict[str, Any]:
    """The tensors of a backbone folder (torch, on the CPU)."""
    tensors, _ = read_checkpoint(folder / WEIGHTS)
    return tensors
