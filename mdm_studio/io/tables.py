"""Tables as CSV and Parquet files."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_studio.errors import OutputError
from mdm_studio.io.atomic import make_folder, replacing, write_text

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
    text = io.StringIO()
    if columns:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_field(row.get(column)) for column in columns] for row in rows)
    make_folder(path.parent)
    write_text(path, text.getvalue())


def _field(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


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
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*(column.tolist() for column in columns.values()), strict=True):
            writer.writerow([_field(value) for value in row])
        write_text(path, text.getvalue())
        return
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({name: pyarrow.array(column, from_pandas=True) for name, column in columns.items()})
    with replacing(path) as unfinished:
        parquet.write_table(table, unfinished, compression="zstd")


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
    if path.suffix == ".csv" or not path.is_file():
        return path.is_file()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_PARQUET_END)))
        return file.read() == _PARQUET_END


def _join_csv(paths: Sequence[Path], target: Path) -> None:
    columns: dict[str, None] = {}
    for path in paths:
        with _reading(path), path.open(encoding="utf-8", newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file), []))
    with target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
        if columns:
            writer.writeheader()
        for path in paths:
            with _reading(path), path.open(encoding="utf-8", newline="") as file:
                writer.writerows(csv.DictReader(file))


def _join_parquet(paths: Sequence[Path], target: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schemas = []
    for path in paths:
        with _reading(path):
            schemas.append(parquet.read_schema(path).remove_metadata())
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive") if schemas else pyarrow.schema([])
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for path in paths:
            with _reading(path):
                table = parquet.read_table(path)
            rows = pyarrow.concat_tables([schema.empty_table(), table], promote_options="permissive")
            writer.write_table(rows.select(schema.names).cast(schema))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        raise OutputError(f"cannot read the table {path} ({error}): remove it and export again") from error
