"""Convert a bundle's graph for TensorRT's parser: weights as constants and, for 8.6, opset 17 with int32
indices.

The result is still ONNX, and ONNX Runtime computes the same bits from it. ONNX requires int64 for shapes and
axes; only there a constant of the lowered graph stays int64, within the range of int32, or a Cast precedes
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

OPSET = 17
_IR_VERSION = 8
_NEWEST = 18

_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
    "ReduceLogSumExp",
)


# Inputs that versions of the parser accept only as constants, by operator. Bundles store them as fp16, with
# a Cast after them.
_CONSTANT_INPUTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "InstanceNormalization": (1, 2)}


def prepared(graph: bytes, lower: bool) -> bytes:
    """The graph with constant weights; lower: also in opset 17 with int32 indices. Raises ValueError naming
    the operator that has no such form."""
    model = onnx.load_from_string(graph)
    _fold_weights(model.graph)
    if lower:
        _lower(model)
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _fold_weights(graph: GraphProto) -> None:
    """Evaluate Casts and Expands of constants where the parser requires a constant."""
    made_by = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    wanted = [
        node.input[i]
        for node in graph.node
        for i in _CONSTANT_INPUTS.get(node.op_type, ())
        if i < len(node.input)
    ]
    for name in dict.fromkeys(wanted):
        if name and name not in constants:
            graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(_value(name, made_by, constants)), name)
            )
            graph.node.remove(made_by[name])
    _drop_unused(graph)


def _value(name: str, made_by: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]) -> NDArray[Any]:
    """The value of a tensor that depends on no input."""
    if name in constants:
        return numpy_helper.to_array(constants[name])
    node = made_by.get(name)
    if node is None or node.op_type not in ("Cast", "Expand"):
        raise ValueError(
            f"The weight {name} is computed by {node.op_type if node else 'an input'}, which TensorRT does "
            "not take."
        )
    value = _value(node.input[0], made_by, constants)
    if node.op_type == "Cast":
        return value.astype(helper.tensor_dtype_to_np_dtype(_attributes(node)["to"]))
    return np.broadcast_to(
        value, np.broadcast_shapes(value.shape, tuple(_value(node.input[1], made_by, constants)))
    )


def _drop_unused(graph: GraphProto) -> None:
    """Remove nodes and constants that nothing reads any more."""
    while True:
        used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
        idle = [node for node in graph.node if not used & set(node.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _lower(model: ModelProto) -> None:
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset > _NEWEST or len(model.opset_import) > 1 or model.functions:
        raise ValueError(
            f"A graph of opset {opset} with {len(model.functions)} functions cannot be lowered to opset "
            f"{OPSET}."
        )
    _check_constants(model.graph)
    constants = _constants(model.graph)
    nodes = [_to_opset_17(node, constants) for node in model.graph.node]
    _to_int32(model.graph, nodes)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = min(model.ir_version, _IR_VERSION)
    del model.graph.value_info[:]
    _drop_unused(model.graph)


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _check_constants(graph: GraphProto) -> None:
    limits = np.iinfo(np.int32)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            values = numpy_helper.to_array(tensor)
            # The largest int64 means "to the end" in a Slice, as does the largest int32.
            if values.size and (
                values.min() < limits.min
                or np.any((values > limits.max) & (values != np.iinfo(np.int64).max))
            ):
                raise ValueError(f"The constant {tensor.name} passes the range of int32.")


# Opset 18 to 17


def _to_opset_17(node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
    """The same operator in opset 17. Raises ValueError if it has no equivalent."""
    if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
        raise ValueError(
            f"The operator {node.op_type} with a graph inside cannot be lowered to opset {OPSET}."
        )
    if defs.get_schema(node.op_type, _NEWEST).since_version <= OPSET:
        return node
    lower = _LOWER.get(node.op_type)
    if lower is None:
        raise ValueError(f"The operator {node.op_type} of opset {_NEWEST} has no form in opset {OPSET} here.")
    return lower(node, constants)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _made(node: NodeProto, inputs: list[str], attributes: dict[str, Any]) -> NodeProto:
    return helper.make_node(node.op_type, inputs, list(node.output), name=node.name, **attributes)


def _reduction(node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
    """Move the axes from an input to an attribute."""
    attributes = _attributes(node)
    does_nothing = attributes.pop("noop_with_empty_axes", 0)
    if len(node.input) < 2 or not node.input[1]:
        if does_nothing:
            raise ValueError(
                f"The operator {node.op_type} without axes that does nothing has no form in opset {OPSET}."
            )
        return _made(node, list(node.input[:1]), attributes)
    axes = constants.get(node.input[1])
    if axes is None:
        raise ValueError(f"The operator {node.op_type} with computed axes has no form in opset {OPSET}.")
    return _made(node, list(node.input[:1]), {**attributes, "axes": numpy_helper.to_array(axes).tolist()})


def _resize(node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
    attributes = _attributes(node)
    new = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "axes": None}
    if any(attributes.pop(name, usual) != usual for name, usual in new.items()):
        raise ValueError(
            f"The operator Resize with antialiasing, axes or a kept aspect has no form in opset {OPSET}."
        )
    return _made(node, list(node.input), attributes)


def _split(node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
    attributes = _attributes(node)
    if attributes.pop("num_outputs", None) is not None:
        raise ValueError(f"The operator Split into equal parts by their number has no form in opset {OPSET}.")
    return _made(node, list(node.input), attributes)


def _pad(node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
    if len(node.input) > 3 and node.input[3]:
        raise ValueError(f"The operator Pad of some axes has no form in opset {OPSET}.")
    return _made(node, list(node.input[:3]), _attributes(node))


_LOWER: dict[str, Callable[[NodeProto, dict[str, TensorProto]], NodeProto]] = {
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Pad": _pad,
    "Resize": _resize,
    "Split": _split,
}


# int64 to int32


def _to_int32(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Add the nodes to the graph, with every int64 that ONNX allows to be int32 as int32."""
    longs = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.INT64}
    fixed = {
        item.name
        for item in (*graph.input, *graph.output)
        if item.type.tensor_type.elem_type == TensorProto.INT64
    }
    if fixed:
        raise ValueError(
            f"The graph's {', '.join(sorted(fixed))} is int64, which TensorRT 8.6 does not take."
        )
    typed = _Int32(longs)
    for node in nodes:
        typed.add(node)
    shorts = [_short(tensor) for tensor in graph.initializer if tensor.name in typed.short]
    kept = [tensor for tensor in graph.initializer if tensor.name not in longs or tensor.name in typed.long]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(typed.nodes)
    graph.initializer.extend([*kept, *shorts])


class _Int32:
    """The nodes so far, and the constants needed as int64 (long) and as int32 (short)."""

    def __init__(self, constants: set[str]) -> None:
        self._constants = constants
        self._widened: set[str] = set()
        self.long: set[str] = set()
        self.short: set[str] = set()
        self.nodes: list[NodeProto] = []

    def add(self, node: NodeProto) -> None:
        """Add a node, with Casts where ONNX requires int64."""
        made = NodeProto()
        made.CopyFrom(node)
        schema = defs.get_schema(node.op_type, OPSET)
        for index, name in enumerate(node.input):
            made.input[index] = (
                self._as_long(name) if _long_only(schema.inputs, index) else self._as_short(name)
            )
        for item in made.attribute:
            if item.name in ("value_int", "value_ints"):
                raise ValueError(f"The constant {node.name} is int64 by its form and cannot be lowered.")
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.INT64:
                item.i = TensorProto.INT32
            if item.name == "value" and item.t.data_type == TensorProto.INT64:
                item.t.CopyFrom(_short(item.t))
        self.nodes.append(made)
        for index, name in enumerate(node.output):
            if _long_only(schema.outputs, index):
                made.output[index] = f"{name}.int64"
                self.nodes.append(
                    helper.make_node(
                        "Cast", [f"{name}.int64"], [name], name=f"{name}.narrow", to=TensorProto.INT32
                    )
                )

    def _as_short(self, name: str) -> str:
        if name not in self._constants:
            return name
        self.short.add(name)
        return f"{name}.int32"

    def _as_long(self, name: str) -> str:
        if not name:
            return name
        if name in self._constants:
            self.long.add(name)
            return name
        wide = f"{name}.wide"
        if name not in self._widened:
            self._widened.add(name)
            self.nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.INT64))
        return wide


def _long_only(parameters: Sequence[defs.OpSchema.FormalParameter], index: int) -> bool:
    """Whether ONNX allows an input or output to be int64 but not int32."""
    types = parameters[min(index, len(parameters) - 1)].types
    return "tensor(int64)" in types and "tensor(int32)" not in types


def _short(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    limits = np.iinfo(np.int32)
    return numpy_helper.from_array(
        np.clip(values, limits.min, limits.max).astype(np.int32), f"{tensor.name}.int32"
    )
