"""How models of Hugging Face become backbones, and encoders of networks that denoise.

Everything is read from a folder of ``save_pretrained``; a model's id is first fetched into the library's own cache. No code
of a model is run and no pickle is read: safetensors files alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mdm_studio.arrays import IntensityLaw
from mdm_studio.engine.backbones import BackboneCard, find_backbone, free_folder
from mdm_studio.errors import BackboneError, CheckpointError, UsageError
from mdm_studio.io.atomic import make_folder
from mdm_studio.io.backbone_files import read_weights, write_backbone
from mdm_studio.io.json_files import read_json
from mdm_studio.nn.denoiser import Denoiser, DenoiserConfig
from mdm_studio.nn.hub import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig, HubConfig, build_model, probed, transformers_module

_FILES = ("config.json", "preprocessor_config.json", "README.md", "model*.safetensors", "model.safetensors.index.json")
_TILE, _BLOCK = 512, 64  # as for our own networks; a live session wants multiples of its blocks of strokes

RANDOM_ENCODER = (
    "the encoder has random weights and stays as it is: its features say little, and a decoder over them learns little. "
    "Name a trained one with --encoder, or train it too with --recipe dep"
)
"""What to say when a decoder is trained over a frozen encoder that nobody has trained."""


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes
    ----------
    source : str
        Its id, or the folder it was read from.
    revision : str
        The commit that was fetched; empty for a folder.
    licence : str
        As its model card says; empty where it does not.
    """

    source: str
    revision: str = ""
    licence: str = ""


def import_hub_model(
    source: str,
    *,
    name: str,
    revision: str = "",
    blocks: tuple[int, ...] = (),
    intensity: IntensityLaw = "percentile",
) -> Path:
    """Turn a model of Hugging Face into a backbone of the user's.

    Parameters
    ----------
    source : str
        Its id, for example ``facebook/dinov2-small``, or a folder of ``save_pretrained`` (or of ``hf download``).
    revision : str
        Branch, tag or commit; the newest when empty.
    blocks : tuple of int
        Maps read by default; those worth reading when empty, see `mdm_studio.nn.hub.EncoderConfig.telling_maps`.
    intensity : {"percentile", "range"}
        These encoders have seen photographs that fill the range of 8 bits. ``percentile`` makes images of microscopes look so,
        12 bits in 16 too, and leaves photographs nearly as they are.

    Returns
    -------
    Path
        The new backbone's folder.

    Raises
    ------
    BackboneError
        If there is a backbone of that name already, the model cannot be fetched, or is no encoder that gives maps.
    """
    folder = free_folder(name)
    config, weights, origin = read_encoder(source, revision)
    wrong = [block for block in blocks if not 0 <= block < config.n_blocks]
    if wrong:
        raise UsageError(f"blocks {wrong}: {source} has maps 0 (shallowest) to {config.n_blocks - 1}: {', '.join(config.maps)}")
    family = config.model["model_type"]
    whole = math.lcm(config.total_stride, _BLOCK)
    card = {
        "name": name,
        "arch": {"kind": "hub", **asdict(config)},
        "recipe": {"name": ""},
        "intensity": intensity,
        "blocks": list(blocks or config.default_blocks),
        "timesteps": [0],
        "tile": max(round(_TILE / whole), 1) * whole,
        "halo": config.halo,
        "summary": f"{origin.source if origin.revision else Path(source).name}: a {family} of others, frozen, for any image",
        "training": {"source": origin.source, "revision": origin.revision, "licence": origin.licence},
    }
    make_folder(folder.parent)
    write_backbone(folder, weights, card, _readme(name, family, origin))
    return folder


def read_encoder(source: str, revision: str = "") -> tuple[HubConfig, dict[str, Tensor], Origin]:
    """Configuration, weights (named as in `mdm_studio.nn.hub.HubEncoder`) and origin of a model.

    Raises
    ------
    BackboneError
        If it cannot be fetched, is no ``AutoBackbone``, or holds pickles alone.
    """
    folder, commit = (Path(source), "") if Path(source).is_dir() else _fetch(source, revision)
    if not (folder / "config.json").is_file():
        raise BackboneError(
            f"{folder} holds no model (no config.json); give a folder of save_pretrained or of `hf download`, or a model's id"
        )
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{source} has no safetensors file, and pickled weights (.bin) are never read here because they may hold code; "
            "look for a revision with safetensors (--revision refs/pr/N) or another model"
        )
    with _quiet():
        model, config = _load(folder, source)
        config = probed(model.float(), config)
    weights = {f"encoder.model.{key}": value.detach().clone() for key, value in model.state_dict().items()}
    return config, weights, Origin(source, commit, _licence(folder))


def denoiser_network(
    encoder: str, width: str, *, frozen: bool, in_channels: int = 3, revision: str = ""
) -> tuple[DenoiserConfig, dict[str, Tensor]]:
    """Shape of a network that denoises, and the weights of its encoder.

    Parameters
    ----------
    encoder : str
        Id of a model, folder of one, or a backbone made from one; empty for the encoder of the size, with random weights.
    width : str
        A name of `Denoiser.sizes`: how wide the decoder is.
    frozen : bool
        The encoder is not trained.

    Returns
    -------
    config : DenoiserConfig
        With it a network can be built again without the encoder's source.
    weights : dict of str to Tensor
        A part of the network's state dict; empty without `encoder`.

    Raises
    ------
    BackboneError
        If the encoder cannot be had.
    UsageError
        If there is no such width, or a number of channels that the encoder cannot take.
    """
    if width not in Denoiser.sizes:
        raise UsageError(f"--size {width!r} is not known; choose one of {', '.join(Denoiser.sizes)}")
    size = Denoiser.sizes[width]
    weights: dict[str, Tensor] = {}
    if encoder:
        hub, weights = _encoder_of(encoder, revision)
        facts = {name: getattr(hub, name) for name in EncoderConfig.__dataclass_fields__}
        size = replace(size, **facts)
    if in_channels not in (1, len(size.mean)):
        raise UsageError(
            f"images of {in_channels} channels and an encoder that reads {len(size.mean)}: choose 1 or {len(size.mean)} of "
            "them with --channels"
        )
    return replace(size, in_channels=in_channels, out_channels=in_channels, frozen_encoder=frozen), weights


def _encoder_of(source: str, revision: str) -> tuple[HubConfig, dict[str, Tensor]]:
    """An encoder that is a backbone already, or one that is still to be fetched."""
    try:
        folder = find_backbone(source)
    except BackboneError:
        hub, weights, _ = read_encoder(source, revision)
        return hub, weights
    card = BackboneCard.read(folder)
    config = card.network()
    if not isinstance(config, HubConfig):
        raise BackboneError(
            f"the backbone {source!r} is of kind {card.arch.get('kind', 'unet')!r} and cannot be an encoder; name a model of "
            "Hugging Face, or a backbone imported with --arch transformers"
        )
    return config, read_weights(folder)


# ---- fetching and reading ------------------------------------------------------------------------------------------------


def _fetch(source: str, revision: str) -> tuple[Path, str]:
    """Fetch a model into the library's cache: its folder there and its commit."""
    transformers_module()  # say that it is missing before anything is fetched
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    elsewhere = f"where there is a network, run `hf download {source} --local-dir FOLDER`, and give FOLDER instead"
    try:
        folder = Path(snapshot_download(source, revision=revision or None, allow_patterns=list(_FILES)))
    except HFValidationError as error:
        raise BackboneError(
            f"{source!r} is no folder here and no id of a model, which looks like facebook/dinov2-small"
        ) from error
    except GatedRepoError as error:
        raise BackboneError(
            f"{source} is only for those who accepted its terms: do so on its page, then `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"revision {revision!r} of {source}" if isinstance(error, RevisionNotFoundError) else f"model {source!r}"
        raise BackboneError(f"Hugging Face has no {what}, or it is not for everybody; check the name") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise BackboneError(f"{source} is not on this machine and Hugging Face cannot be reached; {elsewhere}") from error
    except (HfHubHTTPError, OSError) as error:
        raise BackboneError(f"{source} could not be fetched ({_short(error)}); try again, or {elsewhere}") from error
    return folder, folder.name


def _load(folder: Path, source: str) -> tuple[nn.Module, HubConfig]:
    """The model with its weights, and what its files say of it."""
    library = transformers_module()
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (StrictDataclassError, ValueError, OSError, KeyError) as error:
        raise BackboneError(
            f"transformers {library.__version__} cannot read {source} ({_short(error)}); "
            "update transformers, or choose another model"
        ) from error
    if type(config) not in library.MODEL_FOR_BACKBONE_MAPPING:
        known = sorted({each.model_type for each in library.MODEL_FOR_BACKBONE_MAPPING} - {"timm_backbone"})
        raise BackboneError(
            f"{source} is a {config.model_type!r}, which transformers {library.__version__} does not offer as a backbone; "
            f"choose a model of one of these families: {', '.join(known)}"
        )
    values = _with_all_maps(config)
    channels = int(values.get("num_channels", 3))
    mean, std = _normalisation(folder, channels)
    found = HubConfig(in_channels=channels, model=values, maps=tuple(config.out_features), mean=mean, std=std)
    kind = library.MODEL_FOR_BACKBONE_MAPPING[type(config)]
    try:
        model, report = kind.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the weights of {source} cannot be read ({_short(error)}); download it again, or choose another model"
        ) from error
    # norms that a backbone puts behind its maps stand in no checkpoint of a classifier; they begin as the identity
    missing = sorted(key for key in report["missing_keys"] if "norm" not in key)
    if missing:
        raise CheckpointError(
            f"the weights of {source} lack {len(missing)} of those that its encoder wants ({', '.join(missing[:3])} ...); "
            "they would be random: choose another model"
        )
    return model.eval(), found


def _with_all_maps(config: Any) -> dict[str, Any]:
    """Ask a configuration of the library for every map it has; its values, as JSON has them."""
    names = list(config.stage_names)
    for maps in (names, names[1:]):  # some do not give their stem
        config.out_features = maps
        values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
        for key in ("id2label", "label2id", "architectures", "dtype", "_name_or_path"):  # of classifiers, of files
            values.pop(key, None)
        try:
            with torch.device("meta"):
                build_model(values)
        except BackboneError:
            if maps is not names:
                raise
        else:
            break
    return values


def _normalisation(folder: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the encoder's images were normalised with; those of ImageNet where nothing is said."""
    values: dict[str, Any] = {}
    try:
        values = read_json(folder / "preprocessor_config.json", dict[str, Any])
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise BackboneError(f"{folder / 'preprocessor_config.json'} is damaged ({error}); download the model again") from error
    if not values.get("do_normalize", True):
        return (0.0,) * channels, (1.0,) * channels
    mean, std = values.get("image_mean") or IMAGENET_MEAN, values.get("image_std") or IMAGENET_STD
    if len(mean) != channels or len(std) != channels:
        return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return tuple(map(float, mean)), tuple(map(float, std))


def _licence(folder: Path) -> str:
    """Licence that a model's card names; empty where there is none."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(folder / "README.md").data
    except (OSError, ValueError):  # no card, or one that is no card
        return ""
    return str(getattr(data, "license_name", None) or data.license or "")


def _readme(name: str, family: str, origin: Origin) -> str:
    at = f" at revision `{origin.revision}`" if origin.revision else ""
    licence = f"its model card says `{origin.licence}`" if origin.licence else "its model card names none: ask its authors"
    return (
        f"# {name}\n\nThe encoder of `{origin.source}`{at}, a `{family}` of the transformers library, frozen: its feature maps "
        f"are the blocks.\n\nLicence of the weights: {licence}.\n"
    )


def _short(error: BaseException) -> str:
    """A message of a library on one line."""
    return " ".join(str(error).split())[:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's reports of weights that a backbone does not need, and its bars of milliseconds."""
    logging: Any = transformers_module().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
