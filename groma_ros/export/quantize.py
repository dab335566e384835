"""Quantize float32 graphs to 8 and 4 bits with ONNX Runtime's quantizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from groma_ros.export.graphs import drop_notes, shrink_weights

BLOCK = 32
"""Number of 4-bit weights that share a scale."""
Feeds = Sequence[Mapping[str, NDArray[Any]]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizers, which log every tensor to the root logger."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


@_quiet()
def quantize_vision(source: Path, target: Path, feeds: Feeds, kept: Sequence[str] = ()) -> None:
    """Write a vision graph with matrix products and convolutions in 8 bits: Q/DQ pairs, symmetric, zero
    points 0.

    feeds: inputs of the graph, from which activation ranges are computed; kept: substrings of the names of
    nodes that stay in float32. Weights have one scale for each output and use seven bits, because processors
    without VNNI add two products in 16 bits; activations have one scale for each tensor.
    """
    folded = target.with_name(f"{target.name}.folded")
    _fold(source, folded)
    names = [
        node.name
        for node in onnx.load(folded, load_external_data=False).graph.node
        if any(part in node.name for part in kept)
    ]
    quantize_static(
        folded,
        target,
        _Reader(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=names,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
        },
    )
    folded.unlink()
    _finish(onnx.load(target), onnx.load(source), target)


@_quiet()
def quantize_language(source: Path, target: Path, bits: int) -> None:
    """Write a language graph with layers in 8 bits (also activations, by the range in each run) or 4 bits
    (weights only).

    The output head stays in float32: it decides the answer and is computed for few rows. In 8 bits this also
    applies to the two products whose inputs are themselves products, of attention and of the gate: one range
    for a whole run is too coarse for their outliers.
    """
    folded = target.with_name(f"{target.name}.folded")
    _fold(source, folded)
    proto = onnx.load(folded)
    head = [node.name for node in proto.graph.node if "logits" in node.output]
    if bits == 8:
        fine = [
            node.name
            for node in proto.graph.node
            if node.op_type == "MatMul" and node.input[1].endswith((".output", ".down"))
        ]
        quantize_dynamic(
            folded,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*head, *fine],
            extra_options={"MatMulConstBOnly": True},
        )
        proto = onnx.load(target)
    else:
        quantizer = MatMulNBitsQuantizer(
            proto, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=head
        )
        quantizer.process()
        proto = quantizer.model.model
    folded.unlink()
    _finish(proto, onnx.load(source), target)


class _Reader(CalibrationDataReader):
    """Feeds inputs to ONNX Runtime's calibration."""

    def __init__(self, feeds: Feeds) -> None:
        self._rest: Iterator[Mapping[str, NDArray[Any]]] = iter(feeds)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The next inputs; None when there are no more."""
        return next(self._rest, None)


def _fold(source: Path, target: Path) -> None:
    """Evaluate everything that does not depend on an input: weights stored in fp16 become float32, which the
    quantizers recognise."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _finish(proto: onnx.ModelProto, source: onnx.ModelProto, target: Path) -> None:
    """Write the graph compactly, without the quantizer's metadata."""
    drop_notes(proto)
    _unfold(proto.graph, source.graph)
    shrink_weights(proto)
    used = {node.domain for node in proto.graph.node} | {""}
    imports = [item for item in proto.opset_import if item.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.producer_name = proto.producer_version = ""
    onnx.checker.check_model(proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))


def _unfold(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Restore fp16 weights, and what is computed from them, in place of float32 weights that were not
    quantized."""
    makers = {name: node for node in source.node for name in node.output}
    stored = {item.name: item for item in source.initializer}
    nodes: list[onnx.NodeProto] = []
    kept: dict[str, onnx.TensorProto] = {item.name: item for item in graph.initializer}

    def restore(name: str) -> None:
        if name in stored:
            kept[name] = stored[name]
            return
        for part in makers[name].input:
            if part not in kept or part in makers:
                restore(part)
        if makers[name] not in nodes:
            nodes.append(makers[name])
        kept.pop(name, None)

    for name in [
        item.name
        for item in graph.initializer
        if item.name in makers and item.data_type == onnx.TensorProto.FLOAT
    ]:
        restore(name)
    del graph.initializer[:]
    graph.initializer.extend(kept.values())
    rest = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(rest)
