"""JSON of others: what is read, and the sentence for everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groma_ros.json_files import MAX_DEPTH, JsonError, load, load_lines, load_object, parse


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"tasse": ["größer", "\U0001f600"]}, ensure_ascii=False).encode(encoding))
    assert load(path) == load_object(path) == {"tasse": ["größer", "\U0001f600"]}


def test_pairs_of_surrogates_are_one_character() -> None:
    assert parse(rb'["\ud83d\ude00", "\\ud83d"]') == ["\U0001f600", "\\ud83d"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        (b'{"a": 1}}', "Extra data"),
        (b'"\xff"', "not text in utf-8: byte 1"),
        (b"[" * 100_000, "nested deeper than 100"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 100"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper than 100"),
        (b"1" * 5000, "Exceeds the limit"),
        (b'{"id": 1, "box": 2, "id": 3}', "the key 'id' stands twice in one object"),
        (rb'[{"name": "\ud800"}]', "half a surrogate pair"),
        (rb'{"\udc00": 1}', "half a surrogate pair"),
        (rb'"\ud83d"', "half a surrogate pair"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(JsonError, match=reason):
        parse(data)
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"bad\.json is (not JSON|empty)"):
        load(path)


def test_the_deepest_that_is_read() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)[0]


def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match=r"a\.json is a web page"):
        load(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match=r"a\.json is a pointer of Git LFS"):
        load_lines(path)
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        load_object(tmp_path / "none.json")
    path.write_text("[1]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        load_object(path)


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff["a\u2028b"]\r\n\n["c\u0085"]\n'.encode())
    assert load_lines(path) == [(1, ["a\u2028b"]), (3, ["c\u0085"])]
    path.write_bytes(b'{}\n{"a": 1, "a": 2}\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*a\.jsonl is not JSON \(the key 'a' stands twice"):
        load_lines(path)


def test_a_file_beyond_every_data_set_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as stream:
        stream.truncate(5_000_000_000)
    with pytest.raises(ValueError, match="5000000000 bytes; at most 4000000000"):
        load(path)
