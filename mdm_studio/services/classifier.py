"""A fitted classifier with its backbone, ready to predict tiles; loading and saving it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from mdm_studio.engine.backbones import Backbone, BackboneCard, assign_weights, find_by_digest, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings
from mdm_studio.engine.heads import from_arrays, state_arrays
from mdm_studio.errors import BackboneError, ClassifierError, MDMStudioError, UsageError
from mdm_studio.io.classifier_file import ClassifierFile, ClassifierInfo, EmbeddedBackbone, read_whole, write_classifier
from mdm_studio.io.json_files import check_value
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble


@dataclass(frozen=True)
class Classifier:
    """MLP ensemble, what it was fitted on, and the backbone it reads; `embedded` is that backbone as a file brings it along."""

    info: ClassifierInfo
    ensemble: PixelMLPEnsemble
    backbone: Backbone
    embedded: EmbeddedBackbone | None = None

    @property
    def settings(self) -> FeatureSettings:
        """The features it reads."""
        precision: Literal["fp32", "bf16"] = "bf16" if self.info.precision == "bf16" else "fp32"
        info = self.info
        return FeatureSettings(info.blocks, info.timesteps, info.tile, info.halo, precision, info.scales, info.filters)

    def save(self, path: Path) -> None:
        """Write ``FILE.mdm``."""
        write_classifier(path, self.info, state_arrays(self.ensemble), self.embedded)


def load_classifier(path: Path, *, backbone: str | None = None, device: str = "auto", digest: str = "") -> Classifier:
    """Read ``FILE.mdm`` and load the very backbone it was fitted with.

    Parameters
    ----------
    backbone : str, optional
        Name or folder to look in instead of the one the file names; the weights must be the same. A file that brings its own
        network takes none.
    device : str
        Where the backbone runs.
    digest : str
        The classifier that is wanted, see `mdm_studio.io.classifier_file.classifier_digest`; empty takes any.

    Raises
    ------
    ClassifierError
        If the file is damaged, is another one than wanted, or its backbone is not here.
    UsageError
        If a backbone is named for a file that brings its own.
    """
    file = read_whole(path)
    if digest and file.digest != digest:
        raise ClassifierError(
            f"{path} is another classifier than when this was begun: begin it again, or give all the same file"
        )
    info = file.info
    try:
        ensemble = from_arrays(file.tensors)
        _check_values(file)
    except (KeyError, ValueError, RuntimeError, ClassifierError) as error:
        raise ClassifierError(f"{path} holds no whole ensemble ({error}); fit it again") from error
    bf16 = info.precision == "bf16"
    if file.embedded is not None:
        if backbone is not None:
            raise UsageError(f"{path} brings its own network, which was fine-tuned; leave out the backbone {backbone}")
        network = _embedded(path, file.embedded, info.backbone_digest, pick_device(device), bf16=bf16)
    else:
        try:
            folder = find_by_digest(info.backbone_digest, backbone or info.backbone)
        except (BackboneError, OSError, ValueError) as error:  # a name may be too long for a path, or odd
            raise ClassifierError(f"{path} needs a backbone: {error}") from error
        network = load_backbone(folder, device=pick_device(device), bf16=bf16, noise=info.noise)
    if info.images is not None and info.images.intensity != network.card.intensity:  # the same weights, imported otherwise
        network.card = replace(network.card, intensity=info.images.intensity)
    classifier = Classifier(info, ensemble, network, file.embedded)
    _check_fits(path, classifier)
    return classifier


def _check_values(file: ClassifierFile) -> None:
    """Numbers that no training gives, and that would make wrong masks without a word."""
    if len(file.info.classes) != file.tensors["linear3.weight"].shape[1]:
        raise ValueError(f"{len(file.info.classes)} classes, and weights of {file.tensors['linear3.weight'].shape[1]}")
    for name in ("norm1.running_var", "norm2.running_var"):
        if (file.tensors[name] < 0).any():
            raise ValueError(f"{name} is negative")


def _check_fits(path: Path, classifier: Classifier) -> None:
    """The features that the file names exist, and are as many as the ensemble reads."""
    info, backbone = classifier.info, classifier.backbone
    try:
        if info.precision not in ("fp32", "bf16"):
            raise UsageError(f"precision {info.precision!r}: it is fp32 or bf16")
        FeatureSettings.of(
            backbone, blocks=info.blocks, timesteps=info.timesteps, scales=info.scales, filters=info.filters, tile=info.tile
        )
        width = sum(spec.channels for spec in classifier.settings.specs(backbone))
    except UsageError as error:
        raise ClassifierError(f"{path} reads what {backbone.card.name} does not give ({error}); fit it again") from error
    if width != classifier.ensemble.dims:
        raise ClassifierError(
            f"{path} reads {classifier.ensemble.dims} numbers a pixel and {backbone.card.name} gives {width}; fit it again"
        )


def _embedded(path: Path, embedded: EmbeddedBackbone, digest: str, device: torch.device, *, bf16: bool) -> Backbone:
    if embedded.digest != digest:
        raise ClassifierError(f"{path} brings another network than it was fitted with; fit it again")
    try:
        return unpacked(embedded, device, bf16=bf16)
    except (*_ODD, MDMStudioError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ClassifierError(f"{path} cannot be used: {reason}; fit it again") from error


_ODD = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError, MemoryError)
"""What networks and recipes raise whose configuration makes no sense."""
_MOST = 1 << 16  # no number of a network's configuration is larger
_LONGEST = 256  # nor a list in it longer
_SPARE = 8  # networks are built with parts that are replaced at once


def unpacked(embedded: EmbeddedBackbone, device: torch.device, *, bf16: bool) -> Backbone:
    """The backbone that a classifier brings along, ready to give features.

    Raises
    ------
    ValueError, TypeError, MDMStudioError
        Or others of `_ODD`, if its card or weights are not those of a network that this version knows.
    """
    card = check_value(dict(embedded.card), BackboneCard)
    _check_sizes(card.arch)
    with torch.device("meta"), _no_more_tensors(len(embedded.weights)):
        net = card.network_type()(card.network())
    assign_weights(net, {name: torch.tensor(value) for name, value in embedded.weights.items()}, f"the network of {card.name}")
    if not all(bool(torch.isfinite(value).all()) for value in net.state_dict().values()):
        raise ValueError(f"the network of {card.name} holds infinite weights or NaN")
    return Backbone(card, net.float(), device=device, bf16=bf16)


def _check_sizes(value: Any) -> None:
    """Of a network's configuration: nothing so large that it cannot be meant."""
    if isinstance(value, dict | list | tuple):
        if len(value) > _LONGEST:
            raise ValueError(f"its card has a list of {len(value)} entries, and {_LONGEST} at most are expected")
        for each in value.values() if isinstance(value, dict) else value:
            _check_sizes(each)
    elif isinstance(value, int | float) and not -_MOST <= value <= _MOST:
        raise ValueError(f"its card has the number {value:g}, and no more than {_MOST} is expected")


@contextmanager
def _no_more_tensors(count: int) -> Iterator[None]:
    """Give up building a network, in this thread, that has far more parameters than the file has tensors: it may never end."""
    made, here = 0, threading.get_ident()

    def see(module: Any, name: str, parameter: Any) -> None:
        nonlocal made
        if parameter is not None and threading.get_ident() == here:
            made += 1
            if made > _SPARE * count:
                raise ValueError(f"its card describes a larger network than the {count} tensors that are there")

    handle = register_module_parameter_registration_hook(see)
    try:
        yield
    finally:
        handle.remove()
