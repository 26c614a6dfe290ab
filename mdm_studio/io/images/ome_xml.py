"""OME-XML, as far as it says which planes there are, in which files, and how large a pixel is."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mdm_studio.io.images.spacing import Length, Spacing, spacing

_MOST_PLANES = 10_000_000  # of an image: more would be a mistake, and a list of them fills gigabytes
_MICROMETRE = "µm"  # the unit of OME-XML where it gives none


@dataclass(frozen=True)
class OmeImage:
    """An image (scene, series, position) of an OME-XML.

    Attributes
    ----------
    name : str
        As it is written there.
    files : tuple of str
        Names of the files that hold its planes, in their order, each once; empty for the file that the XML was read from.
    spacing : Spacing
        Of its pixels.
    """

    name: str
    files: tuple[str, ...]
    spacing: Spacing


@dataclass(frozen=True)
class OmeXml:
    """What an OME-XML says; `master` names the file with the whole of it, where this is no more than a pointer."""

    images: tuple[OmeImage, ...] = ()
    master: str = ""


def parse_ome_xml(text: str, own_name: str) -> OmeXml:
    """What an OME-XML says, found in the file called `own_name`.

    Raises
    ------
    ValueError
        If it is no XML, or speaks of impossible images.
    """
    try:
        root = ElementTree.fromstring(text.strip().rstrip("\0"))
    except (ElementTree.ParseError, RecursionError) as error:
        raise ValueError(str(error)) from error
    pointer = root.find("{*}BinaryOnly")
    if pointer is not None:
        return OmeXml(master=pointer.get("MetadataFile", ""))
    planes = [(image, pixels) for image in root.findall("{*}Image") for pixels in image.findall("{*}Pixels")]
    own = _own_ids(root, own_name)
    images = []
    for image, pixels in planes:
        _check_size(pixels.attrib)
        files: dict[str, None] = {}
        for data in pixels.findall("{*}TiffData"):
            uuid = data.find("{*}UUID")
            files["" if uuid is None or (uuid.text or "").strip() in own else uuid.get("FileName", "")] = None
        images.append(OmeImage(image.get("Name", ""), tuple(files), _spacing(pixels.attrib)))
    named = {file for image in images for file in image.files}
    if len(named) == 1 and not own:  # a file that was renamed, and speaks of itself under its old name
        images = [OmeImage(image.name, ("",), image.spacing) for image in images]
    return OmeXml(tuple(images))


def _own_ids(root: ElementTree.Element, own_name: str) -> set[str]:
    """What the file calls itself: its UUID, or the one beside its name where it gives none."""
    if root.get("UUID"):
        return {root.get("UUID", "").strip()}
    named = (uuid for uuid in root.iter() if uuid.tag.endswith("UUID"))
    return {(uuid.text or "").strip() for uuid in named if uuid.get("FileName", "").lower() == own_name.lower()}


def _check_size(pixels: Mapping[str, str]) -> None:
    planes = 1
    for axis in "ZCT":
        planes *= int(pixels.get(f"Size{axis}", "1"))
    if not 0 < planes <= _MOST_PLANES:
        raise ValueError(f"it speaks of {planes} planes")


def _spacing(pixels: Mapping[str, str]) -> Spacing:
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "YX"]
    if sizes == [None, None]:
        return Spacing()
    if None in sizes:
        return Spacing(notes=("the pixel size is dropped: it is given for one axis only",))
    y, x = (Length(size, pixels.get(f"PhysicalSize{axis}Unit", "")) for size, axis in zip(sizes, "YX", strict=True))
    return spacing(_with_unit(y), _with_unit(x))


def _with_unit(length: Length) -> Length:
    """In micrometres where it gives no unit of its own."""
    behind = str(length.value).strip().rstrip(";")[-1:]
    return length._replace(unit=length.unit or (None if behind.isalpha() or behind == "Å" else _MICROMETRE))


def read_companion(path: Path) -> str:
    """Text of an OME-XML file of its own, ``NAME.companion.ome``."""
    if not path.is_file():
        raise FileNotFoundError(path.name)
    return path.read_text("utf-8-sig")
