"""The vision tokenizer on TensorRT, every version's API before a GPU in C: the scenes of ONNX Runtime, bit for bit."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.engine_vision import load_tensorrt_vision
from groma_ros.runtime.onnx import OnnxVision, load_onnx_vision
from groma_ros.runtime.tensorrt import EngineError
from groma_ros.types import Frame, Scene
from tests.runtime.driver import Driver
from tests.runtime.machine import Machine
from tests.small import blocks


@pytest.fixture(scope="module")
def onnx(graph_model: Path) -> OnnxVision:
    return load_onnx_vision(Bundle.load(graph_model), "cpu", 1)


def same(found: Scene, wanted: Scene) -> None:
    for name in ("boxes", "objectness", "image_tokens", "region_tokens"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert one.dtype == np.float32 and len(one) and np.array_equal(one, other), name


def test_scenes_are_those_of_onnx_runtime(gpu_machine: Machine, version: str, graph_model: Path, onnx: OnnxVision) -> None:
    """Also from recorded work; a scene stays what it was when others follow it."""
    fake = gpu_machine(version)
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    user = np.array([[3, 4, 30, 40], [40, 10, 60, 30]], np.float32)
    scenes = [(vision.encode(frame), onnx.encode(frame)) for frame in (Frame(blocks(seed), seed) for seed in range(6))]
    for found, wanted in scenes:
        same(found, wanted)
        same(vision.refer(found, user), onnx.refer(wanted, user))
    # Three passes of either graph are started one kernel at a time, all later ones as one.
    assert fake.driver.launches == (6 - 3) + (12 - 3)
    assert fake.driver.graphs == 2


def test_any_number_of_regions_and_pictures(gpu_machine: Machine, version: str, graph_model: Path, onnx: OnnxVision) -> None:
    fake = gpu_machine(version)
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    rng = np.random.default_rng(0)
    pixels = rng.normal(0, 1, (4, 3, 112, 112)).astype(np.float32)
    _, maps = vision.perceive.run({"pixels": pixels[:1]}, kept=["map.0", "map.1"])
    _, wanted = onnx.perceive.run({"pixels": pixels[:1]}, kept=["map.0", "map.1"])
    for count in (1, 12, 5, 5, 5, 5, 5, 2, 12):
        boxes = rng.uniform(0, 1, (count, 4)).astype(np.float32)
        found, other = (graph.run({**held, "boxes": boxes})[0] for graph, held in ((vision.regions, maps), (onnx.regions, wanted)))
        assert found["region_tokens"].shape == (count, 64)
        assert np.array_equal(found["region_tokens"], other["region_tokens"])
    assert fake.driver.launches == 2 and fake.driver.graphs == 0
    for count in (4, 1, 3):
        found, other = (graph.run({"pixels": pixels[:count]})[0] for graph in (vision.perceive, onnx.perceive))
        assert all(np.array_equal(found[name], other[name]) for name in other)


def test_work_that_cannot_be_recorded_is_started_as_it_is(gpu_machine: Machine, version: str, graph_model: Path, onnx: OnnxVision) -> None:
    fake = gpu_machine(version)
    fake.records = False
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    for seed in range(6):
        frame = Frame(blocks(seed))
        same(vision.encode(frame), onnx.encode(frame))
    assert fake.driver.launches == fake.driver.graphs == 0


@pytest.mark.parametrize(("count", "said"), [(0, r"boxes up to the shape \(12, 4\) and was given \(0, 4\)"), (13, r"was given \(13, 4\)")])
def test_inputs_the_engine_was_not_built_for(gpu_machine: Machine, graph_model: Path, count: int, said: str) -> None:
    gpu_machine("11.4")
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    maps = {name: np.zeros((1, 32, 8, 8), np.float32) for name in ("map.0", "map.1")}
    with pytest.raises(ValueError, match=said):
        vision.regions.run({**maps, "boxes": np.zeros((count, 4), np.float32)})
    with pytest.raises(ValueError, match="and was given nothing"):
        vision.regions.run(maps)
    assert vision.regions.run({**maps, "boxes": np.zeros((3, 4), np.float32)})[0]["region_tokens"].shape == (3, 64)


def test_memory_of_scenes_that_are_gone_is_used_again(gpu_machine: Machine, driver: Driver, graph_model: Path) -> None:
    gpu_machine("11.4")
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    for _ in range(3):
        vision.encode(Frame(blocks(1)))
    gc.collect()
    used = driver.used
    for _ in range(5):
        vision.encode(Frame(blocks(1)))
    assert driver.used == used
    held = [vision.encode(Frame(blocks(seed))) for seed in range(4)]
    assert driver.used > used and len(held) == 4
    del vision, held
    gc.collect()
    assert driver.pinned == 0 and driver.graphs == 0


def test_a_device_that_is_full(gpu_machine: Machine, driver: Driver, graph_model: Path) -> None:
    gpu_machine("11.4")
    driver.set_memory(100_000)
    with pytest.raises(ValueError, match=r"The GPU has \d+ MB of memory free and \d+ MB more are needed"):
        load_tensorrt_vision(Bundle.load(graph_model))


def test_a_run_that_fails_is_a_sentence(gpu_machine: Machine, graph_model: Path, onnx: OnnxVision) -> None:
    fake = gpu_machine("11.4")
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    fake.fault = "Cuda Runtime (an illegal memory access was encountered)."
    with pytest.raises(ValueError, match=r"TensorRT could not run the engine: Cuda Runtime \(an illegal memory access was encountered\)\."):
        vision.encode(Frame(blocks(1)))
    same(vision.encode(Frame(blocks(1))), onnx.encode(Frame(blocks(1))))


def test_no_gpu(graph_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where TensorRT is installed: nothing of it is imported, because that can end the process."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"TensorRT needs an NVIDIA GPU and its driver, and none was found on this machine"):
        load_tensorrt_vision(Bundle.load(graph_model))
