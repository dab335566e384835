"""Graphs in 8 and 4 bits, made of the float32 ones by ONNX Runtime's own quantizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from groma_ros.export.graphs import drop_notes, shrink_weights

BLOCK = 32
"""Weights in 4 bits that share a scale."""
Feeds = Sequence[Mapping[str, np.ndarray]]


def quantize_vision(source: Path, target: Path, feeds: Feeds, kept: Sequence[str] = ()) -> None:
    """Write a vision graph whose matrix products and convolutions are in 8 bits: standard Q/DQ pairs, symmetric, zero points 0.

    feeds: inputs of the graph, from which the ranges of its values are taken; kept: nodes that stay float32. Weights have a scale
    for each output, activations one for a tensor.
    """
    folded = target.with_name(f"{target.name}.folded")
    _fold(source, folded)
    names = [node.name for node in onnx.load(folded, load_external_data=False).graph.node if node.name.startswith(tuple(kept))]
    quantize_static(
        folded,
        target,
        _Reader(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Gemm"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=names if kept else [],
        extra_options={
            "ActivationSymmetric": True, "WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["Gemm"],
        },
    )  # fmt: skip
    folded.unlink()
    _finish(onnx.load(target), target)


def quantize_language(source: Path, target: Path, bits: int) -> None:
    """Write a language graph whose layers are in 8 bits (activations too, by the range of each pass) or 4 (weights alone).

    The output head stays as it is: it decides, and it is read for few rows.
    """
    folded = target.with_name(f"{target.name}.folded")
    _fold(source, folded)
    proto = onnx.load(folded)
    head = [node.name for node in proto.graph.node if "logits" in node.output]
    if bits == 8:
        quantize_dynamic(
            folded, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=head,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        proto = onnx.load(target)
    else:
        quantizer = MatMulNBitsQuantizer(proto, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=head)
        quantizer.process()
        proto = quantizer.model.model
    folded.unlink()
    _finish(proto, target)


class _Reader(CalibrationDataReader):
    """Inputs one after another, as ONNX Runtime's calibration asks for them."""

    def __init__(self, feeds: Feeds) -> None:
        self._rest: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next inputs, None when there are no more."""
        return next(self._rest, None)


def _fold(source: Path, target: Path) -> None:
    """Compute what depends on no input: weights that are stored as halves are float32 afterwards, and the quantizers know them."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _finish(proto: onnx.ModelProto, target: Path) -> None:
    """Write the graph as every other: small, and without what the quantizer says of itself."""
    drop_notes(proto)
    shrink_weights(proto)
    used = {node.domain for node in proto.graph.node} | {""}
    imports = [item for item in proto.opset_import if item.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.producer_name = proto.producer_version = ""
    onnx.checker.check_model(proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))


logging.getLogger("onnxruntime.quantization").setLevel(logging.ERROR)
