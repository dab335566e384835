"""Check free memory before loading a model."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from pathlib import Path

from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import EMBEDDINGS, Bundle
from groma_ros.runtime.tensorrt.gpu import find_gpu

GROWTH = {"onnx": 4.0, "llama_cpp": 1.1, "torch": 3.0, "tensorrt": 4.0, "engine": 2.0}
"""Bytes a library uses for each byte of a model file while loading. ONNX Runtime converts fp16 to float32,
repacks the weights and keeps the file; PyTorch converts fp16 to float32; llama.cpp maps its file. The two of
TensorRT are estimates, as no GPU was available: `tensorrt`, on the host during a build, holds the graph, the
float32 weights and the engine; `engine`, on the GPU, holds fp16 weights as float32."""
RESERVE_MB = 64
"""Memory that must stay free, MiB."""


LLAMA_ROOM = 2048
"""Cells of the llama.cpp KV cache beyond one full context, for the suffixes of many goals."""


def check_memory(bundle: Bundle, files: Mapping[str, str], device: str, extra_mb: int = 0) -> None:
    """Raise ValueError, with required and available MB, if the memory cannot hold a model.

    files: names of bundle files and the library (a key of `GROWTH`) that loads each; device: cpu, or cuda
    for the GPU's memory; extra_mb: additional memory, such as for a KV cache.
    """
    need = extra_mb + memory_need_mb(bundle, files)
    gpu = find_gpu() if device == "cuda" else None
    have = gpu.memory_mb if gpu else available_mb() - RESERVE_MB
    if need > have:
        where = f"of the GPU {gpu.name}" if gpu else "of this machine"
        raise ValueError(
            f"The model {bundle.name} needs about {need} MB and {max(have, 0)} MB {where} are free; "
            "free some, or take a smaller precision."
        )


def memory_need_mb(bundle: Bundle, files: Mapping[str, str]) -> int:
    """Memory in MiB for loading files of a bundle; files: see `check_memory`."""
    total: float = sum(bundle.files[name]["bytes"] * GROWTH[library] for name, library in files.items())
    return math.ceil(total / 2**20)


def keys_and_values_mb(config: GromaConfig, tokens: int) -> int:
    """Memory in MiB of an fp16 KV cache for a number of tokens."""
    language = config.language
    heads = language.num_key_value_heads or language.num_attention_heads
    width = language.hidden_size // language.num_attention_heads * heads
    return tokens * language.num_hidden_layers * width * 2 * 2 >> 20


def llama_keys_and_values_mb(config: GromaConfig) -> int:
    """Memory in MiB of the KV cache that llama.cpp allocates on loading."""
    return keys_and_values_mb(config, config.language.max_position_embeddings + LLAMA_ROOM)


def graph_files(bundle: Bundle, roles: Mapping[str, str]) -> dict[str, str]:
    """Files of ONNX graphs by role and precision and the embedding table, in the form of `check_memory`."""
    names = [bundle.graph_name(role, precision) for role, precision in roles.items()]
    return {name: "onnx" for name in (*names, EMBEDDINGS) if name in bundle.files}


def available_mb(root: Path = Path("/")) -> int:
    """Memory in MiB that can be allocated without swapping: the machine's, or the cgroup limit if lower.

    root: directory that contains proc and sys.
    """
    free = [_field(root / "proc/meminfo", "MemAvailable:") * 1024]
    for folder, limit, used in (
        ("sys/fs/cgroup", "memory.max", "memory.current"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, now = _number(root / folder / limit), _number(root / folder / used)
        if most is not None and now is not None:
            # Inactive page cache is reclaimed on demand.
            free.append(most - now + _field(root / folder / "memory.stat", "inactive_file"))
    return min(free) >> 20


def _number(path: Path) -> int | None:
    """The number in a file; None without a file or a limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    """The number after a name in a file; 0 if there is none."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(line[1]) for line in lines if len(line) > 1 and line[0] == name), 0)


def trim_heap() -> bool:
    """Return freed heap pages to the system; True if there were any.

    glibc keeps an arena for every few threads and does not release memory freed in the middle of one. A
    model leaves hundreds of such gaps, and the next one, loaded by another thread, does not fit into them,
    so the process would grow with every load. Other allocators (musl, macOS) release pages by themselves
    and have no such function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim is not None and trim(ctypes.c_size_t(0)))
