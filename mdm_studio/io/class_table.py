"""Classes as a CSV file, ``value,name,color``, so that a team labels with the same values and colours."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mdm_studio.errors import LabelsError
from mdm_studio.io.atomic import write_text
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.json_files import read_small_file
from mdm_studio.io.labels import MAX_CLASSES
from mdm_studio.io.masks import class_palette
from mdm_studio.io.names import of_cell
from mdm_studio.io.tables import csv_line

COLUMNS = ("value", "name", "color")
_DELIMITERS = (",", ";", "\t")  # spreadsheets write semicolons where the comma is the decimal point
_EXAMPLE = "for example 1,nucleus,#e69f00"


def write_class_table(path: str | Path, classes: Sequence[LabelClass]) -> None:
    """Write classes, whole or not at all; UTF-8, commas, a header line, names as `mdm_studio.io.names.as_cell` has them.

    Raises
    ------
    LabelsError
        If `read_class_table` would refuse the file.
    OutputError
        If it cannot be written.
    """
    rows = [(each.value, each.name, each.color) for each in _checked(classes, Path(path))]
    write_text(path, "".join(map(csv_line, [COLUMNS, *rows])))


def read_class_table(path: str | Path) -> tuple[LabelClass, ...]:
    """Read classes.

    Parameters
    ----------
    path : str or Path
        A CSV file in UTF-8 (with or without byte order mark) whose header names at least ``value`` and ``name``; other columns
        are passed over. Commas, semicolons or tabs stand between the columns.

    Returns
    -------
    tuple of LabelClass
        In the order of the file. White space in names is one blank each, colours are lower case; a class without a colour gets
        that of `mdm_studio.io.masks.class_palette`.

    Raises
    ------
    LabelsError
        Naming file and line, if the file cannot be read, holds no classes, or a value, name or colour is no good: values are
        whole numbers from 1 to 255, and neither they nor the names may occur twice.
    """
    path = Path(path)
    try:
        data = read_small_file(path)
        text = data.decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or error
        raise LabelsError(f"cannot read the class table {path}: {reason}; check the name and the drive") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"the class table {path} is not UTF-8 text: save it as 'CSV UTF-8'") from error
    except ValueError as error:
        raise LabelsError(f"cannot read the class table {path}: {error}; check the name") from error
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise LabelsError(f"the class table {path} is no CSV file: line {reader.line_num}, {error}") from error
    if len(rows) < 2:
        raise LabelsError(f"the class table {path} holds no classes: a header and a line for each class are wanted, {_EXAMPLE}")
    names = [field.strip().lower().replace("colour", "color") for field in rows[0][1]]
    if not {"value", "name"} <= set(names):
        raise LabelsError(f"the class table {path} has the columns {', '.join(names)}: value and name are wanted, {_EXAMPLE}")
    classes = [_parsed(dict(zip(names, row, strict=False)), f"line {number} of {path}") for number, row in rows[1:]]
    return _checked(classes, path)


def _parsed(row: Mapping[str, str], where: str) -> LabelClass:
    value = row.get("value", "").strip()
    if not re.fullmatch("[0-9]{1,9}", value):
        raise LabelsError(f"{where}: the value {value!r} is no whole number from 1 to {MAX_CLASSES}, {_EXAMPLE}")
    number = int(value)
    color = row.get("color", "").strip() or class_palette(MAX_CLASSES).get(number, "")
    return LabelClass(number, of_cell(row.get("name", "").strip()), color)


def _checked(classes: Sequence[LabelClass], path: Path) -> tuple[LabelClass, ...]:
    """`classes` as they are kept in a file, or the LabelsError that tells what is wrong with them."""
    kept = tuple(LabelClass(each.value, " ".join(each.name.split()), each.color.lower()) for each in classes)
    if not kept:
        raise LabelsError(f"the class table {path} holds no classes: one at least is wanted")
    values: set[int] = set()
    names: set[str] = set()
    for each in kept:
        if not 1 <= each.value <= MAX_CLASSES:
            wanted = f"1 to {MAX_CLASSES} are wanted (0 is unlabelled)"
            raise LabelsError(f"{path}: class {each.name!r} has the value {each.value}: {wanted}")
        if not each.name:
            raise LabelsError(f"{path}: the class of value {each.value} has no name: give it one, {_EXAMPLE}")
        if not re.fullmatch("#[0-9a-f]{6}", each.color):
            raise LabelsError(f"{path}: class {each.name!r} has the colour {each.color!r}: #rrggbb is wanted, {_EXAMPLE}")
        if each.value in values:
            raise LabelsError(f"{path}: the value {each.value} occurs twice: give each class its own")
        if each.name in names:
            raise LabelsError(f"{path}: the name {each.name!r} occurs twice: give each class its own")
        values.add(each.value)
        names.add(each.name)
    return kept
