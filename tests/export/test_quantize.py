"""8-bit and 4-bit graphs: standard Q/DQ with zero points 0 in the vision graphs, no weight stored larger
than before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from groma_ros.export.calibration_frames import read_frames
from groma_ros.export.convert import convert
from groma_ros.export.making import FLOAT_PARTS, FLOAT_REGIONS
from groma_ros.export.measure import noise, noise_regions
from groma_ros.export.quantize import quantize_language, quantize_vision
from groma_ros.runtime.bundle import Bundle, read_network
from tests.small import write_small_bundle

DEMO = Path(__file__).parents[2] / "demo"


@pytest.mark.parametrize("role", ["perceive", "encode_regions"])
def test_vision_has_standard_pairs_around_zero(graph_model: Path, tmp_path: Path, role: str) -> None:
    config = read_network(Bundle.load(graph_model))
    feeds = [{"pixels": pixels} for pixels in noise(config)] if role == "perceive" else noise_regions(config)
    quantize_vision(graph_model / f"{role}.onnx", tmp_path / "q.onnx", feeds, ("detector", "input_proj"))
    proto = onnx.load(tmp_path / "q.onnx")
    assert {node.domain for node in proto.graph.node} == {""} and [
        item.domain for item in proto.opset_import
    ] == [""]
    values = {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}
    pairs = [node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) >= 6
    for node in pairs:
        assert values[node.input[2]].dtype in (np.int8, np.int32) and not values[node.input[2]].any()
    weights = [value for name, value in values.items() if value.dtype == np.int8 and value.ndim > 1]
    assert weights and max(int(np.abs(value.astype(int)).max()) for value in weights) == 64, (
        "seven bits: see quantize_vision"
    )
    assert (tmp_path / "q.onnx").stat().st_size < (graph_model / f"{role}.onnx").stat().st_size * 1.2
    detector = [node for node in proto.graph.node if node.op_type == "Gemm" and "detector" in node.name]
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert all(made.get(node.input[0]) != "DequantizeLinear" for node in detector)


def test_the_second_look_at_proposals_stays_in_float32(tmp_path: Path) -> None:
    crops = {"crop": (8, 16), "crop_side": 16}
    bundle = convert(write_small_bundle(tmp_path / "plain", calm=True, proposer=crops), tmp_path / "made")
    feeds = [{"pixels": np.random.default_rng(0).normal(size=(1, 3, 112, 112)).astype(np.float32)}]
    quantize_vision(bundle.graph("perceive", "fp32"), tmp_path / "q.onnx", feeds, FLOAT_PARTS)
    proto = onnx.load(tmp_path / "q.onnx")
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    refiner = [node for node in layers if node.name.startswith("refiner.")]
    assert {node.name.split("/")[0] for node in refiner} == {
        f"refiner.{part}" for part in ("convs.0", "convs.1", "flatten", "size", "change")
    }
    assert all(made.get(node.input[0]) != "DequantizeLinear" for node in refiner)


def test_what_reads_pixels_and_boxes_stays_in_the_region_encoder(tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path / "plain", calm=True, region={"crop": (8, 16), "crop_side": 16})
    bundle = convert(plain, tmp_path / "made")
    feeds = noise_regions(read_network(bundle))
    quantize_vision(bundle.graph("encode_regions", "fp32"), tmp_path / "q.onnx", feeds, FLOAT_REGIONS)
    proto = onnx.load(tmp_path / "q.onnx")
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    floats = {node.name.split("/")[0] for node in layers if made.get(node.input[0]) != "DequantizeLinear"}
    assert floats == {
        *("crop.convs.0", "crop.convs.1", "crop.flatten", "crop.size", "crop.output"),
        *("pooling.pos_embedd.0", "pooling.pos_embedd.3"),
    }
    assert len(layers) > len(floats)


@pytest.mark.parametrize(("bits", "operation"), [(8, "MatMulInteger"), (4, "MatMulNBits")])
def test_the_head_of_the_language_model_stays(
    graph_model: Path, tmp_path: Path, bits: int, operation: str
) -> None:
    quantize_language(graph_model / "language.onnx", tmp_path / "q.onnx", bits)
    proto = onnx.load(tmp_path / "q.onnx")
    layers = len([item for item in proto.graph.input if item.name.startswith("past_key")])
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count(operation) == layers * (4 if bits == 8 else 6) + 1
    head = next(node for node in proto.graph.node if "logits" in node.output)
    assert head.op_type == "MatMul"
    assert list(tmp_path.iterdir()) == [tmp_path / "q.onnx"]


def test_pictures_of_a_folder_and_of_a_bag(tmp_path: Path) -> None:
    assert [frame.shape for frame in read_frames(DEMO, 2)] == [(480, 640, 3)]
    shots = read_frames(DEMO / "tabletop.mcap", 5)
    assert len(shots) == 5 and all(shot.shape == (480, 640, 3) for shot in shots)
    assert not np.array_equal(shots[0], shots[4])
    with pytest.raises(ValueError, match="holds no picture"):
        read_frames(tmp_path)
    with pytest.raises(ValueError, match="is neither a folder of pictures nor a bag"):
        read_frames(tmp_path / "nowhere")
