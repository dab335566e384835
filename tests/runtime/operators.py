"""What TensorRT's parser takes: operators with their number formats, and the restrictions that concern graphs
like ours.

Sources: the operator list of onnx-tensorrt for 8.5 and its changes since (LayerNormalization came with 8.6,
int64 with 9), and the opset guide of 11. Formats: f floats, i int32 (since 9 also int64), b bool, q int8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FORMATS = {
    **dict.fromkeys(
        ("Cos", "Einsum", "Erf", "Exp", "Floor", "GridSample", "InstanceNormalization", "LayerNormalization"),
        "f",
    ),
    **dict.fromkeys(
        ("Log", "MatMul", "Pow", "Resize", "Round", "Sigmoid", "Sin", "Softmax", "Sqrt", "Tanh"), "f"
    ),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"), "f"),
    **dict.fromkeys(("Abs", "Add", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Sub", "TopK"), "fi"),
    **dict.fromkeys(("Clip", "Conv", "Gemm", "Relu"), "fq"),
    **dict.fromkeys(
        ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Expand", "Split", "Tile", "Where"),
        "fib",
    ),
    **dict.fromkeys(
        ("Cast", "Concat", "Gather", "GatherElements", "Reshape", "Shape", "Slice", "Squeeze"), "fibq"
    ),
    **dict.fromkeys(
        ("Constant", "Identity", "Transpose", "Unsqueeze", "DequantizeLinear", "QuantizeLinear"), "fibq"
    ),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), "b"),
    "ConstantOfShape": "fi",
    "Pad": "fiq",
    "Range": "fi",
}
_LETTERS = {
    TensorProto.FLOAT: "f",
    TensorProto.FLOAT16: "f",
    TensorProto.INT32: "i",
    TensorProto.INT64: "i",
    TensorProto.BOOL: "b",
    TensorProto.INT8: "q",
}
_TRANSFORMS = (b"half_pixel", b"pytorch_half_pixel", b"tf_half_pixel_for_nn", b"asymmetric", b"align_corners")
_CONSTANT = {
    "Conv": (1, 2),
    "InstanceNormalization": (1, 2),
    "TopK": (1,),
    "Resize": (1, 2, 3),
    "Slice": (3,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
}
_MOST_TOPK, _MOST_AXES = 3840, 8
# In int64 by a rule of ONNX, where 8.6 reads it as int32.
_SHAPES = {"Resize": (3,)} | dict.fromkeys(
    ("Expand", "Pad", "ReduceSum", "Reshape", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze"), (1,)
)


def faults(graph: bytes, version: str) -> list[str]:
    """What the parser of a version would refuse in a graph, each in a line."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph), strict_mode=True, data_prop=True)
    most = 17 if version.startswith("8.") else 20
    found = [
        f"opset {item.domain}:{item.version}"
        for item in model.opset_import
        if item.domain or item.version > most
    ]
    found += [f"function {item.name}" for item in model.functions]
    linter = _Linter(model, wide=not version.startswith("8."))
    return found + [fault for node in model.graph.node for fault in linter.faults(node)]


class _Linter:
    def __init__(self, model: ModelProto, wide: bool) -> None:
        self._wide = wide
        parts = (*model.graph.value_info, *model.graph.input, *model.graph.output)
        self._types = {item.name: item.type.tensor_type.elem_type for item in parts}
        self._types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self._axes = {item.name: len(item.type.tensor_type.shape.dim) for item in parts}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def faults(self, node: NodeProto) -> Iterator[str]:
        where = f"{node.op_type} {node.name or node.output[0]}"
        allowed = FORMATS.get(node.op_type)
        if allowed is None:
            yield f"{where}: no such operator"
            return
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        yield from (f"{where}: {fault}" for fault in self._formats(node, allowed))
        for index in _CONSTANT.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] and node.input[index] not in self._constants:
                yield f"{where}: input {index} is no constant"
        yield from (f"{where}: {fault}" for fault in self._restrictions(node, attributes))

    def _formats(self, node: NodeProto, allowed: str) -> Iterator[str]:
        shapes = _SHAPES.get(node.op_type, ())
        for index, name in enumerate((*node.input, *node.output)):
            if not name:
                continue
            kind = self._types[name]
            # The first operand decides; the others are its like, or indices and conditions.
            if _LETTERS.get(kind, "?") not in (allowed if index == 0 else allowed + "ib"):
                yield f"{name} is {TensorProto.DataType.Name(kind)}"
            narrowed = node.op_type == "Cast" or index >= len(node.input)
            if kind == TensorProto.INT64 and not self._wide and index not in shapes and not narrowed:
                yield f"{name} is int64"
            if self._axes.get(name, 0) > _MOST_AXES:
                yield f"{name} has {self._axes[name]} axes"

    def _restrictions(self, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
        if node.op_type == "TopK" and node.input[1] in self._constants:
            count = int(self._value(node.input[1]).item())
            if count >= _MOST_TOPK or not attributes.get("sorted", 1):
                yield f"takes the best {count}, sorted {attributes.get('sorted', 1)}"
        if node.op_type == "Einsum":
            terms = attributes["equation"].decode().replace("->", ",").split(",")
            if len(node.input) > 2 or any("." in term or len(set(term)) < len(term) for term in terms):
                yield f"is {attributes['equation'].decode()}"
        if node.op_type == "Resize":
            how = attributes.get("coordinate_transformation_mode", b"half_pixel")
            if how not in _TRANSFORMS or attributes.get("mode", b"nearest") not in (b"nearest", b"linear"):
                yield f"is {how.decode()} {attributes.get('mode')}"
        if node.op_type == "InstanceNormalization" and not 3 <= self._axes[node.input[0]] <= 5:
            yield f"has {self._axes[node.input[0]]} axes"
        if node.op_type == "GridSample" and self._axes[node.input[0]] != 4:
            yield f"has {self._axes[node.input[0]]} axes"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = self._value(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.int8)
            if zero.dtype != np.int8 or zero.any():
                yield "is not symmetric int8"

    def _value(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._constants[name])
