import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.errors import OutputError
from mdm_studio.io.names import of_cell
from mdm_studio.io.tables import is_whole_table, join_tables, write_rows, write_table


def test_columns_keep_the_order_of_first_use(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image": "a,b", "dice": np.float32(0.5), "n": np.int64(3)},
        {"image": 'µ"x"', "n": None, "extra": float("nan"), "dice": 1.0},
    ]
    write_rows(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_text("utf-8") == 'image,dice,n,extra\n"a,b",0.5,3,\n"µ""x""",1.0,,\n'


def test_no_rows_give_an_empty_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_bytes() == b""


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_rows(tmp_path / "file" / "t.csv", [{"a": 1}])


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXT, "b,\n": st.integers(), '"c"': st.floats(allow_nan=False)}), min_size=1))
def test_tables_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    write_rows(path, rows)
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [{"a": of_cell(row["a"]), "b,\n": int(row["b,\n"]), '"c"': float(row['"c"'])} for row in read] == rows


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


COLUMNS = {"image": np.full(2, "µ,b"), "n": np.array([1, 2]), "x": np.array([1.5, np.nan])}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_as_csv_and_parquet(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    assert not is_whole_table(path)
    write_table(path, COLUMNS)
    assert is_whole_table(path)
    first, second = read(path)
    if kind == "csv":
        assert first == {"image": "µ,b", "n": "1", "x": "1.5"}
        assert second["x"] == ""
    else:
        assert first == {"image": "µ,b", "n": 1, "x": 1.5}
        assert second["x"] is None
        path.write_bytes(path.read_bytes()[:-3])
        assert not is_whole_table(path)


FORMULAS = ('=HYPERLINK("x")', "+1", "-1", "@x", "\t=1", "\r=1", "'=1", "\uff1d1")


@pytest.mark.parametrize("joined", [False, True])
def test_text_is_no_formula_and_numbers_are_numbers(tmp_path: Path, joined: bool) -> None:
    columns = {"=name": np.array(FORMULAS), "n": np.full(len(FORMULAS), -1), "x": np.full(len(FORMULAS), -0.5)}
    for kind in ("csv", "parquet"):
        write_table(tmp_path / f"t.{kind}", columns)
        if joined:
            join_tables([tmp_path / f"t.{kind}"], tmp_path / f"t.{kind}")
    assert [row["=name"] for row in read(tmp_path / "t.parquet")] == list(FORMULAS)
    rows = read(tmp_path / "t.csv")
    assert [row["'=name"] for row in rows] == [f"'{text}" for text in FORMULAS]
    assert {(row["n"], row["x"]) for row in rows} == {("-1", "-0.5")}
    write_rows(tmp_path / "r.csv", [{"@": text, "n": np.float32(-2)} for text in FORMULAS])
    assert [of_cell(row["'@"]) for row in read(tmp_path / "r.csv")] == list(FORMULAS)
    assert {row["n"] for row in read(tmp_path / "r.csv")} == {"-2.0"}


def test_other_separators_part_no_cells(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", [{"name": "a;=1"}, {"name": "a\t=1"}])
    assert (tmp_path / "t.csv").read_text() == 'name\n"a;=1"\n"a\t=1"\n'


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_of_other_columns_are_joined(tmp_path: Path, kind: str) -> None:
    """An image without objects has a header and no rows; one with another channel has a column more."""
    write_table(tmp_path / f"a.{kind}", COLUMNS)
    write_table(tmp_path / f"b.{kind}", {"image": np.full(0, ""), "n": np.zeros(0, np.int64), "x": np.zeros(0)})
    write_table(tmp_path / f"c.{kind}", {"image": np.full(1, "c"), "n": np.array([7]), "more": np.array([0.25])})
    join_tables([tmp_path / f"{name}.{kind}" for name in "abc"], tmp_path / f"all.{kind}")
    rows = read(tmp_path / f"all.{kind}")
    assert [row["image"] for row in rows] == ["µ,b", "µ,b", "c"]
    assert list(rows[0]) == ["image", "n", "x", "more"]
    assert (float(rows[2]["n"]), rows[2]["x"] or None, float(rows[2]["more"])) == (7, None, 0.25)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_damaged_table_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a.{kind}").write_bytes(b"\xff\xfe")
    with pytest.raises(OutputError, match=rf"a\.{kind}"):
        join_tables([tmp_path / f"a.{kind}"], tmp_path / f"all.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{kind}"]
