"""FILE.mdm: a fitted classifier in one file, a zip of ``classifier.json`` and ``ensemble.safetensors``.

A classifier whose whole network was fine-tuned brings that network along, as ``backbone.json`` and ``backbone.safetensors``.

Nothing in it runs, and it outlives the code: the JSON carries a version, and older versions are mended by named functions.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mdm_studio.errors import ClassifierError
from mdm_studio.io.atomic import replacing

VERSION = 3  # 2: working scales, filters, smoothing; 3: heads of other kinds, and a backbone in the file
_FACTS, _TENSORS = "classifier.json", "ensemble.safetensors"
_CARD, _WEIGHTS = "backbone.json", "backbone.safetensors"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LabelClass:
    """One class: its value in label maps and masks, its name and its colour (``#rrggbb``)."""

    value: int
    name: str
    color: str


@dataclass(frozen=True)
class ClassifierInfo:
    """Everything about a classifier but its weights.

    Attributes
    ----------
    classes : tuple of LabelClass
        In the order of the ensemble's outputs.
    backbone, backbone_digest : str
        Name and digest of the backbone whose features it reads.
    blocks, timesteps, tile, halo, precision, scales, filters
        The features it reads, see `mdm_studio.engine.features.FeatureSettings`.
    noise : str
        Kind of noise that the backbone sees; empty is what its card says.
    smooth : int
        Radius in pixels of the guided filter on predicted probabilities; 0 for none.
    channels : tuple of int or None
        Channels read from each image; None reads them all.
    unlabelled : int or None
        Value that meant "no label"; None if every pixel was labelled.
    ensemble : dict
        Settings the ensemble was trained with.
    training : dict
        Facts about the training: images, labelled pixels, seconds.
    head : str
        How it was fitted, a name of ``mdm_studio.heads``.
    embedded : bool
        Its backbone is in the file, see `read_embedded`; `backbone` then names the one that was fine-tuned.
    """

    classes: tuple[LabelClass, ...]
    backbone: str
    backbone_digest: str
    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    tile: int
    halo: int
    precision: str
    scales: tuple[int, ...] = (1,)
    filters: bool = False
    noise: str = ""
    smooth: int = 0
    channels: tuple[int, ...] | None = None
    unlabelled: int | None = 0
    ensemble: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    head: str = "ensemble"
    embedded: bool = False


@dataclass(frozen=True)
class EmbeddedBackbone:
    """A backbone in a classifier's file: its card as JSON values, and its weights as they are stored."""

    card: Mapping[str, Any]
    weights: Arrays

    @property
    def digest(self) -> str:
        """Hex digest of the weights."""
        return hashlib.blake2b(_packed(self.weights), digest_size=16).hexdigest()


def write_classifier(path: Path, info: ClassifierInfo, tensors: Arrays, backbone: EmbeddedBackbone | None = None) -> None:
    """Write a classifier, whole or not at all; of an embedded one with its backbone.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    facts = json.dumps({"version": VERSION, **asdict(info)}, indent=2)
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        archive.writestr(_FACTS, facts)
        archive.writestr(_TENSORS, _packed(tensors))
        if backbone is not None:
            archive.writestr(_CARD, json.dumps(backbone.card, indent=2))
            archive.writestr(_WEIGHTS, _packed(backbone.weights))


def _packed(tensors: Arrays) -> bytes:
    return save({name: np.asarray(value, order="C") for name, value in tensors.items()})  # a number stays one


def read_classifier(path: Path) -> tuple[ClassifierInfo, dict[str, NDArray[Any]]]:
    """Read a classifier.

    Raises
    ------
    ClassifierError
        If the file is missing, damaged, no classifier, or of a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(_FACTS))
            tensors = load(archive.read(_TENSORS))
    except FileNotFoundError as error:
        raise ClassifierError(
            f"there is no classifier {path}; make one with: mdm-studio fit IMAGES LABELS --out {path}"
        ) from error
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, SafetensorError) as error:
        raise ClassifierError(f"{path} is damaged or no classifier of MDM Studio ({error}); fit it again") from error
    version = facts.pop("version", 0)
    if version > VERSION:
        raise ClassifierError(f"{path} has version {version} and this program reads up to {VERSION}; update MDM Studio")
    try:
        classes = tuple(LabelClass(**each) for each in facts.pop("classes"))
        channels = facts.pop("channels")
        if version < 2:
            facts |= _before_scales()
        if version < 3:
            facts |= _before_heads()
        facts |= {key: tuple(facts[key]) for key in ("blocks", "timesteps", "scales")}
        info = ClassifierInfo(classes, channels=tuple(channels) if channels else None, **facts)
    except (TypeError, KeyError) as error:
        raise ClassifierError(f"{path} is no classifier of this version ({error}); fit it again") from error
    return info, tensors


def read_embedded(path: Path) -> EmbeddedBackbone:
    """The backbone in the file of a classifier that brings its own.

    Raises
    ------
    ClassifierError
        If there is none, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return EmbeddedBackbone(json.loads(archive.read(_CARD)), load(archive.read(_WEIGHTS)))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, SafetensorError) as error:
        raise ClassifierError(f"{path} lacks the network it brings along, or it is damaged ({error}); fit it again") from error


def _before_heads() -> dict[str, Any]:
    """Up to version 2 every classifier was an ensemble over a backbone elsewhere."""
    return {"head": "ensemble", "embedded": False}


def _before_scales() -> dict[str, Any]:
    """What version 1 did without saying so: the image at its own scale, no filters, masks as they were voted."""
    return {"scales": [1], "filters": False, "smooth": 0}
