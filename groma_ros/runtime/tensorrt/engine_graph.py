"""Run a bundle's graph as an engine on a CUDA device: memory, stream and CUDA graph capture."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.graph_vision import Shapes, check_shapes
from groma_ros.runtime.tensorrt.bindings import Engine, Shape, Tensor
from groma_ros.runtime.tensorrt.cuda import Buffer, Captured, Cuda, CudaError, DeviceArray, Pinned

# Runs of one shape before the next one is recorded. A new shape needs unrecorded runs first, and recording
# takes longer than a run.
_PASSES_BEFORE_RECORDING = 3
_LOG = logging.getLogger(__name__)


class EngineGraph:
    """VisionGraph on TensorRT. Every input and output has a device buffer as large as the largest shape
    requested so far."""

    def __init__(
        self, bundle: Bundle, name: str, shapes: tuple[Shapes, Shapes], engine: Engine, cuda: Cuda
    ) -> None:
        """shapes: required inputs and outputs. Raises BundleError if the engine's differ, CudaError if device
        memory is short."""
        self._engine, self._cuda = engine, cuda
        for kind, wanted, is_input in (("input", shapes[0], True), ("output", shapes[1], False)):
            found = {
                item.name: ["" if size < 0 else size for size in item.shape]
                for item in engine.tensors
                if item.is_input == is_input
            }
            check_shapes(bundle, name, kind, wanted, found)
        self._tensors = {item.name: item for item in engine.tensors}
        self._device: dict[str, Buffer] = {}
        self._host: dict[str, Pinned] = {}
        self._given: dict[str, Shape] = {}
        self._shapes: dict[str, Shape] = {}
        self._captured: Captured | None = None
        self._recordable, self._passes = True, 0
        with cuda.using():
            self._set_shapes({item.name: item.usual for item in engine.tensors if item.usual is not None})

    def run(
        self, feeds: Mapping[str, Any], kept: Sequence[str] = ()
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Run the engine once; see `VisionGraph.run`. Raises ValueError for an input outside the engine's
        profile."""
        given = {name: tuple(value.shape) for name, value in feeds.items()}
        with self._cuda.using():
            if given != self._given:
                self._set_shapes(given)
            for name, value in feeds.items():
                self._upload(name, value)
            self._start()
            held = {name: self._keep(name) for name in kept}
            wanted = [name for name in self._shapes if name not in held]
            for name in wanted:
                self._cuda.download(
                    self._pinned(name, self._size(name)), self._device[name].address, self._size(name)
                )
            self._cuda.wait()
            # The next run overwrites the page-locked memory, so return a copy.
            return {
                name: self._host[name].view(self._shapes[name], self._tensors[name].dtype).astype(np.float32)
                for name in wanted
            }, held

    def _set_shapes(self, given: dict[str, Shape]) -> None:
        """Set new input shapes, which invalidates recorded work."""
        for item in self._tensors.values():
            shape = given.get(item.name, ())
            if item.largest is not None and not _fits(shape, item.shape, item.largest):
                raise ValueError(
                    f"The engine takes {item.name} up to the shape {item.largest} and was given "
                    f"{shape or 'nothing'}."
                )
        self._captured, self._passes, self._given = None, 0, {}
        self._shapes = self._engine.set_shapes(given)
        for name, shape in {**given, **self._shapes}.items():
            self._make_room(name, _bytes(self._tensors[name], shape))
        self._given = given

    def _make_room(self, name: str, size: int) -> None:
        """Ensure that a tensor's device buffer is large enough."""
        if name not in self._device or self._device[name].size < size:
            self._device[name] = self._cuda.allocate(size)
            self._engine.bind(name, self._device[name].address)

    def _pinned(self, name: str, size: int) -> Pinned:
        """Page-locked memory for a tensor exchanged with the host."""
        if name not in self._host or self._host[name].bytes.size < size:
            self._host[name] = self._cuda.pin(size)
        return self._host[name]

    def _upload(self, name: str, value: Any) -> None:
        """Copy an input to its buffer: a host array through page-locked memory, a device array directly."""
        if isinstance(value, DeviceArray):
            if value.dtype != self._tensors[name].dtype:
                raise ValueError(
                    f"The engine takes {name} as {self._tensors[name].dtype} and was given {value.dtype}."
                )
            self._cuda.copy(self._device[name].address, value.buffer.address, value.nbytes)
            return
        pinned = self._pinned(name, _bytes(self._tensors[name], value.shape))
        view = pinned.view(value.shape, self._tensors[name].dtype)
        np.copyto(view, value, casting="same_kind")
        self._cuda.upload(self._device[name].address, pinned, view.nbytes)

    def _start(self) -> None:
        if self._recordable and self._passes == _PASSES_BEFORE_RECORDING:
            self._captured = self._record()
        self._passes += 1
        if self._captured is not None:
            self._cuda.launch(self._captured)
        else:
            self._engine.start(self._cuda.stream)

    def _record(self) -> Captured | None:
        """Capture the engine's work so that one call launches it; None if it cannot be captured."""
        try:
            return self._cuda.capture(lambda: self._engine.start(self._cuda.stream))
        except (CudaError, ValueError) as error:
            self._recordable = False
            _LOG.info(
                "The engine's work cannot be recorded, so each of its kernels is started by itself: %s", error
            )
            return None

    def _keep(self, name: str) -> DeviceArray:
        """Copy an output on the device; later runs do not change the copy."""
        size = self._size(name)
        buffer = self._cuda.allocate(size)
        self._cuda.copy(buffer.address, self._device[name].address, size)
        return DeviceArray(buffer, self._shapes[name], self._tensors[name].dtype)

    def _size(self, name: str) -> int:
        return _bytes(self._tensors[name], self._shapes[name])


def _fits(shape: Shape, wanted: Shape, largest: Shape) -> bool:
    """Whether an input may have a shape. wanted: -1 in a dynamic dimension, which is limited by `largest`."""
    if len(shape) != len(wanted):
        return False
    return all(
        1 <= size <= most if fixed < 0 else size == fixed for size, fixed, most in zip(shape, wanted, largest)
    )


def _bytes(tensor: Tensor, shape: Shape) -> int:
    return int(np.prod(shape)) * tensor.dtype.itemsize
