"""A CUDA driver that needs no GPU, compiled from fake_cuda.c, and its inspection by tests."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

SOURCE = Path(__file__).with_name("fake_cuda.c")
CALL = ctypes.CFUNCTYPE(None, ctypes.c_uint64)


class Driver:
    """One driver with a memory and a stream of its own. path: of its library."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "libcuda.so.1"
        shutil.copyfile(_compiled(), self.path)
        self._library = ctypes.CDLL(str(self.path))
        self._library.fake_used.restype = ctypes.c_size_t
        self._library.fake_memory.argtypes = (ctypes.c_size_t,)
        self._library.fake_holds.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
        self._library.fake_enqueue.argtypes = (ctypes.c_void_p, CALL, ctypes.c_uint64)
        self._calls: list[Any] = []

    def set_memory(self, size: int) -> None:
        """The bytes the device has from now on."""
        self._library.fake_memory(size)

    def enqueue(self, stream: int, work: Callable[[], None]) -> int:
        """Put work on a stream, as a library does; the driver's code."""
        call = CALL(lambda token: work())
        self._calls.append(call)
        return int(self._library.fake_enqueue(stream, call, 0))

    def holds(self, address: int, size: int) -> bool:
        """Whether so many bytes from an address are device memory that is in use."""
        return bool(self._library.fake_holds(address, size))

    @property
    def used(self) -> int:
        """Bytes of device memory in use."""
        return int(self._library.fake_used())

    @property
    def pinned(self) -> int:
        """Blocks of page-locked memory."""
        return int(self._library.fake_pinned())

    @property
    def graphs(self) -> int:
        """Graphs, recorded and instantiated ones, that were not destroyed."""
        return int(self._library.fake_graphs())

    @property
    def launches(self) -> int:
        """How often a graph was started."""
        return int(self._library.fake_launches())

    @property
    def is_recording(self) -> bool:
        """Whether work on the stream is recorded rather than run."""
        return bool(self._library.fake_recording())

    @property
    def waiting(self) -> int:
        """Operations on the stream that nobody has waited for."""
        return int(self._library.fake_waiting())


@cache
def _compiled() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "A C compiler is needed: apt-get install gcc"
    path = Path(mkdtemp(prefix="fake_cuda")) / "libcuda.so.1"
    command = [
        compiler,
        "-std=gnu11",
        "-Wall",
        "-Werror",
        "-O1",
        "-shared",
        "-fPIC",
        "-pthread",
        "-o",
        str(path),
        str(SOURCE),
    ]
    subprocess.run(command, check=True)
    return path
