"""A table that says which class each image is of: a CSV file with a header line and a row an image."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from mdm_studio.errors import LabelsError
from mdm_studio.io.images import image_name
from mdm_studio.io.json_files import read_small_file
from mdm_studio.io.names import as_text, of_cell

_NAMED = 5  # images that an error names


@dataclass(frozen=True)
class ImageClass:
    """What the table says of an image: its class and, where there is one, the group of images that it belongs to."""

    label: str
    group: str = ""


def read_image_classes(
    path: Path, images: Sequence[Path], *, image: str = "image", label: str = "label", group: str = ""
) -> dict[Path, ImageClass]:
    """Classes of those `images` that the table labels.

    Parameters
    ----------
    path : Path
        UTF-8, with commas. Rows without a label count for nothing.
    images : sequence of Path
        Image files; the table names them with or without extension. Folders before a name count for nothing.
    image, label, group : str
        Names of the columns. `group` may be empty: then a column ``group`` is read if there is one.

    Returns
    -------
    dict
        In the order of `images`.

    Raises
    ------
    LabelsError
        If a column is not there, the table names an image that is none of `images`, or gives an image two classes.
    """
    columns, rows = _read(path)
    group = group or ("group" if "group" in columns else "")
    for column in (image, label, *([group] if group else [])):
        if column not in columns:
            there = ", ".join(columns) or "nothing"
            raise LabelsError(f"{path} has no column {column!r} but {there}; name its columns image,label[,group] or say which")
    by_name = {as_text(name): file for file in images for name in (image_name(file), file.name)}
    found: dict[Path, ImageClass] = {}
    unknown: list[str] = []
    for row in rows:
        name, value = PureWindowsPath((row[image] or "").strip()).name, (row[label] or "").strip()  # takes either slash
        if not value:
            continue
        name = name if name in by_name else of_cell(name)
        if name not in by_name:
            unknown.append(name)
            continue
        said = ImageClass(of_cell(value), (row[group] or "").strip() if group else "")
        if found.setdefault(by_name[name], said) != said:
            raise LabelsError(f"{path} says two things about {name}: {found[by_name[name]]} and {said}; keep one of the rows")
    if unknown:
        names = ", ".join(unknown[:_NAMED]) + (" ..." if len(unknown) > _NAMED else "")
        raise LabelsError(
            f"{path} names {len(unknown)} images that are not among the {len(images)} given: {names}; "
            "take their rows out, or give the folder that holds them"
        )
    return {file: found[file] for file in images if file in found}


def _read(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    """Columns and rows of a CSV file."""
    try:
        text = read_small_file(path).decode("utf-8-sig")  # spreadsheets begin UTF-8 with a mark
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
        rows = list(reader)
        return [name.strip() for name in reader.fieldnames or ()], [
            {name.strip(): value for name, value in row.items() if isinstance(name, str) and name} for row in rows
        ]
    except FileNotFoundError as error:
        raise LabelsError(f"there is no table {path}; write one with the columns image,label[,group]") from error
    except (OSError, ValueError, csv.Error) as error:
        raise LabelsError(f"{path} cannot be read as a CSV file ({error}); save it as CSV (UTF-8, commas)") from error
