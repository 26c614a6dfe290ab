"""Backbones of others, added from a form: a model of Hugging Face, a folder with one, a published checkpoint, a backbone.

What stands at a place is told from its name and its files alone. Adding it is done by a process of its own: a download can be
stopped at any moment, and the libraries that read it do not stay in the window's memory.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mdm_studio.config import user_data_dir
from mdm_studio.errors import BackboneError, CheckpointError, MDMStudioError, UsageError
from mdm_studio.io.backbone_files import CARD
from mdm_studio.io.paths import real_path, user_path
from mdm_studio.io.plain_names import check_plain_name
from mdm_studio.services.asking import ask_process, read_answer

SourceKind = Literal["hub", "model", "checkpoint", "backbone"]
LICENCE = "The weights have a licence of their own, which their authors chose: read it before you share masks made with them."
"""What everybody should know who takes a network of others."""
_COMMAND = (sys.executable, "-m", "mdm_studio.services.backbone_adding")
_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
_MODEL = "config.json"  # what `save_pretrained` writes
_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_NOT_OURS = ("hub", "denoiser", "finetuned")  # kinds of networks that no published checkpoint is of
_WORDS: dict[SourceKind, str] = {
    "hub": "A model of Hugging Face: it is fetched now, which needs a network and some hundred megabytes.",
    "model": "A model in a folder: its encoder becomes a backbone, nothing of it is trained.",
    "checkpoint": "A checkpoint: its tensors are read, and code in it is never run.",
    "backbone": "A backbone of MDM Studio: it is copied among yours.",
}


@dataclass(frozen=True)
class Found:
    """What stands at a place.

    Attributes
    ----------
    kind : {"hub", "model", "checkpoint", "backbone"} or ""
        Empty if it can be nothing that is added.
    words : str
        What will be done, or what is missing.
    name : str
        A name for the new backbone that is still free.
    """

    kind: SourceKind | Literal[""]
    words: str
    name: str = ""


@dataclass(frozen=True)
class Addition:
    """What to add; `network` is the size of a checkpoint's network, empty to find out."""

    source: str
    name: str
    network: str = ""


def look_at(source: str) -> Found:
    """What stands at `source`: a name on Hugging Face, a folder, a file. Quick: nothing is fetched, no weights are read."""
    text = source.strip()
    place = user_path(text)
    if not text:
        return Found("", "Type the name of a model (facebook/dinov2-small), or choose a folder or a file.")
    if place.is_file():
        if place.suffix.lower() in _SUFFIXES:
            return _found("checkpoint", place.stem)
        return Found("", f"{place.name} is no checkpoint: those end in {', '.join(_SUFFIXES)}.")
    if place.is_dir():
        card = _card_folder(place)
        if card is not None:
            return _found("backbone", (card.parent if card.name == "backbone" else card).name)
        if (place / _MODEL).is_file():
            return _found("model", real_path(place).name)
        return Found("", f"{place} holds neither a model ({_MODEL}) nor a backbone ({CARD}); choose the folder that does.")
    if _MODEL_ID.fullmatch(text) and not text.lower().endswith(_SUFFIXES):
        return _found("hub", text.rpartition("/")[2])
    return Found("", f"There is nothing at {text}, and it is no name of a model.")


def checkpoint_networks() -> tuple[str, ...]:
    """Sizes of networks that a published checkpoint may be of. Slow the first time, because it loads PyTorch."""
    from mdm_studio import registry

    found: list[str] = []
    for kind in registry.names("backbones"):
        if kind not in _NOT_OURS:
            try:
                found += registry.load("backbones", kind).sizes
            except (ImportError, AttributeError):  # a package of others that is broken must not hide all others
                continue
    return tuple(found)


def add_backbone(addition: Addition, stop: Callable[[], bool] = lambda: False) -> str | None:
    """Add a backbone, in a process of its own.

    Returns
    -------
    str or None
        Its name; None if `stop` returned True before the end.

    Raises
    ------
    BackboneError
        If it cannot be added, with the reason.
    """
    done = ask_process(_COMMAND, asdict(addition), stop)
    if done is None:
        return None
    try:
        values = read_answer(done)
    except ValueError as error:
        raise BackboneError(f"it could not be added ({error}); is there enough memory and room on the disk?") from error
    if "error" in values:
        raise BackboneError(str(values["error"]))
    return str(values["name"])


def add_here(addition: Addition) -> str:
    """Add a backbone, in this process; see `add_backbone`.

    Raises
    ------
    MDMStudioError
        If it cannot be added, with the reason.
    """
    name, found = addition.name.strip(), look_at(addition.source)
    if not name or _clean(name) != name:
        raise UsageError(f"{name!r} is no name for a backbone; take letters, digits, dots, hyphens and underscores")
    check_plain_name(name, "backbone")
    if name in _names():
        raise BackboneError(f"there is a backbone {name!r} already; choose another name")
    source = addition.source.strip()
    place = user_path(source)
    if found.kind == "checkpoint":
        return _add_checkpoint(place, name, addition.network).name
    if found.kind == "backbone":
        from mdm_studio.engine.backbones import load_backbone
        from mdm_studio.services.pretraining_result import publish

        folder = _card_folder(place) or place
        load_backbone(folder)  # whole, and known here
        return publish(folder, name).name
    if found.kind:
        from mdm_studio.engine.hub_import import import_hub_model

        return import_hub_model(source if found.kind == "hub" else str(place), name=name).name
    raise BackboneError(found.words)


def _add_checkpoint(path: Path, name: str, network: str) -> Path:
    """Import a checkpoint; without the name of its network as the first one that it fits."""
    from mdm_studio.engine.checkpoint_import import import_checkpoint

    if network:
        return import_checkpoint(path, name=name, arch=network)
    networks = checkpoint_networks()
    for each in networks:
        try:
            return import_checkpoint(path, name=name, arch=each)
        except CheckpointError as error:
            if "does not fit" not in str(error):  # it cannot be read at all
                raise
    raise CheckpointError(
        f"{path.name} fits none of the networks {', '.join(networks)}; the command line can say more about it: "
        "mdm-studio backbones import --help"
    )


def _found(kind: SourceKind, stem: str) -> Found:
    free = stem = _clean(stem) or "backbone"
    number, taken = 1, _names()
    while free in taken:
        number += 1
        free = f"{stem}-{number}"
    return Found(kind, _WORDS[kind], free)


def _names() -> set[str]:
    """Names that are taken. PyTorch is not loaded for it."""
    from mdm_studio.config import resource_roots

    roots = (user_data_dir(), *resource_roots())
    return {card.parent.name for root in roots for card in (root / "backbones").glob(f"*/{CARD}")}


def _card_folder(place: Path) -> Path | None:
    """The backbone in a folder: its own, or that of a job."""
    return next((folder for folder in (place, place / "backbone") if (folder / CARD).is_file()), None)


def _clean(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def main() -> None:
    """Add what stands in the standard input as JSON; the answer is a line of JSON in the standard output."""
    answer: dict[str, Any]
    try:
        answer = {"name": add_here(Addition(**json.load(sys.stdin)))}
    except (MDMStudioError, OSError) as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "there is not enough memory to read it"}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
