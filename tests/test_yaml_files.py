"""YAML files with limits: accepted content, and bombs rejected before expansion."""

import datetime
import time
from pathlib import Path

import pytest

from groma_ros.yaml_files import MAX_BYTES, YamlError, load


def bomb(levels: int, lead: str) -> str:
    """A list of lists in which every level repeats the one before ten times."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    for number in range(1, levels):
        lines.append(f"a{number}: &a{number} [{','.join([f'*a{number - 1}'] * 10)}]")
    return "\n".join([*lines, lead.format(levels - 1)]) + "\n"


def test_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: [x, &y 2.5, *y]\nc: {d: true}\n")
    assert load(path) == {"a": 1, "b": ["x", 2.5, 2.5], "c": {"d": True}}
    path.write_text("")
    assert load(path) is None


def test_values_with_the_tags_of_yaml_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "%YAML 1.1\n---\na: !!str 3\nb: !!int '3'\nc: !!float 3\nd: !!binary aGk=\n"
        "e: !!set {x}\nf: !!omap [x: 1]\ng: !!timestamp 2024-01-02\nh: ! x\n"
        "i: !<tag:yaml.org,2002:str> 4\nj: !!null ''\n"
    )
    assert load(path) == {
        **{"a": "3", "b": 3, "c": 3.0, "d": b"hi", "e": {"x"}, "f": [("x", 1)]},
        **{"g": datetime.date(2024, 1, 2), "h": "x", "i": "4", "j": None},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(9, "end: *a{}"), "aliases expand to more than 100000 values"),
        (bomb(9, "<<: [*a{}]"), "aliases expand to more than 100000 values"),
        ("? " + bomb(9, "x: *a{}").replace("\n", "\n  ") + "\n: y\n", "a key is a mapping"),
        ("&a [*a]\n", "an alias repeats the branch it stands in"),
        ("[" * 100_000, "nested deeper than 100 levels"),
        ("- " * 100_000, "nested deeper than 100 levels"),
        ("{a: " * 5_000, "nested deeper than 100 levels"),
        ("a: *b\n", "it is not YAML: in line 1"),
        ("a: 2024-99-99\n", "month must be in 1..12"),
        (
            "a: !!python/object/apply:os.system [x]\n",
            "in line 1: the tag python/object/apply:os.system is not of a plain value",
        ),
        ("a: !!python/tuple [x]\n", "in line 1: the tag python/tuple is not of a plain value"),
        ("a: !!bool maybe\n", "a value does not fit its tag"),
        ("a: !!int ''\n", "a value does not fit its tag"),
        ("a: !!float ''\n", "a value does not fit its tag"),
        ("\na: 1" + ":59" * 300_000, "in line 2: a number has more than 1000 characters"),
        ("a: 0x" + "f" * 900_000, "in line 1: a number has more than 1000 characters"),
        ("%TAG !! tag:else.org,2000:\n---\na: !!str x\n", "the tag tag:else.org,2000:str is not of a plain"),
        ("x" * (MAX_BYTES + 1), "more than 1000000 bytes"),
    ],
    ids=[
        "values",
        "merges",
        "keys",
        "circle",
        "brackets",
        "dashes",
        "braces",
        "anchor",
        "date",
        "code",
        "tuple",
        "bool",
        "int",
        "float",
        "sexagesimal",
        "hexadecimal",
        "tag",
        "size",
    ],
)
def test_what_is_refused_is_refused_at_once(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(YamlError) as caught:
        load(path)
    assert reason in str(caught.value) and len(str(caught.value)) < 300
    assert time.process_time() - begin < 2
