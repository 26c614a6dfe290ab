"""OME-Zarr folders as far as their JSON tells: which images are in one, of plates and slides too.

The library zarr, which is slow to import, is not needed for that.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from mdm_studio.io.images.words import is_aside
from mdm_studio.io.json_files import check_value, read_json

SUFFIX = ".zarr"
_METADATA = ("zarr.json", ".zattrs")  # of version 3 and 2
_GROUPS = (*_METADATA, ".zgroup")
_Plain = Annotated[str, Meta(min_length=1, pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))[^\\]*$")]  # a path that stays in the folder


@dataclass(frozen=True)
class Dataset:
    """A level of a multiscale."""

    path: _Plain
    coordinateTransformations: Any = ()


@dataclass(frozen=True)
class Multiscale:
    """An image in one or more resolutions; what makes up its pixel size is looked at later, and may be nonsense."""

    datasets: Annotated[list[Dataset], Meta(min_length=1)]
    axes: Any = None
    name: Any = ""
    coordinateTransformations: Any = ()


@dataclass(frozen=True)
class Member:
    """A well of a plate, or a field of a well."""

    path: _Plain


@dataclass(frozen=True)
class Plate:
    """A plate of wells."""

    wells: list[Member] = field(default_factory=list)


@dataclass(frozen=True)
class Well:
    """A well, with its fields."""

    images: list[Member] = field(default_factory=list)


@dataclass(frozen=True)
class OmeGroup:
    """What OME-Zarr says of a group."""

    multiscales: list[Multiscale] = field(default_factory=list)
    plate: Plate | None = None
    well: Well | None = None
    series: list[_Plain] | None = None
    omero: Any = None


@dataclass(frozen=True)
class ZarrImages:
    """The images of a folder.

    Attributes
    ----------
    paths : tuple of Path
        Their groups.
    series : bool
        They are the series of one slide, so that the folder stands for the first of them.
    aside : tuple of str
        Labels and overviews of a slide, which are not among them.
    """

    paths: tuple[Path, ...]
    series: bool = False
    aside: tuple[str, ...] = ()


def is_zarr(path: Path) -> bool:
    """Whether a path names a zarr folder or, inside of one, a group."""
    return path.suffix.lower() == SUFFIX or (zarr_root(path) is not None and any((path / name).is_file() for name in _GROUPS))


def zarr_root(path: Path) -> Path | None:
    """The ``.zarr`` folder that `path` lies in; None if it lies in none."""
    return next((each for each in reversed(path.parents) if each.suffix.lower() == SUFFIX), None)


def read_group(path: Path) -> OmeGroup:
    """Metadata of a group; empty if it has none.

    Raises
    ------
    OSError, ValueError
        If they cannot be read.
    """
    for name in _METADATA:
        if (path / name).is_file():
            found = read_json(path / name, dict[str, Any])
            attributes = found.get("attributes", {}) if name == _METADATA[0] else found
            inner = attributes.get("ome", attributes) if isinstance(attributes, dict) else {}
            return check_value(inner, OmeGroup)  # 0.5 keeps under "ome" what was at the top before
    if not path.is_dir():
        raise FileNotFoundError(path)
    return OmeGroup()


def images_in(path: Path) -> ZarrImages:
    """The images of a zarr folder, a plate, a row, a well, a slide of several series, or of a single image.

    Raises
    ------
    OSError, ValueError
        If the metadata cannot be read.
    """
    group = read_group(path)
    if group.multiscales:
        return ZarrImages((path,))
    if group.plate is not None:
        return ZarrImages(tuple(field for well in group.plate.wells for field in _fields(path / well.path)))
    if group.well is not None:
        return ZarrImages(tuple(_fields(path)))
    root = zarr_root(path)
    if root is not None and read_group(root).plate is not None:  # a row of a plate
        return ZarrImages(tuple(each for each in images_in(root).paths if path in each.parents) or (path,))
    if series := _series(path):
        names = _series_names(path)
        aside = [each for each in series if is_aside(names.get(each.name, ""))]
        proper = [each for each in series if each not in aside] or series
        return ZarrImages(tuple(proper), series=True, aside=tuple(names[each.name] for each in series if each not in proper))
    return ZarrImages((path,))


def holds_images(path: Path) -> bool:
    """Whether a group inside a zarr folder is an image, or holds some; label maps beside an image are none."""
    root = zarr_root(path)
    if root is None or "labels" in path.relative_to(root).parts:
        return False
    try:
        group = read_group(path)
    except (OSError, ValueError):
        return False
    return bool(group.multiscales) or group.well is not None


def _fields(well: Path) -> Iterator[Path]:
    """The fields of a well; the well itself, which then cannot be read as an image, if it does not say which it has."""
    try:
        group = read_group(well)
    except (OSError, ValueError):
        group = OmeGroup()
    images = group.well.images if group.well is not None else []
    yield from (well / each.path for each in images)
    if not images:
        yield well


def _series(path: Path) -> list[Path]:
    """Series as bioformats2raw lays them out: numbered groups beside a folder OME that may list them."""
    listed = read_group(path / "OME").series if (path / "OME").is_dir() else None
    if listed is not None:
        return [path / each for each in listed]
    numbers: list[Path] = []
    while is_zarr(path / str(len(numbers))):
        numbers.append(path / str(len(numbers)))
    return numbers


def _series_names(path: Path) -> dict[str, str]:
    """Names of the series, by folder, as far as they are told."""
    try:
        root = ElementTree.fromstring((path / "OME" / "METADATA.ome.xml").read_bytes())
    except (OSError, ElementTree.ParseError, ValueError, RecursionError):
        return {}
    return {str(number): image.get("Name", "") for number, image in enumerate(root.findall("{*}Image"))}


def name_in_zarr(path: Path) -> str:
    """Name of an image inside a zarr folder, after what it lies in: ``A1_f0`` for ``A/1/0``."""
    root = zarr_root(path)
    inner = path.relative_to(root).parts if root is not None else path.parts
    if len(inner) == 3:
        row, column, number = inner
        plain = re.fullmatch(r"[A-Za-z]+", row) and re.fullmatch(r"\d+", column)
        return f"{row}{column}_f{number}" if plain else f"{row}-{column}_f{number}"
    return "_".join(inner)
