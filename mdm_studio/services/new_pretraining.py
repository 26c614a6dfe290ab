"""A pretraining from a form: what was chosen, what stands in its job, and its result put to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mdm_studio.config import DEFAULT_BACKBONE
from mdm_studio.errors import JobError, NoImagesError, UsageError
from mdm_studio.io.job_folder import JobFolder, is_ordinary
from mdm_studio.io.paths import real_path
from mdm_studio.io.plain_names import check_plain_name
from mdm_studio.io.user_files import read_user_file, write_user_file
from mdm_studio.services.estimates import SpeedRequest
from mdm_studio.services.folder_survey import FolderSurvey
from mdm_studio.services.jobs.states import JobView

BATCH = 16
_FILE = "pretraining.json"
_VERSION = 2  # 1 knew one recipe without settings
_COLOURS = 3  # channels that images of up to three are read as


@dataclass(frozen=True)
class Wanted:
    """What the form says; the meaning of each is that of `mdm_studio.services.pretraining.plan`.

    Attributes
    ----------
    start_from : str
        Name of a backbone; empty begins with random weights.
    recipe : str
    recipe_settings : dict
        Those of its settings that are not the usual ones.
    size : str
        Of the network, if it begins with nothing; empty for the recipe's usual one.
    encoder : str
        Name or folder of the model that the recipe's network is made over; empty for recipes that want none.
    scale : int
        Working scale.
    minutes : int
        Budget; 0 leaves it to what was measured.
    """

    start_from: str = DEFAULT_BACKBONE
    recipe: str = "mdm"
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    size: str = ""
    encoder: str = ""
    scale: int = 1
    crop: int = 128
    jitter: bool = False
    minutes: int = 0
    device: str = "auto"
    channels: tuple[int, ...] | None = None

    def speed_request(self, survey: FolderSurvey) -> SpeedRequest:
        """What is to be timed for it, on some of the images."""
        return SpeedRequest(
            tuple(str(real_path(path)) for path in _representatives(survey)),
            size=self.size,
            crop=self.crop,
            batch=BATCH,
            scales=(self.scale,),
            jitter=self.jitter,
            channels=self.channels,
            start_from=self.start_from or None,
            recipe=self.recipe,
            recipe_settings=self.recipe_settings,
            encoder=self.encoder,
            device=self.device,
        )


def read_wanted() -> Wanted:
    """What was chosen the last time; the defaults where nothing is kept, or what is kept is of no use any more."""
    values = read_user_file(_FILE, dict[str, Any]) or {}
    version, known = values.pop("version", None), asdict(Wanted())
    if not isinstance(version, int) or not 1 <= version <= _VERSION or not values.keys() <= known.keys():
        return Wanted()
    return Wanted(**{name: value for name, value in values.items() if type(value) is type(known[name])})


def keep_wanted(wanted: Wanted) -> None:
    """Remember it for the next time; channels belong to a folder and are not kept.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    values = {name: value for name, value in asdict(wanted).items() if name not in ("channels", "minutes")}
    write_user_file(_FILE, values | {"version": _VERSION})


def job_settings(wanted: Wanted, survey: FolderSurvey, name: str) -> Mapping[str, Any]:
    """What stands in the job.json of a new job: all images of the folder but those that are known to be unreadable.

    Slow, because it loads PyTorch: call it on a thread.

    Raises
    ------
    MDMStudioError
        If the choice cannot work, in words.
    """
    from mdm_studio.services.pretraining import plan, recipe_config

    if not name.strip():
        raise UsageError("the backbone has no name yet; give it one")
    check_plain_name(name.strip(), "backbone")
    if not survey.images:
        raise NoImagesError(f"there is no readable image in {survey.place}; choose another folder")
    if not wanted.minutes:
        raise UsageError("how long should it train? Choose a number of minutes")
    config = recipe_config(
        wanted.recipe, crop=wanted.crop, batch=BATCH, scales=(wanted.scale,), jitter=wanted.jitter, device=wanted.device
    )
    job, _ = plan(
        _representatives(survey),
        name=name.strip(),
        recipe=wanted.recipe,
        recipe_settings=wanted.recipe_settings,
        size=wanted.size,
        encoder=wanted.encoder,
        config=config,
        channels=wanted.channels,
        minutes=wanted.minutes,
        start_from=wanted.start_from or None,
    )
    unreadable = {each.path for each in survey.unreadable}
    images = tuple(str(real_path(path)) for path in survey.paths if path not in unreadable)
    return replace(job, images=images).to_json()


def network_channels(survey: FolderSurvey | None, channels: tuple[int, ...] | None) -> int:
    """Channels that a network trained on these images will read, see `mdm_studio.services.pretraining.plan`; 0 if not known.

    Parameters
    ----------
    channels : tuple of int or None
        Those that are read of each image; None for all.
    """
    if survey is None or not survey.images:
        return 0
    most = len(channels) if channels else max(image.channels for image in survey.images)
    return max(most, _COLOURS)


def _representatives(survey: FolderSurvey) -> list[Path]:
    """Some readable images, and one of each number of channels among them: a plan needs no more."""
    kinds = {image.channels: image.path for image in survey.images}
    some = [image.path for image in survey.images[:: max(1, len(survey.images) // 8)]]
    return list(dict.fromkeys([*kinds.values(), *some]))


def usable_backbone(view: JobView) -> str:
    """Name of a backbone made of a job: its result, or its newest checkpoint published under a name that tells the step.

    Slow: call it on a thread.

    Raises
    ------
    JobError
        If there is no checkpoint yet.
    OutputError
        If it cannot be published.
    """
    from mdm_studio.engine.backbones import backbone_folders
    from mdm_studio.services.pretraining import publish, snapshot

    folder = view.result
    if view.state != "done" or folder is None or not folder.is_dir():
        made = snapshot(JobFolder(view.folder))
        if made is None:
            raise JobError(f"{view.name} has no checkpoint yet; wait for the first one")
        folder = publish(made, f"{view.name}-step-{int(made.name.removeprefix('step-'))}")
    named = (name for name, where in backbone_folders().items() if real_path(where) == real_path(folder))
    return next(named, str(folder))


def read_card(view: JobView) -> str:
    """The model card of a finished job, as Markdown.

    Raises
    ------
    JobError
        If there is none.
    """
    card = (view.result or view.folder / "backbone") / "README.md"
    try:
        if not is_ordinary(card):
            raise FileNotFoundError(card)
        return card.read_text("utf-8", errors="replace")
    except OSError as error:
        raise JobError(f"{view.name} has no model card yet; it comes with the finished backbone") from error
