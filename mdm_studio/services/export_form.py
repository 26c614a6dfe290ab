"""What a user ticks for an export, and what it comes to: a request, or words about what is in the way. Pure.

`ExportChoices` is the form, `ExportFacts` what the disk says of it (`mdm_studio.services.export_survey` looks), `judge` the
answer to both. Nothing here reads a file or knows a window, and PyTorch is not wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mdm_studio.errors import UsageError
from mdm_studio.io.images import EXTENSIONS
from mdm_studio.io.masks import MaskFormat
from mdm_studio.io.paths import user_path

if TYPE_CHECKING:
    from mdm_studio.services.export_request import ExportRequest, PredictOptions

Source = Literal["project", "chosen", "open", "folder"]
"""All images of the project, those chosen in its list, those open in the window, a folder."""
Method = Literal["components", "watershed"]
Kind = Literal["stop", "warning", "note"]

AS_CLASSIFIER = -1
"""Smoothing as the classifier has it."""
MASKS = "masks"
"""Folder that is written to where none is chosen, beside the project's file or the images."""

GOOD_FOR: Mapping[MaskFormat, str] = {
    "png": "Class colours in every image viewer; the numbers in it are the classes. One plane an image, no stacks.",
    "tiff": "Fiji, QuPath, CellProfiler: tiled and compressed, with the pixel size; stacks and images larger than memory.",
    "ome-zarr": "napari, Fiji and the web: a pyramid with the class names and colours; the largest images open at once.",
    "npy": "Python: one plain NumPy array, which can be mapped into memory. Not compressed.",
}
"""What each format of the masks is good for, in one line."""

# bytes a pixel as written, measured on masks and maps of the bundled samples; label images compress well, floats hardly
_MASK: Mapping[MaskFormat, float] = {"png": 0.06, "tiff": 0.06, "ome-zarr": 0.1, "npy": 1.0}
_FLOAT: Mapping[MaskFormat, float] = {"png": 3.6, "tiff": 3.6, "ome-zarr": 4.8, "npy": 4.0}
_OBJECTS: Mapping[MaskFormat, float] = {"png": 0.2, "tiff": 0.2, "ome-zarr": 0.3, "npy": 4.0}
_TIGHT = 2  # warn when less than so many times the estimate is free
_LARGE_PNG = 1 << 28  # pixels of an image that a PNG wants a quarter of a gigabyte of memory for
_NAMED = 3  # examples named in a message


@dataclass(frozen=True)
class ExportChoices:
    """The form.

    Attributes
    ----------
    source, folder : Source, str
        Which images; `folder` counts for "folder".
    classifier, file : {"trained", "file"}, str
        The one that the strokes train, or FILE.mdm.
    format : MaskFormat
        Of the masks; see `GOOD_FOR`.
    probabilities, uncertainty, objects, csv, parquet : bool
        What is written besides the masks; the last two are tables of what is measured on the objects.
    method, min_size, physical, fill_holes
        How objects are found: touching pixels or a watershed; the smallest area, in pixels or, if `physical`, in µm².
    out : str
        Folder to write to; empty for the usual one.
    smooth : int
        Radius in pixels of the filter on the probabilities; `AS_CLASSIFIER` leaves it to the classifier.
    replace : bool
        Write anew whatever is there; else what is up to date is kept, and what no export wrote is left alone.
    device, workers : str, int
        Where it runs, and in how many processes.
    """

    source: Source = "project"
    folder: str = ""
    classifier: Literal["trained", "file"] = "trained"
    file: str = ""
    format: MaskFormat = "png"
    probabilities: bool = False
    uncertainty: bool = False
    objects: bool = False
    method: Method = "components"
    min_size: float = 0.0
    physical: bool = False
    fill_holes: bool = False
    csv: bool = False
    parquet: bool = False
    out: str = ""
    smooth: int = AS_CLASSIFIER
    replace: bool = False
    device: str = "auto"
    workers: int = 1

    @property
    def measures(self) -> bool:
        """Whether objects are looked for at all."""
        return self.objects or self.csv or self.parquet

    def to_json(self) -> dict[str, Any]:
        """As remembered."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: object) -> ExportChoices:
        """What was remembered; a field that is missing or makes no sense has its default, so that nothing stops the start."""
        made, kept = cls(), dict[str, Any]()
        for field in fields(cls):
            value = facts.get(field.name) if isinstance(facts, Mapping) else None
            usual = getattr(made, field.name)
            if isinstance(usual, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is type(usual) and _makes_sense(field.name, value):
                kept[field.name] = value
        return cls(**kept)


_ALLOWED: Mapping[str, tuple[object, ...]] = {
    "source": get_args(Source),
    "classifier": ("trained", "file"),
    "format": get_args(MaskFormat),
    "method": get_args(Method),
}
_LEAST: Mapping[str, float] = {"min_size": 0.0, "smooth": AS_CLASSIFIER, "workers": 1}


def _makes_sense(name: str, value: object) -> bool:
    if name in _ALLOWED:
        return value in _ALLOWED[name]
    if isinstance(value, int | float) and name in _LEAST:
        return math.isfinite(value) and value >= _LEAST[name]
    return True


@dataclass(frozen=True)
class ExportFacts:
    """What the disk says.

    Attributes
    ----------
    images : tuple of Path
        To predict.
    no_images : str
        Why there are none, in words.
    pixels, largest : int
        Of all images together, and of the largest plane; those of a sample of the images, scaled up.
    stacks : tuple of str
        Names of images (of the sample) with several planes.
    unreadable : tuple of str
        What is wrong with those of the sample that cannot be read.
    pixel_areas : tuple of float
        The different areas of a pixel in µm² in the sample; 0 for an image that does not say.
    same_names : str
        Two images whose masks would have one name, in words.
    classes : int
        Of the classifier; 0 if not known.
    no_classifier : str
        What is wrong with the classifier, in words.
    out : Path
        Where to write.
    not_writable : str
        Why nothing can be written there, in words.
    free : int
        Bytes free on that disk.
    there, foreign : int
        Images that have outputs there; and those of them that have some which no export wrote, or which were changed since.
    busy : str
        The name of a job that writes there now.
    """

    images: tuple[Path, ...] = ()
    no_images: str = ""
    pixels: int = 0
    largest: int = 0
    stacks: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    pixel_areas: tuple[float, ...] = ()
    same_names: str = ""
    classes: int = 0
    no_classifier: str = ""
    out: Path = Path()
    not_writable: str = ""
    free: int = 0
    there: int = 0
    foreign: int = 0
    busy: str = ""


@dataclass(frozen=True)
class Message:
    """Something to know before an export starts; a "stop" keeps it from starting."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Judgement:
    """Whether an export can start, what to know before, and how many bytes it will write, about."""

    messages: tuple[Message, ...]
    size: int

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way."""
        return not any(message.kind == "stop" for message in self.messages)

    def texts(self, kind: Kind) -> tuple[str, ...]:
        """The messages of a kind."""
        return tuple(message.text for message in self.messages if message.kind == kind)


def out_of(choices: ExportChoices, root: Path | None) -> Path | None:
    """The folder to write to; None where the form names none and the images lie nowhere.

    Parameters
    ----------
    root : Path or None
        The project's folder, or that of the images in the window: `MASKS` goes beside what is in it. A folder of images
        that the form names comes first.
    """
    if choices.out:
        return user_path(choices.out)
    if choices.source == "folder":
        root = _folder_of(user_path(choices.folder)) if choices.folder else None
    return None if root is None else root / MASKS


def _folder_of(path: Path) -> Path:
    """The folder that a folder, a single image or a pattern lies in."""
    parts = (path, *path.parents)
    return next((each for each in parts if not has_magic(str(each)) and each.suffix.lower() not in EXTENSIONS), path)


def judge(choices: ExportChoices, facts: ExportFacts) -> Judgement:
    """What to say before an export starts, the worst first."""
    size = estimate(choices, facts)
    stops = [text for text in (facts.no_images, facts.same_names, facts.no_classifier) if text]
    if facts.not_writable and (facts.images or facts.out != Path()):  # one thing after the other
        stops.append(facts.not_writable)
    if facts.busy:
        stops.append(f"The export {facts.busy!r} writes there now: wait for it, cancel it, or choose another folder.")
    warnings: list[str] = []
    notes: list[str] = []
    if facts.images:
        stops += _wrong_sizes(choices, facts)
        _about_space(facts, size, stops, warnings)
        _about_images(choices, facts, warnings)
        _about_what_is_there(choices, facts, warnings, notes)
    messages = [Message("stop", text) for text in stops] + [Message("warning", text) for text in warnings]
    return Judgement((*messages, *(Message("note", text) for text in notes)), size)


def estimate(choices: ExportChoices, facts: ExportFacts) -> int:
    """Bytes that an export of all these images writes, about; tables are next to nothing."""
    each = _MASK[choices.format]
    if choices.probabilities:
        each += _FLOAT[choices.format] * max(facts.classes, 2)
    if choices.uncertainty:
        each += _FLOAT[choices.format]
    if choices.objects:
        each += _OBJECTS[choices.format]
    return round(each * facts.pixels)


def pixels_of_area(choices: ExportChoices, facts: ExportFacts) -> int:
    """The smallest object in pixels, rounded up; 0 where objects of all sizes count or the images do not say their scale."""
    if not choices.physical:
        return math.ceil(choices.min_size)
    areas = [area for area in facts.pixel_areas if area > 0]
    return math.ceil(choices.min_size / areas[0]) if areas else 0


def _wrong_sizes(choices: ExportChoices, facts: ExportFacts) -> list[str]:
    """What is wrong with a smallest area in µm²."""
    if not (choices.measures and choices.physical and choices.min_size):
        return []
    if not facts.pixel_areas or 0.0 in facts.pixel_areas:
        return ["Not all of these images say how large a pixel is: give the smallest object in pixels."]
    if len(facts.pixel_areas) > 1:
        return ["Pixels are not equally large in all of these images: give the smallest object in pixels."]
    return []


def _about_space(facts: ExportFacts, size: int, stops: list[str], warnings: list[str]) -> None:
    if facts.not_writable:
        return
    words = f"About {in_bytes(size)} will be written and {in_bytes(facts.free)} are free in {facts.out}"
    if size > facts.free:
        stops.append(f"{words}: free some space, choose another folder, or leave out the probabilities.")
    elif size * _TIGHT > facts.free:
        warnings.append(f"{words}; that may just do.")


def _about_images(choices: ExportChoices, facts: ExportFacts, warnings: list[str]) -> None:
    if choices.format == "png" and facts.stacks:
        warnings.append(f"PNG holds no stacks, and {_named(facts.stacks)} will fail: choose TIFF, OME-Zarr or NPY.")
    if choices.format == "png" and facts.largest > _LARGE_PNG:
        warnings.append(f"The largest PNG takes {in_bytes(facts.largest)} of memory to write; TIFF and OME-Zarr do not.")
    warnings.extend(facts.unreadable[:_NAMED])


def _about_what_is_there(choices: ExportChoices, facts: ExportFacts, warnings: list[str], notes: list[str]) -> None:
    if facts.there and choices.replace:
        count = "All images" if facts.there == len(facts.images) else f"{facts.there:,} of {len(facts.images):,} images"
        warnings.append(f"{count} have results there already; all will be replaced, those too that were changed by hand.")
    elif facts.foreign:
        warnings.append(
            f"Results of {counted(facts.foreign, 'image')} there were not written by an export, or were changed since. They "
            "are left alone, and reported as failed: choose that they are replaced, or another folder."
        )
    elif facts.there:
        results = f"There are results of {counted(facts.there, 'image')}"
        notes.append(f"{results}: what is up to date is kept, the rest is written anew.")


def _named(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, what: str) -> str:
    """A number of things in words.

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def in_bytes(size: float) -> str:
    """A size in words.

    Examples
    --------
    >>> in_bytes(3_210_000)
    '3.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def options_of(choices: ExportChoices, out: Path, min_size: int = 0) -> PredictOptions:
    """What is to be written, as `predict` has it; `min_size` is the smallest object in pixels, see `pixels_of_area`."""
    from mdm_studio.engine.objects import ObjectOptions  # here, because a window that opens need not wait for SciPy
    from mdm_studio.services.export_request import PredictOptions

    objects = ObjectOptions(method=choices.method, min_size=min_size, fill_holes=choices.fill_holes)
    return PredictOptions(
        out=out,
        format=choices.format,
        probabilities=choices.probabilities,
        uncertainty=choices.uncertainty,
        objects=objects if choices.measures else None,
        object_maps=choices.objects,
        tables=(*(("csv",) if choices.csv else ()), *(("parquet",) if choices.parquet else ())),
        smooth=None if choices.smooth == AS_CLASSIFIER else choices.smooth,
        overwrite=choices.replace,
    )


def request_of(choices: ExportChoices, facts: ExportFacts, classifier: Path, cache: Path | None) -> ExportRequest:
    """The export that a form asks for.

    Parameters
    ----------
    classifier : Path
        FILE.mdm, whichever it comes from: it must stay there, unchanged, until the export is done.
    cache : Path or None
        Folder of the feature cache.

    Raises
    ------
    UsageError
        If something stands in the way, see `judge`.
    """
    from mdm_studio.services.export_request import ExportRequest

    judgement = judge(choices, facts)
    if not judgement.ready:
        raise UsageError(" ".join(judgement.texts("stop")))
    options = options_of(choices, facts.out, pixels_of_area(choices, facts))
    workers = choices.workers if choices.workers > 1 else 0  # one image at a time needs no process of its own
    return ExportRequest(classifier, facts.images, options, device=choices.device, cache=cache, workers=workers)
