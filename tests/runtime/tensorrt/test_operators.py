"""The vision graphs of bundles use only operators that TensorRT 8.6, 10 and 11 support."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.tensorrt.onnx_lowering import prepared
from tests.runtime.bindings import VERSIONS
from tests.runtime.operators import faults
from tests.runtime.tensorrt.test_onnx_lowering import GRAPHS, ROOT, make


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "role"), GRAPHS, ids=["-".join(item) for item in GRAPHS])
def test_graphs_hold_what_the_parser_takes(name: str, role: str, version: str, graph_model: Path) -> None:
    bundle = Bundle.load(ROOT / "engines" / name if name == "groma-tiny" else graph_model)
    lower = version == "8.6"
    for precision in ("fp32",) if lower else bundle.vision_precisions:
        graph = bundle.graph(role, precision).read_bytes()
        assert faults(prepared(graph, lower), version) == []
        used = {node.op_type for node in onnx.load_from_string(graph).graph.node}
        assert not used & {"NonMaxSuppression", "RoiAlign", "If", "Loop", "NonZero", "IsNaN"}


DOUBLES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("Cast", "x", "b", {"to": 11}),
    ("Sin", "b", "c", {}),
    ("Cast", "c", "y", {"to": 1}),
)
BAD = {
    "an unknown operator": ([helper.make_node("Mish", ["x"], ["y"])], {}, "no such operator"),
    "a large TopK": (
        [helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=0)],
        {"k": np.array([4000])},
        "takes the best 4000",
    ),
    "a TopK in any order": (
        [helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=0, sorted=0)],
        {"k": np.array([2])},
        "sorted 0",
    ),
    "an ellipsis": (
        [helper.make_node("Einsum", ["x", "x"], ["y"], equation="...i,...i->...")],
        {},
        r"is \.\.\.i",
    ),
    "a diagonal": ([helper.make_node("Einsum", ["x"], ["y"], equation="ii->i")], {}, "is ii->i"),
    "a cubic Resize": (
        [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic")],
        {"s": np.array([1, 2], np.float32)},
        "is half_pixel b'cubic'",
    ),
    "a computed K": (
        [
            helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
            helper.make_node("TopK", ["x", "s"], ["y", "i"]),
        ],
        {},
        "1 is no constant",
    ),
    "the sine of doubles": (
        [helper.make_node(kind, [one], [two], **to) for kind, one, two, to in DOUBLES],
        {},
        "Sin .*: b is DOUBLE",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_parser_refuses_is_found(name: str) -> None:
    nodes, constants, said = BAD[name]
    shape = (4, 4) if name == "a diagonal" else (5000, 4)
    found = faults(make(nodes, constants, shape), "11.4")
    assert any(re.search(said, fault) for fault in found), found


def test_a_graph_of_the_bundle_is_too_new_for_8_6(graph_model: Path) -> None:
    """So the lowered copy is what the lint of 8.6 is about."""
    graph = Bundle.load(graph_model).graph("perceive", "fp32").read_bytes()
    found = faults(graph, "8.6")
    assert "opset :18" in found and any(fault.endswith("is int64") for fault in found)
