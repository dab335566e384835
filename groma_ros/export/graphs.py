"""Export the three ONNX graphs of a network: perceive, encode_regions and language."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.export import Dim

from groma_ros.export.decoder import LanguageGraph
from groma_ros.export.vision import PerceiveGraph, RegionGraph
from groma_ros.model.groma import Groma

OPSET = 18
# minimum number of elements: for smaller weights a Cast takes more space than it saves
_WORTH_SHRINKING = 256
LARGEST = 2**31 - 2**20
"""Maximum size of a protobuf file, and so of a graph, bytes."""


def export_graph(role: str, model: Groma, dtype: torch.dtype = torch.float32) -> onnx.ModelProto:
    """Export one graph of a float32 network on the CPU, opset 18. Modifies the network, which must not be
    used afterwards; it needs only the weights of the exported part.

    dtype: float32, or float16 for everything except what decides a box or a score. Weights that are exactly
    representable in fp16 are stored as fp16. Raises ValueError if the network cannot be exported, or the
    graph would exceed the 2 GB of a protobuf file.
    """
    with torch.no_grad():
        return _EXPORTERS[role](model.eval().requires_grad_(False), dtype)


def _perceive(model: Groma, dtype: torch.dtype) -> onnx.ModelProto:
    c = model.config
    outputs = ["image_tokens", "boxes", "objectness", *_maps(model)]
    pixels = torch.zeros(2, 3, c.image_size, c.image_size)
    return _export(PerceiveGraph(model, dtype), (pixels,), {"pixels": {0: Dim("batch")}}, ["pixels"], outputs)


def _regions(model: Groma, dtype: torch.dtype) -> onnx.ModelProto:
    c = model.config
    maps = [torch.zeros(1, *shape, dtype=dtype) for shape in c.map_shapes]
    boxes = torch.full((3, 4), 0.5)
    shapes = {"maps": [None] * len(maps), "boxes": {0: Dim("regions", max=c.vocab_size - c.first_region_id)}}
    return _export(
        RegionGraph(model, dtype), (maps, boxes), shapes, [*_maps(model), "boxes"], ["region_tokens"]
    )


def _language(model: Groma, dtype: torch.dtype) -> onnx.ModelProto:
    c = model.config.language
    groups = c.num_key_value_heads or c.num_attention_heads
    new, held = 5, 7
    past = [
        torch.zeros(groups, held, c.hidden_size // c.num_attention_heads, dtype=dtype)
        for _ in range(2 * c.num_hidden_layers)
    ]
    given = (
        torch.zeros(new, c.hidden_size),
        torch.arange(new),
        torch.zeros(new, held + new),
        torch.arange(3),
        past,
    )
    slots, prefix, wanted = Dim("new"), Dim("past"), Dim("rows")
    shapes = {
        "embeddings": {0: slots},
        "positions": {0: slots},
        "mask": {0: slots, 1: Dim.DYNAMIC},
        "rows": {0: wanted},
        "past": [{1: prefix}] * len(past),
    }
    kinds = [f"{kind}.{layer}" for layer in range(c.num_hidden_layers) for kind in ("key", "value")]
    inputs = ["embeddings", "positions", "mask", "rows", *(f"past_{kind}" for kind in kinds)]
    return _export(
        LanguageGraph(model, dtype), given, shapes, inputs, ["logits", *(f"present_{kind}" for kind in kinds)]
    )


_EXPORTERS = {"perceive": _perceive, "encode_regions": _regions, "language": _language}


def _maps(model: Groma) -> list[str]:
    return [f"map.{level}" for level in range(len(model.config.map_shapes))]


def _export(
    graph: nn.Module,
    inputs: tuple[Any, ...],
    shapes: dict[str, Any],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> onnx.ModelProto:
    # The exporter prints its steps, and warnings about its own parts.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                graph.eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,
            )
        finally:
            logging.disable(level)
    assert program is not None
    proto = program.model_proto
    # The exporter's caches keep the program, and with it every weight, alive.
    for value in program.model.graph.initializers.values():
        value.const_value = None
    _name_nodes(proto)
    drop_notes(proto)
    shrink_weights(proto)
    if proto.ByteSize() > LARGEST:
        raise ValueError(
            f"A graph of this network takes {proto.ByteSize() / 1e9:.1f} GB and one file holds at most 2 GB."
        )
    return proto


def written(proto: onnx.ModelProto) -> bytes:
    """Serialize a graph deterministically."""
    onnx.checker.check_model(proto)
    return proto.SerializeToString(deterministic=True)


def _name_nodes(proto: onnx.ModelProto) -> None:
    """Name every node after its module, such as blocks.0.query/3."""
    for number, node in enumerate(proto.graph.node):
        notes = {item.key: item.value for item in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        path = next((scope for scope in reversed(scopes[:-1]) if scope), "graph")
        node.name = f"{path}/{number}"


def drop_notes(proto: onnx.ModelProto) -> None:
    """Remove the exporter's metadata: source lines of this machine and intermediate shapes."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def shrink_weights(proto: onnx.ModelProto) -> None:
    """Store float32 weights that are exactly representable in fp16 as fp16, and repeated values along an axis
    once. Scales of 8-bit weights stay, because TensorRT requires constants.

    A Cast or an Expand before the first use restores the weight. Runtimes fold both when they load the graph,
    so only the file is smaller.
    """
    graph = proto.graph
    scales = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    first: list[onnx.NodeProto] = []
    shapes: list[TensorProto] = []
    for tensor in graph.initializer:
        if (
            tensor.data_type != TensorProto.FLOAT
            or int(np.prod(tensor.dims)) < _WORTH_SHRINKING
            or tensor.name in scales
        ):
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        once = _without_repeats(values)
        with np.errstate(over="ignore"):
            half = once.astype(np.float16)
        stored = half if np.array_equal(half.astype(np.float32), once) else once
        source = f"{name}.stored"
        if stored.dtype == np.float16:
            target = name if once.shape == values.shape else f"{name}.once"
            first.append(
                helper.make_node("Cast", [source], [target], name=f"{name}.cast", to=TensorProto.FLOAT)
            )
        elif once.shape == values.shape:
            continue
        if once.shape != values.shape:
            shapes.append(numpy_helper.from_array(np.array(values.shape, np.int64), f"{name}.shape"))
            given = f"{name}.once" if stored.dtype == np.float16 else source
            first.append(helper.make_node("Expand", [given, f"{name}.shape"], [name], name=f"{name}.expand"))
        tensor.CopyFrom(numpy_helper.from_array(stored, source))
    graph.initializer.extend(shapes)
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _without_repeats(values: NDArray[Any]) -> NDArray[Any]:
    """Cut every axis along which all values are equal to length 1."""
    for axis in range(values.ndim):
        start = np.take(values, [0], axis)
        if (values == start).all():
            values = start
    return values
