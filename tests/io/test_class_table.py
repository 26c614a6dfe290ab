"""Class tables: what is written comes back, and what people's spreadsheets write is read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_studio.errors import LabelsError, OutputError
from mdm_studio.io.class_table import read_class_table, write_class_table
from mdm_studio.io.classifier_file import LabelClass

TWO = (LabelClass(1, "ground", "#e69f00"), LabelClass(2, "nucleus", "#56b4e9"))

texts = st.text(min_size=1, max_size=30) | st.sampled_from(["=1+1", "'=1", "-rf", "+", "@a", "a;b"])
names = texts.map(lambda text: " ".join(text.split())).filter(bool)
colours = st.integers(0, 0xFFFFFF).map("#{:06x}".format)
tables = st.lists(
    st.builds(LabelClass, st.integers(1, 255), names, colours),
    min_size=1,
    max_size=20,
    unique_by=(lambda each: each.value, lambda each: each.name),
)


@settings(max_examples=200, deadline=None)
@given(classes=tables)
def test_round_trip(tmp_path_factory, classes):
    path = tmp_path_factory.getbasetemp() / "classes.csv"
    write_class_table(path, classes)
    assert read_class_table(path) == tuple(classes)


def test_the_file_is_plain(tmp_path):
    write_class_table(tmp_path / "a.csv", TWO)
    assert (tmp_path / "a.csv").read_bytes() == b"value,name,color\n1,ground,#e69f00\n2,nucleus,#56b4e9\n"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffvalue,name,color\r\n1,ground,#E69F00\r\n2,nucleus,#56B4E9\r\n",
        "name,value\nground,1\nnucleus,2",
        "Value;Name;Colour;Remark\n1;ground;;x\n\n2; nucleus ;#56b4e9\n;;;\n",
        "id\tvalue\tname\n9\t1\tground\n9\t 2\tnucleus\n",
        'value,name,color\n1,"ground",\n2,"nucleus",\n',
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read_class_table(tmp_path / "a.csv") == TWO


def test_names_are_one_line(tmp_path):
    write_class_table(tmp_path / "a.csv", [LabelClass(7, ' a, "b"\r\n;c ', "#AABBCC")])
    assert read_class_table(tmp_path / "a.csv") == (LabelClass(7, 'a, "b" ;c', "#aabbcc"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no classes"),
        (b"\xef\xbb\xbf\n\n", "no classes"),
        (b"value,name,color\n", "no classes"),
        (b"1,ground\n2,nucleus\n", "columns 1, ground"),
        (b"value,name\n1,a\n1,b\n", "value 1 occurs twice"),
        (b"value,name\n1,a\n2, a\n", "name 'a' occurs twice"),
        (b"value,name\n0,a\n", "0 is unlabelled"),
        (b"value,name\n256,a\n", "256"),
        (b"value,name\n256,a,\n", "256"),
        (b"value,name\n-1,a\n", "line 2 .*'-1'"),
        (b"value,name\n1,a\n1.5,b\n", "line 3 .*'1.5'"),
        ("value,name\n\u0663,a\n".encode(), "no whole number"),
        (b"value,name\n,a\n", "no whole number"),
        (b"value,name\n1\n", "no name"),
        (b"value,name,color\n1,a,red\n", "'red': #rrggbb"),
        (b"value,name,color\n1,a,#12345\n", "#rrggbb"),
        (b"value,name\n1,\xe4\n", "not UTF-8"),
        ("value,name\n1,a\n".encode("utf-16"), "not UTF-8"),
        (b"value,name\n1," + b"x" * 200_000, "no CSV file"),
    ],
)
def test_bad_tables_are_refused_in_words(tmp_path, text, words):
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(LabelsError, match=words) as caught:
        read_class_table(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "a.csv", tmp_path):
        with pytest.raises(LabelsError, match="cannot read"):
            read_class_table(path)


@pytest.mark.parametrize("bad", [LabelClass(0, "a", "#000000"), LabelClass(1, " ", "#000000"), LabelClass(3, "a", "black")])
def test_a_table_that_could_not_be_read_is_not_written(tmp_path, bad):
    with pytest.raises(LabelsError):
        write_class_table(tmp_path / "a.csv", [*TWO[1:], bad])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError):
        write_class_table(tmp_path / "out" / "a.csv", TWO)
