"""The backbones there are, in words: for lists to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm_studio.errors import BackboneError, MDMStudioError
from mdm_studio.io.paths import real_path

if TYPE_CHECKING:
    from mdm_studio.nn.network import NetworkConfig

_KINDS = {
    "unet": "UNet",
    "uvit": "U-ViT",
    "mae": "ViT",
    "hub": "Hugging Face",
    "denoiser": "encoder and decoder",
}
_DAMAGE = (ImportError, TypeError, KeyError, ValueError, AttributeError)  # a card may hold anything
_FAMILY = "model_type"  # what `transformers` calls an architecture


@dataclass(frozen=True)
class BackboneFacts:
    """What a user needs to know to choose a backbone and its features.

    Attributes
    ----------
    name : str
        Its name.
    good_at : str
        What it was pretrained on, in a few words.
    blocks : tuple of (int, int)
        Channels and stride of each decoder block, from the deepest.
    default_blocks, default_timesteps, default_scales : tuple of int
        What it reads unless told otherwise.
    default_filters : bool
        Whether the classical filters are read by default.
    in_channels : int
        Channels of the images that it reads; 0 if that is not known.
    bundled : bool
        Whether it came with MDM Studio.
    kind : str
        Kind of network, a name of ``mdm_studio.backbones``.
    family : str
        Which network of that kind, where there are many: "resnet", "dinov2".
    recipe : mapping
        ``name`` and settings of the recipe it was pretrained with; the name is empty where there is none.
    t_max : int or None
        The latest timestep that features can be taken at; 0 where there are no timesteps, None where that is not known.
    crop : int
        The only size of crops that it can be trained on; 0 for any.
    problem : str or None
        Why it cannot be used.
    """

    name: str
    good_at: str = ""
    blocks: tuple[tuple[int, int], ...] = ()
    default_blocks: tuple[int, ...] = ()
    default_timesteps: tuple[int, ...] = ()
    default_scales: tuple[int, ...] = (1,)
    default_filters: bool = False
    in_channels: int = 0
    bundled: bool = False
    kind: str = ""
    family: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    t_max: int | None = None
    crop: int = 0
    problem: str | None = None

    @property
    def what(self) -> str:
        """Kind of network and recipe in a few words; what is wrong with it goes first."""
        if self.problem is not None:
            return "cannot be used"
        network = f"{_KINDS.get(self.kind, self.kind)} {self.family}".strip()
        return ", ".join(filter(None, (network, str(self.recipe.get("name", "")))))

    @property
    def summary(self) -> str:
        """What to expect of it, as a sentence; empty if nothing is known."""
        if self.problem is not None:
            return f"{self.problem[:1].upper()}{self.problem[1:]}."
        words = f"good at {self.good_at}" if self.bundled and self.good_at else self.good_at
        return f"{words[:1].upper()}{words[1:]}." if words else ""

    @property
    def label(self) -> str:
        """For a list: its name and what it is."""
        return f"{self.name} \N{EN DASH} {self.what}" if self.what else self.name

    @property
    def blocks_words(self) -> str:
        """How its blocks are numbered."""
        strides = [stride for _, stride in self.blocks]
        if self.kind == "unet" or not strides:
            return "Decoder blocks, from 0 (deepest). Deeper ones see more of the surroundings."
        if strides[0] > strides[-1]:
            return "Blocks, from 0 (coarsest). Coarser ones see more of the surroundings."
        if strides[0] < strides[-1]:
            return "Feature maps, from 0 (finest). Coarser ones see more of the surroundings."
        return "Blocks, from 0 (first). Later ones know more of what things are, earlier ones more of how they look."

    @property
    def noise(self) -> str | None:
        """Kind of noise that it sees when features are taken, see `mdm_studio.engine.backbones.with_noise`; None for none."""
        kind = self.recipe.get("noise")
        return kind if isinstance(kind, str) else None

    @property
    def has_timesteps(self) -> bool:
        """Whether there is a timestep to choose."""
        return self.t_max != 0


def list_backbones() -> tuple[BackboneFacts, ...]:
    """Facts about every backbone that has a name, sorted by it; one that cannot be read is listed with its problem.

    Slow the first time, because it loads PyTorch: call it on a thread where somebody waits.
    """
    from mdm_studio.engine.backbones import backbone_folders  # here: it loads PyTorch

    found = []
    for name, folder in sorted(backbone_folders().items()):
        try:
            found.append(backbone_facts(name, folder))
        except (MDMStudioError, OSError, *_DAMAGE) as error:
            found.append(BackboneFacts(name, problem=_problem(error)))
    return tuple(found)


def describe_all() -> list[dict[str, Any]]:
    """Facts about every backbone that has a name, for programs; ``problem`` says why one cannot be used."""
    from mdm_studio.config import resource_roots
    from mdm_studio.engine.backbones import backbone_folders, describe

    rows = []
    for name, folder in backbone_folders().items():
        try:
            rows.append(describe(folder))
        except (MDMStudioError, OSError, *_DAMAGE) as error:
            bundled = any(real_path(folder).is_relative_to(real_path(root)) for root in resource_roots())
            rows.append({"name": name, "folder": str(folder), "bundled": bundled, "problem": _problem(error)})
    return rows


def _problem(error: BaseException) -> str:
    return str(error) if isinstance(error, MDMStudioError | OSError) else f"its card is damaged ({error!r})"


def backbone_facts(name: str, folder: Path) -> BackboneFacts:
    """Facts about the backbone in a folder.

    Raises
    ------
    BackboneError
        If its card cannot be read, or its network or recipe is not installed.
    """
    from mdm_studio.engine.backbones import BackboneCard, describe, load_recipe

    facts = describe(folder)
    card = BackboneCard.read(folder)
    try:
        t_max = load_recipe(card.recipe).t_max
    except (TypeError, MDMStudioError) as error:
        raise BackboneError(f"the recipe of {name} cannot be used here ({error}); import or pretrain it again") from error
    return BackboneFacts(
        name,
        good_at=facts["summary"],
        blocks=tuple((block["channels"], block["stride"]) for block in facts["blocks"]),
        default_blocks=tuple(facts["default_blocks"]),
        default_timesteps=tuple(facts["default_timesteps"]),
        default_scales=tuple(facts["default_scales"]),
        default_filters=facts["default_filters"],
        in_channels=facts["in_channels"],
        bundled=facts["bundled"],
        kind=str(facts["kind"]),
        family=_family(card.arch),
        recipe=card.recipe,
        t_max=t_max,
        crop=_only_crop(card.network()),
    )


def _only_crop(network: NetworkConfig) -> int:
    """Side of the crops whose positions a network has learned; 0 if it has learned none."""
    side = int(getattr(network, "image_size", 0))
    return side if side and network.for_crop(2 * side) != network else 0


def _family(arch: Mapping[str, Any]) -> str:
    """Which network of others it is, where the card tells."""
    for each in (arch, *(value for value in arch.values() if isinstance(value, Mapping))):
        if isinstance(each.get(_FAMILY), str):
            return str(each[_FAMILY])
    return ""
