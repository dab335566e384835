"""Unsafe graphs are rejected before a library reads them, and files of the wrong type are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from groma_ros.file_checks import wrong_kind
from groma_ros.runtime.bundle import Bundle, BundleError, described
from groma_ros.runtime.graph_safety import check_graph

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


def text(tag: int, value: bytes, padded: bool = False) -> bytes:
    """A text field of protobuf; padded: its length takes a byte more than it must."""
    length = bytes([len(value) | 0x80, 0]) if padded else bytes([len(value)])
    return bytes([tag]) + length + value


def bundle_with(folder: Path, **files: bytes) -> Bundle:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    tiny = Bundle.load(TINY)
    return dataclasses.replace(
        tiny, directory=folder, files={name: described(data) for name, data in files.items()}
    )


def test_the_shipped_graphs_pass() -> None:
    bundle = Bundle.load(TINY)
    for name in bundle.files:
        if name.endswith(".onnx"):
            check_graph(bundle, bundle.file(name))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("operator", [b"Loop", b"Scan", b"SequenceMap"])
def test_a_graph_that_may_run_for_ever_is_refused(tmp_path: Path, operator: bytes, padded: bool) -> None:
    bundle = bundle_with(tmp_path, graph=b"\x00" * 50 + text(0x22, operator, padded) + b"*\x02")
    with pytest.raises(BundleError, match=f"has the operator {operator.decode()}, which may run for ever"):
        check_graph(bundle, tmp_path / "graph")


def test_the_same_letters_in_a_name_are_no_loop(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, graph=text(0x1A, b"Loop") + text(0x22, b"MyLoop") + b"location")
    check_graph(bundle, tmp_path / "graph")


def test_external_data_must_be_named_by_the_manifest(tmp_path: Path) -> None:
    graph = text(0x0A, b"location") + text(0x12, b"weights.bin")
    bundle = bundle_with(tmp_path, graph=graph, **{"weights.bin": b"abc"})
    check_graph(bundle, tmp_path / "graph")
    (tmp_path / "weights.bin").write_bytes(b"abd")
    with pytest.raises(BundleError, match="was altered"):
        check_graph(bundle, tmp_path / "graph")
    for name in (b"../../etc/passwd", b"other.bin"):
        bundle = bundle_with(tmp_path, graph=text(0x0A, b"location", True) + text(0x12, name))
        with pytest.raises(BundleError, match="takes its weights from .*, which the manifest does not name"):
            check_graph(bundle, tmp_path / "graph")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
        (b'{"error": "Repository not found"}', "the error message of a server"),
        (b"", "empty"),
    ],
)
def test_a_file_of_a_bundle_that_is_something_else_is_named(
    tmp_path: Path, content: bytes, said: str
) -> None:
    for path in TINY.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = tmp_path / "tokenizer.model"
    victim.write_bytes(content)
    with pytest.raises(BundleError, match=rf"tokenizer.model is {said}"):
        Bundle.load(tmp_path)
    victim.write_bytes((TINY / "tokenizer.model").read_bytes())
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"manifest.json is {said}"):
        Bundle.load(tmp_path)
    assert wrong_kind(TINY / "manifest.json") is None
