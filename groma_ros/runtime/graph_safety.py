"""Check the bytes of a bundle's ONNX graph for forbidden content before a library reads it.

The ONNX package is not a runtime dependency, so the file is searched instead of parsed: for the key of
external data and for the names of operators that repeat a part of the graph. In protobuf a text follows its
length, which for names this short is never a printable character, so the same letters inside a longer name do
not match.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from groma_ros.errors import printable
from groma_ros.runtime.bundle import Bundle, BundleError

LOOPS = ("Loop", "Scan", "SequenceMap")
"""Operators that can loop forever, or as often as the file says; Groma's graphs have none."""


def _field(tag: int, text: str) -> bytes:
    """Pattern of a protobuf text field; tag and length may use more bytes than necessary."""

    def varint(value: int) -> bytes:
        return (
            b"(?:" + re.escape(bytes([value])) + b"|" + re.escape(bytes([value | 0x80])) + b"\\x80{0,8}\\x00)"
        )

    return varint(tag) + varint(len(text)) + text.encode()


_LOOP = re.compile(b"|".join(_field(0x22, name) for name in LOOPS))  # NodeProto.op_type
_LOCATION = re.compile(_field(0x0A, "location"))  # StringStringEntryProto.key
_VALUE = re.compile(rb"(?:\x12|\x92\x80{0,8}\x00)([\x01-\x7f])")


def check_graph(bundle: Bundle, path: Path) -> None:
    """Raise BundleError for a graph that can loop, or that refers to external data the manifest does not
    list.

    External data listed in the manifest is verified by its checksum.
    """
    if not path.stat().st_size:
        raise BundleError(f"{path} is empty; fetch it again.")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        loop = _LOOP.search(data)
        if loop is not None:
            name = next(name for name in LOOPS if loop[0].endswith(name.encode()))
            raise BundleError(
                f"{path} has the operator {name}, which may run for ever; Groma's graphs have "
                "no loops, so it was not loaded."
            )
        for key in _LOCATION.finditer(data):
            value = _VALUE.match(data, key.end())
            name = data[value.end() : value.end() + value[1][0]].decode("utf-8", "replace") if value else ""
            if name not in bundle.files:
                said = printable(repr(name), 80) if value else "a file in a form that cannot be checked"
                raise BundleError(
                    f"{path} takes its weights from {said}, which the manifest does not name, so it was not "
                    "loaded."
                )
            bundle.file(name)
