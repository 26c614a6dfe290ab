"""What a pretraining is to do, settled before it begins: images, recipe, network and budget that fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mdm_studio import registry
from mdm_studio.engine.backbones import BackboneCard, find_backbone
from mdm_studio.engine.crops import PlaneInfo, survey
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.engine.recipes import Recipe
from mdm_studio.errors import InputError, UsageError
from mdm_studio.io.paths import real_path
from mdm_studio.nn.network import NetworkConfig
from mdm_studio.services.pretraining_job import Job, network_type

_ENCODED = "denoiser"  # kind of network that is made over an encoder of somebody else's


def plan(
    paths: Sequence[Path],
    *,
    name: str,
    recipe: str = "mdm",
    recipe_settings: dict[str, Any] | None = None,
    size: str = "",
    encoder: str = "",
    config: PretrainConfig,
    channels: tuple[int, ...] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    checkpoint_every: int = 200,
    start_from: str | None = None,
    publish: bool = False,
) -> tuple[Job, list[str]]:
    """Look at the images and settle what the job will do; also one line for each image that cannot be read.

    `recipe_settings`, `size` and `encoder` are those of `make_recipe`, `named_size` and `Job`; what is not given is as usual.

    Raises
    ------
    UsageError
        If no budget is given, or a setting does not fit the network.
    InputError
        If no image can be read, or their channels differ.
    """
    if steps is None and minutes is None:
        raise UsageError("how long should it train? Give --steps N or --minutes M")
    planes, unreadable = survey(paths, channels, config.intensity)
    in_channels = _common_channels(planes)
    made = make_recipe(recipe, recipe_settings or {})
    if encoder and Path(encoder).is_dir():
        encoder = str(real_path(encoder))  # the job may run elsewhere
    network = _network(made, recipe, size, recipe_settings or {}, in_channels, encoder)
    network = network.for_crop(config.crop)
    if made.network == _ENCODED and config.batch < 2:
        raise UsageError(f"--batch {config.batch}: the batch norms of this network need two crops at least")
    if made.cosine and steps and not config.decay_steps:
        config = dataclasses.replace(config, decay_steps=steps)
    begin = None if start_from is None else real_path(find_backbone(start_from))
    if begin is not None:
        network = _network_of(begin, network)
        if made.network == _ENCODED:
            network = dataclasses.replace(network, **{"frozen_encoder": made.freezes_encoder})
        if network.for_crop(config.crop) != network:
            raise UsageError(
                f"the backbone to start from has positions for crops of {getattr(network, 'image_size', 0)} pixels alone, "
                f"not for {config.crop}; leave --crop as it was then"
            )
    made = made.for_network(network)
    if config.crop % network.total_stride or config.crop % getattr(made, "patch", 1):
        raise UsageError(f"--crop {config.crop} must be a multiple of {network.total_stride} and of the patch size")
    readable = tuple(dict.fromkeys(str(real_path(info.path)) for info in planes))
    job = Job(
        readable, channels, recipe, dataclasses.asdict(made), network, config, name, steps, minutes, checkpoint_every,
        None if begin is None else str(begin), publish, encoder,
    )  # fmt: skip
    return job, unreadable


def caution(job: Job) -> str:
    """What speaks against a job that can be run all the same, in a sentence; empty where nothing does."""
    if getattr(job.network, "frozen_encoder", False) and not job.encoder and job.start_from is None:
        from mdm_studio.engine.hub_import import RANDOM_ENCODER

        return RANDOM_ENCODER
    return ""


def _common_channels(planes: Sequence[PlaneInfo]) -> int:
    """Channels of the network: grey images are repeated to three channels beside colour ones; anything else must agree."""
    counts = {info.shape[0] for info in planes}
    in_channels = 3 if counts <= {1, 2, 3} else max(counts)
    if len(counts - {1}) > 1 and in_channels > 3:
        raise InputError(f"the images have {sorted(counts)} channels; choose the same for all with --channels")
    return in_channels


def _network(
    made: Recipe, recipe: str, size: str, settings: Mapping[str, Any], in_channels: int, encoder: str
) -> NetworkConfig:
    """The network of a size, with the channels of the images and what the recipe's settings say of it."""
    sized = named_size(recipe, size)
    if made.network == _ENCODED:
        from mdm_studio.engine.hub_import import denoiser_network  # here: it needs the library of the encoders

        width = size or next(iter(network_type(recipe).sizes))
        network, _ = denoiser_network(encoder, width, frozen=made.freezes_encoder, in_channels=in_channels)
        return network
    if encoder:
        raise UsageError(f"--encoder goes with the recipes dep and ddep; {recipe} trains a network without one")
    shared = {key: value for key, value in settings.items() if key in {each.name for each in dataclasses.fields(sized)}}
    return dataclasses.replace(sized, in_channels=in_channels, out_channels=made.out_channels(in_channels), **shared)


def make_recipe(name: str, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with these settings, the others as usual.

    Raises
    ------
    UsageError
        If there is no such recipe or setting, or a value is none it takes; the message names those there are.
    """
    kind: type[Recipe] = registry.load("recipes", name)
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"the recipe {name} has no setting {key!r}; it has {', '.join(known)}")
        choices = get_args(known[key]) if get_origin(known[key]) is Literal else ()
        right = value in choices if choices else isinstance(value, (int, float) if known[key] is float else known[key])
        if not right:
            wanted = f"one of {', '.join(choices)}" if choices else known[key].__name__
            raise UsageError(f"the setting {key} of the recipe {name} is {wanted}, not {value!r}")
    return kind(**settings)


def recipe_config(recipe: str, **given: Any) -> PretrainConfig:
    """Numbers of a run: those given, else those that the recipe wants, else the usual ones.

    Raises
    ------
    UsageError
        If there is no such recipe.
    """
    kind: type[Recipe] = registry.load("recipes", recipe)
    return PretrainConfig(**(dict(kind.defaults) | given))


def named_size(recipe: str, size: str) -> NetworkConfig:
    """Network of a size that has a name; an empty one is the recipe's usual size.

    Raises
    ------
    UsageError
        If the recipe's network has no such size; the message names those there are.
    """
    sizes = network_type(recipe).sizes
    try:
        return sizes[size or next(iter(sizes))]
    except KeyError as error:
        raise UsageError(
            f"--size {size!r} is not known to the recipe {recipe}; choose one of {', '.join(sizes)}"
        ) from error


def _network_of(folder: Path, wanted: NetworkConfig) -> NetworkConfig:
    """Shape of the network to start from; it must be of the same kind, and read and predict the channels of the new one."""
    card = BackboneCard.read(folder)
    found = card.network()
    if type(found) is not type(wanted):
        raise UsageError(
            f"{card.name} is a network of another kind ({card.arch.get('kind')}) than this recipe trains; "
            "start from another backbone or from nothing"
        )
    if (found.in_channels, found.out_channels) != (wanted.in_channels, wanted.out_channels):
        raise UsageError(
            f"the backbone to start from reads {found.in_channels} channels and predicts {found.out_channels}; these images "
            f"and this recipe need {wanted.in_channels} and {wanted.out_channels}: give other --channels or start from nothing"
        )
    return found
