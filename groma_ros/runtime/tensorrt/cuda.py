"""Memory, a stream and captured graphs of one CUDA device, through the driver library; no CUDA toolkit is
needed."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from groma_ros.runtime.tensorrt import gpu

_OUT_OF_MEMORY = 2
_NON_BLOCKING = 1
_CAPTURE_THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_POINTER, _SIZE, _HANDLE = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p
# Argument types of the driver's functions; all return a CUresult.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (_HANDLE, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_HANDLE, ctypes.c_int),
    "cuCtxSetCurrent": (_HANDLE,),
    "cuStreamCreate": (_HANDLE, ctypes.c_uint),
    "cuStreamSynchronize": (_HANDLE,),
    "cuMemGetInfo_v2": (_HANDLE, _HANDLE),
    "cuMemAlloc_v2": (_HANDLE, _SIZE),
    "cuMemFree_v2": (_POINTER,),
    "cuMemAllocHost_v2": (_HANDLE, _SIZE),
    "cuMemFreeHost": (_HANDLE,),
    "cuMemcpyHtoDAsync_v2": (_POINTER, _HANDLE, _SIZE, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (_HANDLE, _POINTER, _SIZE, _HANDLE),
    "cuMemcpyDtoDAsync_v2": (_POINTER, _POINTER, _SIZE, _HANDLE),
    "cuStreamBeginCapture_v2": (_HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (_HANDLE, _HANDLE),
    "cuGraphInstantiateWithFlags": (_HANDLE, _HANDLE, ctypes.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphDestroy": (_HANDLE,),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGetErrorString": (ctypes.c_int, _HANDLE),
}


class CudaError(RuntimeError):
    """The device reported an error; the message is one sentence."""


class Buffer:
    """Device memory, returned to the device's pool when it is no longer referenced."""

    def __init__(self, address: int, size: int, give_back: Callable[[int, int], None]) -> None:
        self.address, self.size = address, size
        weakref.finalize(self, give_back, size, address).atexit = False


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array on the device."""

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Pinned:
    """Page-locked host memory, which the device reads and writes directly. bytes: uint8 view of all of it."""

    def __init__(self, address: int, size: int, free: Callable[[int], None]) -> None:
        self.address = address
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        weakref.finalize(self, free, address).atexit = False

    def view(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """The first bytes as an array that shares the memory."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes[:size].view(dtype).reshape(shape)


class Captured:
    """Recorded work, launched as one unit."""

    def __init__(self, handle: int, destroy: Callable[[int], None]) -> None:
        self.handle = handle
        weakref.finalize(self, destroy, handle).atexit = False


class Cuda:
    """One device with one stream. Use it inside `with device.using():`, from any thread."""

    def __init__(self, library: str | None = None, ordinal: int = 0) -> None:
        """Open a device, sharing its primary context with other libraries of the process. Raises
        CudaError."""
        try:
            self._driver = ctypes.CDLL(library or gpu.DRIVER)
            for name, arguments in _FUNCTIONS.items():
                getattr(self._driver, name).argtypes = arguments
        except (OSError, AttributeError) as error:
            raise CudaError(
                f"The NVIDIA driver cannot be used ({error}); install one that speaks CUDA 11.4 or later."
            ) from error
        self._lock = threading.RLock()
        self._store: dict[int, list[int]] = defaultdict(list)
        self._call("cuInit", 0)
        device = self._new("cuDeviceGet", ordinal, kind=ctypes.c_int)
        self._context = self._new("cuDevicePrimaryCtxRetain", device)
        with self.using():
            self.stream: int = self._new("cuStreamCreate", _NON_BLOCKING)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Make the device current in this thread for the block."""
        with self._lock:
            self._call("cuCtxSetCurrent", self._context)
            yield

    def allocate(self, size: int) -> Buffer:
        """Allocate device memory. Raises CudaError with the needed and available size."""
        size = max(size, 1)
        address = self._store[size].pop() if self._store[size] else self._fresh(size)
        return Buffer(address, size, self._put_back)

    def pin(self, size: int) -> Pinned:
        """Allocate page-locked host memory."""
        size = max(size, 1)
        return Pinned(self._new("cuMemAllocHost_v2", size, kind=_HANDLE), size, self._unpin)

    def upload(self, address: int, source: Pinned, size: int) -> None:
        """Enqueue a copy to the device."""
        self._call("cuMemcpyHtoDAsync_v2", address, source.address, size, self.stream)

    def download(self, target: Pinned, address: int, size: int) -> None:
        """Enqueue a copy from the device."""
        self._call("cuMemcpyDtoHAsync_v2", target.address, address, size, self.stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy on the device."""
        self._call("cuMemcpyDtoDAsync_v2", target, source, size, self.stream)

    def wait(self) -> None:
        """Wait for all enqueued work."""
        self._call("cuStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> Captured:
        """Record what `work` enqueues, without running it. Raises CudaError if something cannot be
        recorded."""
        self._call("cuStreamBeginCapture_v2", self.stream, _CAPTURE_THIS_THREAD)
        graph = ctypes.c_void_p()
        try:
            try:
                work()
            finally:
                # A failed capture has to be ended too, or the stream stays unusable.
                code = self._driver.cuStreamEndCapture(self.stream, ctypes.byref(graph))
            self._check("cuStreamEndCapture", code)
            return Captured(self._new("cuGraphInstantiateWithFlags", graph, 0), self._destroy)
        finally:
            if graph:
                self._driver.cuGraphDestroy(graph)

    def launch(self, captured: Captured) -> None:
        """Enqueue recorded work."""
        self._call("cuGraphLaunch", captured.handle, self.stream)

    def _fresh(self, size: int) -> int:
        try:
            return self._new("cuMemAlloc_v2", size, kind=_POINTER)
        except CudaError:
            self._forget_store()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        address = _POINTER()
        code = self._driver.cuMemAlloc_v2(ctypes.byref(address), size)
        if code == _OUT_OF_MEMORY:
            need, have = -(-size >> 20), free.value >> 20
            raise CudaError(
                f"The GPU has {have} MB of memory free and {need} MB more are needed; end what else uses it."
            )
        self._check("cuMemAlloc_v2", code)
        return int(address.value)

    def _forget_store(self) -> None:
        for addresses in self._store.values():
            while addresses:
                self._driver.cuMemFree_v2(addresses.pop())

    # Finalizers of unreferenced memory. They may run in any thread at any time, so they must not raise.

    def _put_back(self, size: int, address: int) -> None:
        self._store[size].append(address)

    def _unpin(self, address: int) -> None:
        with self.using():
            self._driver.cuMemFreeHost(address)

    def _destroy(self, handle: int) -> None:
        with self.using():
            self._driver.cuGraphExecDestroy(handle)

    def _new(self, name: str, *arguments: Any, kind: Any = ctypes.c_void_p) -> int:
        """Call a function that writes a handle or address into its first argument."""
        made = kind()
        self._call(name, ctypes.byref(made), *arguments)
        return int(made.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._driver, name)(*arguments))

    def _check(self, name: str, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            said = (text.value or b"unknown error").decode(errors="replace")
            raise CudaError(f"The CUDA driver failed in {name}: {said} (error {code}).")
