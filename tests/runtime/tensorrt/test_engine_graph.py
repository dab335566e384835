"""One graph as an engine: types of inputs and outputs, values that stay on the device, renamed tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from groma_ros.preprocessing import ImageTransform
from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.runtime.graph_vision import Shapes
from groma_ros.runtime.tensorrt.bindings import EnginePlan, TensorRT, trtexec_line
from groma_ros.runtime.tensorrt.cuda import Cuda
from groma_ros.runtime.tensorrt.engine_graph import EngineGraph
from tests.runtime.machine import Machine

SHAPES: tuple[Shapes, Shapes] = ({"x": ("", 3)}, {"y": ("", 3), "z": ("", 3)})
BUNDLE = Bundle(Path(), "small", {}, ImageTransform(112), {})
PLAN = EnginePlan({"x": ((1, 3), (1, 3), (4, 3))}, 3 << 20)


def graph(kind: int, rows: Any = "n") -> bytes:
    """y = x + x, of the format of x, and z = y in float32."""
    x, y = (helper.make_tensor_value_info(name, kind, [rows, 3]) for name in "xy")
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [rows, 3])
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "double", [x], [y, z]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    graph_file: bytes = made.SerializeToString()
    return graph_file


def load(
    data: bytes, cuda: Cuda, shapes: tuple[Shapes, Shapes] = SHAPES, plan: EnginePlan = PLAN
) -> EngineGraph:
    library = TensorRT()
    engine = library.load(library.build(data, plan, b"", lambda *told: None)[0])
    return EngineGraph(BUNDLE, "double.onnx", shapes, engine, cuda)


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_halves_go_in_and_out_as_halves(gpu_machine: Machine, version: str) -> None:
    gpu_machine(version)
    double = load(graph(TensorProto.FLOAT16), Cuda())
    values = np.array([[1, 2.5, 1000.3]], np.float32)
    found, held = double.run({"x": values}, kept=["y"])
    half = values.astype(np.float16)
    assert found["z"].dtype == np.float32 and np.array_equal(found["z"], (half + half).astype(np.float32))
    again, _ = double.run({"x": held["y"]})
    assert again["y"].dtype == np.float32 and np.array_equal(again["y"], (4 * half).astype(np.float32))
    assert held["y"].dtype == np.float16 and held["y"].nbytes == 6


def test_what_is_kept_is_not_what_a_later_pass_makes(gpu_machine: Machine) -> None:
    gpu_machine("11.4")
    double = load(graph(TensorProto.FLOAT), Cuda())
    kept = [double.run({"x": np.full((2, 3), value, np.float32)}, kept=["y"])[1]["y"] for value in range(8)]
    for value, one in enumerate(kept):
        assert np.array_equal(double.run({"x": one})[0]["y"], np.full((2, 3), 4 * value, np.float32))


def test_a_value_of_another_format_is_refused(gpu_machine: Machine) -> None:
    gpu_machine("11.4")
    cuda = Cuda()
    halves, floats = (load(graph(kind), cuda) for kind in (TensorProto.FLOAT16, TensorProto.FLOAT))
    _, held = halves.run({"x": np.ones((1, 3), np.float32)}, kept=["y"])
    with pytest.raises(ValueError, match="The engine takes x as float32 and was given float16"):
        floats.run({"x": held["y"]})


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (
            ({"x": ("", 3), "w": ("",)}, SHAPES[1]),
            "double.onnx of small lacks the input w; make the graphs again",
        ),
        ((SHAPES[0], {"y": ("", 3)}), "double.onnx of small has the output z, which nothing knows"),
        (
            ({"x": ("", 4)}, SHAPES[1]),
            r"has the input x of shape \(, 3\), but its network config asks for \(free, 4\)",
        ),
    ],
)
def test_an_engine_of_another_network(gpu_machine: Machine, shapes: tuple[Shapes, Shapes], said: str) -> None:
    gpu_machine("11.4")
    with pytest.raises(BundleError, match=said):
        load(graph(TensorProto.FLOAT), Cuda(), shapes)


def test_a_graph_without_a_free_dimension(gpu_machine: Machine, version: str) -> None:
    gpu_machine(version)
    double = load(
        graph(TensorProto.FLOAT, 2),
        Cuda(),
        ({"x": (2, 3)}, {"y": (2, 3), "z": (2, 3)}),
        EnginePlan({}, 1 << 20),
    )
    assert np.array_equal(
        double.run({"x": np.ones((2, 3), np.float32)})[0]["y"], np.full((2, 3), 2, np.float32)
    )
    with pytest.raises(
        ValueError, match=r"The engine takes x up to the shape \(2, 3\) and was given \(1, 3\)"
    ):
        double.run({"x": np.ones((1, 3), np.float32)})


def test_a_line_for_trtexec() -> None:
    plan = EnginePlan({"x": ((1, 3), (2, 3), (4, 3)), "y": ((1,), (1,), (9,))}, 5 << 20)
    assert trtexec_line(Path("a b.onnx"), Path("e"), None, plan, False) == (
        "trtexec '--onnx=a b.onnx' --saveEngine=e --minShapes=x:1x3,y:1 --optShapes=x:2x3,y:1 "
        "--maxShapes=x:4x3,y:9 --noTF32 "
        "--memPoolSize=workspace:5"
    )
    line = trtexec_line(Path("a.onnx"), Path("e"), Path("t"), EnginePlan({}, 1 << 20), True)
    assert (
        line == "trtexec --onnx=a.onnx --saveEngine=e --noTF32 --memPoolSize=workspace:1 --stronglyTyped "
        "--timingCacheFile=t"
    )
