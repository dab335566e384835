"""One ONNX graph of a bundle in a session of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.runtime.signature import Shapes, check_shapes

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_ERRORS_ONLY = 3


class Graph:
    """A graph that has been held to the shapes of its network. Equal inputs give bit-identical outputs on the CPU.

    device: cpu or cuda, where it really runs.
    """

    def __init__(self, bundle: Bundle, name: str, shapes: tuple[Shapes, Shapes], device: str, threads: int) -> None:
        """Read a graph of the bundle. shapes: of its inputs and its outputs. BundleError if it is damaged or has others."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        # Three graphs take turns: without this the threads of the one that has just run spin on the cores the next one needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = _ERRORS_ONLY
        path = bundle.file(name)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS[device])
        except Exception as error:  # ONNX Runtime raises a type of its own for every stage of loading
            raise BundleError(f"{path} is not a graph that ONNX Runtime {onnxruntime.__version__} can load: {_first(error)}") from error
        self.device = "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        self._outputs = list(shapes[1])
        parts = {"input": self._session.get_inputs(), "output": self._session.get_outputs()}
        for (kind, found), wanted in zip(parts.items(), shapes, strict=True):
            check_shapes(bundle, name, kind, wanted, {item.name: item.shape for item in found})
        self._types = {item.name: _TYPES.get(item.type) for item in parts["input"]}

    def run(self, feeds: Mapping[str, Any], kept: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """One pass. feeds: an array, cast where the graph takes halves, or a value an earlier pass kept on the device, for every input;
        kept: outputs to keep there.

        Returns the other outputs as arrays and the kept ones as values to feed on.
        """
        arrays = {name: np.ascontiguousarray(value, self._types[name]) for name, value in feeds.items() if isinstance(value, np.ndarray)}
        values = self._run_bound({**feeds, **arrays}, kept) if self.device == "cuda" else self._run_plain(arrays)
        return {name: value for name, value in values.items() if name not in kept}, {name: values[name] for name in kept}

    def _run_plain(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """All outputs as arrays. On the CPU there is no other place, and binding each by name takes longer than it saves."""
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))

    def _run_bound(self, feeds: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
        """Outputs as arrays, but the kept ones as values on the device."""
        binding = self._session.io_binding()
        # The binding does not own the arrays it is given, so `feeds` holds them until the pass has run.
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device if name in kept else "cpu")
        self._session.run_with_iobinding(binding)
        values = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        return {name: value if name in kept else value.numpy() for name, value in values.items()}


def _first(error: Exception) -> str:
    """The first line of an error, which is all of it that concerns a user."""
    return (str(error).splitlines() or [type(error).__name__])[0]
