"""A fitted classifier with its backbone, ready to predict tiles; loading and saving it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mdm_studio.engine.backbones import Backbone, find_by_digest, load_backbone
from mdm_studio.engine.devices import pick_device
from mdm_studio.engine.features import FeatureSettings
from mdm_studio.engine.heads import from_arrays, state_arrays
from mdm_studio.errors import BackboneError, ClassifierError
from mdm_studio.io.classifier_file import ClassifierInfo, read_classifier, write_classifier
from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble


@dataclass(frozen=True)
class Classifier:
    """MLP ensemble, what it was fitted on, and the backbone it reads."""

    info: ClassifierInfo
    ensemble: PixelMLPEnsemble
    backbone: Backbone

    @property
    def settings(self) -> FeatureSettings:
        """The features it reads."""
        precision: Literal["fp32", "bf16"] = "bf16" if self.info.precision == "bf16" else "fp32"
        info = self.info
        return FeatureSettings(info.blocks, info.timesteps, info.tile, info.halo, precision, info.scales, info.filters)

    def save(self, path: Path) -> None:
        """Write ``FILE.mdm``."""
        write_classifier(path, self.info, state_arrays(self.ensemble))


def load_classifier(path: Path, *, backbone: str | None = None, device: str = "auto") -> Classifier:
    """Read ``FILE.mdm`` and load the very backbone it was fitted with.

    Parameters
    ----------
    backbone : str, optional
        Name or folder to look in instead of the one the file names; the weights must be the same.
    device : str
        Where the backbone runs.

    Raises
    ------
    ClassifierError
        If the file is damaged, or its backbone is not here.
    """
    info, tensors = read_classifier(path)
    try:
        folder = find_by_digest(info.backbone_digest, backbone or info.backbone)
    except BackboneError as error:
        raise ClassifierError(f"{path} needs a backbone: {error}") from error
    network = load_backbone(folder, device=pick_device(device), bf16=info.precision == "bf16")
    try:
        ensemble = from_arrays(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ClassifierError(f"{path} holds no whole ensemble ({error}); fit it again") from error
    return Classifier(info, ensemble, network)
