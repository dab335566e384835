"""TensorRT's builder and runtime behind NVIDIA's own API, with ONNX Runtime computing on the memory of the
CUDA driver in C."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tests.runtime.bindings import Api, read_api
from tests.runtime.driver import Driver

_MAGIC = b"engine of a test\n"
_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT32": np.int32,
    "INT64": np.int64,
    "INT8": np.int8,
    "BOOL": np.bool_,
}
_ONNX_TYPES = {1: "FLOAT", 10: "HALF", 6: "INT32", 7: "INT64"}


class FakeTensorRT:
    """A version of TensorRT on a fake GPU. module: what `import tensorrt` gives; called: all that was asked
    of it.

    fault: what the next build, load or run fails with; errors: what went wrong while the stream ran; built:
    how it was told to build each engine; records: whether its work can be recorded; spoils: what is added to
    every output; full: whether the device has no memory for an engine's kernels.
    """

    def __init__(self, version: str, driver: Driver, api: dict[str, Any] | None = None) -> None:
        self.driver = driver
        self.fault, self.records, self.spoils, self.full = "", True, 0.0, False
        self.errors: list[BaseException] = []
        self.built: list[SimpleNamespace] = []
        self._api = Api(api or read_api(version), self._behaviours())

    @property
    def module(self) -> ModuleType:
        return self._api.module

    @property
    def called(self) -> list[str]:
        return self._api.called

    def _behaviours(self) -> dict[tuple[str, str], Callable[..., Any]]:

        def new(*args: Any, **state: Any) -> Any:
            return self._api.new(*args, **state)

        return {
            ("", "nptype"): lambda kind: _TYPES[kind.name],
            ("ILogger", "log"): lambda logger, severity, msg: None,
            ("Builder", "create_network"): lambda made, flags=0: new("INetworkDefinition", flags=flags),
            ("Builder", "create_builder_config"): lambda made: new(
                "IBuilderConfig", flags={"TF32"}, profiles=[], pools={}, timing=None, progress_monitor=None
            ),
            ("Builder", "create_optimization_profile"): lambda made: new("IOptimizationProfile", shapes={}),
            ("Builder", "build_serialized_network"): self._build,
            ("OnnxParser", "__init__"): lambda made: made.state.__dict__.update(errors=[], flags=[]),
            ("OnnxParser", "set_flag"): lambda made, flag: made.state.flags.append(flag.name),
            ("OnnxParser", "parse"): self._parse,
            ("OnnxParser", "num_errors"): lambda made: len(made.state.errors),
            ("OnnxParser", "get_error"): lambda made, index: new(
                "ParserError", text=made.state.errors[index]
            ),
            ("ParserError", "desc"): lambda made: made.state.text,
            ("IBuilderConfig", "set_memory_pool_limit"): lambda made, pool, size: made.state.pools.update(
                {pool.name: size}
            ),
            ("IBuilderConfig", "set_flag"): lambda made, flag: made.state.flags.add(flag.name),
            ("IBuilderConfig", "clear_flag"): lambda made, flag: made.state.flags.discard(flag.name),
            ("IBuilderConfig", "add_optimization_profile"): lambda made, profile: (
                made.state.profiles.append(profile.state.shapes) or 0
            ),
            ("IBuilderConfig", "create_timing_cache"): lambda made, data: (
                new("ITimingCache", data=bytes(data)) if data != b"bad" else None
            ),
            ("IBuilderConfig", "set_timing_cache"): lambda made, cache, ignore: (
                made.state.__dict__.update(timing=cache) or True
            ),
            ("IBuilderConfig", "get_timing_cache"): lambda made: made.state.timing,
            ("ITimingCache", "serialize"): lambda made: new("IHostMemory", made.state.data + b"+"),
            ("IOptimizationProfile", "set_shape"): lambda made, name, *shapes: made.state.shapes.update(
                {name: [list(s) for s in shapes]}
            ),
            ("Runtime", "deserialize_cuda_engine"): self._load,
            ("ICudaEngine", "num_io_tensors"): lambda made: len(made.state.tensors),
            ("ICudaEngine", "get_tensor_name"): lambda made, index: list(made.state.tensors)[index],
            ("ICudaEngine", "get_tensor_mode"): lambda made, name: self.module.TensorIOMode[
                made.state.tensors[name].mode
            ],
            ("ICudaEngine", "get_tensor_dtype"): lambda made, name: self.module.DataType[
                made.state.tensors[name].dtype
            ],
            ("ICudaEngine", "get_tensor_shape"): lambda made, name: new(
                "Dims", [size if isinstance(size, int) else -1 for size in made.state.tensors[name].shape]
            ),
            ("ICudaEngine", "get_tensor_profile_shape"): lambda made, name, index: [
                new("Dims", shape) for shape in made.state.profile[name]
            ],
            ("ICudaEngine", "create_execution_context"): self._context,
            ("IExecutionContext", "set_input_shape"): self._set_shape,
            ("IExecutionContext", "get_tensor_shape"): lambda made, name: new("Dims", made.state.shape(name)),
            ("IExecutionContext", "set_tensor_address"): lambda made, name, memory: (
                made.state.addresses.update({name: memory}) or True
            ),
            ("IExecutionContext", "execute_async_v3"): self._execute,
        }

    def _failed(self, logger: Any) -> bool:
        """Whether a fault was asked for; then the logger hears of it, as often as TensorRT says things."""
        if self.fault:
            for text in (self.fault, "Some later error."):
                logger.log(self.module.ILogger.Severity.ERROR, text)
            self.fault = ""
            return True
        return False

    def _parse(self, made: Any, model: bytes, path: str | None = None) -> bool:
        graph = onnx.load_from_string(bytes(model))
        opset = graph.opset_import[0].version
        if self.module.__version__.startswith("8.") and opset > 17:
            made.state.errors.append(f"In node 0: the opset {opset} is not known.\nmore")
            return False
        made.state.network.state.graph = graph
        made.state.network.state.parser_flags = made.state.flags
        return True

    def _build(self, made: Any, network: Any, config: Any) -> Any:
        logger, graph, settings = made.state.logger, network.state.graph, config.state
        if self._failed(logger) or self._interrupted(settings.progress_monitor):
            return None
        profile = settings.profiles[0] if settings.profiles else {}
        free = {
            item.name
            for item in graph.graph.input
            if any(dim.dim_param for dim in item.type.tensor_type.shape.dim)
        }
        if free != set(profile):
            logger.log(self.module.ILogger.Severity.ERROR, f"The profile lacks {free ^ set(profile)}.")
            return None
        about = {
            "flags": network.state.flags,
            "parser_flags": network.state.parser_flags,
            "timing": settings.timing.state.data,
        }
        self.built.append(SimpleNamespace(**about, settings=settings, graph=graph))
        head = json.dumps({"version": self.module.__version__, "profile": profile}).encode()
        return self._api.new("IHostMemory", _MAGIC + head + b"\n" + graph.SerializeToString())

    def _interrupted(self, monitor: Any) -> bool:
        if monitor is None:
            return False
        monitor.phase_start("Building", None, 3)
        monitor.phase_start("Tactics", "Building", 2)
        going = all(
            [
                monitor.step_complete("Tactics", 0),
                monitor.step_complete("Building", 0),
                monitor.step_complete("Building", 1),
            ]
        )
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building")
        return not going

    def _load(self, made: Any, data: Any) -> Any:
        logger, data = made.state.logger, bytes(data)
        if self._failed(logger):
            return None
        if not data.startswith(_MAGIC):
            logger.log(self.module.ILogger.Severity.ERROR, "Serialization assertion magicTag failed.")
            return None
        head, graph = data[len(_MAGIC) :].split(b"\n", 1)
        about = json.loads(head)
        if about["version"] != self.module.__version__:
            logger.log(
                self.module.ILogger.Severity.ERROR,
                "The engine plan file is not compatible with this version of TensorRT.",
            )
            return None
        model = onnx.load_from_string(graph)
        tensors = {item.name: _tensor(item, "INPUT") for item in model.graph.input}
        tensors |= {item.name: _tensor(item, "OUTPUT") for item in model.graph.output}
        return self._api.new(
            "ICudaEngine", logger=logger, graph=graph, tensors=tensors, profile=about["profile"]
        )

    def _context(self, made: Any, strategy: Any = None) -> Any:
        if self.full:
            made.state.logger.log(
                self.module.ILogger.Severity.ERROR, "Requested size was 3145728 bytes, out of memory."
            )
            return None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(made.state.graph, options, providers=["CPUExecutionProvider"])
        state = SimpleNamespace(engine=made, session=session, shapes={}, addresses={}, warm=None)
        state.shape = lambda name: _resolved(made.state.tensors, state.shapes, name)
        context = self._api.new("IExecutionContext")
        object.__setattr__(context, "state", state)
        return context

    def _set_shape(self, made: Any, name: str, shape: Any) -> bool:
        low, _, high = made.state.engine.state.profile[name]
        if len(shape) != len(low) or not all(a <= b <= c for a, b, c in zip(low, shape, high)):
            made.state.engine.state.logger.log(
                self.module.ILogger.Severity.ERROR, f"{name} is outside the profile."
            )
            return False
        made.state.shapes[name] = tuple(shape)
        made.state.warm = None
        return True

    def _execute(self, made: Any, stream: int) -> bool:
        state = made.state
        tensors = state.engine.state.tensors
        shapes = {name: state.shape(name) for name in tensors}
        if self._failed(state.engine.state.logger):
            return False
        addresses = dict(state.addresses)

        def work() -> None:
            try:
                views = {
                    name: self._view(addresses[name], shapes[name], _TYPES[item.dtype])
                    for name, item in tensors.items()
                }
                inputs = {name: views[name] for name, item in tensors.items() if item.mode == "INPUT"}
                outputs = [name for name, item in tensors.items() if item.mode == "OUTPUT"]
                for name, value in zip(outputs, state.session.run(outputs, inputs)):
                    views[name][...] = value + np.float32(self.spoils)
            except BaseException as error:
                self.errors.append(error)

        if not self.records and self._recording():
            return False
        return self.driver.enqueue(stream, work) == 0

    def _recording(self) -> bool:
        return self.driver.is_recording

    def _view(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert self.driver.holds(address, size), "an address is not memory of the device"
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


def _tensor(item: Any, mode: str) -> SimpleNamespace:
    kind = item.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    return SimpleNamespace(mode=mode, dtype=_ONNX_TYPES[kind.elem_type], shape=shape)


def _resolved(tensors: dict[str, Any], shapes: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """A shape with what the inputs say of its free dimensions."""
    sizes = {word: size for key, given in shapes.items() for word, size in zip(tensors[key].shape, given)}
    return tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in tensors[name].shape)
