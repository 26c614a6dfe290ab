import os
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

from mdm_studio.io.json_files import parse_json, read_json


@dataclass(frozen=True)
class Point:
    x: Annotated[int, msgspec.Meta(ge=0)]
    names: tuple[str, ...] = ()


def test_a_document_becomes_its_type():
    assert parse_json('{"x": 3, "names": ["a"], "unknown": 1}', Point) == Point(3, ("a",))
    assert parse_json(b'{"loss": NaN}', dict[str, Any])["loss"] != 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "object"),
        ("null", "object"),
        ('{"x": "3"}', r"\$\.x"),
        ('{"x": true}', r"\$\.x"),
        ('{"x": -1}', "0"),
        ("{}", "x"),
        ("{", None),
        (b"\xff\xfe{", None),
        ("[" * 100_000, "nested"),
        ('{"x": ' + "1" * 5000 + "}", None),
        ('{"x": 1, "names": ' + "[" * 900 + "]" * 900 + "}", None),
    ],
    ids=range(11),
)
def test_what_does_not_fit_is_one_line(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_json(text, Point)
    assert "\n" not in str(caught.value)


def test_only_regular_files_of_a_sane_size_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"x": 1}')
    assert read_json(path, Point) == Point(1)
    with pytest.raises(ValueError, match="8 bytes"):
        read_json(path, Point, max_bytes=7)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Point)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(ValueError, match="regular"):
            read_json(tmp_path / "pipe.json", Point)
