"""Whether this machine can run a model: backend, packages and memory, without loading it."""

from __future__ import annotations

from dataclasses import dataclass

from groma_ros.runtime.bundle import (
    GGUF_PRECISIONS,
    ROLES,
    WEIGHTS,
    Bundle,
    read_network,
    require_graphs,
)
from groma_ros.runtime.load import choose_backend, choose_language_beside_gpu, llama_precisions
from groma_ros.runtime.memory_check import (
    RESERVE_MB,
    available_mb,
    graph_files,
    keys_and_values_mb,
    llama_keys_and_values_mb,
    memory_need_mb,
)
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.runtime.tensorrt.gpu import Gpu, find_gpu

GOAL_TOKENS = 400
"""Tokens of ten goals after the prefix, about 40 each."""


@dataclass(frozen=True)
class Suitability:
    """The backend that would run a model on this machine, and the memory it needs."""

    backend: str
    """Empty if no backend can."""
    precision: str
    need_mb: int
    """Memory needed for loading, MiB, estimated from the files (`memory_check.GROWTH`) plus keys and
    values; with TensorRT, of the GPU."""
    have_mb: int
    """Memory that is free now, MiB; with TensorRT, that of the GPU."""
    reason: str
    """Why it cannot run, a sentence; empty if it can."""

    @property
    def ok(self) -> bool:
        """Whether it can run."""
        return not self.reason


def judge(bundle: Bundle, options: RuntimeOptions | None = None) -> Suitability:
    """Judge whether this machine can run a bundle as `load_runtime` would with the options."""
    options, have = options or RuntimeOptions(), max(available_mb() - RESERVE_MB, 0)
    try:
        config = read_network(bundle)
        backend, _ = choose_backend(bundle, options.backend, options.device, options.precision)
        if backend == "tensorrt" and (gpu := find_gpu()) is not None:
            return _judge_gpu(bundle, options.precision, gpu)
        precision, files = _files(bundle, backend, options.precision)
        held = (
            llama_keys_and_values_mb(config)
            if "llama_cpp" in files.values()
            else keys_and_values_mb(config, 326 + 2 * config.max_region_num + GOAL_TOKENS)
        )
        need = memory_need_mb(bundle, files) + held
    except ValueError as error:
        return Suitability("", "", 0, have, str(error))
    reason = ""
    if need > have:
        reason = (
            f"It needs about {need} MB of memory and {have} MB are free; close other programs, or take a "
            "smaller precision."
        )
    return Suitability(backend, precision, need, have, reason)


def _judge_gpu(bundle: Bundle, precision: str, gpu: Gpu) -> Suitability:
    """Judge whether engines and language model fit a GPU together."""
    gguf = precision if precision in GGUF_PRECISIONS else None
    made = bundle.vision_precisions
    require_graphs(bundle, made)
    graphs = precision if precision in made else "fp16" if "fp16" in made else made[0]
    language = choose_language_beside_gpu(bundle, graphs, gguf)
    engines = {bundle.graph_name(role, graphs): "engine" for role in ROLES[:2]}
    need, have = memory_need_mb(bundle, engines) + language.gpu_mb(bundle), gpu.memory_mb
    reason = ""
    if need > have:
        reason = (
            f"It needs about {need} MB of the GPU's memory and the {gpu.name} has {have} MB; take a smaller "
            "precision, or run a part on the CPU with the backend llama_cpp."
        )
    return Suitability("tensorrt", gguf or graphs, need, have, reason)


def _files(bundle: Bundle, backend: str, precision: str) -> tuple[str, dict[str, str]]:
    """The precision to run, and the files loaded by each library."""
    if backend == "torch":
        return precision if precision != "auto" else "fp32", {
            WEIGHTS: "torch"
        } if WEIGHTS in bundle.files else {}
    if backend == "onnx" or (backend == "tensorrt" and not bundle.gguf_precisions):
        chosen = bundle.precisions[0] if precision == "auto" else precision
        return chosen, graph_files(bundle, dict.fromkeys(ROLES, chosen))
    gguf, seen = llama_precisions(bundle, precision)
    files = {bundle.graph_name("language", gguf): "llama_cpp"}
    if seen:
        files |= graph_files(bundle, dict.fromkeys(ROLES[:2], seen))
    return gguf if precision in ("auto", *GGUF_PRECISIONS) else precision, files
