"""Choose the backend and precision for a bundle and load it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from groma_ros.runtime.bundle import (
    GGUF_PRECISIONS,
    ONNX_PRECISIONS,
    ROLES,
    WEIGHTS,
    Bundle,
    BundleError,
    read_network,
    require_graphs,
)
from groma_ros.runtime.first_load import ensure_tried
from groma_ros.runtime.interfaces import LanguageModel, VisionTokenizer
from groma_ros.runtime.memory_check import (
    check_memory,
    graph_files,
    llama_keys_and_values_mb,
    memory_need_mb,
)
from groma_ros.runtime.options import INSTALL, PACKAGES, RuntimeOptions
from groma_ros.runtime.tensorrt.bindings import EngineError

TORCH_PRECISIONS = ("fp32", "bf16", "fp16")
PRECISIONS = ("auto", *dict.fromkeys((*ONNX_PRECISIONS, *TORCH_PRECISIONS, *GGUF_PRECISIONS)))
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """A loaded bundle."""

    vision: VisionTokenizer
    language: LanguageModel
    backend: str
    """Backend that runs it."""
    precision: str
    device: str
    """Device it runs on."""
    reason: str
    """The choice of backend and its reason, in one line."""


def load_runtime(bundle: Bundle, options: RuntimeOptions | None = None, trial: bool = True) -> Runtime:
    """Load a bundle with the chosen backend, or the best available one.

    trial: try it in a separate process before its first load (`first_load.ensure_tried`). Raises BundleError
    for a bundle the backend cannot use, and ValueError for an unknown or unavailable device or precision.
    """
    options = options or RuntimeOptions()
    precision, device, threads = options.precision, options.device, options.threads
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    chosen, why = choose_backend(bundle, options.backend, device, precision)
    try:
        if chosen == "tensorrt":
            _check_tensorrt(device, precision)
        if trial:
            ensure_tried(bundle, replace(options, backend=chosen))
        runtime = _LOADERS[chosen](bundle, device, threads, precision, why)
    except EngineError as error:
        instead = "onnx" if bundle.precisions else "llama_cpp"
        if options.backend != "auto" or not _installed(instead):
            raise
        _LOG.warning("TensorRT cannot run %s, so the backend %s does: %s", bundle.name, instead, error)
        if trial:
            ensure_tried(bundle, replace(options, backend=instead))
        runtime = _LOADERS[instead](
            bundle, device, threads, precision, "TensorRT cannot run it, as the log says"
        )
    _LOG.info(runtime.reason)
    return runtime


def load_for_trial(bundle: Bundle, options: RuntimeOptions) -> Runtime:
    """Load a bundle as `load_runtime` would, without a trial; TensorRT is replaced by ONNX Runtime.

    Building the vision graphs with TensorRT takes up to an hour, so their computation is tried on the CPU
    instead, and the language model with the library that runs it beside TensorRT.
    """
    if options.backend != "tensorrt":
        return load_runtime(bundle, options, trial=False)
    from groma_ros.runtime.onnx import load_onnx_vision

    gguf = options.precision if options.precision in GGUF_PRECISIONS else None
    made = bundle.vision_precisions
    usual = "fp16" if "fp16" in made else made[0] if made else "fp32"
    precision = usual if gguf or options.precision == "auto" else options.precision
    check_memory(bundle, graph_files(bundle, dict.fromkeys(ROLES[:2], precision)), "cpu")
    vision = load_onnx_vision(bundle, "cpu", options.threads, precision)
    choice = choose_language_beside_gpu(bundle, precision, gguf)
    language = _load_language(bundle, choice, options.threads)
    return Runtime(vision, language, "tensorrt", precision, "cpu", f"the language model is on {choice}")


def choose_backend(
    bundle: Bundle, backend: str, device: str | None = None, precision: str = "auto"
) -> tuple[str, str]:
    """Return the backend and the reason for it; a precision that only one kind of backend supports decides.

    Raises ValueError for a backend that is not installed.
    """
    if backend != "auto":
        _require(backend)
        return backend, "it was asked for"
    graphs = bundle.precisions or (bundle.vision_precisions if bundle.gguf_precisions else ())
    if not graphs:
        _require("torch")
        return "torch", "the bundle holds no ONNX graphs"
    if precision == "bf16" or (precision == "fp16" and "fp16" not in graphs and WEIGHTS in bundle.files):
        _require("torch")
        return "torch", f"the bundle holds no graphs in {precision}, which torch computes from its weights"
    lacking = _lacks_for_tensorrt(device)
    if not lacking:
        return "tensorrt", "there is a GPU, and TensorRT for it"
    if precision in GGUF_PRECISIONS:
        _require("llama_cpp")
        return "llama_cpp", f"the precision {precision} is llama.cpp's, and {lacking}"
    if not bundle.precisions:
        _require("llama_cpp")
        return "llama_cpp", f"the bundle holds its language model as a GGUF alone, and {lacking}"
    if _installed("onnx"):
        return "onnx", f"the bundle holds its ONNX graphs, and {lacking}"
    _require("torch")
    return "torch", "the bundle holds its ONNX graphs, but the package onnxruntime is not installed"


def _lacks_for_tensorrt(device: str | None) -> str:
    """Why TensorRT is not chosen automatically; "" if it is."""
    if device not in (None, "cuda"):
        return f"the device {device} was asked for"
    if not _has_gpu():
        return "there is no NVIDIA GPU"
    return "" if _installed("tensorrt") else "TensorRT is not installed for the GPU"


def _onnx(bundle: Bundle, device: str | None, threads: int | None, precision: str, why: str) -> Runtime:
    from groma_ros.runtime.onnx import choose_device, load_onnx

    where = choose_device(device)
    if device is None and where == "cuda" and not _has_gpu():
        where = "cpu"
    chosen = _graph_precision(bundle, precision, on_gpu=where == "cuda")
    check_memory(bundle, graph_files(bundle, dict.fromkeys(ROLES, chosen)), where)
    return _runtime(bundle, load_onnx(bundle, where, threads, chosen), "onnx", chosen, where, why)


def _check_tensorrt(device: str | None, precision: str) -> None:
    """Raise ValueError for a device or a precision that TensorRT does not support, EngineError without a
    GPU."""
    from groma_ros.runtime.tensorrt.vision import require_gpu

    if device not in (None, "cuda"):
        raise ValueError(f"The backend tensorrt runs on cuda and not on {device!r}.")
    if precision not in ("auto", *ONNX_PRECISIONS, *GGUF_PRECISIONS):
        raise ValueError(
            f"The backend tensorrt has no precision {precision!r}, only "
            f"{', '.join(ONNX_PRECISIONS + GGUF_PRECISIONS)}."
        )
    require_gpu()


def _tensorrt(bundle: Bundle, device: str | None, threads: int | None, precision: str, why: str) -> Runtime:
    from groma_ros.runtime.tensorrt.vision import load_tensorrt_vision

    # GGUF precisions apply to the language model only.
    gguf = precision if precision in GGUF_PRECISIONS else None
    graphs = None if gguf or precision == "auto" else precision
    # Known before engines are built, which takes long: both share the GPU's memory.
    planned = choose_language_beside_gpu(bundle, graphs or "fp16", gguf)
    vision = load_tensorrt_vision(bundle, graphs, beside_mb=planned.gpu_mb(bundle))
    choice = choose_language_beside_gpu(bundle, vision.precision, gguf)
    language = _load_language(bundle, choice, threads)
    return _runtime(
        bundle,
        (vision, language),
        "tensorrt",
        vision.precision,
        "cuda",
        f"{why}; the language model is on {choice}",
    )


@dataclass(frozen=True)
class LanguageChoice:
    """The language model that runs beside vision graphs on a GPU."""

    library: str
    """llama_cpp or onnx."""
    precision: str
    where: str
    """cuda or cpu."""
    files: Mapping[str, str]
    """Its files in the form of `check_memory`."""
    cache_mb: int
    """Memory that its library sets aside for keys and values on loading, MiB."""

    def __str__(self) -> str:
        library = "llama.cpp" if self.library == "llama_cpp" else "ONNX Runtime"
        return f"{library} ({self.where}, {self.precision})"

    def gpu_mb(self, bundle: Bundle) -> int:
        """Memory of the GPU that it needs, MiB."""
        return self.cache_mb + memory_need_mb(bundle, self.files) if self.where == "cuda" else 0


def choose_language_beside_gpu(bundle: Bundle, precision: str, gguf: str | None) -> LanguageChoice:
    """Choose the language model used beside vision on a GPU: llama.cpp if built for CUDA, else ONNX Runtime,
    else llama.cpp on the CPU.

    precision: of the vision graphs; gguf: of the language model, if one was asked for. Raises ValueError for
    a precision that cannot run here.
    """
    if gguf is not None:
        _require("llama_cpp")
    if bundle.gguf_precisions and _installed("llama_cpp"):
        from groma_ros.runtime.llama_cpp import can_offload

        if gguf is not None or can_offload() or not bundle.precisions:
            where, chosen = "cuda" if can_offload() else "cpu", gguf or bundle.gguf_precisions[0]
            files = {bundle.graph_name("language", chosen): "llama_cpp"}
            cache_mb = llama_keys_and_values_mb(read_network(bundle))
            return LanguageChoice("llama_cpp", chosen, where, files, cache_mb)
    from groma_ros.runtime.onnx import choose_device

    chosen = precision if precision in bundle.precisions else _graph_precision(bundle, "auto", on_gpu=True)
    return LanguageChoice("onnx", chosen, choose_device(None), graph_files(bundle, {"language": chosen}), 0)


def _load_language(bundle: Bundle, choice: LanguageChoice, threads: int | None) -> LanguageModel:
    check_memory(bundle, choice.files, choice.where, choice.cache_mb)
    if choice.library == "llama_cpp":
        from groma_ros.runtime.llama_cpp import load_llama_language

        return load_llama_language(bundle, choice.precision, choice.where, threads)
    from groma_ros.runtime.onnx import load_onnx_language

    return load_onnx_language(bundle, None, threads, choice.precision)


def _llama_cpp(bundle: Bundle, device: str | None, threads: int | None, precision: str, why: str) -> Runtime:
    from groma_ros.runtime.llama_cpp import choose_device, load_llama_language
    from groma_ros.runtime.onnx import choose_device as choose_graph_device
    from groma_ros.runtime.onnx import load_onnx_vision

    if precision not in ("auto", *GGUF_PRECISIONS, *bundle.vision_precisions):
        raise ValueError(
            f"The backend llama_cpp has no precision {precision!r}, only {', '.join(GGUF_PRECISIONS)}, and "
            f"of the vision graphs beside it {', '.join(bundle.vision_precisions) or 'none'}."
        )
    if precision not in GGUF_PRECISIONS and not bundle.gguf_precisions:
        raise BundleError(
            f"The model {bundle.name} in {bundle.directory} has no GGUF; groma convert {bundle.directory} "
            "--precision q8_0 makes one."
        )
    chosen, seen = llama_precisions(bundle, precision)
    where = choose_device(device)
    language_file = {bundle.graph_name("language", chosen): "llama_cpp"}
    graphs = graph_files(bundle, dict.fromkeys(ROLES[:2], seen)) if seen else {}
    extra = llama_keys_and_values_mb(read_network(bundle))
    beside = choose_graph_device(None) if where == "cuda" else where
    try:
        check_memory(bundle, {**language_file, **(graphs if beside == where else {})}, where, extra)
    except ValueError as error:
        if beside != "cuda":
            raise
        _LOG.warning("%s The vision graphs run on the CPU instead.", error)
        beside = "cpu"
        check_memory(bundle, language_file, where, extra)
    if beside != where:
        check_memory(bundle, graphs, beside)
    language = load_llama_language(bundle, chosen, where, threads)
    vision = load_onnx_vision(bundle, beside, threads, seen)
    return _runtime(bundle, (vision, language), "llama_cpp", chosen, where, why)


def llama_precisions(bundle: Bundle, precision: str) -> tuple[str, str | None]:
    """Precision of the GGUF and of the vision graphs used with it; None if the bundle has no vision
    graphs."""
    gguf = precision if precision in GGUF_PRECISIONS else bundle.gguf_precisions[0]
    made = bundle.vision_precisions
    seen = precision if precision in made else (made[0] if made else None)
    return gguf, seen


def _torch(bundle: Bundle, device: str | None, threads: int | None, precision: str, why: str) -> Runtime:
    from groma_ros.runtime.torch import load_torch

    where = device or "cpu"
    if precision != "auto" and precision not in TORCH_PRECISIONS:
        raise ValueError(
            f"The backend torch has no precision {precision!r}, only {', '.join(TORCH_PRECISIONS)}."
        )
    chosen = ("fp32" if where == "cpu" else "fp16") if precision == "auto" else precision
    if WEIGHTS in bundle.files:
        check_memory(bundle, {WEIGHTS: "torch"}, "cpu")
    return _runtime(bundle, load_torch(bundle, where, threads, chosen), "torch", chosen, where, why)


_LOADERS: dict[str, Callable[[Bundle, str | None, int | None, str, str], Runtime]] = {
    "onnx": _onnx,
    "tensorrt": _tensorrt,
    "llama_cpp": _llama_cpp,
    "torch": _torch,
}


def _graph_precision(bundle: Bundle, precision: str, on_gpu: bool) -> str:
    """Precision of the ONNX graphs to run; fp16 is preferred on a GPU."""
    if precision != "auto":
        if precision not in ONNX_PRECISIONS:
            raise ValueError(
                f"ONNX graphs have no precision {precision!r}, only {', '.join(ONNX_PRECISIONS)}."
            )
        return precision
    require_graphs(bundle, bundle.precisions)
    return "fp16" if on_gpu and "fp16" in bundle.precisions else bundle.precisions[0]


def _runtime(
    bundle: Bundle,
    parts: tuple[VisionTokenizer, LanguageModel],
    backend: str,
    precision: str,
    device: str,
    why: str,
) -> Runtime:
    return Runtime(
        *parts, backend, precision, device, f"{bundle.name} runs on {backend} ({device}, {precision}): {why}."
    )


def _has_gpu() -> bool:
    from groma_ros.runtime.tensorrt.gpu import find_gpu

    return find_gpu() is not None


def _installed(backend: str) -> bool:
    return importlib.util.find_spec(PACKAGES[backend]) is not None


def _require(backend: str) -> None:
    if not _installed(backend):
        package = PACKAGES[backend]
        raise ValueError(
            f"The backend {backend} needs the Python package {package}, which is not installed; "
            f"{INSTALL[backend]}."
        )
