"""Our use of TensorRT against NVIDIA's bindings of every version: names, signatures, values and errors."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from groma_ros.runtime.tensorrt.bindings import EngineError, EnginePlan, TensorRT
from groma_ros.runtime.tensorrt.cuda import Cuda
from tests.runtime.bindings import ROOT, folder, read_api
from tests.runtime.driver import Driver
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.runtime.machine import Machine

PLAN = EnginePlan({"x": ((1, 3), (2, 3), (4, 3))}, 1 << 20)
# What a version may lack; whether it is there decides what is done.
CHOICES = {"IProgressMonitor.__init__", "IProgressMonitor", "EXPLICIT_BATCH", "STRONGLY_TYPED", "INT64"}


def graph(opset: int = 17) -> bytes:
    """y = x + x for x of n x 3."""
    shape: list[str | int | None] = ["n", 3]
    put = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    made = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", put[:1], put[1:]),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    graph_file: bytes = made.SerializeToString()
    return graph_file


def silent(done: int, steps: int, what: str) -> None:
    pass


def double(fake: FakeTensorRT, values: NDArray[Any]) -> NDArray[Any]:
    """Build, load and run the graph."""
    library, cuda = TensorRT(), Cuda()
    engine = library.load(library.build(graph(), PLAN, b"", silent)[0])
    shapes = engine.set_shapes({"x": values.shape})
    with cuda.using():
        pinned, buffers = cuda.pin(values.nbytes), [cuda.allocate(values.nbytes) for _ in range(2)]
        pinned.view(values.shape, np.float32)[...] = values
        for item, buffer in zip(engine.tensors, buffers):
            engine.bind(item.name, buffer.address)
        cuda.upload(buffers[0].address, pinned, values.nbytes)
        engine.start(cuda.stream)
        cuda.download(pinned, buffers[1].address, values.nbytes)
        cuda.wait()
        return pinned.view(shapes["y"], np.float32).copy()


def test_an_engine_is_built_as_the_version_wants_it(gpu_machine: Machine, version: str) -> None:
    fake = gpu_machine(version)
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert np.array_equal(double(fake, values), 2 * values)
    (built,) = fake.built
    # Bits: explicit batch in 8.6; that and strong typing in 10.16; strong typing alone, under another number,
    # in 11.4.
    assert built.flags == {"8.6": 1, "10.16": 3, "11.4": 1}[version]
    assert built.parser_flags == ["NATIVE_INSTANCENORM"]
    assert built.settings.flags == set() and built.settings.pools == {"WORKSPACE": 1 << 20}
    assert built.settings.profiles == [{"x": [[1, 3], [2, 3], [4, 3]]}]
    library = TensorRT()
    assert (library.strongly_typed, library.reads_opset_18) == {"8.6": (False, False)}.get(
        version, (True, True)
    )
    assert (built.settings.progress_monitor is None) == (version == "8.6")


def test_engine_reports_names_shapes_and_types_of_tensors(gpu_machine: Machine, version: str) -> None:
    gpu_machine(version)
    library = TensorRT()
    engine = library.load(library.build(graph(), PLAN, b"", silent)[0])
    found = [
        (item.name, item.is_input, item.dtype, item.shape, item.usual, item.largest)
        for item in engine.tensors
    ]
    assert found == [
        ("x", True, np.float32, (-1, 3), (2, 3), (4, 3)),
        ("y", False, np.float32, (-1, 3), None, None),
    ]
    with pytest.raises(
        EngineError,
        match=r"The engine was not built for the input x of shape \(5, 3\): x is outside the profile\.",
    ):
        engine.set_shapes({"x": (5, 3)})


def _without(api: str, name: str) -> dict[str, Any]:
    """The API of a version that has lost a method, a property or a member."""
    lacking: dict[str, Any] = json.loads(api)
    owner, _, key = name.rpartition(".")
    about = lacking["classes"].get(owner)
    if key == "__init__":
        del lacking["classes"][owner]
        lacking["enums"] = {
            key: value for key, value in lacking["enums"].items() if not key.startswith(f"{owner}.")
        }
    elif about is not None:
        assert (about["methods"].pop(key, None) is None) != (about["properties"].pop(key, None) is None)
    elif owner:
        del lacking["enums"][owner][key]
    else:
        del lacking["functions"][key]
    return lacking


def test_whatever_a_version_lacks_is_noticed(
    gpu_machine: Machine, version: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name that is used, taken away by itself, ends the build or the run: so all of them are in NVIDIA's
    bindings."""
    fake = gpu_machine(version)
    values = np.ones((2, 3), np.float32)
    double(fake, values)
    used = sorted(
        set(fake.called) - CHOICES - {"ParserError.desc", "OnnxParser.num_errors", "OnnxParser.get_error"}
    )
    used += [
        "MemoryPoolType.WORKSPACE",
        "BuilderFlag.TF32",
        "OnnxParserFlag.NATIVE_INSTANCENORM",
        "TensorIOMode.INPUT",
    ]
    assert len(used) > 30 and "IExecutionContext.execute_async_v3" in used and "nptype" in used
    api = json.dumps(read_api(version))
    for name in used:
        lacking = FakeTensorRT(version, driver, _without(api, name))
        monkeypatch.setitem(sys.modules, "tensorrt", lacking.module)
        with pytest.raises((AttributeError, KeyError, TypeError)):
            double(lacking, values)
            pytest.fail(f"nobody misses {name}")


def test_a_call_that_the_bindings_would_refuse(gpu_machine: Machine, version: str) -> None:
    """The classes the tests run against refuse what NVIDIA's refuse."""
    trt: Any = gpu_machine(version).module
    logger = type("Logger", (trt.ILogger,), {"__init__": lambda self: trt.ILogger.__init__(self)})()
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    for call in (
        lambda: trt.Builder(),
        lambda: builder.create_network(trt.BuilderFlag.TF32),
        lambda: builder.create_network(1, 2),
        lambda: config.set_memory_pool_limit(1 << 20, trt.MemoryPoolType.WORKSPACE),
        lambda: config.create_timing_cache("text"),
        lambda: trt.IHostMemory(),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(AttributeError):
        config.workspace = 1
    with pytest.raises(AttributeError):
        builder.build_cuda_engine  # noqa: B018


def test_the_timing_cache_is_handed_on(gpu_machine: Machine, version: str) -> None:
    fake = gpu_machine(version)
    library = TensorRT()
    _, timing = library.build(graph(), PLAN, b"", silent)
    _, later = library.build(graph(), PLAN, timing, silent)
    assert (timing, later) == (b"+", b"++")
    assert [item.timing for item in fake.built] == [b"", b"+"]
    library.build(graph(), PLAN, b"bad", silent)
    assert fake.built[-1].timing == b""


def test_progress_is_that_of_the_outermost_phase(gpu_machine: Machine) -> None:
    gpu_machine("11.4")
    told: list[tuple[int, int, str]] = []
    TensorRT().build(graph(), PLAN, b"", lambda *item: told.append(item))
    assert told == [(1, 3, "Building"), (2, 3, "Building"), (3, 3, "Building")]


def test_an_interrupted_build_ends(gpu_machine: Machine) -> None:
    fake = gpu_machine("10.16")

    def interrupt(done: int, steps: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TensorRT().build(graph(), PLAN, b"", interrupt)
    assert fake.built == []


FAULTS = (
    (
        "Builder operation failed: out of memory.\nmore",
        "build",
        r"could not build the engine: Builder operation failed: out of memory\.",
    ),
    (
        "[runtime.cpp] Engine was made by another version",
        "load",
        r"cannot load the engine: \[runtime.cpp\] Engine was made by another",
    ),
)


@pytest.mark.parametrize(("fault", "where", "said"), FAULTS, ids=["build", "load"])
def test_failures_give_the_first_reason(
    gpu_machine: Machine, version: str, fault: str, where: str, said: str
) -> None:
    fake = gpu_machine(version)
    library = TensorRT()
    engine, _ = library.build(graph(), PLAN, b"", silent)
    fake.fault = fault
    with pytest.raises(EngineError, match=rf"TensorRT {version}[.\d]* {said}"):
        library.build(graph(), PLAN, b"", silent) if where == "build" else library.load(engine)
    library.load(engine)


def test_an_engine_of_another_version_or_no_engine(gpu_machine: Machine) -> None:
    gpu_machine("10.16")
    engine, _ = TensorRT().build(graph(), PLAN, b"", silent)
    gpu_machine("11.4")
    with pytest.raises(
        EngineError, match=r"cannot load the engine: The engine plan file is not compatible with this version"
    ):
        TensorRT().load(engine)
    with pytest.raises(
        EngineError, match=r"cannot load the engine: Serialization assertion magicTag failed\."
    ):
        TensorRT().load(b"text")


def test_a_graph_it_cannot_read(gpu_machine: Machine) -> None:
    gpu_machine("8.6")
    with pytest.raises(
        EngineError, match=r"TensorRT 8.6.1 cannot read the graph: In node 0: the opset 18 is not known\."
    ):
        TensorRT().build(graph(18), PLAN, b"", silent)


def test_a_factory_that_gives_nothing(gpu_machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where CUDA fails to start."""
    trt: Any = gpu_machine("11.4").module

    def nothing(logger: Any) -> None:
        logger.log(trt.ILogger.Severity.INTERNAL_ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Builder", nothing)
    with pytest.raises(
        EngineError, match=r"makes no builder on this GPU: CUDA initialization failure with error: 35\."
    ):
        TensorRT().build(graph(), PLAN, b"", silent)


def test_errors_go_to_the_log(gpu_machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    fake = gpu_machine("11.4")
    fake.fault = "No kernel."
    with caplog.at_level(logging.INFO), pytest.raises(EngineError):
        TensorRT().build(graph(), PLAN, b"", silent)
    assert [record.message for record in caplog.records] == [
        "TensorRT: No kernel.",
        "TensorRT: Some later error.",
    ]


def test_a_package_that_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sentence names the three ways to have it, also where the public index's stand-in was installed."""
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "tensorrt.py"
    for code in ("import tensorrt_libs_of_another_world", "raise RuntimeError('This is a stand-in.')"):
        package.write_text(code)
        ways = (
            r"JetPack \(.*\), with NVIDIA's TensorRT container \(.*\), or by pip from .* index \(.*\); see "
            r"docs/tensorrt.md"
        )
        with pytest.raises(
            EngineError,
            match=rf"The Python package tensorrt .*\((No module named .*|This is a stand-in)\); .*{ways}",
        ):
            TensorRT()


@pytest.mark.parametrize("version", ["8.5.3.1", "7.2", ""])
def test_a_version_that_is_too_old(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = ModuleType("tensorrt")
    module.__dict__["__version__"] = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(EngineError, match=rf"TensorRT {version} is too old; 8.6 or later is needed"):
        TensorRT()


def test_the_classes_we_derive_are_taken_by_the_bindings(version: str) -> None:
    """In NVIDIA's own module, in a process of its own: logger and monitor can be made, and number formats
    have their numpy type."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from tensorrt_bindings import environment
    finally:
        sys.path.remove(str(ROOT / "tools"))
    code = (
        "import tensorrt as trt, numpy as np\n"
        "from groma_ros.runtime.tensorrt.bindings import TensorRT, _monitor\n"
        "library = TensorRT()\n"
        "library._logger.log(trt.ILogger.Severity.ERROR, 'A reason.')\n"
        "assert library._reason() == 'A reason' and isinstance(library._logger, trt.ILogger)\n"
        "assert library.release == tuple(map(int, trt.__version__.split('.')[:2]))\n"
        "told = []\n"
        "if hasattr(trt, 'IProgressMonitor'):\n"
        "    monitor = _monitor(trt, lambda *item: told.append(item))\n"
        "    assert isinstance(monitor, trt.IProgressMonitor)\n"
        "    monitor.phase_start('all', None, 2); assert monitor.step_complete('all', 0); "
        "monitor.phase_finish('all')\n"
        "    assert told == [(1, 2, 'all'), (2, 2, 'all')]\n"
        "kinds = {'FLOAT': np.float32, 'HALF': np.float16, 'INT32': np.int32, 'INT8': np.int8}\n"
        "assert all(np.dtype(trt.nptype(trt.DataType.__members__[name])) == kind for name, kind in "
        "kinds.items())\n"
        "assert tuple(trt.Dims([1, -1, 3])) == (1, -1, 3)\n"
        "print(library.strongly_typed, library.reads_opset_18)\n"
    )
    variables = environment(folder(version))
    variables["PYTHONPATH"] += f":{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == (["False", "False"] if version == "8.6" else ["True", "True"])


def test_the_test_graph_is_whole() -> None:
    onnx.checker.check_model(onnx.load_from_string(graph()), full_check=True)
