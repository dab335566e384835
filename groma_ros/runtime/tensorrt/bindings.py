"""Build TensorRT engines from ONNX graphs and run them, with TensorRT 8.6, 10 and 11. Features are detected,
not inferred from the version.

Call nothing here before `gpu.find_gpu` has found a GPU: without one TensorRT's factories return None or end
the process.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.runtime.options import TENSORRT

OLDEST = (8, 6)
_KEPT_MESSAGES = 20
_LOG = logging.getLogger(__name__)

Shape = tuple[int, ...]
# Minimum, optimum and maximum shape of every input with a dynamic dimension.
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
# Called with steps done, steps in all and the current activity.
Progress = Callable[[int, int, str], None]


class EngineError(ValueError):
    """An engine that cannot be built or run; the message is one sentence."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: Shape
    """-1 for a dynamic dimension."""
    usual: Shape | None = None
    """Optimum shape of an input's profile."""
    largest: Shape | None = None
    """Maximum shape of an input's profile."""


@dataclass(frozen=True)
class EnginePlan:
    """Options for building an engine."""

    profile: Profile
    """Shapes of the inputs."""
    workspace: int
    """Device memory available to the kernels, bytes."""


class TensorRT:
    """The installed TensorRT."""

    def __init__(self) -> None:
        """Raises EngineError if TensorRT is not installed, does not work or is too old."""
        try:
            import tensorrt
        except ImportError as error:
            raise EngineError(
                f"The Python package tensorrt cannot be used ({_line(error)}); {TENSORRT}."
            ) from error
        except Exception as error:  # without its libraries the public package can raise anything
            raise EngineError(
                f"The Python package tensorrt does not work ({_line(error)}); {TENSORRT}."
            ) from error
        self._trt: Any = tensorrt
        self.version: str = str(getattr(tensorrt, "__version__", "0"))
        if self.release < OLDEST:
            raise EngineError(f"TensorRT {self.version} is too old; 8.6 or later is needed: {TENSORRT}.")
        self._logger, self._errors = _logger(tensorrt)

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        numbers = [int(word) if word.isdecimal() else 0 for word in self.version.split(".")[:2]]
        return numbers[0], (numbers + [0])[1]

    @property
    def strongly_typed(self) -> bool:
        """Whether an engine keeps the number formats of its graph, as in all versions since 9. The flags of
        older ones would run layers that decide boxes and scores in fp16, so those versions run fp32 only."""
        return hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def reads_opset_18(self) -> bool:
        """Whether it reads a bundle's graphs as they are, with opset 18 and int64; 8.6 needs a lowered
        copy."""
        return hasattr(self._trt.DataType, "INT64")

    def build(self, graph: bytes, plan: EnginePlan, timing: bytes, report: Progress) -> tuple[bytes, bytes]:
        """Build an engine from an ONNX graph. Returns the engine and the timing cache, which shortens later
        builds.

        timing: timing cache of an earlier build, may be empty; report: progress callback. Raises EngineError
        with the reason if it cannot be built.
        """
        trt = self._trt
        self._errors.clear()
        builder = self._made("builder", lambda: trt.Builder(self._logger))
        network = builder.create_network(self._creation_flags())
        parser = trt.OnnxParser(network, self._logger)
        # Otherwise 8.6 uses a plugin that changes small epsilons.
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
        if not parser.parse(graph):
            said = (
                "; ".join(_line(parser.get_error(index).desc()) for index in range(parser.num_errors))
                or self._reason()
            )
            raise EngineError(f"TensorRT {self.version} cannot read the graph: {said}.")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace)
        # No TF32: it has no more digits than fp16, which is the precision to choose for speed.
        config.clear_flag(trt.BuilderFlag.TF32)
        if plan.profile:
            profile = builder.create_optimization_profile()
            for name, shapes in plan.profile.items():
                profile.set_shape(name, *shapes)
            config.add_optimization_profile(profile)
        self._set_timing(config, timing)
        stopped = self._watch(config, report)
        engine = builder.build_serialized_network(network, config)
        if stopped():
            raise KeyboardInterrupt
        if engine is None:
            raise EngineError(f"TensorRT {self.version} could not build the engine: {self._reason()}.")
        cache = config.get_timing_cache()
        return bytes(engine), b"" if cache is None else bytes(cache.serialize())

    def load(self, engine: bytes) -> Engine:
        """Load an engine. Raises EngineError if it is of another version or GPU, or memory is short."""
        trt = self._trt
        self._errors.clear()
        runtime = self._made("runtime", lambda: trt.Runtime(self._logger))
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise EngineError(f"TensorRT {self.version} cannot load the engine: {self._reason()}.")
        context = loaded.create_execution_context()
        if context is None:
            raise EngineError(f"TensorRT {self.version} has no memory to run the engine: {self._reason()}.")
        return Engine(trt, runtime, loaded, context, self._reason)

    def _made(self, name: str, make: Callable[[], Any]) -> Any:
        """Call a factory, which returns None or raises TypeError if CUDA does not work."""
        made = None
        with suppress(TypeError):
            made = make()
        if made is None:
            raise EngineError(f"TensorRT {self.version} makes no {name} on this GPU: {self._reason()}.")
        return made

    def _creation_flags(self) -> int:
        """Explicit batch where it is optional, and strong typing where supported."""
        known = self._trt.NetworkDefinitionCreationFlag
        wanted = [getattr(known, name, None) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED")]
        return sum(1 << int(flag) for flag in wanted if flag is not None)

    def _set_timing(self, config: Any, timing: bytes) -> None:
        """Use an earlier timing cache; an invalid one is ignored and measured again."""
        for data in (timing, b""):
            cache = config.create_timing_cache(data)
            if cache is not None and config.set_timing_cache(cache, False):
                return

    def _watch(self, config: Any, report: Progress) -> Callable[[], bool]:
        """Report progress if the version supports it. Returns a function that tells whether the user stopped
        the build."""
        if not hasattr(self._trt, "IProgressMonitor"):
            return lambda: False
        monitor = _monitor(self._trt, report)
        config.progress_monitor = monitor
        return lambda: bool(monitor.stopped)

    def _reason(self) -> str:
        """The first error since the last build or load began; later ones follow from it."""
        return self._errors[0] if self._errors else "it gives no reason"


class Engine:
    """A loaded engine with one execution context. Set shapes, then addresses, then start."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, context: Any, reason: Callable[[], str]) -> None:
        self._context, self._reason = context, reason
        # A context needs its engine, and an engine its runtime, throughout its lifetime.
        self._alive = (runtime, engine)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.tensors = tuple(_tensor(trt, engine, name) for name in names)

    def set_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Set the shapes of the inputs. Returns the shapes of the outputs. Raises EngineError for a shape
        outside the profile."""
        free = {item.name for item in self.tensors if item.is_input and min(item.shape, default=0) < 0}
        for name, shape in shapes.items():
            if name in free and not self._context.set_input_shape(name, shape):
                raise EngineError(
                    f"The engine was not built for the input {name} of shape {shape}: {self._reason()}."
                )
        return {
            item.name: tuple(self._context.get_tensor_shape(item.name))
            for item in self.tensors
            if not item.is_input
        }

    def bind(self, name: str, address: int) -> None:
        """Set the device address of an input or output."""
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refuses the memory of {name}: {self._reason()}.")

    def start(self, stream: int) -> None:
        """Enqueue one run on a stream. Raises EngineError if TensorRT refuses."""
        if not self._context.execute_async_v3(stream):
            raise EngineError(f"TensorRT could not run the engine: {self._reason()}.")


def _tensor(trt: Any, engine: Any, name: str) -> Tensor:
    is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    shape: Shape = tuple(engine.get_tensor_shape(name))
    dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
    if not is_input:
        return Tensor(name, is_input, dtype, shape)
    if min(shape, default=0) >= 0:
        return Tensor(name, is_input, dtype, shape, shape, shape)
    _, usual, largest = engine.get_tensor_profile_shape(name, 0)
    return Tensor(name, is_input, dtype, shape, tuple(usual), tuple(largest))


def _logger(trt: Any) -> tuple[Any, list[str]]:
    """A logger that forwards to Python's, and the list of errors it has received."""
    levels = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.DEBUG}
    said: list[str] = []

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(getattr(severity, "name", ""), 0)
            if level >= logging.ERROR and len(said) < _KEPT_MESSAGES:
                said.append(_line(msg))
            if level:
                _LOG.log(level, "TensorRT: %s", msg)

    return Logger(), said


def _monitor(trt: Any, report: Progress) -> Any:
    """A progress monitor for the outermost phase of a build; it stops the build when the user interrupts
    it."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self._phase, self._steps = "", 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._phase, self._steps = phase_name, num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self._phase:
                    report(step + 1, self._steps, phase_name)
            except KeyboardInterrupt:
                self.stopped = True
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._phase:
                report(self._steps, self._steps, phase_name)

    return Monitor()


def _line(error: object) -> str:
    """The first line of an error without its full stop; the rest is of no use to a user."""
    text: Sequence[str] = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def trtexec_line(
    graph: Path, engine: Path, timing: Path | None, plan: EnginePlan, strongly_typed: bool
) -> str:
    """The `trtexec` command line that builds the same engine. graph: the ONNX file; engine: the file to
    write; timing: timing cache to read and write."""
    words = ["trtexec", f"--onnx={graph}", f"--saveEngine={engine}", *_shapes(plan.profile), "--noTF32"]
    words.append(f"--memPoolSize=workspace:{plan.workspace >> 20}")
    words += ["--stronglyTyped"] if strongly_typed else []
    words += [f"--timingCacheFile={timing}"] if timing else []
    return shlex.join(words)


def _shapes(profile: Profile) -> list[str]:
    words: list[str] = []
    if not profile:
        return words
    for index, kind in enumerate(("min", "opt", "max")):
        shapes = (f"{name}:{'x'.join(map(str, sizes[index]))}" for name, sizes in profile.items())
        words.append(f"--{kind}Shapes={','.join(shapes)}")
    return words
