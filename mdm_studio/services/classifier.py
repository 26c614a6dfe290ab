"""A fitted classifier with its backbone, ready to predict tiles; loading and saving it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mdm_studio.engine.backbones import Backbone, BackboneCard, assign_weights, find_by_digest, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings
from mdm_studio.engine.heads import from_arrays, state_arrays
from mdm_studio.errors import BackboneError, ClassifierError, MDMStudioError, UsageError
from mdm_studio.io.classifier_file import ClassifierInfo, EmbeddedBackbone, read_classifier, read_embedded, write_classifier
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


def load_classifier(path: Path, *, backbone: str | None = None, device: str = "auto") -> Classifier:
    """Read ``FILE.mdm`` and load the very backbone it was fitted with.

    Parameters
    ----------
    backbone : str, optional
        Name or folder to look in instead of the one the file names; the weights must be the same. A file that brings its own
        network takes none.
    device : str
        Where the backbone runs.

    Raises
    ------
    ClassifierError
        If the file is damaged, or its backbone is not here.
    UsageError
        If a backbone is named for a file that brings its own.
    """
    info, tensors = read_classifier(path)
    try:
        ensemble = from_arrays(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ClassifierError(f"{path} holds no whole ensemble ({error}); fit it again") from error
    if info.embedded:
        if backbone is not None:
            raise UsageError(f"{path} brings its own network, which was fine-tuned; leave out the backbone {backbone}")
        return Classifier(info, ensemble, *_embedded(path, pick_device(device), bf16=info.precision == "bf16"))
    try:
        folder = find_by_digest(info.backbone_digest, backbone or info.backbone)
    except BackboneError as error:
        raise ClassifierError(f"{path} needs a backbone: {error}") from error
    network = load_backbone(folder, device=pick_device(device), bf16=info.precision == "bf16", noise=info.noise)
    return Classifier(info, ensemble, network)


def _embedded(path: Path, device: torch.device, *, bf16: bool) -> tuple[Backbone, EmbeddedBackbone]:
    embedded = read_embedded(path)
    try:
        return unpacked(embedded, device, bf16=bf16), embedded
    except (TypeError, MDMStudioError) as error:
        raise ClassifierError(f"{path} cannot be used: {error}") from error


def unpacked(embedded: EmbeddedBackbone, device: torch.device, *, bf16: bool) -> Backbone:
    """The backbone that a classifier brings along, ready to give features.

    Raises
    ------
    TypeError, MDMStudioError
        If its card or weights are not those of a network that this version knows.
    """
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in embedded.card.items()}
    card = BackboneCard(**values)
    with torch.device("meta"):
        net = card.network_type()(card.network())
    assign_weights(net, {name: torch.tensor(value) for name, value in embedded.weights.items()}, f"the network of {card.name}")
    return Backbone(card, net.float(), device=device, bf16=bf16)
