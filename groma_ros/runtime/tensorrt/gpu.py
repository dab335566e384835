"""Detect an NVIDIA GPU by asking the driver, before loading any library that requires one."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import dataclass

DRIVER = "libcuda.so.1"
_SECONDS = 20.0
# Attributes of the driver API's cuDeviceGetAttribute.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device."""

    name: str
    capability: tuple[int, int]
    """Compute capability, e.g. (8, 7)."""
    driver: tuple[int, int]
    """CUDA version that the driver supports, e.g. (12, 6)."""
    memory_mb: int
    """Device memory, MiB; on a Jetson it is shared with the CPU."""


def find_gpu(library: str | None = None, seconds: float = _SECONDS) -> Gpu | None:
    """Find the first CUDA device; None without a GPU or a working driver.

    library: name or path of the driver library, None for `DRIVER`. The driver is asked in a separate process,
    because a broken driver can end the calling process or block it; after `seconds` it counts as absent.
    """
    try:
        command = [sys.executable, "-S", __file__, library or DRIVER]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    try:
        name, capability, driver, memory_mb = json.loads(done.stdout)
        return Gpu(name, (capability[0], capability[1]), (driver[0], driver[1]), memory_mb)
    except (ValueError, TypeError, IndexError):
        return None


def _ask(library: str) -> list[object] | None:
    """Name, compute capability, driver version and memory of the first device, in the form of `Gpu`."""
    try:
        cuda = ctypes.CDLL(library)
        device, version, major, minor = (ctypes.c_int() for _ in range(4))
        name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
        failed = (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(device), 0)
            or cuda.cuDriverGetVersion(ctypes.byref(version))
            or cuda.cuDeviceGetName(name, len(name), device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
            or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        )
    except (OSError, AttributeError):
        return None
    if failed:
        return None
    release = [version.value // 1000, version.value % 1000 // 10]
    return [name.value.decode(errors="replace"), [major.value, minor.value], release, memory.value >> 20]


if __name__ == "__main__":
    found = _ask(sys.argv[1])
    print(json.dumps(found))
    sys.exit(0 if found else 1)
