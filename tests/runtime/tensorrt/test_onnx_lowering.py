"""Lowered graphs compute exactly what the bundle's graphs do, without avoidable int64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.tensorrt.onnx_lowering import prepared

ROOT = Path(__file__).resolve().parents[3]


def run(graph: bytes, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, feeds)
    return outputs


def feeds(graph: bytes, free: int, seed: int) -> dict[str, NDArray[Any]]:
    """Numbers for every input; free: the size of free dimensions."""
    rng = np.random.default_rng(seed)
    inputs = onnx.load_from_string(graph).graph.input
    shapes = {
        item.name: [dim.dim_value or free for dim in item.type.tensor_type.shape.dim] for item in inputs
    }
    return {name: rng.normal(0.3, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def same(graph: bytes, other: bytes, given: dict[str, NDArray[Any]]) -> None:
    for found, wanted in zip(run(other, given), run(graph, given), strict=True):
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted)


def types(graph: bytes) -> dict[str, int]:
    """The number format of every tensor."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph), strict_mode=True)
    known = {
        item.name: item.type.tensor_type.elem_type
        for item in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    return known | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def make(
    nodes: Sequence[Any],
    constants: dict[str, NDArray[Any]],
    shape: Sequence[Any] = ("n", 4),
    opset: int = 18,
    kind: int = 1,
) -> bytes:
    """A graph from x of a shape to y, of anything."""
    put = [helper.make_tensor_value_info("x", 1, shape), helper.make_tensor_value_info("y", kind, None)]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "test", put[:1], put[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    graph_file: bytes = onnx.shape_inference.infer_shapes(model, data_prop=True).SerializeToString()
    return graph_file


GRAPHS = [(name, role) for name in ("groma-tiny", "small") for role in ("perceive", "encode_regions")]


@pytest.mark.parametrize("lower", [False, True], ids=["constants", "lowered"])
@pytest.mark.parametrize(("name", "role"), GRAPHS, ids=["-".join(item) for item in GRAPHS])
def test_the_graphs_of_bundles(name: str, role: str, lower: bool, graph_model: Path) -> None:
    bundle = Bundle.load(ROOT / "engines" / name if name == "groma-tiny" else graph_model)
    graph = bundle.graph(role, "fp32").read_bytes()
    made = prepared(graph, lower)
    for free in (1, 3):
        same(graph, made, feeds(graph, free, seed=free))
    model = onnx.load_from_string(made)
    assert [item.version for item in model.opset_import] == [17 if lower else 18]
    kinds = types(made)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "InstanceNormalization"):
            assert set(node.input[1:]) <= constants
    if lower:
        # What is int64 is a shape or an axis, by a rule of ONNX, or is narrowed at once.
        wide = {tensor for tensor, kind in kinds.items() if kind == TensorProto.INT64}
        for node in model.graph.node:
            read = [
                (node.op_type, index)
                for index, tensor in enumerate(node.input)
                if tensor in wide and node.op_type != "Cast"
            ]
            assert {operand for operand in read if operand not in SHAPE_OPERANDS} == set()
        assert wide <= constants | {tensor for tensor in wide if tensor.endswith((".wide", ".int64"))}


SHAPE_OPERANDS = {
    ("Reshape", 1),
    ("Expand", 1),
    ("Unsqueeze", 1),
    ("Squeeze", 1),
    ("ReduceSum", 1),
    ("Resize", 3),
    ("Split", 1),
    ("TopK", 1),
    ("Tile", 1),
}


def test_indices_are_computed_in_int32() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Mul", ["rows", "two"], ["double"]),
        helper.make_node("Concat", ["double", "half"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("TopK", ["flat", "k"], ["best", "index"], axis=0),
        helper.make_node("Add", ["index", "zero"], ["same"]),
        helper.make_node("GatherElements", ["flat", "same"], ["again"], axis=0),
        helper.make_node("Cast", ["again"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["back"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["back", "zero", "end"], ["cut"]),
        helper.make_node("Sub", ["cut", "best"], ["y"]),
    ]
    constants = {
        name: np.array([value], np.int64) for name, value in {"zero": 0, "two": 2, "half": 2, "k": 2}.items()
    }
    graph = make(nodes, {**constants, "end": np.array([2**63 - 1])})
    made = prepared(graph, lower=True)
    same(graph, made, {"x": np.random.default_rng(0).normal(0, 40, (3, 4)).astype(np.float32)})
    kinds = types(made)
    assert {kinds[name] for name in ("rows", "double", "target", "same", "whole", "shape", "index")} == {
        TensorProto.INT32
    }
    assert {kinds[name] for name in ("shape.int64", "index.int64", "target.wide", "k")} == {TensorProto.INT64}
    ends = next(item for item in onnx.load_from_string(made).graph.initializer if item.name == "end.int32")
    assert numpy_helper.to_array(ends).tolist() == [2**31 - 1]


LOWERED = {
    "ReduceMean": (helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0), {"axes": np.array([1])}),
    "ReduceMax of all": (helper.make_node("ReduceMax", ["x"], ["y"]), {}),
    "ReduceSum": (helper.make_node("ReduceSum", ["x", "axes"], ["y"]), {"axes": np.array([-1])}),
    "Resize": (
        helper.make_node(
            "Resize",
            ["x", "", "scales"],
            ["y"],
            mode="linear",
            antialias=0,
            keep_aspect_ratio_policy="stretch",
        ),
        {"scales": np.array([1, 2], np.float32)},
    ),
    "Split": (helper.make_node("Split", ["x", "sizes"], ["y", "rest"], axis=1), {"sizes": np.array([3, 1])}),
    "Pad": (helper.make_node("Pad", ["x", "pads"], ["y"]), {"pads": np.array([0, 1, 0, 2])}),
    "ConstantOfShape": (
        helper.make_node(
            "ConstantOfShape", ["sizes"], ["y"], value=numpy_helper.from_array(np.array([7], np.float32))
        ),
        {"sizes": np.array([2, 2])},
    ),
}


@pytest.mark.parametrize("name", LOWERED)
def test_operators_that_opset_18_changed(name: str) -> None:
    node, constants = LOWERED[name]
    graph = make([node], constants)
    same(
        graph,
        prepared(graph, lower=True),
        {"x": np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)},
    )


REFUSED = {
    "Mish": ([helper.make_node("Mish", ["x"], ["y"])], {}, "operator Mish of opset 18 has no form"),
    "Resize": (
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1)],
        {"scales": np.array([1, 2], np.float32)},
        "Resize with antialiasing",
    ),
    "Split": (
        [helper.make_node("Split", ["x"], ["y", "rest"], axis=1, num_outputs=2)],
        {},
        "Split into equal parts",
    ),
    "Pad": (
        [helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"])],
        {"pads": np.array([1, 1]), "axes": np.array([1])},
        "Pad of some axes",
    ),
    "ReduceMean": (
        [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("ReduceMean", ["x", "s"], ["y"])],
        {},
        "ReduceMean with computed axes",
    ),
    "a large constant": (
        [helper.make_node("Add", ["x", "c"], ["y"])],
        {"c": np.array([2**40])},
        "constant c passes the range of int32",
    ),
    "value_int": (
        [helper.make_node("Constant", [], ["c"], value_int=3), helper.make_node("Cast", ["c"], ["y"], to=1)],
        {},
        "is int64 by its form",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_lowered_is_named(name: str) -> None:
    nodes, constants, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        prepared(make(nodes, constants), lower=True)


def test_a_newer_opset_cannot_be_lowered() -> None:
    with pytest.raises(
        ValueError, match="A graph of opset 19 with 0 functions cannot be lowered to opset 17"
    ):
        prepared(make([helper.make_node("Relu", ["x"], ["y"])], {}, opset=19), lower=True)


def test_an_int64_output_cannot_be_lowered() -> None:
    with pytest.raises(ValueError, match="The graph's y is int64"):
        prepared(make([helper.make_node("Shape", ["x"], ["y"])], {}, kind=7), lower=True)


def test_a_weight_stored_as_a_half_becomes_a_constant() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (1, 3, 1, 1)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["stored"], ["once"], to=1),
        helper.make_node("Expand", ["once", "size"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"]),
    ]
    graph = make(nodes, {"stored": weight, "size": np.array([2, 3, 1, 1])}, (1, 3, 4, 4))
    made = prepared(graph, lower=False)
    same(graph, made, {"x": np.random.default_rng(1).normal(0, 1, (1, 3, 4, 4)).astype(np.float32)})
    model = onnx.load_from_string(made)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [(item.name, list(item.dims)) for item in model.graph.initializer] == [("weight", [2, 3, 1, 1])]


def test_a_weight_that_is_computed_is_named() -> None:
    nodes = [
        helper.make_node("Relu", ["stored"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"]),
    ]
    with pytest.raises(
        ValueError, match="The weight weight is computed by Relu, which TensorRT does not take"
    ):
        prepared(make(nodes, {"stored": np.ones((1, 3, 1, 1), np.float32)}, (1, 3, 4, 4)), lower=False)
