"""Run each measured backend in its own process, so that its memory can be measured separately. The processes
take turns, so that noise affects all equally."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from groma_ros.bench.claims import Paths, measure_paths
from groma_ros.bench.machine import Ceilings, cpu_ceilings, gpu_used_mb, peak_mb, thread_environment
from groma_ros.bench.stages import Sample, TimedGrounder
from groma_ros.bench.untrained import NETWORKS, TEMPLATE, random_runtime, random_tokenizer
from groma_ros.bench.workload import BenchVariant, mixed_goals, single_goals, to_frame
from groma_ros.runtime.bundle import Bundle
from groma_ros.timing import use_clock
from groma_ros.worker_pool import WorkerDied, WorkerProcess, call_in_process, die_with_parent

Request = tuple[str, tuple[Any, ...]]
"""Name of a method of `BenchWorker` and its arguments."""


@dataclass(frozen=True)
class About:
    """Model, backend and precision that were loaded for a variant."""

    backend: str
    precision: str
    device: str
    network: dict[str, Any]
    """Its config, in the form of config.json."""

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Memory:
    """Peak memory so far, MB; gpu is None on the CPU."""

    peak: int
    gpu: int | None


class Runner:
    """A variant loaded in a separate process. Every method except `close` waits for that process.

    Raises ValueError or RuntimeError with the process's message if it cannot load or run.
    """

    def __init__(self, variant: BenchVariant) -> None:
        self._backend = variant.options.backend
        with _environment(thread_environment(variant.options.threads or 1)):
            self._worker: WorkerProcess[Request, Any] = WorkerProcess(_start, _call, (variant,))
        try:
            self._receive()
            self.about: About = self.ask("loaded")
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, *args: Any) -> Any:
        """Call a method of `BenchWorker` in the process."""
        self._worker.give((name, args))
        self._receive()
        return self._worker.result

    def close(self) -> None:
        """End the process."""
        self._worker.end()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> None:
        try:
            self._worker.receive()
        except WorkerDied as error:
            raise RuntimeError(
                f"The process that was measured ended without a message ({error.how})."
            ) from None
        except RuntimeError as error:
            raise RuntimeError(f"{self._backend}: {error}") from None


def measure_ceilings(threads: int, clock: str = "wall") -> Ceilings:
    """Run `cpu_ceilings` in a process whose libraries are limited to a number of threads."""
    with _environment(thread_environment(threads)):
        return call_in_process(cpu_ceilings, threads, clock)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(variant: BenchVariant) -> BenchWorker:
    """Load the variant in its process."""
    die_with_parent(os.getppid())  # a run of a large network may take minutes
    os.dup2(2, 1)  # libraries may print; standard output is reserved for the report
    return BenchWorker(variant)


def _call(worker: BenchWorker, request: Request) -> Any:
    name, args = request
    return getattr(worker, name)(*args)


class BenchWorker:
    """A loaded variant. Raises the errors of `Grounder.load`."""

    def __init__(self, variant: BenchVariant) -> None:
        use_clock(variant.clock)
        self._gpu_before = gpu_used_mb()
        self._trained = variant.model is not None
        self._grounder, network = (
            _untrained(variant) if variant.model is None else _trained(variant, variant.model)
        )
        runtime = self._grounder.runtime
        assert runtime is not None
        self.about = About(runtime.backend, runtime.precision, runtime.device, network)

    def loaded(self) -> About:
        """Return what was loaded."""
        return self.about

    def measure(self, jpeg: bytes, goals: int) -> Sample:
        """Answer `goals` goals about a picture and measure it."""
        asked = mixed_goals(goals) if self._trained else single_goals(goals)
        return self._grounder.measure(lambda: to_frame(jpeg), asked)

    def paths(self, jpeg: bytes) -> Paths:
        """Answer the same goals in the fast and the slow ways."""
        return measure_paths(self._grounder, to_frame(jpeg), self._trained)

    def memory(self) -> Memory:
        """Peak memory of this process; on a GPU also the memory allocated there since before loading."""
        used = gpu_used_mb() if self.about.device == "cuda" else None
        return Memory(peak_mb(), None if used is None else used - (self._gpu_before or 0))

    def ceilings(self) -> Ceilings | None:
        """Peak rates of the GPU this variant runs on; None on the CPU, or without PyTorch to measure them."""
        if self.about.device != "cuda":
            return None
        try:
            from groma_ros.runtime.torch import device_ceilings
        except ImportError:
            return None
        return Ceilings(*device_ceilings(self.about.device), "float16 on the GPU")


def _trained(variant: BenchVariant, model: Path) -> tuple[TimedGrounder, dict[str, Any]]:
    """The model of a folder, and the config of its network."""
    grounder = TimedGrounder.load(model, variant.options)
    return grounder, Bundle.load(model).network


def _untrained(variant: BenchVariant) -> tuple[TimedGrounder, dict[str, Any]]:
    """Random weights of a size, and the config of their network."""
    config = NETWORKS[variant.size]
    runtime = random_runtime(variant)
    tokenizer = random_tokenizer(config)
    grounder = TimedGrounder(runtime.vision, runtime.language, tokenizer, TEMPLATE, runtime=runtime)
    return grounder, config.to_dict()
