"""The backbones there are, in words: for lists to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from mdm_studio.errors import BackboneError


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
    problem: str | None = None


def list_backbones() -> tuple[BackboneFacts, ...]:
    """Facts about every backbone that has a name, sorted by it; one that cannot be read is listed with its problem.

    Slow the first time, because it loads PyTorch: call it on a thread where somebody waits.
    """
    from mdm_studio.engine.backbones import backbone_folders, describe  # here: they load PyTorch

    found = []
    for name, folder in sorted(backbone_folders().items()):
        try:
            facts = describe(folder)
        except (BackboneError, OSError) as error:
            found.append(BackboneFacts(name, problem=str(error)))
            continue
        found.append(
            BackboneFacts(
                name,
                good_at=facts["summary"],
                blocks=tuple((block["channels"], block["stride"]) for block in facts["blocks"]),
                default_blocks=tuple(facts["default_blocks"]),
                default_timesteps=tuple(facts["default_timesteps"]),
                default_scales=tuple(facts["default_scales"]),
                default_filters=facts["default_filters"],
                in_channels=facts["in_channels"],
                bundled=facts["bundled"],
            )
        )
    return tuple(found)
