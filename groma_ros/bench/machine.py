"""Describe this machine and measure its peak rates, from which lower bounds are computed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.timing import now, use_clock

_SIDE = 1024  # side of the multiplied square matrices, 4 MB each
_CHUNK = 16_000_000  # float32 numbers read by a thread: 64 MB, more than its share of any cache
_REPEATS = 24


@dataclass(frozen=True)
class Ceilings:
    """Best of several runs."""

    operations: float
    """Multiplications and additions per second in a large matrix product."""
    bytes: float
    """Bytes per second read from memory."""
    of: str
    """Description of the measurement."""

    def __or__(self, other: Ceilings) -> Ceilings:
        """The better of two measurements, for each rate."""
        return Ceilings(max(self.operations, other.operations), max(self.bytes, other.bytes), self.of)


def cpu_ceilings(threads: int, clock: str = "wall") -> Ceilings:
    """Measure a float32 matrix product and memory reads on `threads` threads.

    numpy's matrix library reads its number of threads from the environment when it is loaded, so call this in
    a process started with `thread_environment`.
    """
    use_clock(clock)
    rng = np.random.default_rng(0)
    a, b = (rng.random((_SIDE, _SIDE), np.float32) for _ in range(2))
    chunks = [np.ones(_CHUNK, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        product = _best(lambda: a @ b)
        reading = _best(lambda: list(pool.map(np.max, chunks)))
    bytes_read = threads * chunks[0].nbytes
    return Ceilings(2 * _SIDE**3 / product, bytes_read / reading, f"float32 on the CPU, threads: {threads}")


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that limit a new process's matrix libraries to `threads` threads."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def _best(call: Callable[[], Any]) -> float:
    """Duration of the fastest of several runs, after a warm-up, seconds."""
    times = []
    for _ in range(_REPEATS + 1):
        begin = now()
        call()
        times.append(now() - begin)
    return min(times[1:])


def describe(threads: int, ceilings: Ceilings) -> dict[str, Any]:
    """The machine in JSON types, for the report."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_mb": _kilobytes("/proc/meminfo", "MemTotal") // 1024,
        "gpu": gpu_name(),
        "python": platform.python_version(),
        "ceilings": {
            **asdict(ceilings),
            "operations": round(ceilings.operations),
            "bytes": round(ceilings.bytes),
        },
    }


def peak_mb() -> int:
    """Peak memory of this process, MB."""
    return _kilobytes("/proc/self/status", "VmHWM") // 1024


def gpu_used_mb() -> int | None:
    """Memory in use on the first GPU by any process, MB; None without a driver."""
    found = _nvidia("memory.used")
    return int(found) if found else None


def gpu_name() -> str | None:
    """Name of the first GPU; None without a driver."""
    return _nvidia("name")


def _nvidia(field: str) -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def _kilobytes(path: str, field: str) -> int:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise RuntimeError(f"{path} does not say {field}.")
