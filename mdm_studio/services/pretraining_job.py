"""What a pretraining job was asked to do: the content of its job.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from mdm_studio import registry
from mdm_studio.engine.card_checks import check_fields, check_network
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.engine.recipes import Recipe
from mdm_studio.errors import BackboneError, JobError, UsageError
from mdm_studio.io.json_files import check_value
from mdm_studio.nn.network import Network, NetworkConfig

_VERSION = 1
_COMMON = ("kind", "version", "created")  # what job.json of every kind has besides its own fields


_LARGEST = 1 << 16  # side of a crop, and number of crops
_Place = Annotated[str, Meta(max_length=10_000)]


class _Asked(TypedDict, total=False):
    """What job.json of a pretraining must look like besides what is common to all kinds."""

    images: Annotated[list[_Place], Meta(min_length=1)]
    channels: list[Annotated[int, Meta(ge=0, le=100_000)]] | None
    recipe: str
    recipe_settings: dict[str, Any]
    network: dict[str, Any]
    config: dict[str, Any]
    steps: Annotated[int, Meta(ge=1)] | None
    minutes: Annotated[float, Meta(ge=0, le=1e9)] | None
    checkpoint_every: Annotated[int, Meta(ge=1)]
    start_from: _Place | None
    encoder: _Place


@dataclass(frozen=True)
class Job:
    """What a pretraining job was asked to do, as it stands in job.json.

    Attributes
    ----------
    images : tuple of str
        Absolute paths of the images, in order.
    channels : tuple of int or None
        Channels read from each image; None reads them all.
    recipe, recipe_settings
        Name of the recipe and its fields.
    network : NetworkConfig
        Shape of the network, of the kind that the recipe trains.
    start_from : str or None
        Folder of the backbone whose weights the run begins with; None begins with random ones.
    steps, minutes
        The budget: whichever is reached first; at least one is given.
    checkpoint_every : int
        Steps between checkpoints: what a power cut can cost.
    publish : bool
        Put the finished backbone among the user's, so that it is in every list of backbones.
    encoder : str
        Of dep and ddep: the encoder whose weights the run begins with, a model of Hugging Face or a folder; empty is random.
    """

    images: tuple[str, ...]
    channels: tuple[int, ...] | None
    recipe: str
    recipe_settings: dict[str, Any]
    network: NetworkConfig
    config: PretrainConfig
    name: str
    steps: int | None = None
    minutes: float | None = None
    checkpoint_every: int = 200
    start_from: str | None = None
    publish: bool = False
    encoder: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values of the job."""
        return {"kind": "pretrain", "version": _VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """Rebuild a job from `to_json`.

        Raises
        ------
        JobError
            If it is of a newer version, or not a pretraining job at all.
        """
        if values.get("version", 1) > _VERSION:
            raise JobError(f"the job is of version {values['version']} and this program reads {_VERSION}; update MDM Studio")
        try:
            check_value(values, _Asked)
            if not values.get("steps") and not values.get("minutes"):
                raise ValueError("it has no budget")
            fields = {key: value for key, value in values.items() if key not in _COMMON}
            images, channels = tuple(fields.pop("images")), fields.pop("channels")
            kind, shape, numbers = network_type(fields["recipe"]).config_type, fields.pop("network"), fields.pop("config")
            check_fields(shape, kind, "its network")
            check_fields({"config": numbers}, dict[str, PretrainConfig], "its config", largest=2**63)  # seeds
            check_fields(fields["recipe_settings"], registry.load("recipes", fields["recipe"]), "its recipe")
            network = kind.from_json(shape)
            check_network(network, "it")
            config = PretrainConfig(**_tuples(numbers))
            if not all(1 <= number <= _LARGEST for number in (config.crop, config.batch, *config.scales)):
                raise ValueError(f"crop, batch and scales are 1 to {_LARGEST}")
            return cls(images, tuple(channels) if channels else None, network=network, config=config, **fields)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, BackboneError, UsageError) as error:
            raise JobError(f"job.json is not that of a pretraining ({error}); start a new job") from error


def network_type(recipe: str) -> type[Network]:
    """Class of the networks that a recipe trains.

    Raises
    ------
    UsageError
        If there is no such recipe.
    """
    made: type[Recipe] = registry.load("recipes", recipe)
    found: type[Network] = registry.load("backbones", made.network)
    return found


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
