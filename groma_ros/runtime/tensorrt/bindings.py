"""TensorRT 8.6, 10 and 11: building an engine of an ONNX graph, and running one. What a version lacks is
found by looking for it.

Nothing here may be called before `gpu.find_gpu` has found a GPU: without one TensorRT's factories give
nothing or end the process.
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

OLDEST = (8, 6)
INSTALL = (
    "it comes with JetPack (sudo apt-get install nvidia-jetpack), with NVIDIA's TensorRT container "
    "(nvcr.io/nvidia/tensorrt), or by pip "
    "from NVIDIA's package index (python -m pip install --extra-index-url https://pypi.nvidia.com "
    "tensorrt); see docs/tensorrt.md"
)
_KEPT_MESSAGES = 20
_LOG = logging.getLogger(__name__)

Shape = tuple[int, ...]
# Smallest, usual and largest shape of every input with a free dimension.
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
# Called with steps done, steps in all and what is being done.
Progress = Callable[[int, int, str], None]


class EngineError(ValueError):
    """An engine that cannot be built or run; the message is one sentence."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine. shape: -1 where it is free; usual, largest: of an input, what the
    engine was built for."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: Shape
    usual: Shape | None = None
    largest: Shape | None = None


@dataclass(frozen=True)
class EnginePlan:
    """How an engine is built. profile: shapes of the inputs; workspace: bytes of device memory the kernels
    may use."""

    profile: Profile
    workspace: int


class TensorRT:
    """The TensorRT that is installed."""

    def __init__(self) -> None:
        """EngineError with a sentence where none is installed, or one that does not work or is too old."""
        try:
            import tensorrt
        except ImportError as error:
            raise EngineError(
                f"The Python package tensorrt cannot be used ({_line(error)}); {INSTALL}."
            ) from error
        except (
            Exception
        ) as error:  # the package on the public index raises what it likes when the libraries are absent
            raise EngineError(
                f"The Python package tensorrt does not work ({_line(error)}); {INSTALL}."
            ) from error
        self._trt: Any = tensorrt
        self.version: str = str(getattr(tensorrt, "__version__", "0"))
        if self.release < OLDEST:
            raise EngineError(f"TensorRT {self.version} is too old; 8.6 or later is needed: {INSTALL}.")
        self._logger, self._said = _logger(tensorrt)

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        numbers = [int(word) if word.isdecimal() else 0 for word in self.version.split(".")[:2]]
        return numbers[0], (numbers + [0])[1]

    @property
    def strongly_typed(self) -> bool:
        """Whether an engine keeps the number formats of its graph, as all since 9 can. Flags of older ones
        would put into halves what decides a box or a score, so those run fp32 alone."""
        return hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def reads_opset_18(self) -> bool:
        """Whether it reads the graphs of a bundle as they are, with opset 18 and int64; 8.6 needs a lowered
        copy."""
        return hasattr(self._trt.DataType, "INT64")

    def build(self, graph: bytes, plan: EnginePlan, timing: bytes, told: Progress) -> tuple[bytes, bytes]:
        """Build an engine of an ONNX graph; the engine, and the timing cache, which makes the next build
        shorter.

        timing: of an earlier build, may be empty. EngineError with the reason if it cannot be built.
        """
        trt = self._trt
        self._said.clear()
        builder = self._made("builder", lambda: trt.Builder(self._logger))
        network = builder.create_network(self._creation_flags())
        parser = trt.OnnxParser(network, self._logger)
        # Otherwise 8.6 takes a plugin, which makes more of a small epsilon.
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
        if not parser.parse(graph):
            said = (
                "; ".join(_line(parser.get_error(index).desc()) for index in range(parser.num_errors))
                or self._reason()
            )
            raise EngineError(f"TensorRT {self.version} cannot read the graph: {said}.")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace)
        # float32 is float32: TF32 keeps no more digits than fp16, which is the precision to choose for speed.
        config.clear_flag(trt.BuilderFlag.TF32)
        if plan.profile:
            profile = builder.create_optimization_profile()
            for name, shapes in plan.profile.items():
                profile.set_shape(name, *shapes)
            config.add_optimization_profile(profile)
        self._set_timing(config, timing)
        stopped = self._watch(config, told)
        engine = builder.build_serialized_network(network, config)
        if stopped():
            raise KeyboardInterrupt
        if engine is None:
            raise EngineError(f"TensorRT {self.version} could not build the engine: {self._reason()}.")
        cache = config.get_timing_cache()
        return bytes(engine), b"" if cache is None else bytes(cache.serialize())

    def load(self, engine: bytes) -> Engine:
        """An engine that is ready to run. EngineError for one of another version or GPU, or with too little
        memory."""
        trt = self._trt
        self._said.clear()
        runtime = self._made("runtime", lambda: trt.Runtime(self._logger))
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise EngineError(f"TensorRT {self.version} cannot load the engine: {self._reason()}.")
        context = loaded.create_execution_context()
        if context is None:
            raise EngineError(f"TensorRT {self.version} has no memory to run the engine: {self._reason()}.")
        return Engine(trt, runtime, loaded, context, self._reason)

    def _made(self, name: str, make: Callable[[], Any]) -> Any:
        """What a factory makes. It answers with None or a TypeError where CUDA does not work."""
        made = None
        with suppress(TypeError):
            made = make()
        if made is None:
            raise EngineError(f"TensorRT {self.version} makes no {name} on this GPU: {self._reason()}.")
        return made

    def _creation_flags(self) -> int:
        """Explicit batch where it is still a choice, and the number formats of the graph where they can be
        kept."""
        known = self._trt.NetworkDefinitionCreationFlag
        wanted = [getattr(known, name, None) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED")]
        return sum(1 << int(flag) for flag in wanted if flag is not None)

    def _set_timing(self, config: Any, timing: bytes) -> None:
        """Use what an earlier build measured; what cannot be used is measured again."""
        for data in (timing, b""):
            cache = config.create_timing_cache(data)
            if cache is not None and config.set_timing_cache(cache, False):
                return

    def _watch(self, config: Any, told: Progress) -> Callable[[], bool]:
        """Tell of progress where the version does; whether the user has stopped the build."""
        if not hasattr(self._trt, "IProgressMonitor"):
            return lambda: False
        monitor = _monitor(self._trt, told)
        config.progress_monitor = monitor
        return lambda: bool(monitor.stopped)

    def _reason(self) -> str:
        """The first error since the last build or load began, which is the cause of those behind it."""
        return self._said[0] if self._said else "it gives no reason"


class Engine:
    """A loaded engine with one context, in which shapes, addresses and work on a stream follow each other."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, context: Any, reason: Callable[[], str]) -> None:
        self._context, self._reason = context, reason
        # A context needs its engine, and an engine its runtime, for as long as it lives.
        self._alive = (runtime, engine)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.tensors = tuple(_tensor(trt, engine, name) for name in names)

    def set_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Take inputs of these shapes from now on; the shapes of the outputs. EngineError for one it was not
        built for."""
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
        """Where an input or output lies on the device from now on."""
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refuses the memory of {name}: {self._reason()}.")

    def start(self, stream: int) -> None:
        """Put one pass on a stream. EngineError if TensorRT refuses."""
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
    """A logger that hands on to Python's, and the errors it has heard."""
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


def _monitor(trt: Any, told: Progress) -> Any:
    """A monitor that tells of the outermost phase of a build, and ends the build when the user interrupts
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
                    told(step + 1, self._steps, phase_name)
            except KeyboardInterrupt:
                self.stopped = True
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._phase:
                told(self._steps, self._steps, phase_name)

    return Monitor()


def _line(error: object) -> str:
    """The first line of an error, which is all of it that concerns a user, without its full stop."""
    text: Sequence[str] = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def trtexec_line(
    graph: Path, engine: Path, timing: Path | None, plan: EnginePlan, strongly_typed: bool
) -> str:
    """A line for a shell. graph: the ONNX file; engine: the file to write; timing: the timing cache to use
    and to write."""
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
