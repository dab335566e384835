"""The vision tokenizer on TensorRT, with every version's API and the GPU stand-in in C: same scenes as
ONNX Runtime, bit for bit."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as proto
import pytest

from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.runtime.onnx import OnnxVision, load_onnx_vision
from groma_ros.runtime.tensorrt.bindings import EngineError, TensorRT
from groma_ros.runtime.tensorrt.engine_cache import EngineCache
from groma_ros.runtime.tensorrt.vision import choose_precision, load_tensorrt_vision
from groma_ros.types import Frame, Scene
from tests.runtime.driver import Driver
from tests.runtime.machine import Machine
from tests.small import blocks

Put = Callable[[Path, str, bytes], None]
HELD = {role: {"file": f"{role}.onnx"} for role in ("perceive", "encode_regions")}


@pytest.fixture(scope="module")
def onnx(graph_model: Path) -> OnnxVision:
    return load_onnx_vision(Bundle.load(graph_model), "cpu", 1)


def same(found: Scene, wanted: Scene) -> None:
    for name in ("boxes", "objectness", "image_tokens", "region_tokens"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert one.dtype == np.float32 and len(one) and np.array_equal(one, other), name


def test_scenes_are_those_of_onnx_runtime(
    gpu_machine: Machine, version: str, graph_model: Path, onnx: OnnxVision
) -> None:
    """Also from recorded work; a scene stays what it was when others follow it."""
    fake = gpu_machine(version)
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    user = np.array([[3, 4, 30, 40], [40, 10, 60, 30]], np.float32)
    scenes = [
        (vision.encode(frame), onnx.encode(frame))
        for frame in (Frame(blocks(seed), seed) for seed in range(6))
    ]
    for found, wanted in scenes:
        same(found, wanted)
        same(vision.refer(found, user), onnx.refer(wanted, user))
    # Three passes of either graph are started one kernel at a time, all later ones as one.
    assert fake.driver.launches == (6 - 3) + (12 - 3)
    assert fake.driver.graphs == 2


def test_any_number_of_regions_and_pictures(
    gpu_machine: Machine, version: str, graph_model: Path, onnx: OnnxVision
) -> None:
    fake = gpu_machine(version)
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    rng = np.random.default_rng(0)
    pixels = rng.normal(0, 1, (4, 3, 112, 112)).astype(np.float32)
    _, maps = vision.perceive.run({"pixels": pixels[:1]}, kept=["map.0", "map.1"])
    _, wanted = onnx.perceive.run({"pixels": pixels[:1]}, kept=["map.0", "map.1"])
    for count in (1, 12, 5, 5, 5, 5, 5, 2, 12):
        boxes = rng.uniform(0, 1, (count, 4)).astype(np.float32)
        found, other = (
            graph.run({**held, "boxes": boxes})[0]
            for graph, held in ((vision.regions, maps), (onnx.regions, wanted))
        )
        assert found["region_tokens"].shape == (count, 64)
        assert np.array_equal(found["region_tokens"], other["region_tokens"])
    assert fake.driver.launches == 2 and fake.driver.graphs == 0
    for count in (4, 1, 3):
        found, other = (
            graph.run({"pixels": pixels[:count]})[0] for graph in (vision.perceive, onnx.perceive)
        )
        assert all(np.array_equal(found[name], other[name]) for name in other)


def test_work_that_cannot_be_recorded_is_started_as_it_is(
    gpu_machine: Machine, version: str, graph_model: Path, onnx: OnnxVision
) -> None:
    fake = gpu_machine(version)
    fake.records = False
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    for seed in range(6):
        frame = Frame(blocks(seed))
        same(vision.encode(frame), onnx.encode(frame))
    assert fake.driver.launches == fake.driver.graphs == 0


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, r"boxes up to the shape \(12, 4\) and was given \(0, 4\)"), (13, r"was given \(13, 4\)")],
)
def test_inputs_the_engine_was_not_built_for(
    gpu_machine: Machine, graph_model: Path, count: int, said: str
) -> None:
    gpu_machine("11.4")
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    maps = {name: np.zeros((1, 32, 8, 8), np.float32) for name in ("map.0", "map.1")}
    with pytest.raises(ValueError, match=said):
        vision.regions.run({**maps, "boxes": np.zeros((count, 4), np.float32)})
    with pytest.raises(ValueError, match="and was given nothing"):
        vision.regions.run(maps)
    assert vision.regions.run({**maps, "boxes": np.zeros((3, 4), np.float32)})[0]["region_tokens"].shape == (
        3,
        64,
    )


def test_memory_of_scenes_that_are_gone_is_used_again(
    gpu_machine: Machine, driver: Driver, graph_model: Path
) -> None:
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


def test_a_device_without_room_for_the_kernels(gpu_machine: Machine, graph_model: Path) -> None:
    gpu_machine("11.4").full = True
    with pytest.raises(
        EngineError,
        match=r"has no memory to run the engine: Requested size was 3145728 bytes, out of memory\.",
    ):
        load_tensorrt_vision(Bundle.load(graph_model))


def test_an_engine_in_the_cache_that_tensorrt_does_not_take(
    gpu_machine: Machine, graph_model: Path, onnx: OnnxVision
) -> None:
    """Whole by its note, and of no use all the same: it is built again, once."""
    fake = gpu_machine("11.4")
    load_tensorrt_vision(Bundle.load(graph_model))
    for path in EngineCache().folder.glob("*.engine"):
        path.write_bytes(b"junk")
        note = json.loads(path.with_suffix(".json").read_text()) | {
            "bytes": 4,
            "sha256": hashlib.sha256(b"junk").hexdigest(),
        }
        path.with_suffix(".json").write_text(json.dumps(note))
    frame = Frame(blocks(1))
    same(load_tensorrt_vision(Bundle.load(graph_model)).encode(frame), onnx.encode(frame))
    assert len(fake.built) == 4
    load_tensorrt_vision(Bundle.load(graph_model))
    assert len(fake.built) == 4


def test_another_version_or_graph_is_another_engine(
    gpu_machine: Machine, graph_model: Path, graph_copy: Path, put: Put
) -> None:
    """An upgrade of TensorRT and a bundle that was converted again build their own, and leave what is
    there."""
    old, new = gpu_machine("10.16"), gpu_machine("11.4")
    for fake in (old, new, old, new):
        sys.modules["tensorrt"] = fake.module
        load_tensorrt_vision(Bundle.load(graph_model))
    assert len(old.built) == len(new.built) == 2
    changed = proto.load(graph_copy / "perceive.onnx")
    changed.producer_name = "another"
    put(graph_copy, "perceive.onnx", changed.SerializeToString())
    load_tensorrt_vision(Bundle.load(graph_copy))
    assert len(new.built) == 3
    assert len(list(EngineCache().folder.glob("*.engine"))) == 5


def test_building_without_onnx(
    gpu_machine: Machine, graph_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the cache runs without the package."""
    gpu_machine("11.4")
    monkeypatch.setitem(sys.modules, "groma_ros.runtime.tensorrt.onnx_lowering", None)
    with pytest.raises(
        EngineError, match=r"needs the Python package onnx, .* install it with python -m pip install onnx"
    ):
        load_tensorrt_vision(Bundle.load(graph_model))
    monkeypatch.delitem(sys.modules, "groma_ros.runtime.tensorrt.onnx_lowering")
    load_tensorrt_vision(Bundle.load(graph_model))
    monkeypatch.setitem(sys.modules, "groma_ros.runtime.tensorrt.onnx_lowering", None)
    load_tensorrt_vision(Bundle.load(graph_model))


def test_precisions(gpu_machine: Machine, graph_model: Path) -> None:
    bundle = Bundle.load(graph_model)
    halves = replace(
        bundle, graphs={**bundle.graphs, "precisions": {"int8": HELD, "fp32": HELD, "fp16": HELD}}
    )
    gpu_machine("11.4")
    library = TensorRT()
    assert [choose_precision(halves, library, name) for name in (None, "fp32", "int8")] == [
        "fp16",
        "fp32",
        "int8",
    ]
    assert choose_precision(bundle, library, None) == "fp32"
    gpu_machine("8.6")
    old = TensorRT()
    assert [choose_precision(halves, old, name) for name in (None, "fp32")] == ["fp32", "fp32"]
    with pytest.raises(
        EngineError,
        match=r"TensorRT 8.6.1 runs graphs in fp32 and not in fp16; use TensorRT 10 or later, or fp32\.",
    ):
        choose_precision(halves, old, "fp16")
    with pytest.raises(BundleError, match="has no ONNX graphs; groma convert makes them"):
        choose_precision(replace(bundle, graphs={}), old, None)


def test_a_run_that_fails_is_a_sentence(gpu_machine: Machine, graph_model: Path, onnx: OnnxVision) -> None:
    fake = gpu_machine("11.4")
    vision = load_tensorrt_vision(Bundle.load(graph_model))
    fake.fault = "Cuda Runtime (an illegal memory access was encountered)."
    with pytest.raises(
        ValueError,
        match=r"TensorRT could not run the engine: Cuda Runtime \(an illegal memory access was "
        r"encountered\)\.",
    ):
        vision.encode(Frame(blocks(1)))
    same(vision.encode(Frame(blocks(1))), onnx.encode(Frame(blocks(1))))


def test_no_gpu(graph_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where TensorRT is installed: nothing of it is imported, because that can end the process."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        EngineError, match=r"TensorRT needs an NVIDIA GPU and its driver, and none was found on this machine"
    ):
        load_tensorrt_vision(Bundle.load(graph_model))
