"""Tables as CSV and Parquet files.

In CSV files text that a spreadsheet would take for a formula has an apostrophe before it (see `mdm_studio.io.names.as_cell`);
numbers are left alone. Parquet files hold text as it is.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import make_folder, replacing, write_text
from mdm_studio.io.names import as_cell, as_text

_SPECIAL = re.compile('[,;"\t\r\n]|^ | $')
_PARQUET_END = b"PAR1"


def write_rows(path: str | Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file (UTF-8, commas, a header line), whole or not at all; its folder is made where it is missing.

    Columns come in the order in which the rows first name them; None, not-a-number and absent values are empty fields. No
    rows give an empty file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = Path(path)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [csv_line(columns)] if columns else []
    lines += [csv_line([row.get(column) for column in columns]) for row in rows if columns]
    make_folder(path.parent)
    write_text(path, "".join(lines))


def csv_line(values: Iterable[object]) -> str:
    """A line of a CSV file: numbers as they are, None and not-a-number empty, text as `mdm_studio.io.names.as_cell` has it."""
    return _line(map(_field, values))


def _line(fields: Iterable[str]) -> str:
    # semicolons and tabs are quoted, too: some spreadsheets part cells there
    quoted = ('"' + field.replace('"', '""') + '"' if _SPECIAL.search(field) else field for field in fields)
    return ",".join(quoted) + "\n"


def _field(value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return as_cell(value)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def write_table(path: str | Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns of one length as ``.csv`` or ``.parquet``, whole or not at all; not-a-number becomes an empty field.

    Columns without values give a table with a header and no rows.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = Path(path)
    if path.suffix == ".csv":
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        write_text(path, csv_line(columns) + "".join(map(csv_line, rows)))
        return
    import pyarrow
    from pyarrow import parquet

    arrays = {name: np.array([as_text(text) for text in column]) if column.dtype.kind == "U" and len(column) else column
              for name, column in columns.items()}  # fmt: skip
    table = pyarrow.table({name: pyarrow.array(column, from_pandas=True) for name, column in arrays.items()})
    with replacing(path) as unfinished, unfinished.open("wb") as file:  # Arrow takes no names that are no text
        parquet.write_table(table, file, compression="zstd")


def join_tables(paths: Sequence[Path], target: str | Path) -> None:
    """Write the rows of several tables as one, table after table; one is in memory at a time.

    Parameters
    ----------
    paths : sequence of Path
        All ``.csv``, or all ``.parquet``, as `target`. Columns that some of them lack are empty there.
    target : str or Path
        Written whole or not at all.

    Raises
    ------
    OutputError
        If one of them cannot be read, or `target` cannot be written.
    """
    target = Path(target)
    with replacing(target) as unfinished:
        if target.suffix == ".csv":
            _join_csv(paths, unfinished)
        else:
            _join_parquet(paths, unfinished)


def is_whole_table(path: Path) -> bool:
    """Whether a table of `write_table` is there; of a Parquet file, that its end is, too."""
    if path.suffix == ".csv" or not os.path.isfile(path):
        return os.path.isfile(path)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_PARQUET_END)))
        return file.read() == _PARQUET_END


def _join_csv(paths: Sequence[Path], target: Path) -> None:
    columns: dict[str, None] = {}
    for path in paths:
        with _reading(path), path.open(encoding="utf-8", newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file), []))
    with target.open("w", encoding="utf-8", newline="") as out:
        if columns:
            out.write(_line(columns))
        for path in paths:
            with _reading(path), path.open(encoding="utf-8", newline="") as file:
                out.writelines(_line([row.get(name) or "" for name in columns]) for row in csv.DictReader(file))


def _join_parquet(paths: Sequence[Path], target: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schemas = []
    for path in paths:
        with _reading(path), path.open("rb") as file:
            schemas.append(parquet.read_schema(file).remove_metadata())
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive") if schemas else pyarrow.schema([])
    with target.open("wb") as out, parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for path in paths:
            with _reading(path), path.open("rb") as file:
                table = parquet.read_table(file)
            rows = pyarrow.concat_tables([schema.empty_table(), table], promote_options="permissive")
            writer.write_table(rows.select(schema.names).cast(schema))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        raise OutputError(f"cannot read the table {path} ({error}): remove it and export again") from error
