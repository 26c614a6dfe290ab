"""The recipes of pretraining there are, in words: what each is, when to take it, its sizes and its settings.

Ours and those of other packages come by the same door, the registry; a recipe that is not ours is told by the first line of its
docstring.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mdm_studio import registry
from mdm_studio.errors import MDMStudioError
from mdm_studio.services.backbone_list import BackboneFacts

SettingKind = Literal["int", "float", "bool", "choice", "text"]
ENCODER_NETWORK = "denoiser"
"""Kind of network that is made over an encoder of others."""
RANDOM_ENCODER = "Without a trained encoder its decoder learns little: name one below, or take dep."
"""What to say where an encoder that stays as it is has random weights."""
STAGED = "maskdm"
"""The recipe whose second stage is trained on whole images."""
_ORDER = ("mdm", "ddpm", "maskdm", "mae", "ddep", "dep")
_WORDS = {
    "mdm": (
        "masked diffusion",
        "Hides patches, a few or nearly all, and learns to paint them in. The usual choice: good features for masks from few "
        "strokes.",
    ),
    "ddpm": (
        "denoising diffusion",
        "Learns to take noise away. To compare with the papers, to go on with their checkpoints, or to make new images "
        "afterwards.",
    ),
    "maskdm": (
        "masked denoising",
        "A transformer learns to take noise away from the few patches it is shown: quick steps on a GPU. A second stage on "
        "whole images makes it fit to draw new ones.",
    ),
    "mae": (
        "masked autoencoder",
        "A transformer paints in three quarters of the image from the rest. It wants thousands of images and long training.",
    ),
    "dep": (
        "denoising, whole network",
        "Begins with an encoder that others have trained, and trains all of it to take noise away. For networks that are then "
        "fine-tuned on labels.",
    ),
    "ddep": (
        "denoising, decoder alone",
        "Leaves an encoder of others as it is and trains a decoder over it: little to train. For networks that are then "
        "fine-tuned on labels.",
    ),
}
_SIZE_WORDS = {
    "tiny": "a laptop's processor",
    "small": "a laptop's processor",
    "lean": "half the channels of small, about twice as fast",
    "base": "a GPU, or a day",
    "large": "a large GPU",
    "mdm-192": "of the paper, a large GPU",
    "adm-256": "of the papers, a large GPU",
    "uvit-tiny-wavelet": "the same on wavelets",
    "maskdm-s": "of the paper, a GPU",
    "maskdm-b": "of the paper, a large GPU",
    "maskdm-l": "of the paper, a large GPU",
    "maskdm-l-wavelet": "the same on wavelets",
    "1x": "narrow decoder",
    "2x": "twice as wide",
    "3x": "three times as wide",
}
_TITLES = {"patch": "Side of squares", "fixed_t": "Only timestep"}  # a form calls crops patches
_CROP = 128  # as `mdm_studio.engine.pretrain.PretrainConfig` has it
_FIXED = frozenset({"t_max"})  # another number of timesteps is another diffusion: nothing to try out in a form


@dataclass(frozen=True)
class SettingFacts:
    """A setting of a recipe.

    Attributes
    ----------
    name : str
    kind : {"int", "float", "bool", "choice", "text"}
    default : object
    words : str
        What it is.
    choices : tuple of str
        Of a choice.
    """

    name: str
    kind: SettingKind
    default: Any
    words: str = ""
    choices: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For people."""
        return _TITLES.get(self.name) or self.name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class RecipeFacts:
    """What a user needs to know to choose a recipe.

    Attributes
    ----------
    name : str
    title, words : str
        What it is in a few words; and when to take it.
    network : str
        Kind of network that it trains.
    sizes : mapping of str to str
        Sizes of that network in words; the first is the usual one.
    settings : tuple of SettingFacts
    t_max : int
        Timesteps there are; 0 for none.
    crop : int
        Side of the crops that suit it.
    wants_encoder : bool
        Its network is made over an encoder of others.
    freezes_encoder : bool
        It leaves that encoder as it is: one with random weights is of little use.
    """

    name: str
    title: str = ""
    words: str = ""
    network: str = "unet"
    sizes: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[SettingFacts, ...] = ()
    t_max: int = 0
    crop: int = _CROP
    wants_encoder: bool = False
    freezes_encoder: bool = False

    @property
    def label(self) -> str:
        """For a list."""
        return f"{self.name}: {self.title}" if self.title else self.name

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `values` that are settings of this recipe, of the right kind, and not the defaults."""
        kinds: dict[SettingKind, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
        found = {}
        for setting in self.settings:
            value = values.get(setting.name, setting.default)
            right = value in setting.choices if setting.choices else type(value) in kinds.get(setting.kind, (str,))
            if right and value != setting.default:
                found[setting.name] = value
        return found


def list_recipes() -> tuple[RecipeFacts, ...]:
    """Facts about every recipe that is installed: ours first, then others by name; one that cannot be loaded is left out.

    Slow the first time, because it loads PyTorch: call it on a thread where somebody waits.
    """
    names = registry.names("recipes")
    ordered = [*(name for name in _ORDER if name in names), *(name for name in names if name not in _ORDER)]
    found = []
    for name in ordered:
        try:
            found.append(recipe_facts(name))
        except (MDMStudioError, ImportError, AttributeError):  # a package of others that is broken must not hide all recipes
            continue
    return tuple(found)


def recipe_facts(name: str) -> RecipeFacts:
    """Facts about a recipe.

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    recipe = registry.load("recipes", name)
    network = registry.load("backbones", recipe.network)
    title, words = _WORDS.get(name) or (_first_sentence(recipe), "")
    return RecipeFacts(
        name,
        title,
        words,
        recipe.network,
        {size: _size_words(size) for size in network.sizes},
        settings_of(recipe),
        recipe().t_max,
        int(recipe.defaults.get("crop", _CROP)),
        recipe.network == ENCODER_NETWORK,
        bool(getattr(recipe, "freezes_encoder", False)),
    )


def settings_of(recipe: type) -> tuple[SettingFacts, ...]:
    """The settings of a recipe that a form can show: numbers, texts, switches, and choices by `Literal`."""
    types = get_type_hints(recipe)
    words: dict[str, str] = {}
    for each in reversed(recipe.__mro__):  # a setting is explained where it was made
        words |= _words_of_attributes(inspect.cleandoc(each.__doc__ or ""))
    found = []
    for setting in dataclasses.fields(recipe):
        kind, choices = _kind(types[setting.name])
        if kind is not None and setting.name not in _FIXED and setting.default is not dataclasses.MISSING:
            found.append(SettingFacts(setting.name, kind, setting.default, words.get(setting.name, ""), choices))
    return tuple(found)


def _kind(hint: Any) -> tuple[SettingKind | None, tuple[str, ...]]:
    if get_origin(hint) is Literal and all(isinstance(each, str) for each in get_args(hint)):
        return "choice", get_args(hint)
    kinds: dict[Any, SettingKind] = {int: "int", float: "float", bool: "bool", str: "text"}
    return kinds.get(hint), ()


def _words_of_attributes(text: str) -> dict[str, str]:
    """What a docstring of NumPy's form says of each attribute, in one line."""
    found: dict[str, list[str]] = {}
    section = text.partition("Attributes\n----------\n")[2]
    names: list[str] = []
    for line in section.splitlines():
        head = re.fullmatch(r"(\w[\w, ]*?)\s*(?::.*)?", line)
        if re.fullmatch(r"-{3,}", line):  # the next section: its title was no attribute
            for name in names:
                found.pop(name, None)
            break
        if head:
            names = [name.strip() for name in head[1].split(",")]
            found |= {name: [] for name in names}
        for name in names if line.startswith(" ") else ():
            found[name].append(line.strip())
    return {name: re.sub(r"`+", "", " ".join(lines)) for name, lines in found.items()}


def _first_sentence(recipe: type) -> str:
    line = (inspect.getdoc(recipe) or "").partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:] if line[1:2].islower() else line


def _size_words(name: str) -> str:
    """A size and what it is for; ``mae-tiny`` is a ``tiny`` one."""
    words = _SIZE_WORDS.get(name) or _SIZE_WORDS.get(name.rpartition("-")[2])
    return f"{name}: {words}" if words else name


# ---- what a training may begin with ------------------------------------------------------------------------------------


def fitting_starts(backbones: Iterable[BackboneFacts], recipe: RecipeFacts, channels: int = 0) -> tuple[BackboneFacts, ...]:
    """Those whose weights a training by this recipe can begin with: networks of its kind that read so many channels.

    Parameters
    ----------
    channels : int
        Channels that the new network will read; 0 if that is not known yet.
    """
    return tuple(
        facts
        for facts in backbones
        if facts.problem is None
        and facts.kind == recipe.network
        and (not channels or not facts.in_channels or facts.in_channels == channels)
    )


def may_be_second_stage(recipe: RecipeFacts, start: BackboneFacts | None) -> bool:
    """Whether `start` is a first stage of MaskDM, trained on some of the patches: a second one on all of them may follow."""
    if recipe.name != STAGED or start is None or start.recipe.get("name") != STAGED:
        return False
    ratio = start.recipe.get("ratio", next((each.default for each in recipe.settings if each.name == "ratio"), 0))
    return bool(ratio)


def second_stage(start: BackboneFacts) -> dict[str, Any]:
    """Settings of the second stage: those of the first one, and nothing hidden."""
    return {name: value for name, value in start.recipe.items() if name not in ("name", "t_max")} | {"ratio": 0.0}
