"""A backbone on disk: a folder with ``backbone.json``, ``weights.safetensors`` and a model card ``README.md``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta

from mdm_studio.errors import BackboneError, CheckpointError
from mdm_studio.io.atomic import replacing, write_json, write_text
from mdm_studio.io.checkpoints import TensorFacts, read_checkpoint, read_header, write_checkpoint
from mdm_studio.io.json_files import check_value, read_json

FORMAT = 1
CARD, WEIGHTS, README = "backbone.json", "weights.safetensors", "README.md"
_LARGEST_CARD = 16 << 20  # bytes; a card names the digests of its images

_Numbers = Annotated[list[Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(max_length=4096)]


class CardFile(TypedDict, total=False):
    """What backbone.json must look like, see `mdm_studio.engine.backbones.BackboneCard`; each network checks its own `arch`."""

    format: Annotated[int, Meta(ge=0)]
    name: Required[Annotated[str, Meta(max_length=1000)]]
    digest: Required[Annotated[str, Meta(max_length=1000)]]
    arch: Required[dict[str, Any]]
    recipe: Required[dict[str, Any]]
    intensity: Literal["percentile", "range"]
    blocks: _Numbers
    timesteps: _Numbers
    scales: Annotated[list[Annotated[int, Meta(ge=1, le=64)]], Meta(min_length=1, max_length=16)]
    filters: bool
    tile: Annotated[int, Meta(ge=16, le=65536)]
    halo: Annotated[int, Meta(ge=0, le=16384)]
    training: dict[str, Any]
    summary: Annotated[str, Meta(max_length=100_000)]


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
        card = read_json(path, dict[str, Any], max_bytes=_LARGEST_CARD)
        form = card.get("format", 0)
        if isinstance(form, int) and form > FORMAT:  # before its entries are judged: they may mean something else by then
            raise BackboneError(f"{path} has format {form} and this version reads up to {FORMAT}; update MDM Studio")
        check_value(card, CardFile)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BackboneError(
            f"{folder} is no backbone folder (no {CARD}); `mdm-studio backbones list` shows what is there"
        ) from error
    except OSError as error:
        raise BackboneError(f"{path} cannot be read ({error.strerror}); check that you may read it") from error
    except ValueError as error:
        raise BackboneError(f"{path} is damaged ({error}); import or pretrain the backbone again") from error
    return card


def weights_digest(folder: Path) -> str:
    """Digest of a backbone's weights, see `file_digest`.

    Raises
    ------
    CheckpointError
        If they cannot be read.
    """
    try:
        if not (folder / WEIGHTS).is_file():  # a named pipe would be waited for for ever
            raise CheckpointError(f"{folder} has no {WEIGHTS}; import or pretrain the backbone again")
        return file_digest(folder / WEIGHTS)
    except OSError as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read ({error.strerror}); check that you may read it") from error


def read_weight_facts(folder: Path) -> dict[str, TensorFacts]:
    """Kind and shape of each tensor of a backbone folder, without its numbers."""
    return read_header(folder / WEIGHTS)


def read_weights(folder: Path) -> dict[str, Any]:
    """The tensors of a backbone folder (torch, on the CPU)."""
    tensors, _ = read_checkpoint(folder / WEIGHTS)
    return tensors
