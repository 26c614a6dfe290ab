"""Backbones: frozen networks that give features, and where they are kept."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdm_studio import registry
from mdm_studio.arrays import IntensityLaw
from mdm_studio.config import resource_roots, user_data_dir
from mdm_studio.engine.card_checks import build_empty, check_fields, check_network
from mdm_studio.engine.recipes import Place, Recipe
from mdm_studio.errors import BackboneError, CheckpointError, UsageError
from mdm_studio.io.atomic import output_error
from mdm_studio.io.backbone_files import CARD, WEIGHTS, read_card, read_weight_facts, read_weights, weights_digest
from mdm_studio.io.paths import real_path
from mdm_studio.io.plain_names import check_plain_name, problem_of
from mdm_studio.nn.layers import NormStatistics
from mdm_studio.nn.network import Network, NetworkConfig

NOISES = ("fixed", "per-timestep", "fresh")
"""Kinds of noise that a denoiser may see when features are taken."""
FOLDER = "backbones"
"""Folder of backbones, in the resources and in the user's data."""
_ADVICE = "choose the --arch and options it was trained with"


@dataclass(frozen=True)
class BackboneCard:
    """What is known about a backbone without loading its weights.

    Attributes
    ----------
    arch : dict
        ``kind`` (a name of ``mdm_studio.backbones``) and the fields of the network's configuration.
    recipe : dict
        ``name`` and settings of the recipe it was pretrained with; decides what it sees when features are taken. An empty name
        stands for none: a network of somebody else's, which sees the image.
    blocks, timesteps, scales : tuple of int
        Read by default; `scales` are working scales, see `mdm_studio.engine.features.Scale`.
    filters : bool
        Read the classical filter bank beside the blocks by default.
    tile, halo : int
        Core and halo of an extraction tile in pixels.
    """

    name: str
    digest: str
    arch: dict[str, Any]
    recipe: dict[str, Any]
    intensity: IntensityLaw = "percentile"
    blocks: tuple[int, ...] = ()
    timesteps: tuple[int, ...] = (50,)
    scales: tuple[int, ...] = (1,)
    filters: bool = False
    tile: int = 512
    halo: int = 64
    training: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    format: int = 1

    @classmethod
    def read(cls, folder: Path) -> BackboneCard:
        """Card of a backbone folder; an entry that this version does not know is an error, a missing one its default."""
        values = read_card(folder)
        try:
            values |= {key: tuple(values[key]) for key in ("blocks", "timesteps", "scales") if key in values}
            card = cls(**values)
        except TypeError as error:
            raise BackboneError(
                f"{folder / CARD} is not a card of this version ({error}); import or pretrain the backbone again"
            ) from error
        network = card.network()
        try:
            load_recipe(card.recipe)
        except (TypeError, UsageError) as error:
            raise BackboneError(
                f"the recipe of {card.name} cannot be used here ({error}); import or pretrain it again"
            ) from error
        beyond = [block for block in card.blocks if block >= network.n_blocks]
        if beyond:
            raise BackboneError(
                f"{folder / CARD} names block {beyond[0]} of a network with {network.n_blocks}; "
                "import or pretrain the backbone again"
            )
        return card if card.blocks else dataclasses.replace(card, blocks=network.default_blocks)

    def network(self) -> NetworkConfig:
        """Configuration of the network.

        Raises
        ------
        BackboneError
            If it is of a kind that is not installed, or has fields that this version does not know.
        """
        fields = {name: value for name, value in self.arch.items() if name != "kind"}
        kind = self.network_type().config_type
        check_fields(fields, kind, f"the network in the card of {self.name}")
        try:
            config: NetworkConfig = kind.from_json(fields)
        except (TypeError, ArithmeticError, ValueError, UsageError) as error:
            raise BackboneError(
                f"the card of {self.name} describes another network than this version knows ({error}); "
                "import or pretrain the backbone again"
            ) from error
        check_network(config, f"the card of {self.name}")
        return config

    def network_type(self) -> type[Network]:
        """Class of the network.

        Raises
        ------
        BackboneError
            If it is of a kind that is not installed.
        """
        kind = self.arch.get("kind", "unet")
        if not isinstance(kind, str):
            raise BackboneError(f"the card of {self.name} names no kind of network; import or pretrain the backbone again")
        try:
            found: type[Network] = registry.load("backbones", kind)
        except UsageError as error:
            raise BackboneError(f"{self.name} cannot be used here: {error}") from error
        return found


def load_recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe that a card names, with its settings.

    Raises
    ------
    BackboneError
        If its settings make no sense.
    UsageError
        If there is none of its name.
    """
    settings = {name: value for name, value in values.items() if name != "name"}
    name = values.get("name", "")
    if not isinstance(name, str):
        raise BackboneError("a recipe has no name; import or pretrain the backbone again")
    kind: type[Recipe] = registry.load("recipes", name) if name else Recipe
    check_fields(settings, kind, f"the recipe {name!r}")
    return kind(**settings)


class Backbone:
    """A frozen network that gives the features of images.

    Parameters
    ----------
    card : BackboneCard
        Its card.
    net : Network
        Its network, with weights.
    device : torch.device
        Where it runs.
    bf16 : bool
        Run convolutions in bfloat16: several times faster on hardware made for it; features differ by 1 to 2 %.
    """

    def __init__(self, card: BackboneCard, net: Network, *, device: torch.device | None = None, bf16: bool = False) -> None:
        self.card = card
        self.device = device or torch.device("cpu")
        self.bf16 = bf16
        self.net = net.eval().requires_grad_(False)
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if bf16 and net.own_bf16:  # once, not at every call; all but convolutions stays float32, as in guided-diffusion
            for module in net.modules():
                if isinstance(module, nn.Conv1d | nn.Conv2d):
                    module.to(torch.bfloat16)
        self.recipe = load_recipe(card.recipe)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.net.config.in_channels

    @property
    def total_stride(self) -> int:
        """Sizes of inputs are multiples of it."""
        return self.net.config.total_stride

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        return self.net.config.n_blocks

    def block_shape(self, block: int) -> tuple[int, int]:
        """Channels and stride of a block's maps."""
        return self.net.config.block_shape(block)

    @torch.inference_mode()
    def features(
        self,
        x: Tensor,
        timestep: int,
        blocks: Collection[int],
        statistics: NormStatistics | None = None,
        places: Sequence[Place] = (),
    ) -> dict[int, Tensor]:
        """Maps of `blocks` for images ``(B, C, H, W)`` in [-1, 1]: ``{block: (B, C_b, H/s, W/s)}``, float32 or bfloat16.

        `places` say where the B windows lie in their images, for recipes that add noise.
        """
        x = x.to(self.device, memory_format=torch.channels_last)
        x = self.recipe.feature_input(x, timestep, places or [Place()] * len(x))
        t = torch.full((len(x),), timestep, device=self.device)
        if self.net.own_bf16:
            return self.net.features(x.to(torch.bfloat16 if self.bf16 else torch.float32), t, blocks, statistics=statistics)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.net.features(x, t, blocks, statistics=statistics)

    @torch.inference_mode()
    def predict(self, seen: Tensor, timesteps: Tensor, hidden: Tensor | None = None) -> Tensor:
        """What the network answers, as in pretraining, float32; a network that leaves nothing out is not asked to."""
        x = seen.to(self.device, memory_format=torch.channels_last)
        t, more = timesteps.to(self.device), {} if hidden is None else {"hidden": hidden.to(self.device)}
        if self.net.own_bf16:
            answer: Tensor = self.net(x.to(torch.bfloat16 if self.bf16 else torch.float32), t, **more)
        else:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                answer = self.net(x, t, **more)
        return answer.float()


def backbone_folders() -> dict[str, Path]:
    """Folder of every backbone that has a name: the user's first, then the bundled ones."""
    found: dict[str, Path] = {}
    for root in (user_data_dir(), *resource_roots()):
        for card in sorted((root / FOLDER).glob(f"*/{CARD}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def find_backbone(name: str) -> Path:
    """Folder of a backbone given by name, by its own folder, or by the folder of the job that made it.

    Raises
    ------
    BackboneError
        If there is none; the message lists the names there are.
    """
    folders = backbone_folders()
    if name in folders:
        return folders[name]
    for folder in (Path(name), Path(name) / "backbone"):
        if (folder / CARD).is_file():
            return folder
    raise BackboneError(
        f"there is no backbone {name!r}; give a folder or one of: {', '.join(sorted(folders)) or '(none installed)'}"
    )


def free_folder(name: str) -> Path:
    """Folder of a backbone of the user's that is still to be made.

    Raises
    ------
    BackboneError
        If there is one of that name.
    UsageError
        If it is no name of a folder.
    """
    check_plain_name(name, "backbone")
    folder = user_data_dir() / FOLDER / name
    if folder.exists():
        raise BackboneError(
            f"there is already a backbone {name!r}; remove it first (mdm-studio backbones remove {name}) "
            "or choose another --name"
        )
    return folder


def find_by_digest(digest: str, hint: str) -> Path:
    """Folder of the backbone with these very weights; `hint` is the name or folder to try first.

    Raises
    ------
    BackboneError
        If none of the backbones here has them.
    """
    candidates = list(backbone_folders().values())
    try:
        candidates.insert(0, find_backbone(hint))
    except BackboneError:
        pass
    for folder in candidates:
        try:
            found = read_card(folder)["digest"]
        except BackboneError:  # a damaged one is not it
            continue
        if found == digest:
            return folder
    raise BackboneError(
        f"the backbone {hint!r} with digest {digest} is not here; import it (mdm-studio backbones import) "
        "or name its folder with --backbone"
    )


def with_noise(card: BackboneCard, noise: str) -> BackboneCard:
    """The card of a denoiser that sees another kind of noise when features are taken, see `mdm_studio.engine.recipes.ddpm`.

    Raises
    ------
    UsageError
        If its recipe has no such choice, or knows other kinds.
    """
    if "noise" not in card.recipe:
        raise UsageError(f"{card.name} has no choice of noise; leave out {noise!r}")
    if noise not in NOISES:
        raise UsageError(f"{noise!r} is no kind of noise; choose one of {', '.join(NOISES)}")
    return dataclasses.replace(card, recipe=card.recipe | {"noise": noise})


def load_backbone(folder: Path, *, device: torch.device | None = None, bf16: bool = False, noise: str = "") -> Backbone:
    """Load a backbone folder; `noise` is what a denoiser sees when features are taken, if not what its card says.

    Raises
    ------
    BackboneError
        If the card or the weights are missing, damaged, or do not belong together.
    """
    card = BackboneCard.read(folder)
    if noise:
        card = with_noise(card, noise)
    if weights_digest(folder) != card.digest:
        raise CheckpointError(f"{folder / WEIGHTS} is not the file its card describes; import or pretrain the backbone again")
    config = card.network()
    net = build_empty(card.network_type(), config, f"the card of {card.name}")
    version = getattr(config, "model", {}).get("transformers_version")  # whose next version may name weights otherwise
    advice = f"made with transformers {version}: install that version, or import the model again" if version else _ADVICE
    shapes = {name: facts.shape for name, facts in read_weight_facts(folder).items()}
    check_shapes(net, shapes, str(folder / WEIGHTS), advice)  # before any memory is taken for them
    assign_weights(net, read_weights(folder), str(folder / WEIGHTS), advice)
    return Backbone(card, net.float(), device=device, bf16=bf16)


def untrained_backbone(config: NetworkConfig, like: BackboneCard | None = None, seed: int = 0) -> Backbone:
    """A network with random weights, as a control; residual branches get PyTorch's usual start instead of zero.

    `like` lends everything else of its card: kind of network, blocks, timesteps, tiles, intensities.
    """
    card = like or BackboneCard("", "", {"kind": "unet"}, {"name": "mdm"}, blocks=config.default_blocks)
    arch = {"kind": card.arch.get("kind", "unet"), **dataclasses.asdict(config)}
    card = dataclasses.replace(card, name="untrained", digest=f"untrained-{seed}", arch=arch)
    devices: list[int] = []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        net = card.network_type()(config)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv1d) and not module.weight.any():
                module.reset_parameters()
    return Backbone(card, net)


def assign_weights(net: nn.Module, tensors: Mapping[str, Tensor], source: str, advice: str = _ADVICE) -> None:
    """Put `tensors` into `net`, or say which keys, shapes or kinds differ and what to do.

    Raises
    ------
    CheckpointError
        If they differ, or are not all finite numbers.
    """
    check_shapes(net, {name: tuple(value.shape) for name, value in tensors.items()}, source, advice)
    wanted = net.state_dict()
    other = [
        f"{name} holds {value.dtype}, wanted {wanted[name].dtype}".replace("torch.", "")
        for name, value in tensors.items()
        if value.is_floating_point() != wanted[name].is_floating_point() or value.is_complex()
    ]
    if other:
        raise CheckpointError(f"{source} does not fit this network ({other[0]}); {advice}")
    weights = {name for name, _ in net.named_parameters()}
    bad = [name for name, value in tensors.items() if name in weights and not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(
            f"{source} holds numbers that are not finite in {len(bad)} of its tensors ({_names(bad)}): its training went "
            "wrong; use another checkpoint"
        )
    net.load_state_dict(dict(tensors), assign=True)


def check_shapes(net: nn.Module, found: Mapping[str, tuple[int, ...]], source: str, advice: str = _ADVICE) -> None:
    """Complain about names and shapes of tensors that are not those of `net`.

    Raises
    ------
    CheckpointError
        With what differs.
    """
    wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    if wanted == found:
        return
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = [f"{k} is {found[k]}, wanted {wanted[k]}" for k in sorted(wanted.keys() & found.keys()) if wanted[k] != found[k]]
    parts = [
        f"{len(keys)} {what}: {_names(keys)}"
        for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", other))
        if keys
    ]
    raise CheckpointError(f"{source} does not fit this network ({'; '.join(parts)}); {advice}")


def _names(names: Sequence[str]) -> str:
    """The first names of tensors; they may be of any length and hold anything."""
    shown = (" ".join(name.split()) for name in names[:5])
    return ", ".join(name if len(name) <= 120 else f"{name[:117]}..." for name in shown) + (" ..." if len(names) > 5 else "")


def remove_backbone(name: str) -> Path:
    """Delete one of the user's own backbones; the bundled ones stay.

    Raises
    ------
    BackboneError
        If it is bundled or not there.
    """
    own = user_data_dir() / FOLDER
    folder = own / name if problem_of(name) is None and (own / name).is_dir() else find_backbone(name)
    if real_path(folder).parent != real_path(own):
        raise BackboneError(f"{name!r} is in {folder}, not among the imported ones; delete that folder yourself if you mean it")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def describe(folder: Path) -> dict[str, Any]:
    """Facts about a backbone for people and programs."""
    card = BackboneCard.read(folder)
    config = card.network()
    shapes = [config.block_shape(block) for block in range(config.n_blocks)]
    bundled = any(real_path(folder).is_relative_to(real_path(root)) for root in resource_roots())
    return {
        "name": card.name,
        "folder": str(folder),
        "bundled": bundled,
        "summary": card.summary,
        "digest": card.digest,
        "kind": card.arch.get("kind", "unet"),
        "recipe": card.recipe,
        "intensity": card.intensity,
        "in_channels": config.in_channels,
        "blocks": [{"block": i, "name": config.block_name(i), "channels": c, "stride": s} for i, (c, s) in enumerate(shapes)],
        "default_blocks": list(card.blocks),
        "default_timesteps": list(card.timesteps),
        "default_scales": list(card.scales),
        "default_filters": card.filters,
        "bytes": _size(folder / WEIGHTS),
        "training": card.training,
    }


def _size(weights: Path) -> int:
    """Bytes of a backbone's weights.

    Raises
    ------
    BackboneError
        If they are not there.
    """
    try:
        if weights.is_file():
            return weights.stat().st_size
    except OSError:
        pass
    raise BackboneError(f"{weights} is missing or cannot be read; import or pretrain the backbone again")
