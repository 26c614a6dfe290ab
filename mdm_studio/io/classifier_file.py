"""FILE.mdm: a fitted classifier in one file, a zip of ``classifier.json`` and ``ensemble.safetensors``.

A classifier whose whole network was fine-tuned brings that network along, as ``backbone.json`` and ``backbone.safetensors``.

Nothing in it runs, and it outlives the code: the JSON carries a version, and older versions are mended by named functions.
All of it is checked at the door (`mdm_studio.io.sealed_archive`, and the limits in the types below).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from safetensors.numpy import save

from mdm_studio.arrays import IntensityLaw
from mdm_studio.errors import ClassifierError
from mdm_studio.io.atomic import replacing
from mdm_studio.io.json_files import check_value
from mdm_studio.io.sealed_archive import SealedArchive, open_sealed

VERSION = 4  # 2: working scales, filters, smoothing; 3: heads of other kinds, and a backbone in the file; 4: `SeenImages`
_FACTS, _TENSORS = "classifier.json", "ensemble.safetensors"
_CARD, _WEIGHTS = "backbone.json", "backbone.safetensors"
_OF_ENSEMBLE = ("F32",)
_OF_BACKBONE = ("F16", "F32", "F64", "U8", "I8", "I16", "I32", "I64", "BOOL")
Arrays = Mapping[str, NDArray[Any]]

# The limits are far above what is used, and low enough for a file that says otherwise to do no harm
_Index = Annotated[int, Meta(ge=0, le=65535)]
_Indices = Annotated[tuple[_Index, ...], Meta(max_length=4096)]
_Text = Annotated[str, Meta(max_length=4096)]
_Pixels = Annotated[int, Meta(ge=0, le=4096)]


@dataclass(frozen=True)
class LabelClass:
    """One class: its value in label maps and masks, its name and its colour (``#rrggbb``)."""

    value: _Index
    name: _Text
    color: Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$")]


@dataclass(frozen=True)
class SeenImages:
    """What the labelled images were when a classifier was fitted; see `mdm_studio.services.image_kinds`.

    Attributes
    ----------
    channels : tuple of int
        How many were read of an image; several numbers if the images differed.
    rgb : bool
        Whether some of them were colour pictures.
    dtypes : tuple of str
        Types of their pixels, for example ("uint8",).
    intensity : str
        How raw values became what the backbone sees, see `mdm_studio.arrays.IntensityLaw`.
    pixel_um : (float, float) or None
        Smallest and largest height or width of a pixel, in micrometres; None if no image said so.
    """

    channels: Annotated[tuple[Annotated[int, Meta(ge=1, le=65535)], ...], Meta(min_length=1, max_length=64)]
    rgb: bool
    dtypes: Annotated[tuple[_Text, ...], Meta(max_length=64)]
    intensity: IntensityLaw
    pixel_um: tuple[Annotated[float, Meta(gt=0)], Annotated[float, Meta(gt=0)]] | None = None


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
    images : SeenImages or None
        What it was fitted on; None if an earlier version wrote it, which did not say.
    """

    classes: Annotated[tuple[LabelClass, ...], Meta(min_length=1, max_length=65536)]
    backbone: _Text
    backbone_digest: _Text
    blocks: _Indices
    timesteps: _Indices
    tile: Annotated[int, Meta(ge=1, le=4096)]
    halo: _Pixels
    precision: _Text
    scales: _Indices = (1,)
    filters: bool = False
    noise: _Text = ""
    smooth: _Pixels = 0
    channels: _Indices | None = None
    unlabelled: int | None = 0
    ensemble: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    head: _Text = "ensemble"
    embedded: bool = False
    images: SeenImages | None = None


@dataclass(frozen=True)
class EmbeddedBackbone:
    """A backbone in a classifier's file: its card as JSON values, and its weights as they are stored."""

    card: Mapping[str, Any]
    weights: Arrays

    @property
    def digest(self) -> str:
        """Hex digest of the weights."""
        return hashlib.blake2b(_packed(self.weights), digest_size=16).hexdigest()


@dataclass(frozen=True)
class ClassifierFile:
    """All that a FILE.mdm holds, read at one time: whoever replaces it meanwhile changes nothing."""

    info: ClassifierInfo
    tensors: Arrays
    embedded: EmbeddedBackbone | None = None

    @property
    def digest(self) -> str:
        """See `classifier_digest`."""
        return classifier_digest(self.info, self.tensors)


def classifier_digest(info: ClassifierInfo, tensors: Arrays) -> str:
    """Hex digest of everything about a classifier that its masks depend on: the same fit saved twice has one digest."""
    facts = asdict(info)
    for name in ("training", "ensemble", "backbone", "head", "embedded", "images"):  # how it was made, and a name
        del facts[name]
    if info.images is not None:  # which images it refuses
        facts["images"] = [info.images.channels, info.images.rgb]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {value.shape} {value.dtype.str}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def write_classifier(path: Path, info: ClassifierInfo, tensors: Arrays, backbone: EmbeddedBackbone | None = None) -> None:
    """Write a classifier, whole or not at all; of an embedded one with its backbone.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    facts = json.dumps({"version": VERSION, **asdict(info)}, indent=2)
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_FACTS, facts)
        archive.writestr(_TENSORS, _packed(tensors))
        if backbone is not None:
            archive.writestr(_CARD, json.dumps(backbone.card, indent=2))
            archive.writestr(_WEIGHTS, _packed(backbone.weights))


def _packed(tensors: Arrays) -> bytes:
    return save({name: np.asarray(value, order="C") for name, value in tensors.items()})  # a number stays one


def read_classifier(path: Path) -> tuple[ClassifierInfo, dict[str, NDArray[Any]]]:
    """Read a classifier without the backbone that it may bring along.

    Raises
    ------
    ClassifierError
        If the file is missing, damaged, no classifier, or of a newer version.
    """
    found = _read(path, whole=False)
    return found.info, dict(found.tensors)


def read_whole(path: Path) -> ClassifierFile:
    """Read a classifier with all that it brings along; raises as `read_classifier` does."""
    return _read(path, whole=True)


def read_embedded(path: Path) -> EmbeddedBackbone:
    """The backbone in the file of a classifier that brings its own.

    Raises
    ------
    ClassifierError
        If there is none, or it is damaged.
    """
    found = read_whole(path).embedded
    if found is None:
        raise ClassifierError(f"{path} brings no network along; fit it again with --head finetune")
    return found


def _read(path: Path, *, whole: bool) -> ClassifierFile:
    again = "fit it again"
    try:
        with open_sealed(path) as archive:
            facts = archive.json(_FACTS, dict[str, Any])
            version = check_value(facts.pop("version", 0), int)
            if version > VERSION:
                again = "update MDM Studio"
                raise ValueError(f"it has version {version} and this program reads up to {VERSION}")
            others = sorted(set(archive.names) - {_FACTS, _TENSORS, _CARD, _WEIGHTS})
            if others:
                raise ValueError(f"it holds {others[0][:60]!a}, which is no part of a classifier")
            info = _info(version, facts)
            embedded = _embedded(archive) if whole and info.embedded else None
            return ClassifierFile(info, archive.tensors(_TENSORS, _OF_ENSEMBLE), embedded)
    except FileNotFoundError as error:
        raise ClassifierError(
            f"there is no classifier {path}; make one with: mdm-studio fit IMAGES LABELS --out {path}"
        ) from error
    except (OSError, ValueError) as error:
        raise ClassifierError(f"{path} is damaged or no classifier of MDM Studio ({error}); {again}") from error


def _embedded(archive: SealedArchive) -> EmbeddedBackbone:
    if not {_CARD, _WEIGHTS} <= set(archive.names):
        raise ValueError("it lacks the network that it brings along")
    return EmbeddedBackbone(archive.json(_CARD, dict[str, Any]), archive.tensors(_WEIGHTS, _OF_BACKBONE))


def _info(version: int, facts: dict[str, Any]) -> ClassifierInfo:
    """The facts of a file of some version, mended and checked; a ValueError if they do not fit."""
    if version < 2:
        facts |= _before_scales()
    if version < 3:
        facts |= _before_heads()
    if version < 4:
        facts |= _before_seen_images()
    if facts.get("channels") == []:
        facts["channels"] = None  # as versions up to 3 took it
    info = check_value(facts, ClassifierInfo)
    _check(info)
    return info


def _check(info: ClassifierInfo) -> None:
    """What a type cannot say."""
    values = [each.value for each in info.classes]
    if len(set(values)) < len(values):
        raise ValueError("two of its classes have the same value")
    for name in ("blocks", "timesteps", "scales"):
        numbers: tuple[int, ...] = getattr(info, name)
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"its {name} name one twice")
    if not info.timesteps or not info.scales or not (info.blocks or info.filters):
        raise ValueError("it reads no features")
    check_value(info.training.get("pixels_per_class", {}), dict[Annotated[str, Meta(pattern="^[0-9]{1,5}$")], int])
    for text in (info.backbone, info.backbone_digest, info.noise, info.head, *(each.name for each in info.classes)):
        text.encode()  # a lone surrogate could be neither written nor printed
        if "\0" in text:
            raise ValueError("it has a name with a zero byte in it")


def _before_seen_images() -> dict[str, Any]:
    """Up to version 3 nothing was said of the images that a classifier was fitted on."""
    return {"images": None}


def _before_heads() -> dict[str, Any]:
    """Up to version 2 every classifier was an ensemble over a backbone elsewhere."""
    return {"head": "ensemble", "embedded": False}


def _before_scales() -> dict[str, Any]:
    """What version 1 did without saying so: the image at its own scale, no filters, masks as they were voted."""
    return {"scales": [1], "filters": False, "smooth": 0}
